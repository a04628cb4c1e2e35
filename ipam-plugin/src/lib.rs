//! Address management against the datastore: the library behind `calico-ipam`.
//!
//! The `ipam` crate decides; this one and [`ledger`] carry out what it decides, with one
//! connection to the API server and reads side by side where they do not
//! depend on each other.
//!
//! ```text
//! stdin, CNI_… ─► program ─► plugin ─► add / delete / check / status
//! calico ───────────────────────┘       └► ledger: what it depends on, read in one round; then
//!                                          Machine ⇄ datastore, under the host's lock
//! ```
//!
//! `calico` calls [`plugin::carry_out`] where calico-ipam is itself by another name, with its own
//! connection and with what was read [`ahead`].
//!
//! Invariants: correctness rests on compare-and-swap alone, the lock only keeps
//! the processes of a host from refusing each other's writes; a failed ADD
//! leaves no address behind that its container's DEL would not find.
//!
//! Start reading at [`plugin::run`] and [`ledger::assign()`].

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod add;
pub mod ahead;
pub mod check;
pub mod delete;
pub mod error;
pub mod gc;
pub mod holder;
pub mod host_local;
pub mod plugin;
pub mod program;
pub mod status;
pub mod upgrade;

pub use error::Error;
