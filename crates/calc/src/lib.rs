//! From the datastore's state to what one node should hold.
//!
//! [`Cluster`] is all that this node knows of the datastore, as validated
//! values. [`Cluster::desired`] is a function of it and of nothing else: no
//! clock, no history. Feeding the same objects in any order, with any number
//! of overwritten or deleted versions in between, gives the same [`Desired`].
//!
//! ```text
//!  nodes, pools, affinities, endpoints, BGP objects   (Cluster)
//!        │
//!        ├─ wireguard::of     encryption between nodes
//!        ├─ overlay::of       tunnels, and routes to other nodes' pods that need them
//!        ├─ vrf::of           what VRFs have, which nobody else sees
//!        ├─ routes::local     /32 and /128 of local pods, blackholes of own blocks
//!        ├─ sessions::of      the mesh and the configured peers
//!        └─ advertise::of     own confirmed blocks, addresses borrowed from others', Services
//!        ▼
//!     Desired + problems
//! ```
//!
//! Policy is calculated apart, change by change, since it is about every pod of
//! the cluster: see [`policy`].
//!
//! A problem (two pods with one address, a peer that is this node itself)
//! never stops what is right beside it: it is returned with the result.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

mod advertise;
mod blocks;
mod change;
mod far;
pub mod floating;
pub mod next_hop;
pub mod overlay;
pub mod policy;
mod routes;
mod secrets;
mod sessions;
pub mod tunnels;
mod vrf;
pub mod wireguard;

#[cfg(test)]
mod sequences;

pub use change::{Affected, Change, Known};
pub use overlay::Overlay;
pub use secrets::SecretValues;
pub use tunnels::TunnelSettings;
pub use wireguard::WireguardSettings;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use blocks::{Blocks, blocks_of};
use far::FarPod;
use floating::{Destination, Standing};
use model::bgp_filter::BgpFilter;
use model::block::Affinity;
use model::desired::{
    Advertisements, BgpSession, Route, RouteProtocol, VrfDevices, WireguardDevice,
};
use model::endpoint::WorkloadEndpoint;
use model::id::{NamespacedName, NodeName};
use model::net::{Cidr, Family, IfName};
use model::node::Node;
use model::peer::{BgpConfiguration, BgpNodeConfiguration, BgpPeer};
use model::pool::IpPool;
use model::service::{EndpointSlice, Service};
use model::wireguard::PublicKey;

/// All that one node knows of the datastore.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The node that all of this is calculated for.
    pub this_node: NodeName,
    /// What local workloads' routes carry as their protocol number.
    pub device_route_protocol: RouteProtocol,
    /// Every node, this one included.
    pub nodes: BTreeMap<NodeName, Node>,
    /// Every pool that is no VRF's, by name.
    pub pools: BTreeMap<String, IpPool>,
    /// Claims on blocks, by object name; those of other nodes are known while a pool uses tunnels.
    affinities: BTreeMap<String, Affinity>,
    /// The same, by range.
    blocks: Blocks,
    /// The workloads of this node.
    pub endpoints: BTreeMap<NamespacedName, Arc<WorkloadEndpoint>>,
    /// The workloads of other nodes.
    remote: BTreeMap<NamespacedName, FarPod>,
    /// The pools, claims and workloads of VRFs, which are in none of the above.
    scopes: vrf::Scopes,
    /// The routing tables that no VRF may have (`routeTableRanges`).
    pub table_ranges: Vec<RangeInclusive<u32>>,
    /// May workloads have floating addresses (`floatingIPs`)?
    pub has_floating: bool,
    /// What administrators decide about tunnels.
    pub tunnels: TunnelSettings,
    /// What administrators decide about encryption.
    pub wireguard: WireguardSettings,
    /// How the cluster speaks BGP; the default if the object is absent.
    pub bgp: BgpConfiguration,
    /// The configured peers, by name.
    pub peers: BTreeMap<String, BgpPeer>,
    /// How single nodes speak BGP otherwise.
    pub node_bgp: BTreeMap<NodeName, BgpNodeConfiguration>,
    /// The filters of peers, by name.
    pub filters: BTreeMap<String, BgpFilter>,
    /// What is wrong with objects of BGP that cannot be followed, or not as a whole.
    pub refused: BTreeMap<String, Vec<String>>,
    /// The Secrets that passwords lie in, by name; one that is not here has not been told of.
    pub secrets: BTreeMap<String, SecretValues>,
    /// The Services, while some of their addresses are to be announced.
    pub services: BTreeMap<NamespacedName, Arc<Service>>,
    /// Who answers for them.
    pub endpoint_slices: BTreeMap<NamespacedName, Arc<EndpointSlice>>,
}

/// What this node should hold.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Desired {
    /// Kernel routes that do not depend on BGP.
    pub routes: BTreeMap<Cidr, Route>,
    /// BGP sessions, in the order of their names.
    pub sessions: Vec<BgpSession>,
    /// What BGP announces.
    pub advertisements: Advertisements,
    /// Where BGP listens.
    pub listen: BTreeSet<SocketAddr>,
    /// Ranges inside which nothing that is learned comes into the kernel.
    pub not_learned: BTreeSet<Cidr>,
    /// Addresses on workloads' interfaces that those workloads peer with.
    pub peering_addrs: BTreeSet<(IfName, IpAddr)>,
}

/// Something in the datastore that could not be followed.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Problem {
    /// The object: `BGPPeer tor-1`, `pod default/web`.
    pub object: String,
    /// What is wrong with it and what helps.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.message)
    }
}

impl Cluster {
    /// Makes an empty cluster as `this_node` sees it.
    #[must_use]
    pub fn new(this_node: NodeName) -> Self {
        Self {
            this_node,
            device_route_protocol: RouteProtocol::BOOT,
            nodes: BTreeMap::new(),
            pools: BTreeMap::new(),
            affinities: BTreeMap::new(),
            blocks: Blocks::default(),
            endpoints: BTreeMap::new(),
            remote: BTreeMap::new(),
            scopes: vrf::Scopes::default(),
            table_ranges: Vec::new(),
            has_floating: false,
            tunnels: TunnelSettings::default(),
            wireguard: WireguardSettings::default(),
            bgp: BgpConfiguration::default(),
            peers: BTreeMap::new(),
            node_bgp: BTreeMap::new(),
            filters: BTreeMap::new(),
            refused: BTreeMap::new(),
            secrets: BTreeMap::new(),
            services: BTreeMap::new(),
            endpoint_slices: BTreeMap::new(),
        }
    }

    /// Returns what this node should hold, and what could not be followed.
    #[must_use]
    pub fn desired(&self) -> (Desired, Vec<Problem>) {
        let mut problems = Vec::new();
        let desired = Desired {
            routes: routes::local(self, &mut problems),
            sessions: sessions::of(self, &mut problems),
            advertisements: advertise::of(self),
            listen: sessions::listen(self),
            not_learned: advertise::service_ranges(self),
            peering_addrs: sessions::peering_addrs(self),
        };
        for (object, faults) in &self.refused {
            let problem =
                |message: &String| Problem { object: object.clone(), message: message.clone() };
            problems.extend(faults.iter().map(problem));
        }
        problems.sort();
        (desired, problems)
    }

    /// Returns the WireGuard devices that this node should have, and what could not be followed.
    #[must_use]
    pub fn wireguard(&self) -> (BTreeMap<Family, WireguardDevice>, Vec<Problem>) {
        let mut problems = Vec::new();
        let devices = wireguard::of(self, &mut problems);
        problems.sort();
        (devices, problems)
    }

    /// Returns the key that other nodes know this one's WireGuard device by.
    #[must_use]
    pub fn published_wireguard_key(&self, family: Family) -> Option<PublicKey> {
        self.node().and_then(|node| node.tunnel_addrs.wireguard_key(family))
    }

    /// Returns what this node should hold of tunnels, and what could not be followed.
    #[must_use]
    pub fn overlay(&self) -> (Overlay, Vec<Problem>) {
        let mut problems = Vec::new();
        let overlay = overlay::of(self, &mut problems);
        problems.sort();
        (overlay, problems)
    }

    /// Returns what this node should have of VRFs, and what could not be followed.
    #[must_use]
    pub fn vrfs(&self) -> (VrfDevices, Vec<Problem>) {
        let mut problems = Vec::new();
        let devices = vrf::of(self, &mut problems);
        problems.sort();
        (devices, problems)
    }

    /// Returns every pool, those of VRFs as well.
    pub fn all_pools(&self) -> impl Iterator<Item = &IpPool> {
        self.pools.values().chain(self.scopes.pools.values())
    }

    /// Returns how many workloads this node has, in VRFs or not.
    #[must_use]
    pub fn local_workloads(&self) -> usize {
        let pods = self.scopes.endpoints.values();
        let in_vrfs = pods.filter(|pod| pod.node == self.this_node).count();
        self.endpoints.len().saturating_add(in_vrfs)
    }

    /// Must the claims of other nodes on blocks be known?
    #[must_use]
    pub fn needs_all_blocks(&self) -> bool {
        let kinds = model::node::TunnelKind::ALL.into_iter();
        let has_tunnels =
            kinds.into_iter().any(|kind| self.tunnels.is_enabled(kind, self.pools.values()));
        has_tunnels || !self.scopes.pools.is_empty()
    }

    /// Forgets the claims of other nodes on blocks.
    pub fn forget_other_blocks(&mut self) {
        let is_own = |affinity: &Affinity| matches!(&affinity.owner, model::block::Owner::Host(node) if *node == self.this_node);
        let others = self.affinities.iter().filter(|(_, affinity)| !is_own(affinity));
        let others: Vec<String> = others.map(|(name, _)| name.clone()).collect();
        for name in others.into_iter().chain(self.scopes.others(&self.this_node)) {
            self.apply(Change::Affinity(name, None));
        }
    }

    /// Returns this node, once the datastore has it.
    fn node(&self) -> Option<&Node> {
        self.nodes.get(&self.this_node)
    }

    /// Returns where this node's floating addresses lead, and those that are not followed.
    fn floating(&self) -> (BTreeMap<IpAddr, Destination<'_>>, Vec<Problem>) {
        let local = self.endpoints.values().map(Arc::as_ref).filter(|_| self.has_floating);
        let is_pods = |addr| {
            self.endpoints.values().any(|pod| pod.addrs.contains(&addr))
                || self.remote.values().any(|pod| pod.addrs.contains(&addr))
        };
        let is_nodes = |addr| {
            let own = |node: &Node| node.addr(Family::of(addr)).map(|own| own.addr());
            let mut nodes = self.nodes.values();
            nodes.any(|node| {
                own(node) == Some(addr) || node.tunnel_addrs.iter().any(|it| it == addr)
            })
        };
        floating::destinations(local, |addr| {
            if !self.pools.values().any(|pool| pool.cidr.contains(addr)) {
                Standing::Outside
            } else if is_nodes(addr) || is_pods(addr) {
                Standing::Taken
            } else {
                Standing::Free
            }
        })
    }

    /// Returns the blocks that are this node's beyond doubt.
    ///
    /// A pending affinity is none: its block may turn out to be another node's.
    fn own_blocks(&self) -> impl Iterator<Item = Cidr> {
        blocks_of(self.affinities.values(), &self.this_node)
    }
}
