//! From what a node should enforce to the rules and sets of nftables.
//!
//! [`render`] is a function of the state and of nothing else. [`Renderer`] gives
//! the same tables for a state that changes, and the transaction of each change;
//! [`plan()`] is the transaction from whatever the kernel holds.
//!
//! ```text
//!  PolicyState + Settings ── render ──► Tables ── plan(Snapshot) ──► Transaction
//!  PolicyChange ──── Renderer::apply ──────────────────────────────► Transaction
//! ```
//!
//! A packet's way, in each of the tables `ip calico` and `ip6 calico`:
//!
//! ```text
//!  raw-PREROUTING ──► is the workload's source address its own?
//!  filter-FORWARD ──► connection known? pass.
//!     from workload ─ by interface ─► cali-fw-… ─► cali-po-… of each policy, tier by tier
//!     to workload ─── by interface ─► cali-tw-… ─► cali-pi-…
//!  limits of packets before policy, of connections behind it, if a workload has some
//!  nat-POSTROUTING ─► leaves all pools? gets this machine's address
//! ```
//!
//! Where to start reading: [`frame`] (the chains that are always there), `path`
//! (tiers and profiles), `rule` (one rule of a policy).

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

mod cover;
mod fragment;
pub mod frame;
mod host;
mod limits;
mod name;
mod origin;
mod path;
mod plan;
mod renderer;
mod rule;
mod set;
mod settings;
mod tenants;
pub mod tunnel;
mod wireguard;

#[cfg(test)]
mod tests;

pub use cover::disjoint;
pub use origin::Origin;
pub use plan::plan;
pub use renderer::{Renderer, render};
pub use settings::{
    Counting, Denial, Failsafe, HostAction, Marks, NatSettings, NoMarks, Pool, ServiceLoop,
    Settings, Spoofing,
};
pub use tenants::Tenants;
pub use wireguard::Wireguard;
