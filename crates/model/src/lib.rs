//! The vocabulary: validated values that every other crate speaks in.
//!
//! Nothing here does IO, reads a clock or can be serialised. Wire formats live
//! in `api`, `cni` and `config`; they parse once, at the border, into these
//! types, which cannot be wrong afterwards: a [`net::Cidr`] has no host bits, a
//! [`net::IfName`] fits the kernel, a [`block::Block`] has one slot per address.
//!
//! Where to start reading: [`pool`] and [`block`] (who holds which address),
//! [`node`] and [`endpoint`] (what the cluster consists of), then [`desired`]
//! (what a node's kernel and BGP speaker should hold).

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod bgp_filter;
pub mod block;
pub mod cluster;
pub mod desired;
pub mod endpoint;
pub mod host_endpoint;
pub mod id;
pub mod jitter;
pub mod net;
pub mod network_set;
pub mod node;
pub mod peer;
pub mod policy;
pub mod pool;
pub mod ruleset;
pub mod service;
pub mod tier;
pub mod time;
pub mod vrf;
pub mod wireguard;

/// Labels of an object, sorted by key so that output is the same on every run.
pub type Labels = std::collections::BTreeMap<String, String>;
