//! The Container Network Interface (CNI spec 1.1.0), both sides of it, without IO.
//!
//! A plugin is a program: `CNI_…` variables say what to do ([`environment`]),
//! standard input says how ([`config`]), standard output carries a
//! [`result`](mod@result) or an [`error`]. The calico and calico-ipam programs and the lab, which
//! acts as a runtime ([`conflist`]), all speak through this crate.
//!
//! ```text
//! CNI_… ──► Environment ─┐                   ┌─► Success ──► to_json(version)
//!                        ├─► the program ────┤
//! stdin ──► NetworkConfig┘                   └─► Error ────► to_json(version)
//! ```
//!
//! Invariants: a name that has been read here cannot leave its directory
//! ([`config::is_plugin_type`], [`environment::ContainerId`]); a secret cannot
//! be printed ([`secret`]); results and errors are in the caller's version.
//!
//! Where to start reading: [`environment::Environment`], [`config::NetworkConfig`],
//! [`result::Success`].

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod config;
pub mod conflist;
pub mod delegate;
pub mod environment;
pub mod error;
#[cfg(test)]
mod golden;
pub mod nodename;
pub mod result;
pub mod secret;
pub mod version;

pub use config::NetworkConfig;
pub use environment::{Environment, Request};
pub use error::{Error, ErrorCode};
pub use result::Success;
pub use version::Version;
