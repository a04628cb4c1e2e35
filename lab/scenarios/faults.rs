//! What breaks, and must not be noticed by pods.

use std::path::Path;
use std::time::Duration;

use http::Method;
use lab::Error;
use lab::cluster::{Cluster, Fabric, Families, Plan, RunningPod, eventually};
use lab::control_plane::Kind;
use lab::protocol::Ledger;
use lab::reachability::Matrix;
use lab::rest::Request;
use lab::routes;
use nix::sys::signal::Signal;
use serde_json::json;

/// How long sessions and routes may take.
const WITHIN: Duration = Duration::from_secs(30);
/// How long an outage lasts: shorter than the graceful restart time of 120 s.
pub(crate) const OUTAGE: Duration = Duration::from_secs(3);

/// Kills calico-node while pods talk: nothing is lost, and the kernel's routes stay as they are.
pub(crate) fn daemon_killed(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let plan = Plan { control_plane, nodes: 2, families: Families::V4, fabric: Fabric::Bridge };
    let mut cluster = Cluster::up(dir, plan, &mut |step| eprintln!("{step}"))?;
    cluster.add_pods("pod", 4)?;
    Matrix::probe(&cluster, WITHIN)?.require_full()?;
    eventually("routes as modelled", WITHIN, || routes::require_as_modelled(&cluster))?;
    let before = eventually("settled addresses", WITHIN, || all_routes(&cluster))?;
    let flows = flows(&cluster, "node-1", "node-2")?;
    for (from, to) in &flows {
        cluster.node(&from.node)?.start_flow(&from.pod.container, to.addr()?)?;
    }
    let victim = cluster.node("node-1")?;
    cluster.end_daemon(victim, Signal::SIGKILL)?;
    std::thread::sleep(OUTAGE);
    require_same(&before, &all_routes(&cluster)?, "while calico-node was dead")?;
    cluster.start_daemon(victim)?;
    cluster.wait_ready()?;
    // What a restart would clean up wrongly, it would clean up by now.
    std::thread::sleep(OUTAGE);
    for (from, to) in &flows {
        let ledger = cluster.node(&from.node)?.stop_flow(&from.pod.container, to.addr()?)?;
        require_lossless(from, to, &ledger)?;
    }
    require_same(&before, &all_routes(&cluster)?, "after calico-node started again")?;
    Matrix::probe(&cluster, WITHIN)?.require_full()
}

/// Starts nodes in a cluster that was installed before there were staged policies.
pub(crate) fn older_definitions(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let plan = Plan { control_plane, nodes: 2, families: Families::V4, fabric: Fabric::Bridge };
    let mut cluster = Cluster::without_daemons(dir, plan, &mut |step| eprintln!("{step}"))?;
    for kind in
        ["stagednetworkpolicies", "stagedglobalnetworkpolicies", "stagedkubernetesnetworkpolicies"]
    {
        let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let path = format!("{definitions}/{kind}.crd.projectcalico.org");
        cluster.api.send(Request::json(Method::DELETE, path, &json!({})))?.success()?;
    }
    for node in &cluster.nodes {
        cluster.start_daemon(node)?;
    }
    cluster.wait_ready()?;
    cluster.add_pods("pod", 4)?;
    Matrix::probe(&cluster, WITHIN)?.require_full()
}

/// Pods keep talking while the API server is down, and new ones come when it is back.
pub(crate) fn api_server_stopped(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let plan = Plan { control_plane, nodes: 2, families: Families::V4, fabric: Fabric::Bridge };
    let mut cluster = Cluster::up(dir, plan, &mut |step| eprintln!("{step}"))?;
    cluster.add_pods("pod", 4)?;
    Matrix::probe(&cluster, WITHIN)?.require_full()?;
    let flows = flows(&cluster, "node-1", "node-2")?;
    for (from, to) in &flows {
        cluster.node(&from.node)?.start_flow(&from.pod.container, to.addr()?)?;
    }
    let before = eventually("settled addresses", WITHIN, || all_routes(&cluster))?;
    cluster.control_plane.stop_api_server();
    std::thread::sleep(OUTAGE);
    Matrix::probe(&cluster, WITHIN)?.require_full()?;
    require_same(&before, &all_routes(&cluster)?, "while the API server was down")?;
    cluster.control_plane.start_api_server()?;
    for (from, to) in &flows {
        let ledger = cluster.node(&from.node)?.stop_flow(&from.pod.container, to.addr()?)?;
        require_lossless(from, to, &ledger)?;
    }
    cluster.add_pods("later", 4)?;
    eventually("routes as modelled", WITHIN, || routes::require_as_modelled(&cluster))?;
    Matrix::probe(&cluster, WITHIN)?.require_full()
}

/// A node whose cable is pulled comes back with all its routes.
pub(crate) fn cable_pulled(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let cut = |cluster: &Cluster| cluster.unplug(cluster.node("node-2")?);
    let mend = |cluster: &Cluster| cluster.plug(cluster.node("node-2")?);
    heal(dir, control_plane, cut, mend)
}

/// Nodes that reach the API server but not each other find together again.
pub(crate) fn partition(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let cut = |cluster: &Cluster| cluster.nodes.iter().try_for_each(|node| cluster.part(node));
    let mend = |cluster: &Cluster| cluster.nodes.iter().try_for_each(|node| cluster.rejoin(node));
    heal(dir, control_plane, cut, mend)
}

fn heal(
    dir: &Path,
    control_plane: Kind,
    cut: impl Fn(&Cluster) -> Result<(), Error>,
    mend: impl Fn(&Cluster) -> Result<(), Error>,
) -> Result<(), Error> {
    let plan = Plan { control_plane, nodes: 2, families: Families::V4, fabric: Fabric::Bridge };
    let mut cluster = Cluster::up(dir, plan, &mut |step| eprintln!("{step}"))?;
    cluster.add_pods("pod", 4)?;
    Matrix::probe(&cluster, WITHIN)?.require_full()?;
    cut(&cluster)?;
    std::thread::sleep(OUTAGE);
    let reached = Matrix::probe(&cluster, Duration::from_secs(1))?;
    if reached.unreached().len() != 8 {
        return Err(Error::wrong(format!("the nodes were parted, and yet:\n{reached}")));
    }
    mend(&cluster)?;
    Matrix::probe(&cluster, WITHIN)?.require_full()?;
    eventually("routes as modelled", WITHIN, || routes::require_as_modelled(&cluster))
}

/// Returns one pair of pods in each direction between two nodes.
pub(crate) fn flows(
    cluster: &Cluster,
    one: &str,
    two: &str,
) -> Result<Vec<(RunningPod, RunningPod)>, Error> {
    let on = |node: &str| {
        let pod = cluster.pods.iter().find(|pod| pod.node == node).cloned();
        pod.ok_or_else(|| Error::wrong(format!("no pod on {node}")))
    };
    let (one, two) = (on(one)?, on(two)?);
    Ok(vec![(one.clone(), two.clone()), (two, one)])
}

fn all_routes(cluster: &Cluster) -> Result<Vec<String>, Error> {
    cluster.nodes.iter().map(routes::verbatim).collect()
}

fn require_same(before: &[String], after: &[String], when: &str) -> Result<(), Error> {
    if before == after {
        return Ok(());
    }
    let (before, after) = (before.join("---\n"), after.join("---\n"));
    Err(Error::wrong(format!("routes changed {when}; before:\n{before}\nafter:\n{after}")))
}

pub(crate) fn require_lossless(
    from: &RunningPod,
    to: &RunningPod,
    ledger: &Ledger,
) -> Result<(), Error> {
    eprintln!("{} -> {}: {ledger:?}", from.pod.name, to.pod.name);
    // Two hundred datagrams are two seconds: less would not have seen the outage.
    if ledger.lost() == 0 && ledger.tcp_error.is_none() && ledger.sent > 200 {
        return Ok(());
    }
    Err(Error::wrong(format!("{} -> {}: {ledger:?}", from.pod.name, to.pod.name)))
}
