//! What this node announces by BGP.

use std::collections::BTreeSet;
use std::net::IpAddr;

use model::desired::{Advertisements, Origination};
use model::net::Cidr;

use crate::Cluster;

/// Returns this node's blocks, and the addresses of its pods that lie in other nodes' blocks.
///
/// Blocks are announced whole, so a pod's coming and going changes nothing for
/// the peers. A borrowed address needs a route of its own, since the block's
/// leads to its owner.
pub(crate) fn of(cluster: &Cluster) -> Advertisements {
    let blocks: BTreeSet<Cidr> =
        cluster.own_blocks().filter(|block| is_exported(cluster, block.addr())).collect();
    let is_borrowed = |addr: &IpAddr| !blocks.iter().any(|block| block.contains(*addr));
    let borrowed: Vec<Cidr> = cluster
        .endpoints
        .values()
        .flat_map(|endpoint| &endpoint.addrs)
        .filter(|addr| is_exported(cluster, **addr) && is_borrowed(addr))
        .map(|addr| Cidr::host(*addr))
        .collect();
    Advertisements {
        originated: blocks
            .into_iter()
            .chain(borrowed)
            .map(|cidr| (cidr, Origination::default()))
            .collect(),
        exportable: cluster
            .pools
            .values()
            .filter(|pool| !pool.is_bgp_export_disabled)
            .map(|pool| pool.cidr)
            .collect(),
        not_exported: cluster
            .pools
            .values()
            .filter(|pool| pool.is_bgp_export_disabled)
            .map(|pool| pool.cidr)
            .collect(),
    }
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
