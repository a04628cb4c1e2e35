//! WireGuard: from what a node should have to the kernel, and the node's key back to its peers.
//!
//! ```text
//!  calc ─► Wanted ─┐                      ┌─► kernel: link, key, peers, routes, rule
//!                  ├─► plan (pure) ─► Step┤
//!  kernel ─► Actual┘                      └─► Node's annotations: the public key
//! ```
//!
//! The private key is in the kernel's device and nowhere else: it is made of the kernel's random
//! numbers, told to the device, and forgotten. What the daemon finds there when it starts stays.

mod actual;
mod numbers;
mod plan;
pub(crate) mod run;
pub(crate) mod settings;

use std::collections::BTreeMap;

use model::desired::WireguardDevice;
use model::net::{Family, IfName};
use model::wireguard::PublicKey;

/// What this node should have of WireGuard.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Wanted {
    /// Of each family.
    pub(crate) families: BTreeMap<Family, OfFamily>,
}

/// What this node should have of WireGuard for a family of addresses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct OfFamily {
    /// What is ours, wanted or not.
    pub(crate) place: Place,
    /// The device; `None` is none.
    pub(crate) device: Option<WireguardDevice>,
    /// The public key that the node's annotations say.
    pub(crate) published: Option<PublicKey>,
}

/// By what our device, table and rule are known.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    /// The device's name.
    pub(crate) name: IfName,
    /// The table.
    pub(crate) table: u32,
    /// The rule's priority.
    pub(crate) rule_priority: u32,
    /// The mark of packets that carry others.
    pub(crate) mark: u32,
}
