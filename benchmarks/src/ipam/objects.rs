//! The cluster: nodes, one large pool, and the blocks of nodes that are not measured.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use http::Method;
use ipam::slots;
use lab::rest::Request;
use model::block::{Affinity, AffinityState, Block, Owner};
use model::net::Cidr;
use model::time::WallTime;
use serde_json::json;

use super::Extent;

/// How many nodes get their first address at each size of the cluster.
pub(super) const FRESH: usize = 10;
/// The first address of the other nodes' blocks: the upper half of the pool.
const OTHERS_FROM: u32 = 0x0a80_0000;
const BLOCK: u8 = 26;
const BLOCK_SIZE: u32 = 64;

/// Returns what must be there before anything can be assigned.
pub(super) fn cluster(extent: &Extent) -> String {
    let mut manifests = String::from(
        "apiVersion: crd.projectcalico.org/v1\n\
         kind: ClusterInformation\n\
         metadata: {name: default}\n\
         spec: {datastoreReady: true}\n\
         ---\n\
         apiVersion: crd.projectcalico.org/v1\n\
         kind: IPPool\n\
         metadata: {name: default-ipv4-ippool}\n\
         spec: {cidr: 10.0.0.0/8, blockSize: 26, nodeSelector: all()}\n",
    );
    let nodes = extent.nodes.iter().copied().max().unwrap_or(1);
    let nodes = (0..nodes).map(|number| format!("node-{number}"));
    let rounds = 0..extent.others.len();
    let fresh = rounds.flat_map(|round| (0..FRESH).map(move |one| format!("fresh-{round}-{one}")));
    for node in nodes.chain(fresh) {
        let node = format!("---\napiVersion: v1\nkind: Node\nmetadata: {{name: {node}}}\n");
        // Writing to a string cannot fail.
        let _ = manifests.write_str(&node);
    }
    manifests
}

/// Returns the creation of the claim of another node.
pub(super) fn affinity(number: usize) -> Request {
    let state = AffinityState::Confirmed;
    let object = Affinity { owner: owner(number), cidr: cidr(number), state, is_deleted: false };
    create("blockaffinities", &json!(api::BlockAffinity::from_model(&object)))
}

/// Returns the creation of the block of another node, with a pod in it.
pub(super) fn block(number: usize) -> Request {
    let now = WallTime(1_700_000_000_000_000_000);
    let clock = slots::Clock { now, cooldown: std::time::Duration::ZERO };
    let holder = model::block::Attributes {
        handle: Some(model::id::HandleId(format!("k8s-pod-network.other-{number}"))),
        ..model::block::Attributes::default()
    };
    let fresh = slots::fresh(cidr(number), owner(number), now);
    let block = fresh.and_then(|block| slots::allocate(&block, 0, &holder, clock));
    let object = block.as_ref().map(|block: &Block| json!(api::IpamBlock::from_model(block)));
    create("ipamblocks", &object.unwrap_or_default())
}

fn create(kind: &str, object: &serde_json::Value) -> Request {
    let path = format!("/apis/crd.projectcalico.org/v1/{kind}");
    Request::json(Method::POST, &path, object)
}

fn owner(number: usize) -> Owner {
    let name = format!("other-{number}");
    name.parse().map_or_else(|_| Owner::Virtual(name.clone()), Owner::Host)
}

fn cidr(number: usize) -> Cidr {
    let offset = u32::try_from(number).unwrap_or(u32::MAX).saturating_mul(BLOCK_SIZE);
    let first = Ipv4Addr::from(OTHERS_FROM.saturating_add(offset));
    Cidr::containing(first.into(), BLOCK).unwrap_or_else(|_| Cidr::host(first.into()))
}
