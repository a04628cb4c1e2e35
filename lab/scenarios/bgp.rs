//! BGP that changes while pods talk: passwords, reflectors, filters.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::rbac::v1 as rbac;
use lab::Error;
use lab::cluster::{Cluster, Fabric, Families, Plan, eventually};
use lab::control_plane::Kind;
use lab::node::Node;
use lab::reachability::Matrix;
use lab::routes;
use serde_json::{Value, json};

use crate::scenarios::faults;

/// How long sessions and routes may take.
const WITHIN: Duration = Duration::from_secs(60);
/// How many nodes change from a mesh to reflectors; `BGP_NODES` says otherwise.
const NODES: u8 = 6;
/// The API group of our objects.
const GROUP: &str = "crd.projectcalico.org/v1";
/// Where calico-node looks for passwords when it runs in no pod.
const SYSTEM: &str = "kube-system";

/// A mesh becomes two route reflectors with clients, live: nothing is lost. A filter for the
/// reflectors takes effect, and goes, without a new session.
pub(crate) fn mesh_to_reflectors(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let count = std::env::var("BGP_NODES").ok().and_then(|text| text.parse().ok());
    let nodes = count.unwrap_or(NODES);
    let plan = Plan { control_plane, nodes, families: Families::V4, fabric: Fabric::Bridge };
    let mut cluster = Cluster::up(dir, plan, &mut |step| eprintln!("{step}"))?;
    cluster.add_pods("pod", nodes.into())?;
    eventually("routes as modelled", WITHIN, || routes::require_as_modelled(&cluster))?;
    let last = format!("node-{nodes}");
    let mut flows = faults::flows(&cluster, "node-1", &last)?;
    flows.extend(faults::flows(&cluster, "node-3", &last)?);
    for (from, to) in &flows {
        cluster.node(&from.node)?.start_flow(&from.pod.container, to.addr()?)?;
    }
    reflect(&cluster)?;
    let last = cluster.node(&last)?;
    eventually("sessions with the reflectors alone", WITHIN, || {
        let peers = peers(&cluster, last)?;
        require(peers.len() == 2 && peers.iter().all(is_up), || format!("{peers:?}"))
    })?;
    eventually("routes as modelled", WITHIN, || routes::require_as_modelled(&cluster))?;
    // What is cleaned up late would be cleaned up by now.
    std::thread::sleep(faults::OUTAGE.saturating_mul(2));
    for (from, to) in &flows {
        let ledger = cluster.node(&from.node)?.stop_flow(&from.pod.container, to.addr()?)?;
        faults::require_lossless(from, to, &ledger)?;
    }
    Matrix::probe(&cluster, WITHIN)?.require_full()?;
    filter(&cluster, last)
}

/// Makes the first two nodes reflectors, in the order that leaves no moment without a session.
fn reflect(cluster: &Cluster) -> Result<(), Error> {
    let update = |name: &str, change: &dyn Fn(&mut core::Node)| {
        eventually("the node to be written", WITHIN, || {
            let node = cluster.api.get::<core::Node>(name)?;
            let mut node = node.ok_or_else(|| Error::wrong("a node has gone"))?;
            change(&mut node);
            cluster.api.update(&node).map(drop)
        })
    };
    let reflectors = ["node-1", "node-2"];
    for name in reflectors {
        update(name, &|node| {
            let labels = node.metadata.labels.get_or_insert_default();
            labels.insert("reflector".to_owned(), "true".to_owned());
        })?;
    }
    cluster.api.create::<api::BgpPeer>(json!({
        "apiVersion": GROUP, "kind": "BGPPeer", "metadata": {"name": "reflectors"},
        "spec": {"nodeSelector": "all()", "peerSelector": "has(reflector)"},
    }))?;
    for name in reflectors {
        update(name, &|node| {
            let annotations = node.metadata.annotations.get_or_insert_default();
            let name = "projectcalico.org/RouteReflectorClusterID".to_owned();
            annotations.insert(name, "244.0.0.1".to_owned());
        })?;
    }
    for name in reflectors {
        let node = cluster.node(name)?;
        eventually("the reflectors to have all clients", WITHIN, || {
            let peers = peers(cluster, node)?;
            let others = cluster.nodes.len().saturating_sub(1);
            require(peers.iter().filter(|peer| is_up(peer)).count() == others, || {
                format!("{peers:?}")
            })
        })?;
    }
    super::unnumbered::leave_mesh(cluster)
}

/// Keeps all blocks from a node by an import filter, and gives them back.
fn filter(cluster: &Cluster, node: &Node) -> Result<(), Error> {
    let before = established(cluster, node)?;
    cluster.api.create::<api::BgpFilter>(json!({
        "apiVersion": GROUP, "kind": "BGPFilter", "metadata": {"name": "nothing"},
        "spec": {"importV4": [{"action": "Reject"}]},
    }))?;
    let set = |filters: Value| {
        let peer = cluster.api.get::<api::BgpPeer>("reflectors")?;
        let mut peer = peer.ok_or_else(|| Error::wrong("the BGPPeer has gone"))?;
        peer.spec.filters = serde_json::from_value(filters).map_err(Error::wrong)?;
        cluster.api.update(&peer)
    };
    set(json!(["nothing"]))?;
    eventually("all learned routes to go", WITHIN, || {
        let learned = learned(cluster, node)?;
        require(learned == 0, || format!("{learned} routes are left"))
    })?;
    set(json!([]))?;
    eventually("routes as modelled", WITHIN, || routes::require_as_modelled(cluster))?;
    let after = established(cluster, node)?;
    let is_older = before.iter().zip(&after).all(|(before, after)| after >= before);
    require(is_older && before.len() == after.len(), || {
        format!("sessions are {before:?} s old before the filter, {after:?} s after it")
    })
}

/// A mesh gets a password while it runs, from a Secret that a Role for just it lets nodes read.
pub(crate) fn mesh_password(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let plan = Plan { control_plane, nodes: 3, families: Families::V4, fabric: Fabric::Bridge };
    let mut cluster = Cluster::up(dir, plan, &mut |step| eprintln!("{step}"))?;
    cluster.add_pods("pod", 3)?;
    cluster.api.create::<api::BgpConfiguration>(json!({
        "apiVersion": GROUP, "kind": "BGPConfiguration", "metadata": {"name": "default"},
        "spec": {"nodeMeshPassword": {"secretKeyRef": {"name": "bgp", "key": "mesh"}}},
    }))?;
    let node = cluster.node("node-1")?;
    eventually("no session without the password", WITHIN, || {
        let peers = peers(&cluster, node)?;
        require(peers.is_empty(), || format!("{peers:?}"))
    })?;
    cluster.api.create::<rbac::Role>(json!({
        "metadata": {"name": "bgp-passwords", "namespace": SYSTEM},
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["bgp"],
                   "verbs": ["get", "list", "watch"]}],
    }))?;
    cluster.api.create::<rbac::RoleBinding>(json!({
        "metadata": {"name": "bgp-passwords", "namespace": SYSTEM},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role",
                    "name": "bgp-passwords"},
        "subjects": [{"kind": "ServiceAccount", "name": "calico-node", "namespace": SYSTEM}],
    }))?;
    cluster.api.create::<core::Secret>(json!({
        "metadata": {"name": "bgp", "namespace": SYSTEM},
        "stringData": {"mesh": "correct horse"},
    }))?;
    eventually("signed sessions", WITHIN, || {
        let peers = peers(&cluster, node)?;
        require(peers.len() == 2 && peers.iter().all(is_up), || format!("{peers:?}"))
    })?;
    eventually("routes as modelled", WITHIN, || routes::require_as_modelled(&cluster))?;
    Matrix::probe(&cluster, WITHIN)?.require_full()
}

/// Returns what a node says of its peers.
fn peers(cluster: &Cluster, node: &Node) -> Result<Vec<Value>, Error> {
    let text = node.run(&[&cluster.program("calico-node"), "bgp", "peers", "-o", "json"])?;
    serde_json::from_str(&text).map_err(Error::wrong)
}

fn learned(cluster: &Cluster, node: &Node) -> Result<usize, Error> {
    let text = node.run(&[&cluster.program("calico-node"), "bgp", "routes", "-o", "json"])?;
    serde_json::from_str(&text).map(|routes: Vec<Value>| routes.len()).map_err(Error::wrong)
}

fn is_up(peer: &Value) -> bool {
    peer.get("state").and_then(Value::as_str) == Some("Established")
}

/// Returns how old a node's sessions are, in seconds.
fn established(cluster: &Cluster, node: &Node) -> Result<Vec<u64>, Error> {
    let peers = peers(cluster, node)?;
    let up = peers.iter().filter(|peer| is_up(peer));
    Ok(up.filter_map(|peer| peer.get("seconds")?.as_u64()).collect())
}

fn require(is_so: bool, found: impl FnOnce() -> String) -> Result<(), Error> {
    if is_so { Ok(()) } else { Err(Error::wrong(found())) }
}
