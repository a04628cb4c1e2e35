//! What a node should hold, as `calc` promises it.
//!
//! Plain values that name things as people do (interfaces by name); turning
//! them into numbers is the doors' affair.

mod bgp;
pub mod policy;
mod setting;
mod tunnel;
mod vrf;
mod wireguard;

pub use bgp::{
    AddPath, Advertisements, BfdSettings, BgpSession, Filters, Origination, Password, Reflection,
    Role,
};
pub use setting::{Need, Setting};
pub use tunnel::{
    Checksums, TunnelAddrDemand, TunnelDevice, TunnelDeviceKind, TunnelEntry, TunnelEntryKey, Vxlan,
};

pub use vrf::{VrfDevice, VrfDevices};
pub use wireguard::{WireguardDevice, WireguardPeer, WireguardRoute};

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::net::{Cidr, Family, IfName};

/// What the kernel tells routes of a table apart by.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RouteKey {
    /// The destination.
    pub dst: Cidr,
    /// The metric: of several routes to one destination that with the lowest is used.
    pub metric: u32,
}

impl RouteKey {
    /// The metric that IPv6 routes get when none is given; IPv4 routes get zero.
    pub const DEFAULT_METRIC_V6: u32 = 1024;

    /// Returns the metric that the kernel gives to routes of `family` that name none.
    #[must_use]
    pub const fn default_metric(family: Family) -> u32 {
        match family {
            Family::V4 => 0,
            Family::V6 => Self::DEFAULT_METRIC_V6,
        }
    }

    /// Returns whichever keys there may be of routes to `dst`.
    #[must_use]
    pub const fn all_to(dst: Cidr) -> RangeInclusive<Self> {
        Self { dst, metric: u32::MIN }..=Self { dst, metric: u32::MAX }
    }
}

impl From<Cidr> for RouteKey {
    /// Makes the key of a route that names no metric.
    fn from(dst: Cidr) -> Self {
        Self { dst, metric: Self::default_metric(dst.family()) }
    }
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.dst)?;
        if self.metric != Self::default_metric(self.dst.family()) {
            write!(f, " metric {}", self.metric)?;
        }
        Ok(())
    }
}

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
    /// Out of a tunnel, to its far end, though no network of the tunnel's holds that (`onlink`).
    Tunnel(IfName, IpAddr),
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
            RouteTarget::Tunnel(if_name, gateway) => {
                write!(f, "via {gateway} dev {if_name} onlink")?;
            }
            RouteTarget::Via(gateways) => {
                for (index, gateway) in gateways.iter().enumerate() {
                    write!(f, "{}via {gateway}", if index == 0 { "" } else { " " })?;
                }
            }
        }
        write!(f, " proto {}", self.protocol.0)
    }
}
