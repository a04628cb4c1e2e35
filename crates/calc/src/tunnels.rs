//! Which tunnels this node has, how large packets in them may be, and where their addresses come
//! from.

use std::collections::BTreeMap;

use model::desired::{Checksums, TunnelAddrDemand, TunnelDevice, TunnelDeviceKind, Vxlan};
use model::net::{Cidr, Family, IfName, Mtu};
use model::node::TunnelKind;
use model::pool::{Encapsulation, IpPool};

use crate::Cluster;

/// What administrators decide about tunnels, and the link that they run over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TunnelSettings {
    /// Whether IP in IP is used; `None` is whether a pool wants it (`ipipEnabled`).
    pub ipip: Option<bool>,
    /// Whether VXLAN is used; `None` is whether a pool wants it (`vxlanEnabled`).
    pub vxlan: Option<bool>,
    /// Whether traffic is encrypted, by family (`wireguardEnabled`, `wireguardEnabledV6`).
    pub wireguard: BTreeMap<Family, bool>,
    /// Whether workloads have IPv6 (`ipv6Support`).
    pub has_ipv6: bool,
    /// The network's identifier (`vxlanVNI`).
    pub vni: u32,
    /// The UDP port (`vxlanPort`).
    pub port: u16,
    /// The MTUs that are configured; others follow the host's.
    pub mtus: BTreeMap<TunnelKind, Mtu>,
    /// The MTU of the links between nodes.
    pub host_mtu: Mtu,
    /// Who fills in checksums of what goes through VXLAN; `None` is whoever does, as long as nothing
    /// is known against it (`featureDetectOverride`).
    pub checksums: Option<Checksums>,
}

/// The MTU of Ethernet.
pub const ETHERNET: Mtu = Mtu(1500);

/// The least MTU that IPv6 allows on a link (RFC 8200 §5).
const LEAST: Mtu = Mtu(1280);

impl Default for TunnelSettings {
    fn default() -> Self {
        Self {
            ipip: None,
            vxlan: None,
            wireguard: BTreeMap::new(),
            has_ipv6: true,
            vni: 4096,
            port: 4789,
            mtus: BTreeMap::new(),
            host_mtu: ETHERNET,
            checksums: None,
        }
    }
}

impl TunnelSettings {
    /// Is there a tunnel of this kind?
    #[must_use]
    pub fn is_enabled<'a>(
        &self,
        kind: TunnelKind,
        pools: impl IntoIterator<Item = &'a IpPool>,
    ) -> bool {
        if kind.family() == Family::V6 && !self.has_ipv6 {
            return false;
        }
        let by_pool = |pools| any_wants(kind, pools);
        match kind {
            TunnelKind::Ipip => self.ipip.unwrap_or_else(|| by_pool(pools)),
            TunnelKind::VxlanV4 => self.vxlan.unwrap_or_else(|| by_pool(pools)),
            // The setting is about IPv4; IPv6 tunnels follow their pools unless it forbids all.
            TunnelKind::VxlanV6 => self.vxlan != Some(false) && by_pool(pools),
            TunnelKind::WireguardV4 | TunnelKind::WireguardV6 => {
                self.wireguard.get(&kind.family()).copied().unwrap_or_default()
            }
        }
    }

    /// Returns the largest packet that fits into a tunnel of this kind.
    #[must_use]
    pub fn mtu(&self, kind: TunnelKind) -> Mtu {
        // Outer headers: IP 20 or 40; Ethernet 14, UDP 8 and VXLAN 8 (RFC 7348 §5); WireGuard's 40.
        let overhead = match kind {
            TunnelKind::Ipip => 20,
            TunnelKind::VxlanV4 => 50,
            TunnelKind::VxlanV6 => 70,
            TunnelKind::WireguardV4 => 60,
            TunnelKind::WireguardV6 => 80,
        };
        let left = Mtu(self.host_mtu.0.saturating_sub(overhead)).max(LEAST);
        self.mtus.get(&kind).copied().unwrap_or(left)
    }

    /// Returns the MTU for pods: the smallest that one of the tunnels leaves.
    #[must_use]
    pub fn pod_mtu(&self, pools: &[&IpPool]) -> Mtu {
        let is_vrfs = |kind: TunnelKind| {
            let mut pools = pools.iter().filter(|pool| pool.vrf.is_some());
            let is_possible = kind.family() == Family::V4 || self.has_ipv6;
            is_possible && pools.any(|pool| TunnelKind::vxlan(pool.family()) == kind)
        };
        let enabled = TunnelKind::ALL
            .into_iter()
            .filter(|kind| self.is_enabled(*kind, pools.iter().copied()) || is_vrfs(*kind));
        enabled.map(|kind| self.mtu(kind)).min().unwrap_or(self.host_mtu)
    }
}

/// Does a pool want packets to travel in this kind of tunnel? Encryption is not a pool's affair,
/// and those of VRFs have tunnels of their own.
#[must_use]
pub(crate) fn wants(pool: &IpPool, kind: TunnelKind) -> bool {
    let is_of = match pool.encapsulation {
        Encapsulation::None => false,
        Encapsulation::Ipip(_) => kind == TunnelKind::Ipip,
        Encapsulation::Vxlan(_) => kind == TunnelKind::vxlan(pool.family()),
    };
    is_of && pool.family() == kind.family() && pool.vrf.is_none()
}

fn any_wants<'a>(kind: TunnelKind, pools: impl IntoIterator<Item = &'a IpPool>) -> bool {
    pools.into_iter().any(|pool| wants(pool, kind))
}

/// Returns this node's tunnel devices; those of `WireGuard` are made elsewhere.
pub(crate) fn devices(cluster: &Cluster) -> BTreeMap<IfName, TunnelDevice> {
    let Some(node) = cluster.node() else { return BTreeMap::new() };
    let settings = &cluster.tunnels;
    let is_enabled = |kind| settings.is_enabled(kind, cluster.pools.values());
    let mut devices = BTreeMap::new();
    if is_enabled(TunnelKind::Ipip)
        && let Ok(name) = TunnelDevice::IPIP.parse()
    {
        let (mtu, addr) = (settings.mtu(TunnelKind::Ipip), node.tunnel_addrs.ipip);
        devices.insert(name, TunnelDevice { kind: TunnelDeviceKind::Ipip, mtu, addr });
    }
    for family in Family::ALL {
        let kind = TunnelKind::vxlan(family);
        let local = node.addr(family).zip(node.tunnel_addrs.vxlan_mac(family));
        if let (true, Some((local, mac)), Ok(name)) =
            (is_enabled(kind), local, vxlan_name(family).parse())
        {
            let (vni, port, local) = (settings.vni, settings.port, local.addr());
            let (mtu, addr) = (settings.mtu(kind), node.tunnel_addrs.get(kind));
            let checksums = settings.checksums.unwrap_or_default();
            let kind = TunnelDeviceKind::Vxlan(Vxlan { vni, port, local, mac, checksums });
            devices.insert(name, TunnelDevice { kind, mtu, addr });
        }
    }
    devices
}

/// Returns the name of the VXLAN device for pools of `family`.
pub(crate) const fn vxlan_name(family: Family) -> &'static str {
    match family {
        Family::V4 => TunnelDevice::VXLAN_V4,
        Family::V6 => TunnelDevice::VXLAN_V6,
    }
}

/// Returns, for each kind of tunnel that this node needs an address for, where it may come from.
///
/// Differs from Calico: an address of a pool that is disabled stays, since so do its pods.
pub(crate) fn addr_demands(cluster: &Cluster) -> BTreeMap<TunnelKind, TunnelAddrDemand> {
    let Some(node) = cluster.node() else { return BTreeMap::new() };
    let is_usable =
        |pool: &&IpPool| pool.allowed_uses.tunnel && pool.node_selector.matches(&node.labels);
    let mut demands = BTreeMap::new();
    for kind in TunnelKind::ALL {
        if !cluster.tunnels.is_enabled(kind, cluster.pools.values()) {
            continue;
        }
        let is_encryption = matches!(kind, TunnelKind::WireguardV4 | TunnelKind::WireguardV6);
        let is_for =
            |pool: &&IpPool| wants(pool, kind) || (is_encryption && pool.family() == kind.family());
        let pools = cluster.pools.values().filter(is_usable).filter(is_for);
        let range = |pool: &IpPool| pool.cidr;
        let kept: Vec<Cidr> = pools.clone().map(range).collect();
        let assigned = pools.filter(|pool| !pool.is_disabled).map(range).collect();
        if !kept.is_empty() {
            demands.insert(kind, TunnelAddrDemand { kept, assigned });
        }
    }
    demands
}

#[cfg(test)]
mod tests;
