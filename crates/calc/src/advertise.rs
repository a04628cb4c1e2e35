//! What this node announces by BGP.

mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::desired::{Advertisements, Origination};
use model::net::Cidr;
use model::peer::{Community, PrefixAdvertisement};
use model::pool::IpPool;
use model::vrf::{Vrf, VrfName};

use crate::sessions::asn_of;
use crate::{Cluster, vrf};

pub(crate) use service::ranges as service_ranges;

/// Returns this node's blocks, the addresses of its pods and tunnels that lie in other nodes'
/// blocks, its pods' floating addresses alike, and the addresses of Services.
///
/// Blocks are announced whole, so a pod's coming and going changes nothing for
/// the peers. A borrowed address needs a route of its own, since the block's
/// leads to its owner. Of VRFs it is those that exchange routes with everybody else, whose tables
/// alone the peers' packets can get to; they carry the VRF's number.
pub(crate) fn of(cluster: &Cluster) -> Advertisements {
    let blocks: BTreeSet<Cidr> =
        cluster.own_blocks().filter(|block| is_exported(cluster, block.addr())).collect();
    let is_borrowed = |addr: &IpAddr| !blocks.iter().any(|block| block.contains(*addr));
    let pods = cluster.endpoints.values().flat_map(|endpoint| endpoint.addrs.iter().copied());
    let pods = pods.chain(cluster.floating().0.into_keys());
    let tunnels = cluster.node().into_iter().flat_map(|node| node.tunnel_addrs.iter());
    let borrowed: Vec<Cidr> = pods
        .chain(tunnels)
        .filter(|addr| is_exported(cluster, *addr) && is_borrowed(addr))
        .map(Cidr::host)
        .collect();
    let of_services = service::announced(cluster).into_iter().map(|cidr| (cidr, true));
    let of_pods = blocks.into_iter().chain(borrowed).map(|cidr| (cidr, false));
    let originate = |(cidr, is_service): (Cidr, bool)| {
        (cidr, Origination { communities: communities(cluster, &cidr), is_service })
    };
    let mut originated: BTreeMap<_, _> = of_services.chain(of_pods).map(originate).collect();
    let open = open_vrfs(cluster);
    for (dst, community) in of_vrfs(cluster, &open) {
        let mut communities = communities(cluster, &dst);
        communities.push(community);
        originated.insert(dst, Origination { communities, is_service: false });
    }
    let pools = |is_disabled| {
        let of_vrfs = open.keys().flat_map(|name| cluster.scopes.pools_of(name));
        let pools = cluster.pools.values().chain(of_vrfs);
        let pools = pools.filter(move |pool| pool.is_bgp_export_disabled == is_disabled);
        pools.map(|pool| pool.cidr)
    };
    Advertisements {
        originated,
        exportable: pools(false).chain(service::reflected(cluster)).collect(),
        not_exported: pools(true).collect(),
        marks: marks(cluster),
        priority: cluster.bgp.normal_priority,
    }
}

/// Returns the VRFs that exchange routes with everybody else.
fn open_vrfs(cluster: &Cluster) -> BTreeMap<VrfName, Vrf> {
    let mut known = vrf::known(cluster, &mut Vec::new());
    known.retain(|_, vrf| vrf.partners.contains(&None));
    known
}

/// Returns what this node has of VRFs: whole blocks, and addresses of its pods elsewhere.
fn of_vrfs(cluster: &Cluster, open: &BTreeMap<VrfName, Vrf>) -> BTreeMap<Cidr, Community> {
    let Some(node) = cluster.node() else { return BTreeMap::new() };
    let mut all = BTreeMap::new();
    for (name, vrf) in open {
        let is_told = |addr: IpAddr| {
            let mut pools = cluster.scopes.pools_of(name);
            let pool: Option<&IpPool> = pools.find(|pool| pool.cidr.contains(addr));
            pool.is_some_and(|pool| !pool.is_bgp_export_disabled)
        };
        let blocks = cluster.scopes.blocks_of(name, &node.name);
        let blocks: BTreeSet<Cidr> = blocks.filter(|block| is_told(block.addr())).collect();
        let pods = cluster.scopes.pods_of(name).filter(|pod| pod.node == node.name);
        let addrs = pods.flat_map(|pod| pod.addrs.iter().copied());
        let is_lent = |addr: &IpAddr| !blocks.iter().any(|block| block.contains(*addr));
        let lent = addrs.filter(|addr| is_lent(addr) && is_told(*addr)).map(Cidr::host);
        let target = Community::RouteTarget(asn_of(cluster, node), vrf.id.number());
        all.extend(blocks.iter().copied().chain(lent).map(|dst| (dst, target)));
    }
    all
}

/// Does `addr` lie in a pool whose routes may be announced?
///
/// A disabled pool counts: what was assigned from it before still needs routes.
fn is_exported(cluster: &Cluster, addr: IpAddr) -> bool {
    cluster
        .pools
        .values()
        .find(|pool| pool.cidr.contains(addr))
        .is_some_and(|pool| !pool.is_bgp_export_disabled)
}

/// Returns the communities of all ranges, for routes that are learned inside them.
fn marks(cluster: &Cluster) -> BTreeMap<Cidr, BTreeSet<Community>> {
    let mut marks: BTreeMap<Cidr, BTreeSet<Community>> = BTreeMap::new();
    for range in advertised(cluster) {
        marks.entry(range.cidr).or_default().extend(&range.communities);
    }
    marks
}

fn advertised(cluster: &Cluster) -> &[PrefixAdvertisement] {
    let own = cluster.node_bgp.get(&cluster.this_node);
    let own = own.map(|own| &own.prefix_advertisements).filter(|own| !own.is_empty());
    own.unwrap_or(&cluster.bgp.prefix_advertisements)
}

/// Returns the communities of all ranges that `cidr` lies in; a node's own list replaces the
/// cluster's.
fn communities(cluster: &Cluster, cidr: &Cidr) -> Vec<Community> {
    let covering = advertised(cluster).iter().filter(|range| range.cidr.covers(cidr));
    let communities: BTreeSet<Community> =
        covering.flat_map(|range| range.communities.iter().copied()).collect();
    communities.into_iter().collect()
}
