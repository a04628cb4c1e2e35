//! VRFs on this node: devices, tunnels, and tables of their own (ADR 9).
//!
//! ```text
//!  pools ─► model::vrf::vrfs ─┬─ number taken? ─► a problem, and no effect
//!                             ├─ a pool selects this node, a pod is here,
//!                             │  or a partner has either? ─► the VRF is here
//!                             └─► its table: what leads to its own pods,
//!                                 and to those of its partners
//! ```
//!
//! Nobody else sees anything of this: what of pools, blocks and pods is a VRF's is kept apart
//! from the rest as it comes in, so that the default scope's routes, tunnels, encryption and
//! announcements know nothing of it. What they have with a VRF by its word is added to them here.
//!
//! A packet to another node's pod, be it a partner's, leaves by the VXLAN of the VRF that it is in,
//! and is looked up there in the same VRF's table: so the answer comes the way that the kernel
//! expects it (RFC 3704 §2.2), and the fabric need not know the tenant. Its gateway is the other
//! node's own address, which no table needs to know: the route says that it is on the link.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use model::block::{Affinity, Owner};
use model::desired::{
    Route, RouteProtocol, RouteTarget, TunnelDevice, TunnelDeviceKind, TunnelEntry, TunnelEntryKey,
    VrfDevice, VrfDevices, Vxlan,
};
use model::endpoint::WorkloadEndpoint;
use model::id::{NamespacedName, NodeName};
use model::net::{Cidr, Family, IfName, MacAddr};
use model::node::{Node, TunnelKind};
use model::pool::IpPool;
use model::vrf::{Vrf, VrfId, VrfName, vrfs};
use sha2::{Digest as _, Sha256};

use crate::blocks::{Blocks, blocks_of};
use crate::wireguard::{HostEncryption, Strictness};
use crate::{Cluster, Problem};

/// What pods send by: the host's side of their link answers ARP for it, which it does only for
/// what it has a route to, out of another link.
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// What is known of VRFs, and counts for nobody else.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scopes {
    /// Their pools, by name.
    pub(crate) pools: BTreeMap<String, IpPool>,
    /// Their claims on blocks, by object name.
    affinities: BTreeMap<String, (VrfName, Affinity)>,
    /// The same, by range.
    blocks: BTreeMap<VrfName, Blocks>,
    /// Their pods, on this node or another.
    pub(crate) endpoints: BTreeMap<NamespacedName, Arc<WorkloadEndpoint>>,
}

impl Scopes {
    /// Takes note of a claim; `None` if it is gone, or nobody's VRF. Returns whether that is news.
    pub(crate) fn claim(&mut self, name: String, new: Option<&(VrfName, Affinity)>) -> bool {
        let old = match new {
            Some(new) => self.affinities.insert(name, new.clone()),
            None => self.affinities.remove(&name),
        };
        if old.as_ref() == new {
            return false;
        }
        if let Some((vrf, affinity)) = &old {
            self.blocks.entry(vrf.clone()).or_default().replace(Some(affinity), None);
        }
        if let Some((vrf, affinity)) = new {
            self.blocks.entry(vrf.clone()).or_default().replace(None, Some(affinity));
        }
        true
    }

    /// Returns the names of other nodes' claims.
    pub(crate) fn others(&self, this_node: &NodeName) -> Vec<String> {
        let is_own =
            |affinity: &Affinity| matches!(&affinity.owner, Owner::Host(node) if node == this_node);
        let others = self.affinities.iter().filter(|(_, (_, affinity))| !is_own(affinity));
        others.map(|(name, _)| name.clone()).collect()
    }

    /// Does a route to this pod depend on more than its node's blocks?
    pub(crate) fn is_lent(&self, pod: &WorkloadEndpoint) -> bool {
        let Some(vrf) = &pod.vrf else { return false };
        let blocks = self.blocks.get(vrf);
        let owner = |addr| blocks.and_then(|blocks| blocks.owner_of(addr));
        pod.addrs.iter().any(|addr| owner(*addr) != Some(&pod.node))
    }

    /// Returns the names of those that have pods on a node.
    fn on(&self, node: &NodeName) -> BTreeSet<&VrfName> {
        let pods = self.endpoints.values().filter(|pod| pod.node == *node);
        pods.filter_map(|pod| pod.vrf.as_ref()).collect()
    }

    /// Returns a VRF's blocks that are a node's beyond doubt.
    pub(crate) fn blocks_of<'a>(
        &'a self,
        vrf: &'a VrfName,
        node: &'a NodeName,
    ) -> impl Iterator<Item = Cidr> + 'a {
        let of_vrf = self.affinities.values().filter(move |(name, _)| name == vrf);
        blocks_of(of_vrf.map(|(_, affinity)| affinity), node)
    }

    /// Returns a VRF's pools.
    pub(crate) fn pools_of(&self, vrf: &VrfName) -> impl Iterator<Item = &IpPool> {
        let pools = self.pools.values();
        pools.filter(move |pool| pool.vrf.as_ref().is_some_and(|of| of.name == *vrf))
    }

    /// Returns a VRF's pods.
    pub(crate) fn pods_of(&self, vrf: &VrfName) -> impl Iterator<Item = &WorkloadEndpoint> {
        let pods = self.endpoints.values().map(Arc::as_ref);
        pods.filter(move |pod| pod.vrf.as_ref() == Some(vrf))
    }
}

/// Returns the VRFs that have effect, wherever they are.
pub(crate) fn known(cluster: &Cluster, problems: &mut Vec<Problem>) -> BTreeMap<VrfName, Vrf> {
    if cluster.scopes.pools.is_empty() {
        return BTreeMap::new();
    }
    let mut found = vrfs(cluster.all_pools());
    let of_pool = |pool: &str, message| Problem { object: format!("IPPool {pool}"), message };
    problems.extend(found.problems.iter().map(|(pool, why)| of_pool(pool, why.clone())));
    let taken = |id: VrfId| {
        if id.vni() == cluster.tunnels.vni {
            return Some("vxlanVNI");
        }
        let ranges = &cluster.table_ranges;
        ranges.iter().any(|range| range.contains(&id.table())).then_some("routeTableRanges")
    };
    for pool in cluster.scopes.pools.values() {
        let Some(vrf) = pool.vrf.as_ref().filter(|vrf| found.by_name.contains_key(&vrf.name))
        else {
            continue;
        };
        let message = if let Some(field) = taken(vrf.id) {
            format!(
                "VRF {} cannot have the number {} (annotation vrf.projectcalico.org/id): \
                 FelixConfiguration has it in {field}. Give the VRF another, or change {field}",
                vrf.name, vrf.id
            )
        } else if let Some((node, addr)) = node_in(cluster, pool) {
            format!(
                "node {node}'s own address {addr} lies in {}: what VRF {} sends there reaches \
                 the node and no pod. Use ranges without nodes' addresses",
                pool.cidr, vrf.name
            )
        } else {
            continue;
        };
        problems.push(of_pool(&pool.name, message));
    }
    found.by_name.retain(|_, vrf| taken(vrf.id).is_none());
    let names: BTreeSet<VrfName> = found.by_name.keys().cloned().collect();
    for vrf in found.by_name.values_mut() {
        vrf.partners.retain(|partner| partner.as_ref().is_none_or(|name| names.contains(name)));
    }
    found.by_name
}

/// Returns the first node whose own address is one of a pool's.
fn node_in<'a>(cluster: &'a Cluster, pool: &IpPool) -> Option<(&'a NodeName, IpAddr)> {
    cluster.nodes.values().find_map(|node| {
        let addr = node.addr(pool.family())?.addr();
        pool.cidr.contains(addr).then_some((&node.name, addr))
    })
}

/// Calculates what this node should have of all VRFs.
pub(crate) fn of(cluster: &Cluster, problems: &mut Vec<Problem>) -> VrfDevices {
    let vrfs = known(cluster, problems);
    let Some(this) = cluster.node() else { return VrfDevices::default() };
    let local = cluster.scopes.on(&this.name);
    let kept = local.iter().filter(|name| !vrfs.contains_key(**name));
    let kept: BTreeSet<VrfName> = kept.map(|name| (*name).clone()).collect();
    problems.extend(kept.iter().map(|name| Problem {
        object: format!("VRF {name}"),
        message: format!(
            "pods of node {} are in it, but no pool makes it: it stays there as it is. Bring its \
             pools back, or end the pods",
            this.name
        ),
    }));
    let is_selected = |name: &VrfName| {
        let mut pools = cluster.scopes.pools_of(name);
        local.contains(name) || pools.any(|pool| pool.node_selector.matches(&this.labels))
    };
    let is_here = |name: &VrfName, vrf: &Vrf| {
        let is_partner_here = |partner: &Option<VrfName>| partner.as_ref().is_none_or(is_selected);
        is_selected(name) || vrf.partners.iter().any(is_partner_here)
    };
    let here: BTreeMap<&VrfName, &Vrf> =
        vrfs.iter().filter(|(name, vrf)| is_here(name, vrf)).collect();
    if forbids_tunnels(cluster) {
        problems.extend(here.keys().map(|name| {
            Problem {
                object: format!("VRF {name}"),
                message: "its packets between nodes would be in clear, which wireguardStrictMode \
                      forbids: its pods reach those of their own node only. Set \
                      wireguardHostEncryptionEnabled in FelixConfiguration"
                    .to_owned(),
            }
        }));
    }
    let mut devices = VrfDevices { kept, ..VrfDevices::default() };
    for (name, vrf) in here {
        let tunnels = tunnels(cluster, this, vrf);
        let way = Way { cluster, this, tunnels: &tunnels };
        let own = way.to(Some(name));
        problems.extend(shared(cluster, name));
        if vrf.partners.contains(&None) {
            devices.main_routes.extend(own.clone());
        }
        let mut routes = own;
        for partner in &vrf.partners {
            routes.extend(way.to(partner.as_ref()));
        }
        let entries = entries(cluster, vrf.id, &routes);
        routes.extend(to_gateway(name, &tunnels));
        let links = cluster.scopes.pods_of(name).filter(|pod| pod.node == this.name);
        let device = VrfDevice {
            id: vrf.id,
            links: links.map(|pod| pod.if_name.clone()).collect(),
            tunnels: tunnels.into_values().collect(),
            entries,
            routes,
        };
        devices.by_name.insert(name.clone(), device);
    }
    devices
}

/// Must nothing of pods leave in clear, as it would in a tunnel of ours? `WireGuard` encrypts what is
/// between nodes' own addresses only where it is asked to.
fn forbids_tunnels(cluster: &Cluster) -> bool {
    let wireguard = &cluster.wireguard;
    !wireguard.devices.is_empty()
        && wireguard.strictness == Strictness::Strict
        && wireguard.host_encryption == HostEncryption::Off
}

/// A VRF's tunnels of this node, by the family of what is in them.
type Tunnels = BTreeMap<Family, (IfName, TunnelDevice)>;

fn tunnels(cluster: &Cluster, this: &Node, vrf: &Vrf) -> Tunnels {
    let settings = &cluster.tunnels;
    let families: BTreeSet<Family> = vrf.ranges.iter().map(Cidr::family).collect();
    let tunnel = |family: Family| {
        if forbids_tunnels(cluster) || (family == Family::V6 && !settings.has_ipv6) {
            return None;
        }
        let vxlan = Vxlan {
            vni: vrf.id.vni(),
            port: settings.port,
            local: this.addr(family)?.addr(),
            mac: mac(&this.name, vrf.id),
            checksums: settings.checksums.unwrap_or_default(),
        };
        let kind = TunnelDeviceKind::Vxlan(vxlan);
        let device =
            TunnelDevice { kind, mtu: settings.mtu(TunnelKind::vxlan(family)), addr: None };
        Some((family, (vrf.id.tunnel(family)?, device)))
    };
    families.into_iter().filter_map(tunnel).collect()
}

/// Returns the Ethernet address of a node's tunnels of a VRF, which every node can calculate: one
/// of those that are locally administered (IEEE 802).
fn mac(node: &NodeName, id: VrfId) -> MacAddr {
    let [first, rest @ ..] = <[u8; 32]>::from(Sha256::digest(format!("{id} {node}")));
    let [second, third, fourth, fifth, sixth, ..] = rest;
    MacAddr([(first & 0xfc) | 0x02, second, third, fourth, fifth, sixth])
}

/// How packets of a VRF reach pods from this node.
struct Way<'a> {
    cluster: &'a Cluster,
    this: &'a Node,
    tunnels: &'a Tunnels,
}

/// A pod of another node: where it runs, and its addresses.
type Far<'a> = (&'a NodeName, &'a [IpAddr]);

impl Way<'_> {
    /// Returns the routes to the pods of a VRF, or to those of none.
    fn to(&self, scope: Option<&VrfName>) -> BTreeMap<Cidr, Route> {
        let Self { cluster, this, .. } = self;
        let (blocks, local, far): (_, Vec<&WorkloadEndpoint>, Vec<Far<'_>>) =
            if let Some(name) = scope {
                let pods = cluster.scopes.pods_of(name);
                let (local, far): (Vec<_>, Vec<_>) = pods.partition(|pod| pod.node == this.name);
                let far = far.into_iter().map(|pod| (&pod.node, pod.addrs.as_slice()));
                (cluster.scopes.blocks.get(name), local, far.collect())
            } else {
                let far = cluster.remote.values().map(|pod| (&pod.node, &*pod.addrs));
                let local = cluster.endpoints.values().map(Arc::as_ref);
                (Some(&cluster.blocks), local.collect(), far.collect())
            };
        let mut routes = BTreeMap::new();
        for (block, owner) in blocks.into_iter().flat_map(Blocks::iter) {
            let target = if *owner == this.name {
                // That of a single address would hide the pod's own route.
                (!block.is_host()).then_some(RouteTarget::Blackhole)
            } else {
                self.to_node(owner, block.family())
            };
            routes.extend(target.map(|target| (block, route(target, RouteProtocol::CALICO))));
        }
        for (node, addrs) in far {
            for addr in addrs {
                if blocks.and_then(|blocks| blocks.owner_of(*addr)) == Some(node) {
                    continue;
                }
                let target = self.to_node(node, Family::of(*addr));
                let lent = target.map(|target| route(target, RouteProtocol::CALICO));
                routes.extend(lent.map(|route| (Cidr::host(*addr), route)));
            }
        }
        // Of two with one address the first has it.
        for pod in local.into_iter().rev() {
            let target = RouteTarget::Link(pod.if_name.clone());
            let route = route(target, cluster.device_route_protocol);
            routes.extend(pod.addrs.iter().map(|addr| (Cidr::host(*addr), route.clone())));
        }
        routes
    }

    /// Returns the way to another node, if there is one.
    fn to_node(&self, node: &NodeName, family: Family) -> Option<RouteTarget> {
        let (device, _) = self.tunnels.get(&family)?;
        let addr = self.cluster.nodes.get(node)?.addr(family)?;
        Some(RouteTarget::Tunnel(device.clone(), addr.addr()))
    }
}

/// Returns the local pods of a VRF whose address another one has before them.
fn shared(cluster: &Cluster, name: &VrfName) -> Vec<Problem> {
    let mut holders = BTreeMap::new();
    let mut problems = Vec::new();
    let local = cluster.scopes.pods_of(name).filter(|pod| pod.node == cluster.this_node);
    for (pod, addr) in local.flat_map(|pod| pod.addrs.iter().map(move |addr| (pod, addr))) {
        let holder: &NamespacedName = holders.entry(addr).or_insert(&pod.pod);
        if *holder != pod.pod {
            problems.push(Problem {
                object: format!("pod {}", pod.pod),
                message: format!(
                    "address {addr} already belongs to pod {holder} of this node and VRF {name}, \
                     which keeps it. Delete one of the two pods"
                ),
            });
        }
    }
    problems
}

const fn route(target: RouteTarget, protocol: RouteProtocol) -> Route {
    Route { target, protocol }
}

/// Returns what leads packets to the nodes that routes lead to.
fn entries(
    cluster: &Cluster,
    id: VrfId,
    routes: &BTreeMap<Cidr, Route>,
) -> BTreeMap<TunnelEntryKey, TunnelEntry> {
    let ends: BTreeSet<_> = routes
        .values()
        .filter_map(|route| match &route.target {
            RouteTarget::Tunnel(device, addr) => Some((addr, device)),
            RouteTarget::Link(_) | RouteTarget::Blackhole | RouteTarget::Via(_) => None,
        })
        .collect();
    let nodes = cluster.nodes.values().flat_map(|node| {
        let addrs = Family::ALL.into_iter().filter_map(|family| node.addr(family));
        addrs.map(|addr| (addr.addr(), &node.name))
    });
    let nodes: BTreeMap<_, _> = nodes.collect();
    let pairs = ends.into_iter().filter_map(|(addr, device)| {
        let mac = mac(nodes.get(addr)?, id);
        Some([
            (TunnelEntryKey::Neighbour(device.clone(), *addr), TunnelEntry::Mac(mac)),
            (TunnelEntryKey::Forward(device.clone(), mac), TunnelEntry::Node(*addr)),
        ])
    });
    pairs.flatten().collect()
}

/// Returns the route by which the host's side of pods' links answers ARP for their gateway. What
/// is sent to the gateway itself ends in the tunnel, where nobody has that address.
fn to_gateway(name: &VrfName, tunnels: &Tunnels) -> Option<(Cidr, Route)> {
    let tunnel = tunnels.get(&Family::V4).map(|(device, _)| device.clone());
    let device = tunnel.or_else(|| name.device())?;
    let target = RouteTarget::Link(device);
    Some((Cidr::host(GATEWAY_V4.into()), route(target, RouteProtocol::CALICO)))
}

#[cfg(test)]
mod tests;
