//! Nodes, as BGP and the dataplane see them.

use std::net::IpAddr;

use crate::Labels;
use crate::id::NodeName;
use crate::net::{Asn, Cidr, Family, InterfaceAddr, MacAddr};
use crate::wireguard::PublicKey;

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
    /// The Ethernet address of `vxlan.calico`.
    pub vxlan_mac_v4: Option<MacAddr>,
    /// The Ethernet address of `vxlan-v6.calico`.
    pub vxlan_mac_v6: Option<MacAddr>,
    /// The public key of `wireguard.cali`.
    pub wireguard_key_v4: Option<PublicKey>,
    /// The public key of `wg-v6.cali`.
    pub wireguard_key_v6: Option<PublicKey>,
}

/// What a tunnel's address is for; each node has at most one of each kind.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum TunnelKind {
    /// IP in IP (RFC 2003).
    Ipip,
    /// VXLAN (RFC 7348) for IPv4 pools.
    VxlanV4,
    /// VXLAN for IPv6 pools.
    VxlanV6,
    /// `WireGuard` for IPv4 pools.
    WireguardV4,
    /// `WireGuard` for IPv6 pools.
    WireguardV6,
}

impl TunnelKind {
    /// All kinds.
    pub const ALL: [Self; 5] =
        [Self::Ipip, Self::VxlanV4, Self::VxlanV6, Self::WireguardV4, Self::WireguardV6];

    /// Returns the kind of VXLAN for pools of `family`.
    #[must_use]
    pub const fn vxlan(family: Family) -> Self {
        match family {
            Family::V4 => Self::VxlanV4,
            Family::V6 => Self::VxlanV6,
        }
    }

    /// Returns the kind of `WireGuard` for pools of `family`.
    #[must_use]
    pub const fn wireguard(family: Family) -> Self {
        match family {
            Family::V4 => Self::WireguardV4,
            Family::V6 => Self::WireguardV6,
        }
    }

    /// Returns the family of its addresses.
    #[must_use]
    pub const fn family(self) -> Family {
        match self {
            Self::Ipip | Self::VxlanV4 | Self::WireguardV4 => Family::V4,
            Self::VxlanV6 | Self::WireguardV6 => Family::V6,
        }
    }
}

impl TunnelAddrs {
    /// Returns the address of a kind of tunnel.
    #[must_use]
    pub const fn get(&self, kind: TunnelKind) -> Option<IpAddr> {
        match kind {
            TunnelKind::Ipip => self.ipip,
            TunnelKind::VxlanV4 => self.vxlan_v4,
            TunnelKind::VxlanV6 => self.vxlan_v6,
            TunnelKind::WireguardV4 => self.wireguard_v4,
            TunnelKind::WireguardV6 => self.wireguard_v6,
        }
    }

    /// Returns all addresses that there are.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> {
        TunnelKind::ALL.into_iter().filter_map(|kind| self.get(kind))
    }

    /// Returns the public key of the `WireGuard` device for pools of `family`.
    #[must_use]
    pub const fn wireguard_key(&self, family: Family) -> Option<PublicKey> {
        match family {
            Family::V4 => self.wireguard_key_v4,
            Family::V6 => self.wireguard_key_v6,
        }
    }

    /// Returns the Ethernet address of the VXLAN device for pools of `family`.
    #[must_use]
    pub const fn vxlan_mac(&self, family: Family) -> Option<MacAddr> {
        match family {
            Family::V4 => self.vxlan_mac_v4,
            Family::V6 => self.vxlan_mac_v6,
        }
    }
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
