//! Pods come and go; what they leave must be exactly what the objects say.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use lab::Error;
use lab::cluster::{Cluster, Fabric, Families, Plan, RunningPod, eventually};
use lab::control_plane::Kind;
use lab::node::Node;
use lab::reachability::Matrix;
use lab::routes;
use serde_json::Value;

use super::peers::release_blocks;

/// How long sessions and routes may take.
const WITHIN: Duration = Duration::from_secs(30);

/// Every node's routes equal the model of the API's objects, whatever happened before.
pub(crate) fn routes_as_modelled(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let plan = Plan { control_plane, nodes: 3, families: Families::Dual, fabric: Fabric::Bridge };
    let mut cluster = Cluster::up(dir, plan, &mut |step| eprintln!("{step}"))?;
    let modelled = |cluster: &Cluster, when: &str| {
        eventually(when, WITHIN, || routes::require_as_modelled(cluster))
    };
    cluster.add_pods("first", 9)?;
    modelled(&cluster, "routes as modelled after the first pods")?;
    cluster.remove_pods(|pod| pod.pod.name.ends_with(['1', '2', '3', '4']))?;
    cluster.add_pods("second", 6)?;
    modelled(&cluster, "routes as modelled after churn")?;
    Matrix::probe(&cluster, WITHIN)?.require_full()?;
    for pod in &cluster.pods {
        cluster.node(&pod.node)?.check(&pod.pod)?;
    }
    cluster.remove_pods(|pod| pod.node == "node-3")?;
    release_blocks(&cluster, "node-3")?;
    modelled(&cluster, "routes as modelled after a node's blocks were released")?;
    cluster.add_pods("third", 6)?;
    modelled(&cluster, "routes as modelled after new blocks were claimed")?;
    Matrix::probe(&cluster, WITHIN)?.require_full()
}

/// DEL of everything, twice, leaves no link, route, address, handle or file.
pub(crate) fn nothing_is_left(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let plan = Plan { control_plane, nodes: 2, families: Families::Dual, fabric: Fabric::Bridge };
    let mut cluster = Cluster::up(dir, plan, &mut |step| eprintln!("{step}"))?;
    cluster.add_pods("pod", 8)?;
    let pods: Vec<RunningPod> = cluster.pods.clone();
    cluster.remove_pods(|_| true)?;
    for pod in &pods {
        // The runtime repeats a DEL when it does not know how the first one ended.
        cluster.node(&pod.node)?.del(&pod.pod)?;
    }
    eventually("routes as modelled", WITHIN, || routes::require_as_modelled(&cluster))?;
    for node in &cluster.nodes {
        require_clean(node)?;
    }
    let handles = cluster.api.list::<api::IpamHandle>()?;
    let pods = cluster.api.list::<core::Pod>()?;
    if !handles.is_empty() || !pods.is_empty() {
        return Err(Error::wrong(format!("left in the API: {handles:?} {pods:?}")));
    }
    require_no_address(&cluster)
}

/// No block holds an address of anybody.
pub(super) fn require_no_address(cluster: &Cluster) -> Result<(), Error> {
    for block in cluster.api.list::<api::IpamBlock>()? {
        let block = serde_json::to_value(&block).map_err(Error::wrong)?;
        let allocations = block.pointer("/spec/allocations").and_then(Value::as_array);
        let is_free = |slots: &Vec<Value>| !slots.is_empty() && slots.iter().all(Value::is_null);
        let attributes = block.pointer("/spec/attributes").and_then(Value::as_array);
        if !allocations.is_some_and(is_free) || attributes.is_none_or(|left| !left.is_empty()) {
            return Err(Error::wrong(format!("addresses left in {block}")));
        }
    }
    Ok(())
}

fn require_clean(node: &Node) -> Result<(), Error> {
    let links = node.run(&["ip", "-brief", "link", "show"])?;
    let routes = node.run(&["ip", "route", "show", "table", "all"])?;
    let files = node.run(&["ls", "/run/netns", "/var/lib/cni/results"])?;
    let is_pod = |text: &&str| text.contains("cali") || text.contains("veth");
    let left: Vec<&str> = links.lines().chain(routes.lines()).filter(is_pod).collect();
    let names = files.lines().filter(|line| !line.is_empty() && !line.ends_with(':')).count();
    if left.is_empty() && names == 0 {
        return Ok(());
    }
    Err(Error::wrong(format!("left on {}: {left:?}, files: {files}", node.name)))
}
