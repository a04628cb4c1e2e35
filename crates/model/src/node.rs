//! Nodes, as BGP and the dataplane see them.

use std::net::IpAddr;

use crate::Labels;
use crate::id::NodeName;
use crate::net::{Asn, Cidr, Family, InterfaceAddr};

/// A node of the cluster, from the Kubernetes Node and its annotations.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its labels.
    pub labels: Labels,
    /// Its IPv4 address with the length of its subnet's prefix.
    pub ipv4: Option<InterfaceAddr>,
    /// Its IPv6 address with the length of its subnet's prefix.
    pub ipv6: Option<InterfaceAddr>,
    /// Its own AS; `None` is the cluster's.
    pub asn: Option<Asn>,
    /// Its cluster id if it is a route reflector (RFC 4456 §7).
    pub route_reflector_cluster_id: Option<std::net::Ipv4Addr>,
    /// The addresses of its tunnel devices.
    pub tunnel_addrs: TunnelAddrs,
    /// The ranges that Kubernetes gave it (`spec.podCIDRs`).
    pub pod_cidrs: Vec<Cidr>,
}

/// The addresses of a node's tunnel devices.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TunnelAddrs {
    /// On `tunl0`.
    pub ipip: Option<IpAddr>,
    /// On `vxlan.calico`.
    pub vxlan_v4: Option<IpAddr>,
    /// On `vxlan-v6.calico`.
    pub vxlan_v6: Option<IpAddr>,
    /// On `wireguard.cali`.
    pub wireguard_v4: Option<IpAddr>,
    /// On `wg-v6.cali`.
    pub wireguard_v6: Option<IpAddr>,
}

impl Node {
    /// Returns the node's address of `family`.
    #[must_use]
    pub const fn addr(&self, family: Family) -> Option<InterfaceAddr> {
        match family {
            Family::V4 => self.ipv4,
            Family::V6 => self.ipv6,
        }
    }
}
