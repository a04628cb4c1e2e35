//! One change of the datastore, as this node takes note of it.

use std::collections::BTreeMap;

use model::block::Affinity;
use model::endpoint::WorkloadEndpoint;
use model::id::{NamespacedName, NodeName};
use model::node::Node;
use model::peer::{BgpConfiguration, BgpPeer};
use model::pool::IpPool;

use crate::Cluster;

/// An object's new value, or `None` if it is gone.
///
/// An object that was refused at the border is gone too: what cannot be
/// understood is not followed.
#[derive(Clone, Debug)]
pub enum Change {
    /// A node.
    Node(NodeName, Option<Box<Node>>),
    /// A pool.
    Pool(String, Option<Box<IpPool>>),
    /// A claim on a block.
    Affinity(String, Option<Affinity>),
    /// A workload of this node.
    Endpoint(NamespacedName, Option<Box<WorkloadEndpoint>>),
    /// How the cluster speaks BGP; `None` is the default.
    Bgp(Option<Box<BgpConfiguration>>),
    /// A configured peer.
    Peer(String, Option<Box<BgpPeer>>),
}

impl Cluster {
    /// Takes note of `change`.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Node(name, node) => put(&mut self.nodes, name, node.map(|node| *node)),
            Change::Pool(name, pool) => put(&mut self.pools, name, pool.map(|pool| *pool)),
            Change::Affinity(name, affinity) => put(&mut self.affinities, name, affinity),
            Change::Endpoint(name, endpoint) => {
                put(&mut self.endpoints, name, endpoint.map(|endpoint| *endpoint));
            }
            Change::Bgp(bgp) => self.bgp = bgp.map(|bgp| *bgp).unwrap_or_default(),
            Change::Peer(name, peer) => put(&mut self.peers, name, peer.map(|peer| *peer)),
        }
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}
