//! `calicoctl`: what an operator asks of a cluster's objects, addresses and policies, and changes
//! in it.
//!
//! ```text
//! arguments ─► config (file, environment) ─► datastore::Client
//!                                               │ read: objects ─► model values
//!                  report = f(what was read, now) ─► output: table, JSON, YAML
//!                  plan   = f(what was read, now) ─► compare-and-swap, undo file
//! ```
//!
//! What a command says is a pure function of what was read; the tables of it are golden files in
//! `testdata/calicoctl`. Nothing here needs the datastore to be locked, but `ipam split`.
//!
//! Start reading at [`arguments::Arguments`], then [`ipam`].

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod adopt;
mod archive;
pub mod arguments;
pub mod check;
pub mod cluster;
pub mod config;
mod error;
pub mod ipam;
pub mod migrate;
pub mod node;
pub mod output;
pub mod policy;
pub mod resources;
pub mod run;
pub mod version;

pub use error::Error;
