//! How packets reach the pods of other nodes where the fabric does not know these: tunnels.
//!
//! ```text
//!  blocks of other nodes ─────┐
//!  pods outside their blocks ─┼─► whose? ─► which pool? ─► tunnel, direct, or BGP's affair
//!  other nodes' tunnels ──────┘
//! ```
//!
//! A block is reached through the VXLAN device by its owner's tunnel address, through `tunl0` by
//! its owner's own address. With `CrossSubnet` a node of this node's subnet is its own gateway.
//! Whoever has an address outside of his own blocks (it was lent, or its block is nobody's) has a
//! route to that address alone, which wins over the block's.
//!
//! A node without a tunnel address cannot be reached by VXLAN. Until it has one, BGP's route to it
//! counts, if there is one: so a pool can change its mode under traffic.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::desired::{
    Route, RouteProtocol, RouteTarget, TunnelAddrDemand, TunnelDevice, TunnelEntry, TunnelEntryKey,
};
use model::net::{Cidr, Family, IfName};
use model::node::{Node, TunnelKind};
use model::pool::{Encapsulation, EncapsulationScope, IpPool};

use crate::tunnels;
use crate::{Cluster, Problem};

/// What this node should hold of tunnels and of routes that need no BGP.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Overlay {
    /// The tunnel devices.
    pub devices: BTreeMap<IfName, TunnelDevice>,
    /// Their neighbours and far ends.
    pub entries: BTreeMap<TunnelEntryKey, TunnelEntry>,
    /// Routes to other nodes' pods and tunnels.
    pub routes: BTreeMap<Cidr, Route>,
    /// What address management is asked for, for each kind of tunnel that needs an address.
    pub addr_demands: BTreeMap<TunnelKind, TunnelAddrDemand>,
    /// The pools whose packets travel in tunnels.
    pools: BTreeMap<Cidr, Encapsulation>,
    /// How other nodes are reached by such packets, by the address that BGP calls them.
    ways: BTreeMap<(IpAddr, Cidr), RouteTarget>,
    /// The addresses of other nodes.
    nodes: BTreeSet<IpAddr>,
}

/// What becomes of a route that BGP has learned.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Learned {
    /// It is followed as it is.
    Plain,
    /// Its packets travel in a tunnel.
    Tunnel(IfName, IpAddr),
    /// It is not followed: its destination is reached otherwise.
    Refused,
}

impl Overlay {
    /// Returns what becomes of a route that BGP has learned to `dst` by way of `next_hops`.
    ///
    /// As in Calico, BGP has no say in pools that use VXLAN, but for nodes without a tunnel
    /// address; and what a node announces inside a pool that uses IP in IP is reached by that.
    #[must_use]
    pub fn learned(&self, dst: &Cidr, next_hops: &BTreeSet<IpAddr>) -> Learned {
        let covering = self.pools.range(..=*dst).rev().find(|(pool, _)| pool.covers(dst));
        let Some((pool, encapsulation)) = covering else { return Learned::Plain };
        let way = next_hops.iter().find_map(|hop| self.ways.get(&(*hop, *pool)));
        match (encapsulation, way) {
            (Encapsulation::Ipip(_), Some(RouteTarget::Tunnel(device, gateway))) => {
                Learned::Tunnel(device.clone(), *gateway)
            }
            (Encapsulation::None | Encapsulation::Ipip(_), _) => Learned::Plain,
            (Encapsulation::Vxlan(_), Some(_)) => Learned::Refused,
            (Encapsulation::Vxlan(_), None) => {
                let is_by_nodes = next_hops.iter().all(|hop| self.nodes.contains(hop));
                if is_by_nodes { Learned::Plain } else { Learned::Refused }
            }
        }
    }
}

/// Calculates all of it.
pub(crate) fn of(cluster: &Cluster, problems: &mut Vec<Problem>) -> Overlay {
    let pools = encapsulated(cluster);
    let devices = tunnels::devices(cluster);
    let mut overlay = Overlay {
        addr_demands: tunnels::addr_demands(cluster),
        pools: pools.iter().map(|pool| (pool.cidr, pool.encapsulation)).collect(),
        devices,
        ..Overlay::default()
    };
    let Some(this) = cluster.node() else { return overlay };
    let others = cluster.nodes.values().filter(|node| node.name != this.name);
    for node in others.clone() {
        add_far_ends(&mut overlay, node, problems);
        for addr in Family::ALL.into_iter().filter_map(|family| node.addr(family)) {
            overlay.nodes.insert(addr.addr());
            let of_family = |pool: &&&IpPool| pool.family() == Family::of(addr.addr());
            let ways = pools.iter().filter(of_family).filter_map(|pool| {
                Some(((addr.addr(), pool.cidr), way(this, node, pool, &overlay.devices)?))
            });
            let ways: Vec<_> = ways.collect();
            overlay.ways.extend(ways);
        }
    }
    add_routes(&mut overlay, cluster, this, &pools);
    overlay
}

/// Returns the pools whose packets travel in tunnels here, the smallest range of equals last.
fn encapsulated(cluster: &Cluster) -> Vec<&IpPool> {
    let is_enabled = |kind| cluster.tunnels.is_enabled(kind, cluster.pools.values());
    let enabled: Vec<TunnelKind> =
        TunnelKind::ALL.into_iter().filter(|kind| is_enabled(*kind)).collect();
    let is_used = |pool: &&IpPool| enabled.iter().any(|kind| tunnels::wants(pool, *kind));
    let mut pools: Vec<&IpPool> = cluster.pools.values().filter(is_used).collect();
    pools.sort_by_key(|pool| pool.cidr.prefix_len());
    pools
}

/// Returns how `node` is reached by packets to addresses of `pool`, if the pool's mode can do it.
fn way(
    this: &Node,
    node: &Node,
    pool: &IpPool,
    devices: &BTreeMap<IfName, TunnelDevice>,
) -> Option<RouteTarget> {
    let family = pool.family();
    let addr = node.addr(family)?.addr();
    let is_near = || this.addr(family).is_some_and(|own| own.network().contains(addr));
    let direct = || RouteTarget::Via(BTreeSet::from([addr]));
    let through = |name: &str, gateway| {
        let device = devices.keys().find(|device| device.as_str() == name)?;
        Some(RouteTarget::Tunnel(device.clone(), gateway))
    };
    match pool.encapsulation {
        Encapsulation::None => None,
        Encapsulation::Ipip(EncapsulationScope::CrossSubnet)
        | Encapsulation::Vxlan(EncapsulationScope::CrossSubnet)
            if is_near() =>
        {
            Some(direct())
        }
        Encapsulation::Ipip(_) => through(TunnelDevice::IPIP, addr),
        Encapsulation::Vxlan(_) => {
            let gateway = node.tunnel_addrs.get(TunnelKind::vxlan(family))?;
            node.tunnel_addrs.vxlan_mac(family)?;
            through(tunnels::vxlan_name(family), gateway)
        }
    }
}

/// Adds what leads packets for a node's tunnel address to the node.
fn add_far_ends(overlay: &mut Overlay, node: &Node, problems: &mut Vec<Problem>) {
    for family in Family::ALL {
        let name = tunnels::vxlan_name(family);
        let device = overlay.devices.keys().find(|device| device.as_str() == name).cloned();
        let kind = TunnelKind::vxlan(family);
        let (Some(device), Some(addr), Some(mac), Some(underlay)) = (
            device,
            node.tunnel_addrs.get(kind),
            node.tunnel_addrs.vxlan_mac(family),
            node.addr(family),
        ) else {
            continue;
        };
        let pairs = [
            (TunnelEntryKey::Neighbour(device.clone(), addr), TunnelEntry::Mac(mac)),
            (TunnelEntryKey::Forward(device, mac), TunnelEntry::Node(underlay.addr())),
        ];
        for (key, entry) in pairs {
            match overlay.entries.entry(key) {
                Entry::Vacant(place) => {
                    place.insert(entry);
                }
                Entry::Occupied(other) => problems.push(Problem {
                    object: format!("node {}", node.name),
                    message: format!(
                        "another node's {} ({}); that one is kept. Remove the annotations of one \
                         of the two nodes' VXLAN tunnels",
                        other.key(),
                        other.get()
                    ),
                }),
            }
        }
    }
}

/// Adds the routes to what other nodes have.
fn add_routes(overlay: &mut Overlay, cluster: &Cluster, this: &Node, pools: &[&IpPool]) {
    if pools.is_empty() {
        return;
    }
    let route = |addr: IpAddr, node: &Node| {
        let pool = pools.iter().rev().find(|pool| pool.cidr.contains(addr))?;
        let target = way(this, node, pool, &overlay.devices)?;
        Some(Route { target, protocol: RouteProtocol::CALICO })
    };
    let of_other = |name| cluster.nodes.get(name).filter(|node| node.name != this.name);
    let mut routes = BTreeMap::new();
    for (block, owner) in cluster.blocks.iter() {
        let found = of_other(owner).and_then(|node| route(block.addr(), node));
        routes.extend(found.map(|route| (block, route)));
    }
    let pods = cluster.remote.values().filter_map(|pod| Some((of_other(&pod.node)?, pod)));
    let pods = pods.flat_map(|(node, pod)| pod.addrs.iter().map(move |addr| (*addr, node)));
    let others = cluster.nodes.values().filter(|node| node.name != this.name);
    let tunnels = others.flat_map(|node| node.tunnel_addrs.iter().map(move |addr| (addr, node)));
    for (addr, node) in tunnels.chain(pods) {
        if cluster.blocks.owner_of(addr) == Some(&node.name) {
            continue;
        }
        // Pods come last: an address of theirs in a tunnel's place would be an error of theirs.
        if let Some(route) = route(addr, node) {
            routes.entry(Cidr::host(addr)).or_insert(route);
        }
    }
    // IPv6 takes no gateway whose address is routed out of another link, as it is while a pool
    // changes its mode: what is to be a gateway has a route of its own.
    let gateway = |route: &Route| match &route.target {
        RouteTarget::Tunnel(device, addr @ IpAddr::V6(_)) => {
            let target = RouteTarget::Link(device.clone());
            Some((Cidr::host(*addr), Route { target, protocol: route.protocol }))
        }
        RouteTarget::Tunnel(..)
        | RouteTarget::Link(_)
        | RouteTarget::Blackhole
        | RouteTarget::Via(_) => None,
    };
    let gateways: Vec<(Cidr, Route)> = routes.values().filter_map(gateway).collect();
    routes.extend(gateways);
    overlay.routes = routes;
}

#[cfg(test)]
mod tests;
