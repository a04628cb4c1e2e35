//! BGP as the cluster configures it.
//!
//! These are the objects; which sessions a node should have follows from them
//! in `calc`, as [`crate::desired::BgpSession`].

use std::net::IpAddr;
use std::time::Duration;

use selector::Selector;

use crate::id::NodeName;
use crate::net::{Asn, Cidr};

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
    /// The nodes whose labels match.
    Nodes(Selector),
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
