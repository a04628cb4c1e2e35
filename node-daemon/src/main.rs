//! `calico-node`: the daemon of one node.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

fn main() {}
