//! WireGuard between nodes: who is a peer, what is his, and which way packets go (wireguard(7)).
//!
//! ```text
//!  a packet without our mark ── rule ──► the device's table
//!                                          ├─ a peer's addresses ──► the device, encrypted
//!                                          ├─ this node's own, and those of nodes without
//!                                          │  WireGuard ──► throw: on to the main table
//!                                          └─ else, in strict mode, all pools ──► nowhere
//! ```
//!
//! A destination decides, never what is known of a pod: a block stays its node's when a pod in it
//! goes, so what is sent to one that is just ending is encrypted all the same. In strict mode
//! there is no address of a pool for which a packet could fall through to the main table, whatever
//! is known of it, but those of this node; and nodes without WireGuard are not reached.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use model::desired::{WireguardDevice, WireguardPeer, WireguardRoute};
use model::id::NodeName;
use model::net::{Cidr, Family, IfName};
use model::node::{Node, TunnelKind};
use model::wireguard::PublicKey;

use crate::{Cluster, Problem};

/// Kubernetes' labels of the nodes that its API server may run on.
const CONTROL_PLANE: [&str; 2] =
    ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];

/// What administrators decide about WireGuard.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct WireguardSettings {
    /// The device of each family that has one.
    pub devices: BTreeMap<Family, DeviceSettings>,
    /// Whether packets between nodes' own addresses are encrypted, too.
    pub host_encryption: HostEncryption,
    /// What becomes of packets to pools that cannot be encrypted.
    pub strictness: Strictness,
    /// How often something is sent when there is nothing to send; zero is never.
    pub keepalive: Duration,
    /// The place of the rules.
    pub rule_priority: u32,
    /// The bit of packets that carry others.
    pub mark: u32,
}

/// A device, as administrators want it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeviceSettings {
    /// Its name.
    pub name: IfName,
    /// The UDP port of all nodes.
    pub port: u16,
    /// Its table.
    pub table: u32,
}

/// Are packets between nodes' own addresses encrypted?
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum HostEncryption {
    /// Only packets from and to pods are.
    #[default]
    Off,
    /// They are, but for nodes of the control plane: a node that has lost its key asks the API
    /// server for help, and must be understood there.
    On,
}

/// What becomes of packets to pools that cannot be encrypted?
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Strictness {
    /// They go in clear, as in Calico.
    #[default]
    Lenient,
    /// They go nowhere.
    Strict,
}

/// Returns the devices of this node.
pub(crate) fn of(
    cluster: &Cluster,
    problems: &mut Vec<Problem>,
) -> BTreeMap<Family, WireguardDevice> {
    let settings = &cluster.wireguard;
    let Some(this) = cluster.node() else { return BTreeMap::new() };
    let devices = settings.devices.iter().map(|(family, device)| {
        let mut made = WireguardDevice {
            name: device.name.clone(),
            family: *family,
            port: device.port,
            mtu: cluster.tunnels.mtu(TunnelKind::wireguard(*family)),
            mark: settings.mark,
            addr: this.tunnel_addrs.get(TunnelKind::wireguard(*family)),
            peers: BTreeMap::new(),
            table: device.table,
            rule_priority: settings.rule_priority,
            routes: BTreeMap::new(),
        };
        fill(&mut made, cluster, this, problems);
        (*family, made)
    });
    devices.collect()
}

/// Adds peers and routes.
fn fill(device: &mut WireguardDevice, cluster: &Cluster, this: &Node, problems: &mut Vec<Problem>) {
    let owned = owned(cluster, device.family);
    let keys = keys(cluster, this, device.family, problems);
    let settings = &cluster.wireguard;
    if settings.strictness == Strictness::Strict {
        let pools = cluster.pools.values().map(|pool| pool.cidr);
        let pools = pools.filter(|pool| pool.family() == device.family);
        device.routes.extend(pools.map(|pool| (pool, WireguardRoute::Blackhole)));
    }
    for (name, mut cidrs) in owned {
        let node = cluster.nodes.get(&name);
        let peer = node.and_then(|node| Some((node, keys.get(&name)?)));
        let key_and_addr =
            peer.and_then(|(node, key)| Some((node, *key, node.addr(device.family)?)));
        let Some((node, key, addr)) = key_and_addr else {
            let route = match settings.strictness {
                Strictness::Strict if name != this.name => WireguardRoute::Blackhole,
                Strictness::Strict | Strictness::Lenient => WireguardRoute::Throw,
            };
            device.routes.extend(cidrs.into_iter().map(|cidr| (cidr, route)));
            continue;
        };
        if encrypts_hosts(cluster, this) && encrypts_hosts(cluster, node) {
            cidrs.insert(Cidr::host(addr.addr()));
        }
        device.routes.extend(cidrs.iter().map(|cidr| (*cidr, WireguardRoute::Encrypted)));
        let peer_addr = SocketAddr::new(addr.addr(), device.port);
        let peer = WireguardPeer { peer_addr, keepalive: settings.keepalive, allowed: cidrs };
        device.peers.insert(key, peer);
    }
}

/// Returns what is whose, of all nodes: each prefix is one node's.
///
/// This node's blocks, and its addresses in others' blocks, are in there: in the table they lead
/// back to the main one.
fn owned(cluster: &Cluster, family: Family) -> BTreeMap<NodeName, BTreeSet<Cidr>> {
    let mut owners: BTreeMap<Cidr, NodeName> = BTreeMap::new();
    for (block, owner) in cluster.blocks.iter().filter(|(block, _)| block.family() == family) {
        owners.entry(block).or_insert_with(|| owner.clone());
    }
    let tunnels = cluster
        .nodes
        .values()
        .flat_map(|node| node.tunnel_addrs.iter().map(move |addr| (addr, &node.name)));
    let far = cluster.remote.values();
    let far = far.flat_map(|pod| pod.addrs.iter().map(move |addr| (*addr, &pod.node)));
    let own = cluster.endpoints.values();
    let own = own.flat_map(|pod| pod.addrs.iter().map(move |addr| (*addr, &pod.node)));
    for (addr, owner) in tunnels.chain(far).chain(own) {
        if Family::of(addr) == family && cluster.blocks.owner_of(addr) != Some(owner) {
            owners.entry(Cidr::host(addr)).or_insert_with(|| owner.clone());
        }
    }
    let mut owned: BTreeMap<NodeName, BTreeSet<Cidr>> =
        cluster.nodes.keys().map(|name| (name.clone(), BTreeSet::new())).collect();
    for (cidr, owner) in owners {
        owned.entry(owner).or_default().insert(cidr);
    }
    owned
}

/// Returns the keys of the other nodes. Two nodes with one key (a cloned machine) have none.
fn keys(
    cluster: &Cluster,
    this: &Node,
    family: Family,
    problems: &mut Vec<Problem>,
) -> BTreeMap<NodeName, PublicKey> {
    let mut owners: BTreeMap<PublicKey, Vec<&NodeName>> = BTreeMap::new();
    for node in cluster.nodes.values() {
        if let Some(key) = node.tunnel_addrs.wireguard_key(family) {
            owners.entry(key).or_default().push(&node.name);
        }
    }
    let mut keys = BTreeMap::new();
    for (key, names) in owners {
        match names.as_slice() {
            [name] if **name == this.name => {}
            [name] => {
                keys.insert((*name).clone(), key);
            }
            _ => problems.extend(names.iter().map(|name| Problem {
                object: format!("node {name}"),
                message: format!(
                    "its WireGuard key is that of another node, too ({} have it), so none of \
                     them is talked to by WireGuard. Give one a new key there: \
                     `calico-node wireguard rotate`",
                    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                ),
            })),
        }
    }
    keys
}

/// Does this node encrypt packets from and to its own addresses?
fn encrypts_hosts(cluster: &Cluster, node: &Node) -> bool {
    let is_control_plane = CONTROL_PLANE.iter().any(|label| node.labels.contains_key(*label));
    cluster.wireguard.host_encryption == HostEncryption::On && !is_control_plane
}

#[cfg(test)]
mod tests;
