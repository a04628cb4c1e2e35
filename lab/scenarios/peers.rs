//! Routers of others: BIRD 2 as a peer of one node, and between nodes in different subnets.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use lab::Error;
use lab::bird::{Bird, Neighbour};
use lab::cluster::{Cluster, Fabric, Families, Plan, eventually};
use lab::control_plane::Kind;
use lab::demo::bgp::Rack;
use lab::reachability::Matrix;
use lab::routes;
use serde_json::json;

/// How long sessions and routes may take.
const WITHIN: Duration = Duration::from_secs(30);
/// The router's AS number.
const ROUTER_ASN: u32 = 65001;
/// The cluster's AS number, Calico's default.
const CLUSTER_ASN: u32 = 64512;

/// A router that peers with one node by a `BGPPeer` holds exactly the cluster's blocks.
pub(crate) fn bird_holds_the_blocks(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let plan = Plan { control_plane, nodes: 3, families: Families::V4, fabric: Fabric::Bridge };
    let mut cluster = Cluster::up(dir, plan, &mut |step| eprintln!("{step}"))?;
    cluster.add_pods("pod", 6)?;
    let node = cluster.node("node-1")?;
    let bird = Bird::start(dir, ROUTER_ASN, &[Neighbour { addr: node.addr()?, asn: CLUSTER_ASN }])?;
    let peer = cluster.api.create::<api::BgpPeer>(json!({
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "BGPPeer",
        "metadata": {"name": "router"},
        "spec": {"node": "node-1", "peerIP": "192.0.2.1", "asNumber": ROUTER_ASN},
    }))?;
    eventually("BIRD to hold the blocks", WITHIN, || require_blocks(&cluster, &bird))?;
    // Blocks that come and go are told, too.
    cluster.add_pods("more", 3)?;
    cluster.remove_pods(|pod| pod.node == "node-3")?;
    release_blocks(&cluster, "node-3")?;
    eventually("BIRD to forget the block", WITHIN, || require_blocks(&cluster, &bird))?;
    cluster.api.delete(&peer)?;
    eventually("BIRD to hold nothing", WITHIN, || {
        let left = bird.destinations()?;
        if left.is_empty() { Ok(()) } else { Err(Error::wrong(format!("still {left:?}"))) }
    })?;
    Matrix::probe(&cluster, WITHIN)?.require_full()
}

/// Nodes in subnets of their own, each with its own AS, learn each other's blocks from a router.
pub(crate) fn routed_fabric(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let plan = Plan { control_plane, nodes: 3, families: Families::V4, fabric: Fabric::Routed };
    let mut cluster = Cluster::without_daemons(dir, plan, &mut |step| eprintln!("{step}"))?;
    cluster.api.create::<api::BgpConfiguration>(json!({
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "BGPConfiguration",
        "metadata": {"name": "default"},
        "spec": {"nodeToNodeMeshEnabled": false},
    }))?;
    let mut neighbours = Vec::new();
    for (node, asn) in cluster.nodes.iter().zip(65011_u32..) {
        let annotations = [("projectcalico.org/ASNumber".to_owned(), asn.to_string())];
        let object = cluster.api.get::<core::Node>(&node.name)?;
        let mut object = object.ok_or_else(|| Error::wrong("a node has gone"))?;
        object.metadata.annotations.get_or_insert_default().extend(annotations);
        cluster.api.update(&object)?;
        let addr = node.addr()?;
        neighbours.push(Neighbour { addr, asn });
        // The router's address in each subnet ends in .1.
        let router = addr.to_string().replace(".10", ".1");
        cluster.api.create::<api::BgpPeer>(json!({
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": "BGPPeer",
            "metadata": {"name": format!("router-of-{}", node.name)},
            "spec": {"node": node.name, "peerIP": router, "asNumber": ROUTER_ASN},
        }))?;
        cluster.start_daemon(node)?;
    }
    let bird = Bird::start(dir, ROUTER_ASN, &neighbours)?;
    cluster.wait_ready()?;
    cluster.add_pods("pod", 9)?;
    eventually("the router to hold the blocks", WITHIN, || require_blocks(&cluster, &bird))?;
    Matrix::probe(&cluster, WITHIN)?.require_full()
}

/// A Service is reached from outside over two switches and all nodes that have an endpoint.
pub(crate) fn rack(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let mut say = |text: &str| eprintln!("{text}");
    Rack::up(dir, control_plane, &mut say)?.show(&mut say)
}

fn require_blocks(cluster: &Cluster, bird: &Bird) -> Result<(), Error> {
    let blocks: BTreeSet<String> = routes::blocks(cluster)?.into_keys().collect();
    let held = bird.destinations()?;
    if held == blocks && !blocks.is_empty() {
        return Ok(());
    }
    let protocols = bird.ask("show protocols all").unwrap_or_default();
    Err(Error::wrong(format!("BIRD holds {held:?}, the cluster has {blocks:?}\n{protocols}")))
}

/// Releases a node's empty blocks, as the garbage collector does.
pub(crate) fn release_blocks(cluster: &Cluster, node: &str) -> Result<(), Error> {
    let cidrs = routes::blocks(cluster)?;
    let cidrs: Vec<_> = cidrs.iter().filter(|(_, owner)| *owner == node).collect();
    for (cidr, _) in cidrs {
        let block = cidr.replace(['.', ':', '/'], "-");
        if let Some(affinity) = cluster.api.get::<api::BlockAffinity>(&format!("{node}-{block}"))? {
            cluster.api.delete(&affinity)?;
        }
        if let Some(block) = cluster.api.get::<api::IpamBlock>(&block)? {
            cluster.api.delete(&block)?;
        }
    }
    Ok(())
}
