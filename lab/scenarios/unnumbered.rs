//! Nodes whose only peer is whoever is on an interface: a router of FRR's, with BFD.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use lab::Error;
use lab::cluster::{Cluster, Fabric, Families, Plan, eventually};
use lab::control_plane::Kind;
use lab::node::Node;
use lab::process::ip;
use lab::reachability::Matrix;
use serde_json::{Value, json};

/// How long sessions and routes may take.
const WITHIN: Duration = Duration::from_secs(30);
/// How soon BFD must tell that nothing comes any more; the Hold Time is a minute and more.
const TOLD_WITHIN: Duration = Duration::from_secs(10);
/// The router's AS number.
const ROUTER_ASN: u32 = 65001;
/// The nodes' interface to the router.
const UPLINK: &str = "eth1";
/// Where FRR's daemons meet, in the router.
const MEETING: &str = "/run/frr-lab";

/// Pods on two nodes reach each other through the router, by IPv6 next hops of link-local addresses
/// (RFC 8950). A link on which nothing comes any more is noticed by BFD, and heals; so does a link
/// that is pulled.
pub(crate) fn through_frr(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let plan = Plan { control_plane, nodes: 2, families: Families::V4, fabric: Fabric::Bridge };
    let mut cluster = Cluster::without_daemons(dir, plan, &mut |step| eprintln!("{step}"))?;
    want_peers(&cluster)?;
    let router = Node::start("router", &dir.join("nodes").join("router"))?;
    for (node, asn) in cluster.nodes.iter().zip(65011_u32..) {
        set_asn(&cluster, node, asn)?;
        connect(&router, node)?;
    }
    start_frr(&router, &cluster)?;
    for node in &cluster.nodes {
        cluster.start_daemon(node)?;
    }
    cluster.wait_ready()?;
    cluster.add_pods("pod", 2)?;
    require_way(&cluster)?;
    let [node, ..] = cluster.nodes.as_slice() else { return Err(Error::wrong("no node")) };
    let port = port(node);
    // Nothing of the node's comes to the router any more, while the link stays up.
    let deaf = format!(
        "table ip6 deaf {{ chain in {{ type filter hook input priority 0; iifname {port} drop; }}; }}"
    );
    router.run(&["nft", &deaf])?;
    eventually("BFD to end the session", TOLD_WITHIN, || {
        let peers = peers(&cluster, node)?;
        let is_up = peers.iter().any(|peer| said(peer, "state") == "Established");
        require(!is_up && learned(node)?.is_empty(), || format!("{peers:?}"))
    })?;
    router.run(&["nft", "delete", "table", "ip6", "deaf"])?;
    require_way(&cluster)?;
    router.run(&["ip", "link", "set", &port, "down"])?;
    eventually("the routes over the link to go", TOLD_WITHIN, || {
        let left = learned(node)?;
        require(left.is_empty(), || left)
    })?;
    router.run(&["ip", "link", "set", &port, "up"])?;
    require_way(&cluster)
}

/// Waits until both nodes have a session under BFD and a way to the other's block by the router,
/// and the pods reach each other.
fn require_way(cluster: &Cluster) -> Result<(), Error> {
    for node in &cluster.nodes {
        eventually("the session and its routes", WITHIN, || {
            let (peers, learned) = (peers(cluster, node)?, learned(node)?);
            let is_up =
                |peer: &Value| said(peer, "state") == "Established" && said(peer, "bfd") == "Up";
            let is_by_router =
                learned.contains("via inet6 fe80::") && learned.contains(&format!("dev {UPLINK}"));
            let is_one = learned.lines().count() == 1;
            require(peers.len() == 1 && peers.iter().all(is_up) && is_by_router && is_one, || {
                format!("{}: {peers:?}\n{learned}", node.name)
            })
        })?;
    }
    Matrix::probe(cluster, WITHIN)?.require_full()
}

/// Has the cluster peer with whoever is on the nodes' interface to the router, and with nobody else.
fn want_peers(cluster: &Cluster) -> Result<(), Error> {
    leave_mesh(cluster)?;
    cluster.api.create::<api::BgpPeer>(json!({
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "BGPPeer",
        "metadata": {"name": "router", "annotations": {
            "bgp.projectcalico.org/interface": UPLINK,
            "bgp.projectcalico.org/bfd-interval": "300ms",
        }},
        "spec": {"asNumber": ROUTER_ASN},
    }))?;
    Ok(())
}

/// Ends the mesh: nodes have no peers but those that are named.
pub(super) fn leave_mesh(cluster: &Cluster) -> Result<(), Error> {
    cluster.api.create::<api::BgpConfiguration>(json!({
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "BGPConfiguration",
        "metadata": {"name": "default"},
        "spec": {"nodeToNodeMeshEnabled": false},
    }))?;
    Ok(())
}

/// Gives a node an AS of its own.
pub(super) fn set_asn(cluster: &Cluster, node: &Node, asn: u32) -> Result<(), Error> {
    let annotation = ("projectcalico.org/ASNumber".to_owned(), asn.to_string());
    let object = cluster.api.get::<core::Node>(&node.name)?;
    let mut object = object.ok_or_else(|| Error::wrong("a node has gone"))?;
    object.metadata.annotations.get_or_insert_default().extend([annotation]);
    cluster.api.update(&object).map(drop)
}

/// Lays a cable from the router to a node.
fn connect(router: &Node, node: &Node) -> Result<(), Error> {
    let (ours, theirs) = (router.pid().to_string(), node.pid().to_string());
    let port = port(node);
    let link = ["link", "add", &port, "netns", &ours, "type", "veth"];
    ip(&[&link[..], &["peer", "name", UPLINK, "netns", &theirs]].concat())?;
    router.run(&["ip", "link", "set", &port, "up"])?;
    node.run(&["ip", "link", "set", UPLINK, "up"]).map(drop)
}

/// Returns the router's end of a node's cable.
fn port(node: &Node) -> String {
    format!("to-{}", node.name)
}

/// Starts a router that forwards by what it learns from whoever is on its links.
fn start_frr(router: &Node, cluster: &Cluster) -> Result<(), Error> {
    let mut text = format!(
        "frr defaults traditional\nrouter bgp {ROUTER_ASN}\n bgp router-id 192.0.2.254\n \
         no bgp ebgp-requires-policy\n"
    );
    for node in &cluster.nodes {
        let port = port(node);
        for line in ["interface remote-as external", "timers connect 1", "bfd"] {
            writeln!(text, " neighbor {port} {line}").map_err(Error::wrong)?;
        }
    }
    router.run(&["sysctl", "-qw", "net.ipv4.ip_forward=1"])?;
    // FRR's daemons give up their rights, and make their sockets then.
    router.run(&["install", "-d", "-m", "777", MEETING])?;
    let config = format!("{MEETING}/bgpd.conf");
    router.run(&["sh", "-c", &format!("printf %s \"$1\" > {config}"), "sh", &text])?;
    let [zserv, control] = ["zserv", "bfdd.sock"].map(|name| format!("{MEETING}/{name}"));
    let start = |daemon: &str, more: &[&str], socket: &str| {
        let (program, pid) = (format!("/usr/lib/frr/{daemon}"), format!("{MEETING}/{daemon}.pid"));
        let meet = [&program, "-z", &zserv, "--vty_socket", MEETING, "-i", &pid];
        router.start_program(daemon, &[&meet[..], more].concat(), &BTreeMap::new())?;
        let socket = format!("{MEETING}/{socket}");
        eventually("FRR to answer", WITHIN, || router.run(&["test", "-e", &socket]).map(drop))
    };
    start("zebra", &[], "zserv")?;
    start("bfdd", &["--bfdctl", &control], "bfdd.vty")?;
    start("bgpd", &["-f", &config], "bgpd.vty")
}

/// Returns what a node says of its peers.
fn peers(cluster: &Cluster, node: &Node) -> Result<Vec<Value>, Error> {
    let text = node.run(&[&cluster.program("calico-node"), "bgp", "peers", "-o", "json"])?;
    serde_json::from_str(&text).map_err(Error::wrong)
}

/// Returns the routes of a node that lead over gateways, to pods elsewhere.
fn learned(node: &Node) -> Result<String, Error> {
    let routes =
        node.run(&["ip", "-4", "route", "show", "proto", "80", "root", "10.244.0.0/16"])?;
    Ok(routes.lines().filter(|line| line.contains("via ")).collect::<Vec<_>>().join("\n"))
}

fn said<'a>(peer: &'a Value, field: &str) -> &'a str {
    peer.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn require(is_so: bool, found: impl FnOnce() -> String) -> Result<(), Error> {
    if is_so { Ok(()) } else { Err(Error::wrong(found())) }
}
