//! The Kubernetes API for one machine, on SQLite: what a demo, a test or a host without a cluster needs.
//!
//! Requests come in through [`http`], are decided by pure functions over JSON
//! objects ([`verb`], [`schema`], [`patch`], [`builtin`]), and are kept by [`store`].

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod auth;
pub mod builtin;
mod cause;
pub mod crd;
mod http;
mod object;
pub mod patch;
pub mod resource;
pub mod schema;
pub mod selector;
pub mod server;
pub mod service;
pub mod status;
pub mod store;
pub mod verb;

pub use auth::User;
pub use cause::{Cause, Problem, quote};
pub use object::Object;
pub use server::Server;
pub use status::{Reason, Status};
