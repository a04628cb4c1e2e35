//! The Kubernetes API for one machine, on SQLite: what a demo, a test or a host without a cluster needs.
//!
//! Requests come in through [`http`], are decided by pure functions over JSON
//! objects ([`verb`], [`schema`], [`patch`], [`builtin`]), and are kept by [`store`].

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

mod object;
mod status;

pub use object::Object;
pub use status::{Reason, Status};
