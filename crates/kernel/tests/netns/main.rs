//! What the door does to a real kernel, in fresh network namespaces.
//!
//! Needs root (`CAP_SYS_ADMIN`, `CAP_NET_ADMIN`). Every namespace is removed again,
//! also after a failure.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails"
)]

mod batch;
mod links;
mod monitor;
mod namespaces;
mod nftables;
mod route_table;
mod routes;
mod sandbox;
mod shape;
mod socket;
mod tunnels;
