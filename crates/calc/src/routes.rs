//! The routes that follow from the datastore alone.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use model::desired::{Route, RouteProtocol, RouteTarget};
use model::net::Cidr;
use model::peer::PeerRemote;

use crate::{Cluster, Problem};

/// Returns a route to each address of each local pod, and a blackhole for each own block.
///
/// The blackhole keeps packets to free addresses of the block from leaving by
/// the default route, and from looping between this node and its router. A
/// block of a single address has none: it would hide the pod's own route.
pub(crate) fn local(cluster: &Cluster, problems: &mut Vec<Problem>) -> BTreeMap<Cidr, Route> {
    let blackhole = Route { target: RouteTarget::Blackhole, protocol: RouteProtocol::CALICO };
    let mut routes: BTreeMap<Cidr, Route> = cluster
        .own_blocks()
        .filter(|block| !block.is_host())
        .map(|block| (block, blackhole.clone()))
        .collect();
    routes.extend(to_peers(cluster));
    for endpoint in cluster.endpoints.values() {
        for addr in &endpoint.addrs {
            let route = Route {
                target: RouteTarget::Link(endpoint.if_name.clone()),
                protocol: cluster.device_route_protocol,
            };
            match routes.entry(Cidr::host(*addr)) {
                Entry::Vacant(entry) => {
                    entry.insert(route);
                }
                Entry::Occupied(other) => problems.push(Problem {
                    object: format!("pod {}", endpoint.pod),
                    message: format!(
                        "address {addr} already belongs to another pod of this node ({}); \
                         its route is kept. Delete one of the two pods",
                        other.get()
                    ),
                }),
            }
        }
    }
    // As in Calico the floating address has a route as well, so that it is announced.
    let (floating, refused) = cluster.floating();
    problems.extend(refused);
    for (addr, destination) in floating {
        let target = RouteTarget::Link(destination.endpoint.if_name.clone());
        let route = Route { target, protocol: cluster.device_route_protocol };
        routes.entry(Cidr::host(addr)).or_insert(route);
    }
    routes
}

/// Returns a route to each peer of this node that a gateway leads to (`reachableBy`).
fn to_peers(cluster: &Cluster) -> impl Iterator<Item = (Cidr, Route)> {
    let node = cluster.node();
    let peers = cluster
        .peers
        .values()
        .filter(move |peer| node.is_some_and(|node| crate::sessions::is_for(peer, node)));
    peers.filter_map(|peer| {
        let gateway = peer.reachable_by?;
        let PeerRemote::Router { addr, .. } = &peer.remote else { return None };
        let target = RouteTarget::Via(BTreeSet::from([gateway]));
        Some((Cidr::host(*addr), Route { target, protocol: RouteProtocol::CALICO }))
    })
}
