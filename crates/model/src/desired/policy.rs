//! What a node's kernel should enforce, as `calc` promises it.
//!
//! [`PolicyState`] holds only what this node needs: its own endpoints, the
//! policies and profiles that apply to them, and the sets of addresses that
//! their rules name. Selectors, tiers, namespaces and Services are gone; what
//! is left compares addresses, protocols and ports.
//!
//! ```text
//!  endpoint ── path ──► tiers ──► policies ──► rules ──► sets
//!                  └──► profiles ────────────────┘
//! ```
//!
//! Rules are the same for endpoints of all zones (VRFs), and name the sets of the default one;
//! who follows them for a [`Direction`] asks its zone's sets instead ([`SetId::in_zone`]).
//!
//! An empty set is not an absent field: `nets: Some([])` and a set without
//! members match nothing, where `None` and no set at all match everything.

mod change;
mod rule;
mod set;

pub use change::PolicyChange;
pub use rule::{CompiledEntity, CompiledRule, PolicyRules, Ports};
pub use set::{SetId, SetKind, SetMember};

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::endpoint::Controls;
use crate::id::NamespacedName;
use crate::net::{Cidr, IfName, MacAddr};
use crate::policy::PolicyId;
use crate::tier::TierAction;
use crate::vrf::Zone;

/// What one node's kernel should enforce.
///
/// Whatever is named here is here: the policies and profiles of every path,
/// and the sets of every rule, for the zones of the paths that lead to it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PolicyState {
    /// This node's workloads, by the host's side of their veths.
    pub workloads: BTreeMap<IfName, WorkloadPolicy>,
    /// This node's own interfaces that have a host endpoint.
    pub hosts: BTreeMap<HostInterface, Arc<HostPolicy>>,
    /// The rules of every enforced policy that applies to one of them.
    pub policies: BTreeMap<PolicyId, Arc<PolicyRules>>,
    /// The rules of every profile that a path names.
    pub profiles: BTreeMap<String, Arc<PolicyRules>>,
    /// The members of every set that a rule names.
    pub sets: BTreeMap<SetId, BTreeSet<SetMember>>,
}

/// A workload, and the way of its packets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WorkloadPolicy {
    /// The pod.
    pub endpoint: NamespacedName,
    /// Its addresses: from these may it send.
    pub addrs: Vec<IpAddr>,
    /// Its Ethernet address, if it is known: only from this may it send.
    pub mac: Option<MacAddr>,
    /// Networks that it may send from as well, if administrators let workloads do that.
    pub allowed_sources: Vec<Cidr>,
    /// How many packets and connections it may have, and how its packets are marked.
    pub controls: Controls,
    /// What is looked at.
    pub path: Arc<EndpointPath>,
}

impl WorkloadPolicy {
    /// Returns whom its addresses mean it for.
    #[must_use]
    pub fn zone(&self) -> Zone {
        self.path.ingress.zone
    }
}

/// What is looked at for an endpoint's packets; equal paths can share one chain.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EndpointPath {
    /// For packets to the endpoint.
    pub ingress: Direction,
    /// For packets from the endpoint.
    pub egress: Direction,
}

/// What is looked at for packets of one direction: tiers, then profiles, then nothing passes.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Direction {
    /// The tiers that have an enforced policy for this direction, in order.
    pub tiers: Vec<TierPath>,
    /// The profiles that have rules for this direction, first one first; what
    /// none of them allows is dropped.
    pub profiles: Vec<String>,
    /// Whom the rules' sets mean.
    pub zone: Zone,
}

/// What is looked at in one tier.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TierPath {
    /// The tier's name.
    pub tier: String,
    /// What happens to packets that no rule of it matches.
    pub default_action: TierAction,
    /// Its policies that apply, in order; never empty.
    pub policies: Vec<PolicyId>,
}

/// Which of this node's own interfaces.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum HostInterface {
    /// All that lead outside (`*`), apart from those that are named.
    All,
    /// The one of that name.
    Named(IfName),
}

/// A host endpoint, and the way of its packets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostPolicy {
    /// The `HostEndpoint` object's name.
    pub endpoint: String,
    /// The addresses that the object expects.
    pub addrs: Vec<IpAddr>,
    /// For packets that this machine sends or receives.
    pub normal: EndpointPath,
    /// For packets that this machine forwards. It has no profiles: a direction
    /// without tiers lets all pass, and so does Pass after the last tier.
    pub forward: EndpointPath,
    /// For arriving packets before destinations are translated. It has no
    /// profiles, and its tiers no default action: what no rule matches goes on.
    pub pre_dnat: Direction,
    /// For packets before connections are tracked. It has no profiles, and its
    /// tiers no default action: what no rule matches goes on.
    pub untracked: EndpointPath,
}

impl PolicyState {
    /// Becomes what it is after `change`.
    ///
    /// Adding members to a set that is not there, or removing them, does nothing.
    pub fn apply(&mut self, change: &PolicyChange) {
        match change {
            PolicyChange::Workload(name, value) => put(&mut self.workloads, name, value.as_ref()),
            PolicyChange::Host(name, value) => put(&mut self.hosts, name, value.as_ref()),
            PolicyChange::Policy(id, value) => put(&mut self.policies, id, value.as_ref()),
            PolicyChange::Profile(name, value) => put(&mut self.profiles, name, value.as_ref()),
            PolicyChange::SetAdded { id, members } => {
                self.sets.insert(*id, members.clone());
            }
            PolicyChange::SetMembers { id, add, remove } => {
                if let Some(members) = self.sets.get_mut(id) {
                    for member in remove {
                        members.remove(member);
                    }
                    members.extend(add.iter().copied());
                }
            }
            PolicyChange::SetRemoved(id) => {
                self.sets.remove(id);
            }
        }
    }
}

fn put<K: Ord + Clone, V: Clone>(map: &mut BTreeMap<K, V>, key: &K, value: Option<&V>) {
    match value {
        Some(value) => map.insert(key.clone(), value.clone()),
        None => map.remove(key),
    };
}
