//! What ADD and DEL want of the datastore, done by calico-node for the CNI plugin.
//!
//! ```text
//!   calico ADD ──┐                      ┌── Pods: read, annotated
//!   calico ADD ──┼── cni.sock ── calico-node ── what addresses depend on: read once for all
//!   calico DEL ──┘                      └── blocks: written once for all (ledger::Desk)
//!       └──────── the same, itself, if that is not to be had ────────► API server
//! ```
//!
//! A call of the plugin is a process of its own: alone it opens a connection and sends twelve
//! requests, and of many at a time those that want the same block wait for each other. calico-node has
//! a connection, and sends together what many want.
//!
//! Invariants:
//! * The plugin needs nobody: whatever is not answered with success it does itself, and tells what
//!   it meets then. Everything here can be repeated, in part or as a whole, by either of both. Only
//!   what calico-node is still busy with nobody else may do ([`Busy`]).
//! * calico-node does for the plugin only what the plugin could do: with the plugin's own credentials,
//!   and only while these are where the plugin looks for them ([`FileId`]). That keeps two clusters
//!   apart; who may ask at all is said by the socket's mode.
//! * Nothing is begun for who has hung up, and what was assigned and cannot be told is given back.
//!
//! Start reading at [`wire`].

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod facts;
mod handles;
pub mod listen;
mod server;
mod service;
pub mod wire;

pub use facts::Facts;
pub use server::{Asker, Server, Told};
pub use service::{Busy, Service};
pub use wire::{Answer, FileId, Question, Request};

/// Where calico-node listens, for root alone.
pub const SOCKET: &str = "/var/run/calico/cni.sock";
