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
use model::vrf::VrfName;

use crate::far::FarPod;
use crate::{Cluster, SecretValues};

/// An object's new value, or why there is none that can be followed; `None` if it is gone.
pub type Known<T> = Option<Result<Box<T>, String>>;

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
    /// A claim on a block, which is no VRF's.
    Affinity(String, Option<Affinity>),
    /// A claim on a VRF's block.
    VrfAffinity(String, VrfName, Affinity),
    /// A workload, of this node or of another.
    Endpoint(NamespacedName, Option<Arc<WorkloadEndpoint>>),
    /// How the cluster speaks BGP, and what is wrong with fields that are ignored; `None` is the
    /// default.
    Bgp(Option<Box<BgpConfiguration>>, Vec<String>),
    /// How one node speaks BGP otherwise.
    NodeBgp(NodeName, Known<BgpNodeConfiguration>),
    /// A configured peer.
    Peer(String, Known<BgpPeer>),
    /// A filter for peers.
    Filter(String, Known<BgpFilter>),
    /// A Secret that a password lies in.
    Secret(String, SecretValues),
    /// A Service.
    Service(NamespacedName, Option<Arc<Service>>),
    /// Some of those who answer for a Service.
    EndpointSlice(NamespacedName, Option<Arc<EndpointSlice>>),
}

/// What has to be calculated again after a change.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Affected {
    /// [`Cluster::desired`].
    pub desired: bool,
    /// [`Cluster::overlay`].
    pub overlay: bool,
    /// [`Cluster::vrfs`].
    pub vrfs: bool,
}

impl std::ops::BitOrAssign for Affected {
    fn bitor_assign(&mut self, other: Self) {
        self.desired |= other.desired;
        self.overlay |= other.overlay;
        self.vrfs |= other.vrfs;
    }
}

impl Affected {
    /// Everything.
    pub const ALL: Self = Self { desired: true, overlay: true, vrfs: true };

    const fn all(is_new: bool) -> Self {
        Self { desired: is_new, overlay: is_new, vrfs: is_new }
    }

    const fn desired(is_new: bool) -> Self {
        Self { desired: is_new, overlay: false, vrfs: false }
    }
}

impl Cluster {
    /// Takes note of `change`, and returns what that may change in turn.
    pub fn apply(&mut self, change: Change) -> Affected {
        match change {
            Change::Node(name, node) => {
                Affected::all(put(&mut self.nodes, name, node.map(|node| *node)))
            }
            Change::Pool(name, pool) => {
                let (of_vrf, plain) = apart(pool, |pool| pool.vrf.is_some());
                let is_vrfs = put(&mut self.scopes.pools, name.clone(), of_vrf.map(|pool| *pool));
                Affected::all(put(&mut self.pools, name, plain.map(|pool| *pool)) || is_vrfs)
            }
            Change::Affinity(name, affinity) => {
                self.blocks.replace(self.affinities.get(&name), affinity.as_ref());
                let is_vrfs = self.scopes.claim(name.clone(), None);
                Affected::all(put(&mut self.affinities, name, affinity) || is_vrfs)
            }
            Change::VrfAffinity(name, vrf, affinity) => {
                self.blocks.replace(self.affinities.get(&name), None);
                let is_new = self.scopes.claim(name.clone(), Some(&(vrf, affinity)));
                Affected::all(put(&mut self.affinities, name, None) || is_new)
            }
            Change::Endpoint(name, endpoint) => self.apply_endpoint(name, endpoint),
            Change::Bgp(bgp, faults) => {
                let faults = (!faults.is_empty()).then_some(faults);
                let object = "BGPConfiguration default".to_owned();
                let is_judged = put(&mut self.refused, object, faults);
                let bgp = bgp.map(|bgp| *bgp).unwrap_or_default();
                let old = std::mem::replace(&mut self.bgp, bgp);
                Affected::desired(is_judged || old != self.bgp)
            }
            Change::NodeBgp(name, own) => {
                let (own, is_judged) = self.judge(format!("BGPConfiguration node.{name}"), own);
                Affected::desired(put(&mut self.node_bgp, name, own) || is_judged)
            }
            Change::Peer(name, peer) => {
                let (peer, is_judged) = self.judge(format!("BGPPeer {name}"), peer);
                Affected::desired(put(&mut self.peers, name, peer) || is_judged)
            }
            Change::Filter(name, filter) => {
                let (filter, is_judged) = self.judge(format!("BGPFilter {name}"), filter);
                Affected::desired(put(&mut self.filters, name, filter) || is_judged)
            }
            Change::Secret(name, values) => {
                Affected::desired(put(&mut self.secrets, name, Some(values)))
            }
            Change::Service(name, service) => {
                Affected::desired(put(&mut self.services, name, service))
            }
            Change::EndpointSlice(name, slice) => {
                Affected::desired(put(&mut self.endpoint_slices, name, slice))
            }
        }
    }

    /// Returns the object's value, and whether something else is wrong with it than before.
    fn judge<T>(&mut self, object: String, known: Known<T>) -> (Option<T>, bool) {
        let (value, fault) = match known {
            Some(Ok(value)) => (Some(*value), None),
            Some(Err(fault)) => (None, Some(vec![fault])),
            None => (None, None),
        };
        (value, put(&mut self.refused, object, fault))
    }

    /// Pods of other nodes matter only where their address is not in a block of their node.
    fn apply_endpoint(
        &mut self,
        name: NamespacedName,
        endpoint: Option<Arc<WorkloadEndpoint>>,
    ) -> Affected {
        let (of_vrf, endpoint) = apart(endpoint, |endpoint| endpoint.vrf.is_some());
        let vrfs = self.apply_vrf_endpoint(name.clone(), of_vrf);
        let (own, remote) = apart(endpoint, |endpoint| endpoint.node == self.this_node);
        let remote = remote.map(|endpoint| FarPod::from(&*endpoint));
        let old = self.remote.get(&name);
        let is_lent = old
            .into_iter()
            .chain(&remote)
            .any(|pod| pod.addrs.iter().any(|addr| self.blocks.owner_of(*addr) != Some(&pod.node)));
        let is_new = put(&mut self.remote, name.clone(), remote);
        let desired = put(&mut self.endpoints, name, own);
        // Where a floating address leads depends on whose own it is.
        let is_sensitive = self.has_floating
            && is_new
            && self.endpoints.values().any(|pod| !pod.floating.is_empty());
        let overlay = is_new && is_lent;
        // What a VRF has open to everybody is announced, and everybody's pods are in its table.
        let vrfs = vrfs || ((desired || overlay) && !self.scopes.pools.is_empty());
        Affected { desired: desired || is_sensitive || vrfs, overlay, vrfs }
    }

    fn apply_vrf_endpoint(
        &mut self,
        name: NamespacedName,
        endpoint: Option<Arc<WorkloadEndpoint>>,
    ) -> bool {
        let old = self.scopes.endpoints.get(&name);
        let is_seen =
            |pod: &Arc<WorkloadEndpoint>| pod.node == self.this_node || self.scopes.is_lent(pod);
        let is_seen = old.into_iter().chain(&endpoint).any(is_seen);
        put(&mut self.scopes.endpoints, name, endpoint) && is_seen
    }
}

/// Returns the value as the first or as the second of two, of which the other is gone.
fn apart<T>(value: Option<T>, is_first: impl FnOnce(&T) -> bool) -> (Option<T>, Option<T>) {
    match value {
        Some(value) if is_first(&value) => (Some(value), None),
        value => (None, value),
    }
}

/// Returns whether that made a difference.
fn put<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> bool {
    match value {
        Some(value) if map.get(&key) == Some(&value) => false,
        Some(value) => {
            map.insert(key, value);
            true
        }
        None => map.remove(&key).is_some(),
    }
}
