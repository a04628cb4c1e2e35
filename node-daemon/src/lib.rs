//! The parts of `calico-node`, so that tests can run them.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod bgp;
pub mod felix;
pub mod startup;
