//! Routers of others: BIRD 2 as a peer of one node, and between nodes in different subnets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use lab::Error;
use lab::bird::{Bird, Neighbour};
use lab::cluster::{Cluster, Fabric, Families, NAMESPACE, NewPod, Plan, RunningPod, eventually};
use lab::control_plane::Kind;
use lab::demo::bgp::Rack;
use lab::node::Node;
use lab::reachability::Matrix;
use lab::rest::Request;
use lab::routes;
use serde_json::json;

use super::connections::SETTINGS;
use super::unnumbered::{leave_mesh, set_asn};

/// How long sessions and routes may take.
const WITHIN: Duration = Duration::from_secs(30);
/// The router's AS number.
const ROUTER_ASN: u32 = 65001;
/// The cluster's AS number, Calico's default.
const CLUSTER_ASN: u32 = 64512;

/// Where pods peer with their node, and what the pod announces there, of each family.
const SIDES: [Side; 2] = [
    Side { family: "-4", peering: "169.254.200.1", announced: "10.99.0.1", len: 32 },
    Side { family: "-6", peering: "fd00:169:254::1", announced: "fd00:99::1", len: 128 },
];
/// An address of somebody else's on the same interface.
const STRANGE_ADDR: &str = "169.254.200.9/32";
/// Where the pod's router is asked.
const SOCKET: &str = "/run/router.socket";

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
    leave_mesh(&cluster)?;
    let mut neighbours = Vec::new();
    for (node, asn) in cluster.nodes.iter().zip(65011_u32..) {
        set_asn(&cluster, node, asn)?;
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

/// What is of one family.
#[derive(Clone, Copy, Debug)]
struct Side {
    /// The option of ip(8).
    family: &'static str,
    peering: &'static str,
    announced: &'static str,
    /// How long the prefix of one address is.
    len: u8,
}

/// A pod with a router in it peers with its node at addresses that are there for that alone, and
/// what it announces is reached through it.
pub(crate) fn workload(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let plan = Plan { control_plane, nodes: 1, families: Families::Dual, fabric: Fabric::Bridge };
    let mut cluster = Cluster::up(dir, plan, &mut |step| eprintln!("{step}"))?;
    let peer = want_workloads(&cluster)?;
    cluster.add_pod(&NewPod {
        labels: [("app".to_owned(), "router".to_owned())].into(),
        ..NewPod::plain(NAMESPACE, "router", "node-1")
    })?;
    let [pod] = cluster.pods.as_slice() else { return Err(Error::wrong("not one pod")) };
    let node = cluster.node("node-1")?;
    let interface = api::names::host_veth_name(&pod.pod.namespace, &pod.pod.name, "cali");
    let interface = interface.ok_or_else(|| Error::wrong("the pod has no interface"))?.to_string();
    let interface = interface.as_str();
    node.run(&["ip", "address", "add", STRANGE_ADDR, "dev", interface])?;
    let addrs = || node.run(&["ip", "-oneline", "address", "show", "dev", interface]);
    let has = |side: &Side| {
        Ok::<_, Error>(addrs()?.contains(&format!(" {}/{} scope ", side.peering, side.len)))
    };
    for side in &SIDES {
        eventually("the address to peer with", WITHIN, || require(has(side)?, &addrs()?))?;
    }
    start_router(dir, node, pod)?;
    let learned = ["birdc", "-s", SOCKET, "show", "route", "where", "source", "=", "RTS_BGP"];
    eventually("the pod to learn the blocks", WITHIN, || {
        let text = node.run(&learned)?;
        let blocks = routes::blocks(&cluster)?;
        let is_there = blocks.len() == SIDES.len() && blocks.keys().all(|one| text.contains(one));
        require(is_there, &text)
    })?;
    let route = |side: &Side| node.run(&["ip", side.family, "route", "show", side.announced]);
    for (side, addr) in SIDES.iter().zip(pod.addrs()) {
        let way = format!("via {addr} dev {interface} ");
        eventually("the node to learn what the pod announces", WITHIN, || {
            let text = route(side)?;
            require(text.contains(&way), &text)
        })?;
    }
    // Announcing an address does not let a pod send from it: that is for administrators to say.
    let ping = |side: &Side| node.run(&["ping", "-c", "1", "-W", "1", side.announced]);
    for side in &SIDES {
        let has_answered = ping(side).is_ok();
        require(!has_answered, "a pod has sent from an address that it only announces")?;
    }
    let_send(&cluster, pod)?;
    for side in &SIDES {
        eventually("the node to reach what the pod announces", WITHIN, || ping(side).map(drop))?;
    }
    cluster.api.delete(&peer)?;
    for side in &SIDES {
        eventually("the address to go", WITHIN, || require(!has(side)?, &addrs()?))?;
        eventually("its route to go", WITHIN, || {
            let text = route(side)?;
            require(text.is_empty(), &text)
        })?;
    }
    require(addrs()?.contains(STRANGE_ADDR), "somebody else's address has gone, too")
}

/// Has routers in pods peer with their node; returns the object that says so.
fn want_workloads(cluster: &Cluster) -> Result<api::BgpPeer, Error> {
    let [v4, v6] = SIDES;
    cluster.api.create::<api::BgpConfiguration>(json!({
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "BGPConfiguration",
        "metadata": {"name": "default"},
        "spec": {"localWorkloadPeeringIPV4": v4.peering, "localWorkloadPeeringIPV6": v6.peering},
    }))?;
    cluster.api.create::<api::BgpPeer>(json!({
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "BGPPeer",
        "metadata": {"name": "workloads"},
        "spec": {"localWorkloadSelector": "app == 'router'", "asNumber": ROUTER_ASN},
    }))
}

/// Starts BIRD in a pod, which then has what it announces as addresses.
fn start_router(dir: &Path, node: &Node, pod: &RunningPod) -> Result<(), Error> {
    let config = dir.join("router.conf");
    let mut text = format!("router id {};\nprotocol device {{}}\n", pod.addr()?);
    for (Side { family, peering, announced, len }, addr) in SIDES.iter().zip(pod.addrs()) {
        let channel = family.replace('-', "ipv");
        write!(
            text,
            "protocol static {{ {channel}; route {announced}/{len} blackhole; }}\n\
             protocol bgp node_{channel} {{ local {addr} as {ROUTER_ASN}; \
             neighbor {peering} as {CLUSTER_ASN}; \
             multihop; connect retry time 1; connect delay time 1; error wait time 1, 2; \
             {channel} {{ import all; export where source = RTS_STATIC; }}; }}\n"
        )
        .map_err(Error::wrong)?;
    }
    std::fs::write(&config, text).map_err(Error::file(&config))?;
    let config = config.display().to_string();
    let within = ["ip", "netns", "exec", pod.pod.container.as_str()];
    let bird = [&within[..], &["bird", "-f", "-c", &config, "-s", SOCKET]].concat();
    node.start_program("router", &bird, &BTreeMap::new())?;
    for side in &SIDES {
        let add = ["ip", side.family, "address", "add", side.announced, "dev", "lo"];
        node.run(&[&within[..], &add].concat())?;
    }
    Ok(())
}

/// Lets a pod send from what it announces.
fn let_send(cluster: &Cluster, pod: &RunningPod) -> Result<(), Error> {
    let settings = json!({"spec": {"workloadSourceSpoofing": "Any"}});
    cluster.api.send(Request::merge(SETTINGS, &settings))?.success()?;
    let object = cluster.api.get_in::<core::Pod>(NAMESPACE, &pod.pod.name)?;
    let mut object = object.ok_or_else(|| Error::wrong("the pod has gone"))?;
    let allowed = SIDES.map(|side| format!("{}/{}", side.announced, side.len));
    let allowed = json!(allowed).to_string();
    let annotation = (api::annotations::ALLOWED_SOURCE_PREFIXES.to_owned(), allowed);
    object.metadata.annotations.get_or_insert_default().extend([annotation]);
    cluster.api.update(&object).map(drop)
}

fn require(holds: bool, detail: &str) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(Error::wrong(detail)) }
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
