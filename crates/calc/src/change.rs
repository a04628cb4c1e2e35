//! One change of the datastore, as this node takes note of it.

use std::collections::BTreeMap;

use std::sync::Arc;

use model::bgp_filter::BgpFilter;
use model::block::Affinity;
use model::endpoint::WorkloadEndpoint;
use model::id::{NamespacedName, NodeName};
use model::node::Node;
use model::peer::{BgpConfiguration, BgpNodeConfiguration, BgpPeer};
use model::pool::IpPool;
use model::service::{EndpointSlice, Service};

use crate::{Cluster, SecretValues};

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
    /// How one node speaks BGP otherwise.
    NodeBgp(NodeName, Option<Box<BgpNodeConfiguration>>),
    /// A configured peer.
    Peer(String, Option<Box<BgpPeer>>),
    /// A filter for peers.
    Filter(String, Option<Box<BgpFilter>>),
    /// A Secret that a password lies in.
    Secret(String, SecretValues),
    /// A Service.
    Service(NamespacedName, Option<Arc<Service>>),
    /// Some of those who answer for a Service.
    EndpointSlice(NamespacedName, Option<Arc<EndpointSlice>>),
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
            Change::NodeBgp(name, own) => put(&mut self.node_bgp, name, own.map(|own| *own)),
            Change::Peer(name, peer) => put(&mut self.peers, name, peer.map(|peer| *peer)),
            Change::Filter(name, filter) => {
                put(&mut self.filters, name, filter.map(|filter| *filter));
            }
            Change::Secret(name, values) => put(&mut self.secrets, name, Some(values)),
            Change::Service(name, service) => put(&mut self.services, name, service),
            Change::EndpointSlice(name, slice) => put(&mut self.endpoint_slices, name, slice),
        }
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}
