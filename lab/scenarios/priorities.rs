//! The metrics of kernel routes, changed while pods talk.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use lab::Error;
use lab::cluster::{Cluster, Fabric, Families, Plan, eventually};
use lab::control_plane::Kind;
use lab::node::Node;
use lab::rest::Request;
use lab::routes;
use serde_json::{Value, json};

use super::connections::SETTINGS;
use super::faults;

/// How long new metrics may take.
const WITHIN: Duration = Duration::from_secs(30);
/// What Calico gives to all routes.
const ORDINARY: u64 = 1024;
/// What own routes get instead: worse than before.
const OWN: u64 = 1500;
/// What is told to the other node instead: better than before.
const TOLD: u64 = 700;

/// Routes get other metrics, better and worse ones, and no packet is lost.
pub(crate) fn change_live(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let plan = Plan { control_plane, nodes: 2, families: Families::V4, fabric: Fabric::Bridge };
    let mut cluster = Cluster::up(dir, plan, &mut |step| eprintln!("{step}"))?;
    cluster.add_pods("pod", 2)?;
    require_metrics(&cluster, ORDINARY, ORDINARY)?;
    let flows = faults::flows(&cluster, "node-1", "node-2")?;
    for (from, to) in &flows {
        cluster.node(&from.node)?.start_flow(&from.pod.container, to.addr()?)?;
    }
    // Looked at all the time, so that what a look would undo is seen.
    let settings = json!({"spec": {"ipv4NormalRoutePriority": OWN, "routeRefreshInterval": "1s"}});
    cluster.api.send(Request::merge(SETTINGS, &settings))?.success()?;
    require_metrics(&cluster, OWN, ORDINARY)?;
    let spec = json!({"ipv4NormalRoutePriority": TOLD});
    let told = cluster.api.create::<api::BgpConfiguration>(json!({
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "BGPConfiguration",
        "metadata": {"name": "default"},
        "spec": spec,
    }))?;
    require_metrics(&cluster, OWN, TOLD)?;
    cluster.api.delete(&told)?;
    require_metrics(&cluster, OWN, ORDINARY)?;
    // More than one look at the kernel, on a busy machine too.
    std::thread::sleep(faults::OUTAGE.saturating_mul(2));
    for (from, to) in &flows {
        let ledger = cluster.node(&from.node)?.stop_flow(&from.pod.container, to.addr()?)?;
        faults::require_lossless(from, to, &ledger)?;
    }
    Ok(())
}

/// Waits until all nodes' own routes to pods and blocks have one of these metrics, and those that
/// they have learned the other: one route to each destination, as modelled.
fn require_metrics(cluster: &Cluster, own: u64, learned: u64) -> Result<(), Error> {
    eventually("the metrics of routes", WITHIN, || {
        routes::require_as_modelled(cluster)?;
        for node in &cluster.nodes {
            let found = metrics(node)?;
            let is_right = |(is_learned, metrics): (&bool, &Vec<u64>)| {
                let wanted = if *is_learned { learned } else { own };
                metrics.iter().all(|metric| *metric == wanted)
            };
            let (of_own, of_learned) = (found.get(&false), found.get(&true));
            let counts = (of_own.map(Vec::len), of_learned.map(Vec::len));
            // A block and a pod here, and a block there.
            if counts != (Some(2), Some(1)) || !found.iter().all(is_right) {
                return Err(Error::wrong(format!("{}: {found:?}", node.name)));
            }
        }
        Ok(())
    })
}

/// Returns the metrics of a node's routes to pods and blocks, by whether they are learned.
fn metrics(node: &Node) -> Result<BTreeMap<bool, Vec<u64>>, Error> {
    let text = node.run(&["ip", "-json", "-4", "route", "show", "table", "main"])?;
    let routes: Vec<Value> = serde_json::from_str(&text).map_err(Error::wrong)?;
    let mut found: BTreeMap<bool, Vec<u64>> = BTreeMap::new();
    for route in &routes {
        let dst = route.get("dst").and_then(Value::as_str).unwrap_or_default();
        if dst.starts_with("10.244.") {
            let metric = route.get("metric").and_then(Value::as_u64).unwrap_or(0);
            found.entry(route.get("gateway").is_some()).or_default().push(metric);
        }
    }
    Ok(found)
}
