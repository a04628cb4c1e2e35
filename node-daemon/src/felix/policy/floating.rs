//! Floating addresses, as the tables translate them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use calc::floating::{self, Standing};
use calc::policy::Policies;
use model::endpoint::WorkloadEndpoint;
use model::id::{NamespacedName, NodeName};
use model::net::{Cidr, Family};
use model::node::Node;

/// What is known of this node's floating addresses.
#[derive(Debug, Default)]
pub(super) struct Floating {
    /// This node's pods that want some.
    wanting: BTreeMap<NamespacedName, Arc<WorkloadEndpoint>>,
    /// Every node's own addresses, those of its tunnels among them.
    nodes: BTreeMap<NodeName, Vec<IpAddr>>,
    /// Where they lead.
    destinations: BTreeMap<IpAddr, IpAddr>,
    /// Are there some that lead nowhere?
    has_refused: bool,
}

impl Floating {
    /// Takes note of a pod of any node; returns whether [`Floating::refresh`] is called for.
    pub(super) fn pod(
        &mut self,
        id: &NamespacedName,
        pod: Option<&Arc<WorkloadEndpoint>>,
        this_node: &NodeName,
    ) -> bool {
        let own = pod.filter(|pod| pod.node == *this_node && !pod.floating.is_empty());
        let old = match own {
            Some(pod) => self.wanting.insert(id.clone(), Arc::clone(pod)),
            None => self.wanting.remove(id),
        };
        let mut addrs = pod.into_iter().flat_map(|pod| &pod.addrs);
        old.is_some()
            || own.is_some()
            || self.has_refused
            || addrs.any(|addr| self.destinations.contains_key(addr))
    }

    /// Takes note of a node.
    pub(super) fn node(&mut self, name: &NodeName, node: Option<&Node>) {
        let addrs = |node: &Node| {
            let own = Family::ALL.into_iter().filter_map(|family| node.addr(family));
            own.map(|own| own.addr()).chain(node.tunnel_addrs.iter()).collect()
        };
        match node.map(addrs) {
            Some(addrs) => self.nodes.insert(name.clone(), addrs),
            None => self.nodes.remove(name),
        };
    }

    /// Finds out anew where they lead; returns whether that has changed.
    pub(super) fn refresh(&mut self, pools: &[Cidr], policies: &Policies) -> bool {
        let local = self.wanting.values().map(Arc::as_ref);
        let (found, refused) = floating::destinations(local, |addr| {
            if !pools.iter().any(|pool| pool.contains(addr)) {
                Standing::Outside
            } else if self.nodes.values().flatten().any(|own| *own == addr)
                || policies.is_of_pod(addr)
            {
                Standing::Taken
            } else {
                Standing::Free
            }
        });
        let found = found.into_iter().map(|(addr, destination)| (addr, destination.addr));
        let old = std::mem::replace(&mut self.destinations, found.collect());
        // Whoever calculates routes tells people.
        self.has_refused = !refused.is_empty();
        old != self.destinations
    }

    /// Returns where they lead.
    pub(super) const fn destinations(&self) -> &BTreeMap<IpAddr, IpAddr> {
        &self.destinations
    }
}
