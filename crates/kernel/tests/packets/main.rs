//! What packets do under rendered policy, on a real kernel in fresh network namespaces.
//!
//! Needs root, nft(8) and ping(8). Every namespace is removed again, also after a failure.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a test that cannot go on fails"
)]

mod adoption;
mod cluster;
mod connections;
mod histories;
mod hosts;
mod limits;
mod policies;
#[path = "../netns/sandbox.rs"]
mod sandbox;
mod tenants;
mod workloads;
