//! The parts of `calico-node`, so that tests can run them.
//!
//! [`daemon`] puts them together. [`startup`] runs once; [`felix`] brings the
//! datastore's and BGP's routes, and policy, into the kernel; [`bgp`] is the
//! shell around the speaker; `cni` is what the container runtime needs.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

mod admin;
mod arguments;
mod as_found;
pub mod bgp;
mod bird_socket;
pub mod cli;
mod cni;
mod counters;
pub mod daemon;
mod felix;
mod handover;
mod health;
mod limits;
mod metrics;
mod news;
mod node_status;
mod schedule;
pub mod startup;
mod sync_file;
mod uninstall;
mod why;
