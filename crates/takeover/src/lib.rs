//! What Calico leaves in a node's kernel when something else takes its place, and its removal.
//!
//! Calico's Felix enforces policy by iptables and ipsets where it does not by nftables. When
//! calico-node of this project is in sync, its own tables enforce everything, and these are in
//! the way: they would go on denying, and allowing, what was right when Felix ended.
//!
//! ```text
//! look: iptables-save, ipset list ─► xtables::removal (pure) ─► Found ─► remove: iptables-restore,
//!       routes of BIRD            ─► routes::stale    (pure) ─►          ipset destroy, netlink
//! ```
//!
//! Invariants: only what is provably Calico's goes: chains called `cali-…`, rules that carry its
//! comment, sets called `cali40…` and `cali60…`, and routes of BIRD that ours make superfluous.
//! Each table changes in one transaction, jumps before the chains that they lead to. What is
//! not there costs nothing: no kernel module is loaded by looking.
//!
//! Start reading at [`look`].

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

mod programs;
pub mod routes;
pub mod xtables;

pub use programs::{Found, Tool, look, remove};
