//! What a node should hold, as `calc` promises it.
//!
//! Plain values that name things as people do (interfaces by name); turning
//! them into numbers is the doors' affair.

pub mod policy;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::net::{Asn, Cidr, IfName};

/// A route, apart from its destination.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Route {
    /// Where packets go.
    pub target: RouteTarget,
    /// Whose route it is.
    pub protocol: RouteProtocol,
}

/// Where a route sends packets.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum RouteTarget {
    /// Out of an interface, to a neighbour on it (`scope link`).
    Link(IfName),
    /// Nowhere, silently.
    Blackhole,
    /// To one of several gateways; never empty.
    Via(BTreeSet<IpAddr>),
}

/// The number that says whose route it is (rtnetlink(7), `rtm_protocol`).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RouteProtocol(pub u8);

impl RouteProtocol {
    /// `boot`: what local workloads' routes carry unless configured otherwise.
    pub const BOOT: Self = Self(3);
    /// Routes of blocks, our own and other nodes'.
    pub const CALICO: Self = Self(80);
    /// `bird`: what Calico's BIRD gives to learned routes; taken over, never written.
    pub const BIRD: Self = Self(12);
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            RouteTarget::Link(if_name) => write!(f, "dev {if_name} scope link")?,
            RouteTarget::Blackhole => write!(f, "blackhole")?,
            RouteTarget::Via(gateways) => {
                for (index, gateway) in gateways.iter().enumerate() {
                    write!(f, "{}via {gateway}", if index == 0 { "" } else { " " })?;
                }
            }
        }
        write!(f, " proto {}", self.protocol.0)
    }
}

/// A BGP session that this node should have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BgpSession {
    /// The name that people know it by: `Mesh_10_0_0_2`, `Global_…`, `Node_…`.
    pub name: String,
    /// The peer's address.
    pub peer_addr: IpAddr,
    /// The peer's TCP port.
    pub peer_port: u16,
    /// The address to connect from; `None` leaves it to the kernel.
    pub local_addr: Option<IpAddr>,
    /// Our AS in this session.
    pub local_asn: Asn,
    /// The AS that the peer must have.
    pub peer_asn: Asn,
    /// Whether we wait for the peer to connect.
    pub is_passive: bool,
    /// How long the peer keeps our routes when the session breaks (RFC 4724).
    pub restart_time: Duration,
    /// How often a KEEPALIVE is sent; `None` is a third of the Hold Time.
    pub keepalive: Option<Duration>,
    /// The next hop in routes that are passed on.
    pub next_hop: crate::peer::NextHopMode,
}

impl BgpSession {
    /// Is the peer in our own AS (RFC 4271 §1.1, "internal peer")?
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.local_asn == self.peer_asn
    }
}

/// What this node announces by BGP.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Advertisements {
    /// Prefixes that this node originates.
    pub originated: BTreeSet<Cidr>,
    /// Ranges whose learned routes may be passed on to external peers.
    pub exportable: BTreeSet<Cidr>,
}
