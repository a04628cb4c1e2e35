//! From labels, selectors and tiers to what one node's kernel enforces.
//!
//! Two calculations of the same [`PolicyState`](model::desired::policy::PolicyState):
//! [`Policies`] takes changes and gives changes, and does as little as they
//! need; [`oracle`] recomputes all of it from [`Inputs`]. Tests hold them
//! against each other for random clusters and histories.
//!
//! ```text
//!  Change ─► Policies ── applies: policies' selectors × this node's endpoints ─► paths
//!               │        members: rules' selectors × all endpoints and network sets
//!               ▼                                                             ─► sets
//!          take_changes(): Vec<PolicyChange>, state(): &PolicyState
//! ```
//!
//! Only what applies here is followed: a rule's selector is looked at from the
//! moment on that its policy applies to an endpoint of this node.
//!
//! And two ways to ask what becomes of a packet: [`why::verdict`] from policies
//! and labels, with a trace for people; [`enforced::verdict`] from the state,
//! as the kernel will. Tests hold these against each other, too.
//!
//! [`status::aggregate`] says of each policy where it is in force, from what nodes report.

mod change;
mod compile;
pub mod enforced;
mod engine;
mod index;
mod inputs;
mod labels;
pub mod oracle;
mod order;
mod packet;
mod placement;
mod problems;
mod question;
mod rulebook;
mod services;
mod sets;
pub mod status;
mod things;
pub mod why;
mod zones;

#[cfg(test)]
mod tests;

pub use change::{Change, NetworkSetId};
pub use engine::{Counts, Policies};
pub use inputs::Inputs;
pub use packet::{Cause, Decision, Endpoint, Packet, Way};
