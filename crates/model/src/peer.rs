//! BGP as the cluster configures it.
//!
//! These are the objects; which sessions a node should have follows from them
//! in `calc`, as [`crate::desired::BgpSession`].

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use selector::Selector;

use crate::desired::{AddPath, BfdSettings, Role};
use crate::id::NodeName;
use crate::net::{Asn, Cidr, Family, IfName};

/// How the cluster speaks BGP (`BGPConfiguration` named `default`).
#[derive(Clone, Debug, PartialEq)]
pub struct BgpConfiguration {
    /// Whether every node peers with every other.
    pub is_mesh_enabled: bool,
    /// The AS of nodes that name none.
    pub asn: Asn,
    /// The TCP port that nodes listen on.
    pub listen_port: u16,
    /// How long peers keep the routes of a mesh session that broke (RFC 4724).
    pub mesh_max_restart_time: Option<Duration>,
    /// Ranges with the communities to attach to routes in them.
    pub prefix_advertisements: Vec<PrefixAdvertisement>,
    /// Where nodes listen.
    pub bind: BindMode,
    /// The password of mesh sessions.
    pub mesh_password: Option<SecretKey>,
    /// Which addresses of Services are announced.
    pub services: AdvertisedServices,
    /// The addresses that local workloads peer with, at most one of each family.
    pub workload_peering_addrs: Vec<IpAddr>,
    /// The priority of ordinary routes.
    pub normal_priority: RoutePriority,
}

/// A kernel metric for routes of each family; the smaller is preferred.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RoutePriority {
    /// Of IPv4 routes.
    pub v4: u32,
    /// Of IPv6 routes.
    pub v6: u32,
}

impl RoutePriority {
    /// Calico's for ordinary routes.
    pub const NORMAL: Self = Self { v4: 1024, v6: 1024 };

    /// Returns that of routes of `family`.
    #[must_use]
    pub const fn of(self, family: Family) -> u32 {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

impl Default for RoutePriority {
    fn default() -> Self {
        Self::NORMAL
    }
}

/// Where a node listens for its peers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum BindMode {
    /// On all of its addresses.
    #[default]
    All,
    /// On the address that the cluster knows it by.
    NodeAddr,
}

/// Which addresses of Services the nodes announce.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AdvertisedServices {
    /// Ranges of addresses within the cluster.
    pub cluster: Vec<Cidr>,
    /// Ranges of external addresses.
    pub external: Vec<Cidr>,
    /// Ranges of load balancers' addresses.
    pub load_balancer: Vec<Cidr>,
    /// Whether load balancers' ranges are announced whole, and not address by address.
    pub is_aggregated: bool,
}

impl AdvertisedServices {
    /// Returns every range.
    pub fn ranges(&self) -> impl Iterator<Item = Cidr> {
        [&self.cluster, &self.external, &self.load_balancer].into_iter().flatten().copied()
    }
}

impl Default for AdvertisedServices {
    fn default() -> Self {
        Self {
            cluster: Vec::new(),
            external: Vec::new(),
            load_balancer: Vec::new(),
            is_aggregated: true,
        }
    }
}

/// What one node does otherwise than the cluster (`BGPConfiguration` named `node.<name>`).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BgpNodeConfiguration {
    /// The TCP port that it listens on.
    pub listen_port: Option<u16>,
    /// Where it listens.
    pub bind: Option<BindMode>,
    /// Communities in place of the cluster's; none leaves those.
    pub prefix_advertisements: Vec<PrefixAdvertisement>,
}

/// A value in a Secret, in the namespace of calico-node.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct SecretKey {
    /// The Secret.
    pub secret: String,
    /// The key in it.
    pub key: String,
}

impl fmt::Display for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {} of Secret {}", self.key, self.secret)
    }
}

impl BgpConfiguration {
    /// The well-known port of BGP (RFC 4271 §8.2.1).
    pub const DEFAULT_PORT: u16 = 179;
}

impl Default for BgpConfiguration {
    fn default() -> Self {
        Self {
            is_mesh_enabled: true,
            asn: Asn::DEFAULT,
            listen_port: Self::DEFAULT_PORT,
            mesh_max_restart_time: None,
            prefix_advertisements: Vec::new(),
            bind: BindMode::All,
            mesh_password: None,
            services: AdvertisedServices::default(),
            workload_peering_addrs: Vec::new(),
            normal_priority: RoutePriority::NORMAL,
        }
    }
}

/// Communities for the routes of one range.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PrefixAdvertisement {
    /// The range.
    pub cidr: Cidr,
    /// The communities, resolved to numbers.
    pub communities: Vec<Community>,
}

/// A mark on a route.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Community {
    /// RFC 1997: `aa:nn`.
    Standard(u16, u16),
    /// RFC 8092: `aa:nn:mm`.
    Large(u32, u32, u32),
    /// The route target of a VRF (RFC 4360 §4, RFC 5668): an AS, and the VRF's number.
    RouteTarget(Asn, u16),
}

/// A BGP neighbour of some or all nodes (`BGPPeer`).
#[derive(Clone, Debug, PartialEq)]
pub struct BgpPeer {
    /// The object's name.
    pub name: String,
    /// The nodes that have this peer.
    pub nodes: PeerNodes,
    /// Who the peer is.
    pub remote: PeerRemote,
    /// Whether sessions bind to the node's address.
    pub uses_node_addr: bool,
    /// The next hop of routes sent to it.
    pub next_hop: NextHopMode,
    /// How often a KEEPALIVE is sent; `None` is a third of the Hold Time.
    pub keepalive: Option<Duration>,
    /// How long the peer keeps our routes when the session breaks (RFC 4724).
    pub max_restart_time: Option<Duration>,
    /// Names of filters, in order.
    pub filters: Vec<String>,
    /// Our AS in these sessions; `None` is the node's.
    pub local_asn: Option<Asn>,
    /// The password.
    pub password: Option<SecretKey>,
    /// How often our AS may stand in an AS path that is received.
    pub allowed_own_asns: u8,
    /// How many hops away the peer is at most, which its TTL must prove (RFC 5082).
    pub ttl_security: Option<u8>,
    /// The gateway that leads to the peer.
    pub reachable_by: Option<IpAddr>,
    /// Whether nodes that are peers peer back by themselves.
    pub is_reversed: bool,
    /// What only annotations can say.
    pub options: PeerOptions,
}

impl BgpPeer {
    /// Returns a peer of which nothing else is configured.
    #[must_use]
    pub fn new(name: String, nodes: PeerNodes, remote: PeerRemote) -> Self {
        Self {
            name,
            nodes,
            remote,
            uses_node_addr: true,
            next_hop: NextHopMode::Auto,
            keepalive: None,
            max_restart_time: None,
            filters: Vec::new(),
            local_asn: None,
            password: None,
            allowed_own_asns: 0,
            ttl_security: None,
            reachable_by: None,
            is_reversed: true,
            options: PeerOptions::default(),
        }
    }
}

/// What a peer may have that Calico's BGPPeer has no field for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PeerOptions {
    /// The families that are carried; `None` is that of the peer's address.
    pub families: Option<BTreeSet<Family>>,
    /// How many prefixes of a family it may announce (RFC 4486 §4).
    pub max_prefixes: Option<u32>,
    /// What we are to it (RFC 9234).
    pub role: Option<Role>,
    /// Whether messages may have 65535 octets (RFC 8654).
    pub allows_extended_messages: bool,
    /// Whether an external session without filters carries nothing (RFC 8212).
    pub requires_policy: bool,
    /// Several paths of one prefix (RFC 7911).
    pub add_path: AddPath,
    /// How the path to it is watched (RFC 5880).
    pub bfd: Option<BfdSettings>,
}

/// The nodes that a [`BgpPeer`] is for.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerNodes {
    /// All.
    All,
    /// One.
    Named(NodeName),
    /// Those whose labels match.
    Selected(Selector),
}

/// Who a [`BgpPeer`] is.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerRemote {
    /// A router.
    Router {
        /// Its address.
        addr: IpAddr,
        /// Its TCP port.
        port: u16,
        /// Its AS.
        asn: Asn,
    },
    /// Whoever is on the other end of an interface.
    Interface {
        /// Its name.
        name: IfName,
        /// The neighbour's AS.
        asn: Asn,
    },
    /// The nodes whose labels match.
    Nodes(Selector),
    /// The workloads on the same node whose labels match.
    Workloads {
        /// Which ones.
        selector: Selector,
        /// Their AS.
        asn: Asn,
    },
}

/// The next hop that a speaker puts into routes that it passes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NextHopMode {
    /// As RFC 4271 §5.1.3 says for the kind of session.
    Auto,
    /// Always the speaker.
    SelfAddr,
    /// Always as received.
    Keep,
}
