//! BGP that goes wrong, and all the places where people hear of it.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use lab::Error;
use lab::cluster::{Cluster, Fabric, Families, Plan, eventually};
use lab::control_plane::Kind;
use lab::node::Node;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// How long it may take until people hear of something.
const WITHIN: Duration = Duration::from_secs(60);
/// The API group of our objects.
const GROUP: &str = "crd.projectcalico.org/v1";
/// Where calico-node shows its metrics.
const METRICS: u16 = 9091;

/// Peers that no node can follow, and a word of what each is told.
const REFUSED: [(&str, &str); 6] = [
    ("bad-as", "asNumber"),
    ("no-password", "key tor of Secret passwords is not there"),
    ("own-address", "is the address of node node-1 itself"),
    ("own-gateway", "reachableBy"),
    ("second-of-two", "is already that of BGPPeer first-of-two"),
    ("unknown-filter", "create BGPFilter nowhere"),
];

/// What cannot be followed is told in `bgp status`, in Events and in a metric, until it is mended;
/// a session that ends is told of, and `CalicoNodeStatus` says how things are.
pub(crate) fn are_told(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let plan = Plan { control_plane, nodes: 2, families: Families::V4, fabric: Fabric::Bridge };
    let mut cluster = Cluster::up(dir, plan, &mut |step| eprintln!("{step}"))?;
    cluster.add_pods("pod", 2)?;
    let node = cluster.node("node-1")?;
    make_refused(&cluster, node)?;
    eventually("the status to name all that is refused", WITHIN, || {
        let refused = refused(&cluster, node)?;
        let all = REFUSED.iter().all(|(name, word)| {
            let object = format!("BGPPeer {name}");
            refused.iter().any(|(known, text)| *known == object && text.contains(word))
        });
        require(all && refused.len() == REFUSED.len(), || format!("{refused:?}"))
    })?;
    for (name, word) in REFUSED {
        let peer = peer(&cluster, name)?;
        eventually(&format!("an Event about {name}"), WITHIN, || {
            require_event(&cluster, ("BGPObjectRefused", "Warning", word), |about| {
                about.kind.as_deref() == Some("BGPPeer") && about.uid == peer.metadata.uid
            })
        })?;
    }
    require_metric(node, "calico_bgp_refused_objects 6")?;
    mend(&cluster, node)?;
    answers(&cluster)?;
    session_ends(&cluster, node)
}

fn make_refused(cluster: &Cluster, node: &Node) -> Result<(), Error> {
    let own = node.addr()?.to_string();
    let specs = [
        ("bad-as", json!({"peerIP": "192.0.2.91", "asNumber": "nonsense"})),
        (
            "no-password",
            json!({"peerIP": "192.0.2.92", "asNumber": 65001,
                   "password": {"secretKeyRef": {"name": "passwords", "key": "tor"}}}),
        ),
        ("own-address", json!({"node": "node-1", "peerIP": own, "asNumber": 64512})),
        (
            "own-gateway",
            json!({"node": "node-1", "peerIP": "192.0.2.93", "asNumber": 65001,
                   "reachableBy": own}),
        ),
        ("first-of-two", json!({"peerIP": "192.0.2.94", "asNumber": 65001})),
        ("second-of-two", json!({"peerIP": "192.0.2.94", "asNumber": 65002})),
        (
            "unknown-filter",
            json!({"peerIP": "192.0.2.95", "asNumber": 65001, "filters": ["nowhere"]}),
        ),
    ];
    for (name, spec) in specs {
        cluster.api.create::<api::BgpPeer>(json!({
            "apiVersion": GROUP, "kind": "BGPPeer", "metadata": {"name": name}, "spec": spec,
        }))?;
    }
    Ok(())
}

/// What is mended is followed, and people hear of that as well.
fn mend(cluster: &Cluster, node: &Node) -> Result<(), Error> {
    cluster.api.create::<api::BgpFilter>(json!({
        "apiVersion": GROUP, "kind": "BGPFilter", "metadata": {"name": "nowhere"}, "spec": {},
    }))?;
    let mended = peer(cluster, "unknown-filter")?;
    eventually("the mended peer to be followed", WITHIN, || {
        let refused = refused(cluster, node)?;
        let is_gone = refused.iter().all(|(object, _)| object != "BGPPeer unknown-filter");
        require(is_gone, || format!("{refused:?}"))?;
        require_event(cluster, ("BGPObjectAccepted", "Normal", "followed again"), |about| {
            about.uid == mended.metadata.uid
        })
    })?;
    for (name, _) in REFUSED {
        cluster.api.delete(&peer(cluster, name)?)?;
    }
    cluster.api.delete(&peer(cluster, "first-of-two")?)
}

/// `CalicoNodeStatus` of one node has its sessions, its speaker and its routes.
fn answers(cluster: &Cluster) -> Result<(), Error> {
    cluster.api.create::<api::CalicoNodeStatus>(json!({
        "apiVersion": GROUP, "kind": "CalicoNodeStatus", "metadata": {"name": "ask"},
        "spec": {"node": "node-1", "classes": ["Agent", "BGP", "Routes"],
                 "updatePeriodSeconds": 1},
    }))?;
    eventually("the node's status", WITHIN, || {
        let object = cluster.api.get::<api::CalicoNodeStatus>("ask")?;
        let status = object.and_then(|object| object.status());
        let status = serde_json::to_value(status).map_err(Error::wrong)?;
        let at = |pointer: &str| status.pointer(pointer).cloned().unwrap_or_default();
        let is_right = at("/agent/birdV4/state") == json!("Ready")
            && at("/agent/birdV6/state") == json!("NotReady")
            && at("/bgp/numberEstablishedV4") == json!(1)
            && at("/bgp/numberNotEstablishedV4") == json!(0)
            && at("/bgp/peersV4/0/peerIP") == json!("192.0.2.12")
            && at("/bgp/peersV4/0/type") == json!("NodeMesh")
            && at("/routes/routesV4/0/gateway") == json!("192.0.2.12")
            && at("/routes/routesV4/0/learnedFrom/sourceType") == json!("NodeMesh");
        require(is_right, || status.to_string())
    })
}

/// A session of the mesh ends with its other end, and is back with it.
fn session_ends(cluster: &Cluster, node: &Node) -> Result<(), Error> {
    let away = cluster.node("node-2")?;
    let is_node = |about: &core::ObjectReference| {
        about.kind.as_deref() == Some("Node") && about.name.as_deref() == Some("node-1")
    };
    require_metric(node, "calico_bgp_peer_up{peer=\"Mesh_192_0_2_12\"} 1")?;
    cluster.end_daemon(away, Signal::SIGKILL)?;
    eventually("an Event about the lost session", WITHIN, || {
        require_event(cluster, ("BGPSessionLost", "Warning", "192.0.2.12"), is_node)
    })?;
    require_metric(node, "calico_bgp_peer_up{peer=\"Mesh_192_0_2_12\"} 0")?;
    cluster.start_daemon(away)?;
    eventually("an Event about the session that is back", WITHIN, || {
        require_event(cluster, ("BGPSessionEstablished", "Normal", "192.0.2.12"), is_node)
    })?;
    require_metric(node, "calico_bgp_peer_establishments{peer=\"Mesh_192_0_2_12\"} 2")?;
    let update = "calico_bgp_peer_messages{peer=\"Mesh_192_0_2_12\",type=\"UPDATE\",way=\"sent\"}";
    require_metric(node, update)
}

fn peer(cluster: &Cluster, name: &str) -> Result<api::BgpPeer, Error> {
    let peer = cluster.api.get::<api::BgpPeer>(name)?;
    peer.ok_or_else(|| Error::wrong(format!("BGPPeer {name} has gone")))
}

/// Returns the objects that a node cannot follow, with the reasons.
fn refused(cluster: &Cluster, node: &Node) -> Result<BTreeSet<(String, String)>, Error> {
    let program = cluster.program("calico-node");
    let text = node.run(&[&program, "bgp", "status", "-o", "json"])?;
    let status: Value = serde_json::from_str(&text).map_err(Error::wrong)?;
    let refused = status.get("refused").and_then(Value::as_array).into_iter().flatten();
    let text = |entry: &Value, key: &str| entry.get(key)?.as_str().map(str::to_owned);
    Ok(refused
        .filter_map(|entry| Some((text(entry, "object")?, text(entry, "problem")?)))
        .collect())
}

/// Fails unless there is such an Event of node-1.
fn require_event(
    cluster: &Cluster,
    (reason, severity, word): (&str, &str, &str),
    is_meant: impl Fn(&core::ObjectReference) -> bool,
) -> Result<(), Error> {
    let events = cluster.api.list::<core::Event>()?;
    let ours = events.iter().filter(|event| {
        let source = event.source.as_ref();
        source.and_then(|source| source.host.as_deref()) == Some("node-1")
    });
    let is_there = ours.clone().any(|event| {
        event.reason.as_deref() == Some(reason)
            && event.type_.as_deref() == Some(severity)
            && event.message.as_deref().is_some_and(|message| message.contains(word))
            && is_meant(&event.involved_object)
    });
    let texts = || ours.map(|event| format!("{:?} {:?}", event.reason, event.message));
    require(is_there, || format!("no {reason} about `{word}`: {:?}", texts().collect::<Vec<_>>()))
}

/// Waits until a node shows a number.
fn require_metric(node: &Node, line: &str) -> Result<(), Error> {
    let addr = node.addr()?;
    eventually("a metric", WITHIN, || {
        let mut stream = TcpStream::connect((addr, METRICS)).map_err(Error::wrong)?;
        let request = "GET /metrics HTTP/1.0\r\nHost: node\r\n\r\n";
        stream.write_all(request.as_bytes()).map_err(Error::wrong)?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map_err(Error::wrong)?;
        let of_bgp: Vec<&str> = text.lines().filter(|each| each.contains("bgp")).collect();
        require(of_bgp.iter().any(|each| each.starts_with(line)), || {
            format!("no {line}: {of_bgp:?}")
        })
    })
}

fn require(is_so: bool, found: impl FnOnce() -> String) -> Result<(), Error> {
    if is_so { Ok(()) } else { Err(Error::wrong(found())) }
}
