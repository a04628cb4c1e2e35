//! WireGuard as a node should have it: one device for each family of pods' addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::net::{Cidr, Family, IfName, Mtu};
use crate::wireguard::PublicKey;

/// A WireGuard device, the table of what goes through it, and the rule that leads there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WireguardDevice {
    /// Its name.
    pub name: IfName,
    /// The family of the addresses inside.
    pub family: Family,
    /// The UDP port that it listens on; every node's.
    pub port: u16,
    /// The largest packet that fits into it.
    pub mtu: Mtu,
    /// The bit by which packets that carry others are told from all the rest.
    pub mark: u32,
    /// Its address, from which this node itself talks to other nodes' pods.
    pub addr: Option<IpAddr>,
    /// The nodes it talks to.
    pub peers: BTreeMap<PublicKey, WireguardPeer>,
    /// The table that packets without the mark are looked up in first.
    pub table: u32,
    /// The place of the rule for that; lower ones go before.
    pub rule_priority: u32,
    /// What is in the table.
    pub routes: BTreeMap<Cidr, WireguardRoute>,
}

/// A node that a WireGuard device talks to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WireguardPeer {
    /// Where it listens.
    pub peer_addr: SocketAddr,
    /// How often something is sent when there is nothing to send, in whole seconds; zero is never.
    pub keepalive: Duration,
    /// What it sends from, and is sent packets for.
    pub allowed: BTreeSet<Cidr>,
}

/// A route in the table of a WireGuard device.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum WireguardRoute {
    /// Through the device.
    Encrypted,
    /// By the other tables, as if there was no WireGuard.
    Throw,
    /// Nowhere.
    Blackhole,
}

impl fmt::Display for WireguardRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encrypted => "encrypted",
            Self::Throw => "throw",
            Self::Blackhole => "blackhole",
        })
    }
}
