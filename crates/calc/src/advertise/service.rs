//! Which addresses of Services this node announces.

use std::collections::BTreeSet;
use std::net::IpAddr;

use model::id::NamespacedName;
use model::net::{Cidr, Family};
use model::service::{Service, ServiceKind};

use crate::Cluster;

/// The label of nodes that load balancers leave out (Kubernetes,
/// "well-known labels": `node.kubernetes.io/exclude-from-external-load-balancers`).
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Returns the configured ranges: what is learned inside them is never written into the kernel,
/// since every node answers for Services by itself.
pub(crate) fn ranges(cluster: &Cluster) -> BTreeSet<Cidr> {
    cluster.bgp.services.ranges().collect()
}

/// Returns the ranges that a route reflector passes on.
pub(super) fn reflected(cluster: &Cluster) -> impl Iterator<Item = Cidr> {
    let is_reflector = cluster.node().is_some_and(|node| node.route_reflector_cluster_id.is_some());
    let services = is_reflector.then_some(&cluster.bgp.services);
    let ranges = services.into_iter().flat_map(|all| [&all.external, &all.load_balancer]);
    ranges.flatten().copied()
}

/// Returns what this node announces for Services: whole ranges, and single addresses where
/// traffic must come to this very node.
pub(super) fn announced(cluster: &Cluster) -> BTreeSet<Cidr> {
    let services = &cluster.bgp.services;
    let is_excluded = |label: &String| label == "true";
    match cluster.node() {
        Some(node) if !node.labels.get(EXCLUDED).is_some_and(is_excluded) => {}
        Some(_) | None => return BTreeSet::new(),
    }
    let balanced = services.load_balancer.iter().filter(|_| services.is_aggregated);
    let whole = services.cluster.iter().chain(&services.external).chain(balanced);
    let whole = whole.filter(|range| !range.is_host()).copied();
    let answering = Answering::of(cluster);
    let single = cluster.services.values().flat_map(|each| addrs(cluster, &answering, each));
    whole.chain(single.map(Cidr::host)).collect()
}

/// Returns the addresses of one Service that this node announces by themselves.
fn addrs(cluster: &Cluster, answering: &Answering<'_>, service: &Service) -> Vec<IpAddr> {
    let services = &cluster.bgp.services;
    let is_reachable = match service.kind {
        ServiceKind::ClusterIp | ServiceKind::NodePort | ServiceKind::LoadBalancer => {
            !service.cluster_addrs.is_empty()
        }
        ServiceKind::ExternalName => false,
    };
    if !is_reachable {
        return Vec::new();
    }
    let is_single = |range: &&Cidr| range.is_host();
    let within = |addr: &IpAddr, ranges: &[Cidr]| ranges.iter().any(|range| range.contains(*addr));
    let external = service.external_addrs.iter().filter(|addr| within(addr, &services.external));
    let balanced =
        service.load_balancer_addrs.iter().filter(|addr| within(addr, &services.load_balancer));
    if service.is_external_traffic_local {
        let cluster_addrs = service.cluster_addrs.iter();
        let cluster_addrs = cluster_addrs.filter(|addr| within(addr, &services.cluster));
        let all = cluster_addrs.chain(external).chain(balanced).copied();
        return all
            .filter(|addr| answering.here.contains(&(&service.id, Family::of(*addr))))
            .collect();
    }
    let alone = |addr: &&IpAddr, ranges: &[Cidr]| {
        ranges.iter().filter(is_single).any(|range| range.contains(**addr))
    };
    let external = external.filter(|addr| alone(addr, &services.external));
    let balanced = balanced.filter(|addr| {
        let is_alive = || answering.anywhere.contains(&(&service.id, Family::of(**addr)));
        alone(addr, &services.load_balancer) || (!services.is_aggregated && is_alive())
    });
    external.chain(balanced).copied().collect()
}

/// The Services that have a ready endpoint, by the endpoint's family.
#[derive(Default)]
struct Answering<'a> {
    /// On this node.
    here: BTreeSet<(&'a NamespacedName, Family)>,
    /// On any node.
    anywhere: BTreeSet<(&'a NamespacedName, Family)>,
}

impl<'a> Answering<'a> {
    fn of(cluster: &'a Cluster) -> Self {
        let mut answering = Self::default();
        for slice in cluster.endpoint_slices.values() {
            let Some(name) = slice.service.clone() else { continue };
            let id = NamespacedName { namespace: slice.id.namespace.clone(), name };
            let Some(service) = cluster.services.get(&id) else { continue };
            for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.is_ready) {
                let key = endpoint.addrs.iter().map(|addr| (&service.id, Family::of(*addr)));
                if endpoint.node.as_ref() == Some(&cluster.this_node) {
                    answering.here.extend(key.clone());
                }
                answering.anywhere.extend(key);
            }
        }
        answering
    }
}

#[cfg(test)]
mod tests;
