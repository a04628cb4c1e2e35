//! Tunnels between nodes, as a node should have them.

use std::fmt;
use std::net::IpAddr;

use crate::net::{Cidr, IfName, MacAddr, Mtu};

/// A tunnel device of this node, apart from its name.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct TunnelDevice {
    /// What it wraps packets in.
    pub kind: TunnelDeviceKind,
    /// The largest packet that fits into it.
    pub mtu: Mtu,
    /// Its address, by which this node itself is reached through the tunnel.
    pub addr: Option<IpAddr>,
}

/// What a tunnel device wraps packets in.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum TunnelDeviceKind {
    /// IP (RFC 2003): the device of the kernel's module, which takes packets from every node.
    Ipip,
    /// VXLAN (RFC 7348).
    Vxlan(Vxlan),
}

/// A VXLAN device's own parameters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Vxlan {
    /// The network's identifier, 1 to 16,777,215.
    pub vni: u32,
    /// The UDP port that peers send to.
    pub port: u16,
    /// The address of this node that packets are sent from.
    pub local: IpAddr,
    /// The device's Ethernet address.
    pub mac: MacAddr,
    /// Who fills in the checksums of packets that go through it.
    pub checksums: Checksums,
}

/// Who fills in the checksums of packets that are put into a tunnel (`ethtool -K DEVICE tx`).
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Checksums {
    /// Whatever is last able to: as a rule the interface to the fabric.
    #[default]
    Offloaded,
    /// The kernel, before it wraps them: what comes after need not understand tunnels.
    Filled,
}

/// What an entry of a tunnel device is about.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum TunnelEntryKey {
    /// A neighbour on the device, by its address in the tunnel (RFC 826, RFC 4861).
    Neighbour(IfName, IpAddr),
    /// A far end of the device, by its Ethernet address (`bridge fdb`).
    Forward(IfName, MacAddr),
}

/// An entry of a tunnel device: both kinds together lead a packet to another node.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum TunnelEntry {
    /// The Ethernet address of a neighbour.
    Mac(MacAddr),
    /// The node that has that Ethernet address.
    Node(IpAddr),
}

/// What address management is asked for, for the address of a tunnel.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TunnelAddrDemand {
    /// Ranges in which an address may stay; if there is none, no address is wanted.
    pub kept: Vec<Cidr>,
    /// Ranges of pools that a new address may come from, in the order to try them.
    pub assigned: Vec<Cidr>,
}

impl TunnelDevice {
    /// The name of the device for IP in IP, which the kernel's module gives it.
    pub const IPIP: &'static str = "tunl0";
    /// The name of the device for VXLAN and IPv4 pools.
    pub const VXLAN_V4: &'static str = "vxlan.calico";
    /// The name of the device for VXLAN and IPv6 pools.
    pub const VXLAN_V6: &'static str = "vxlan-v6.calico";

    const NAMES: [&'static str; 3] = [Self::IPIP, Self::VXLAN_V4, Self::VXLAN_V6];

    /// Returns the names of all devices that are ours.
    #[must_use]
    pub fn names() -> Vec<IfName> {
        Self::NAMES.iter().filter_map(|name| name.parse().ok()).collect()
    }

    /// Is a device of this name ours?
    #[must_use]
    pub fn is_ours(name: &IfName) -> bool {
        Self::NAMES.contains(&name.as_str())
    }
}

impl TunnelDevice {
    /// Returns who fills in checksums of what goes through it; `None` if it has no choice.
    #[must_use]
    pub const fn checksums(&self) -> Option<Checksums> {
        match self.kind {
            TunnelDeviceKind::Ipip => None,
            TunnelDeviceKind::Vxlan(vxlan) => Some(vxlan.checksums),
        }
    }

    /// Has them filled in so, where there is a choice.
    pub const fn set_checksums(&mut self, checksums: Checksums) {
        if let TunnelDeviceKind::Vxlan(vxlan) = &mut self.kind {
            vxlan.checksums = checksums;
        }
    }
}

impl TunnelEntryKey {
    /// Returns the device.
    #[must_use]
    pub const fn device(&self) -> &IfName {
        match self {
            Self::Neighbour(device, _) | Self::Forward(device, _) => device,
        }
    }
}

impl fmt::Display for TunnelEntryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Neighbour(device, addr) => write!(f, "neighbour {addr} dev {device}"),
            Self::Forward(device, mac) => write!(f, "fdb {mac} dev {device}"),
        }
    }
}

impl fmt::Display for TunnelEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(mac) => write!(f, "lladdr {mac}"),
            Self::Node(addr) => write!(f, "dst {addr}"),
        }
    }
}

impl fmt::Display for TunnelDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TunnelDeviceKind::Ipip => write!(f, "ipip")?,
            TunnelDeviceKind::Vxlan(vxlan) => write!(
                f,
                "vxlan id {} dstport {} local {} address {}{}",
                vxlan.vni,
                vxlan.port,
                vxlan.local,
                vxlan.mac,
                match vxlan.checksums {
                    Checksums::Offloaded => "",
                    Checksums::Filled => " tx-checksums off",
                }
            )?,
        }
        write!(f, " mtu {}", self.mtu.0)?;
        if let Some(addr) = self.addr { write!(f, " addr {addr}") } else { Ok(()) }
    }
}
