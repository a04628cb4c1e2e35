//! Addresses that are lost are found and given back; addresses in use never are.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use lab::Error;
use lab::cluster::{Cluster, Fabric, Families, Plan, RunningPod, eventually};
use lab::control_plane::Kind;
use lab::process::output;
use model::block::Block;
use nix::sys::signal::Signal;
use serde_json::json;

/// How long a release may take: two looks, a grace period apart, and a new election.
const WITHIN: Duration = Duration::from_secs(60);
/// How long it is watched that nothing happens: some looks.
const CALM: Duration = Duration::from_secs(8);

/// Nodes reboot without a DEL, handles are orphaned, a node goes for good: in the end exactly
/// the addresses of live pods are taken.
pub(crate) fn lost_addresses(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let mut cluster = up(dir, control_plane, 3)?;
    cluster.add_pods("pod", 12)?;
    let controllers = cluster.start_controllers(dir)?;
    for round in 1..=3 {
        // A reboot: the pods' objects are replaced, and nobody says DEL.
        forget_pods(&mut cluster, |pod| pod.pod.name.ends_with(['1', '2', '3']))?;
        cluster.add_pods(&format!("again-{round}"), 4)?;
    }
    for number in 0..200 {
        let name = format!("k8s-pod-network.orphan{number}");
        cluster.api.create::<api::IpamHandle>(json!({
            "metadata": {"name": name},
            "spec": {"handleID": name, "block": {"10.244.255.0/26": 1}, "deleted": false},
        }))?;
    }
    eventually("only live addresses are taken", WITHIN, || require_exact(&cluster))?;
    // A node goes for good, and its pods with it.
    let gone = "node-3";
    cluster.end_daemon(cluster.node(gone)?, Signal::SIGTERM)?;
    forget_pods(&mut cluster, |_| true)?;
    delete_node(&cluster, gone)?;
    eventually("nothing is taken", WITHIN, || require_exact(&cluster))?;
    eventually("the node's blocks are gone", WITHIN, || {
        let claims = cluster.api.list::<api::BlockAffinity>()?;
        let left: Vec<_> = claims.iter().filter(|claim| claim.spec.node == gone).collect();
        require(left.is_empty(), || format!("left of {gone}: {left:?}"))
    })?;
    controllers.require_running()
}

/// Nodes vanish from the API, pods churn, the API server and the controller are restarted: no
/// address in use is released, and without nodes nothing at all is.
pub(crate) fn live_addresses(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let mut cluster = up(dir, control_plane, 2)?;
    cluster.add_pods("pod", 8)?;
    let controllers = cluster.start_controllers(dir)?;
    ready(&cluster)?;
    forget_pods(&mut cluster, |pod| pod.pod.name.ends_with('1'))?;
    let nodes = cluster.api.list::<core::Node>()?;
    for node in &nodes {
        cluster.api.delete(node)?;
    }
    let before = taken(&cluster)?;
    eventually("the controller refuses", WITHIN, || {
        let ask = ask(&cluster);
        let refusal = ask.err().map(|error| error.to_string()).unwrap_or_default();
        require(refusal.contains("list of nodes is empty"), || format!("it says: {refusal}"))
    })?;
    require_calm(&cluster, &before)?;
    for node in nodes {
        let metadata =
            json!({"name": node.metadata.name, "annotations": node.metadata.annotations});
        cluster.api.create::<core::Node>(json!({"metadata": metadata}))?;
    }
    controllers.end(Signal::SIGKILL);
    cluster.control_plane.stop_api_server();
    cluster.control_plane.start_api_server()?;
    let controllers = cluster.start_controllers(dir)?;
    cluster.add_pods("later", 4)?;
    eventually("only the lost address is released", WITHIN, || require_exact(&cluster))?;
    let live = taken(&cluster)?;
    require_calm(&cluster, &live)?;
    controllers.require_running()
}

/// Pods come and go on four nodes, every third without a DEL, and the API server is restarted
/// in between: in the end exactly the addresses of live pods are taken.
///
/// `CHURN_PODS` pods, 20 if it is not set, come in each of `CHURN_ROUNDS` rounds, 5 if not.
pub(crate) fn churn(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let (pods, rounds) = (number("CHURN_PODS", 20)?, number("CHURN_ROUNDS", 5)?);
    let mut cluster = up(dir, control_plane, 4)?;
    let controllers = cluster.start_controllers(dir)?;
    for round in 1..=rounds {
        cluster.add_pods(&format!("round-{round}"), pods)?;
        forget_pods(&mut cluster, |pod| pod.pod.name.ends_with(['3', '6', '9']))?;
        // A small share stays for the whole time, and one round's pods must wait for the server.
        if round % 5 == 3 {
            cluster.control_plane.stop_api_server();
            cluster.control_plane.start_api_server()?;
        }
        let stays = |name: &str| name.ends_with("10");
        cluster.remove_pods(|pod| !stays(&pod.pod.name))?;
        eprintln!("round {round} of {rounds}: {} pods stay", cluster.pods.len());
    }
    eventually("only live addresses are taken", WITHIN, || require_exact(&cluster))?;
    let live = taken(&cluster)?;
    require(live.len() == cluster.pods.len(), || format!("taken: {live:?}"))?;
    controllers.require_running()
}

fn number(variable: &str, default: usize) -> Result<usize, Error> {
    std::env::var(variable).map_or(Ok(default), |text| text.parse().map_err(Error::wrong))
}

/// Starts a cluster whose controller is impatient.
fn up(dir: &Path, control_plane: Kind, nodes: u8) -> Result<Cluster, Error> {
    let plan = Plan { control_plane, nodes, families: Families::V4, fabric: Fabric::Bridge };
    let cluster = Cluster::up(dir, plan, &mut |step| eprintln!("{step}"))?;
    make_impatient(&cluster)?;
    Ok(cluster)
}

/// Has the controller release soon what is lost.
pub(super) fn make_impatient(cluster: &Cluster) -> Result<(), Error> {
    let configuration = cluster.api.create::<api::KubeControllersConfiguration>(json!({
        "metadata": {"name": "default"},
        "spec": {"controllers": {"node": {"leakGracePeriod": "2s"}}},
    }));
    configuration.map(drop)
}

/// Deletes the objects of pods, as if their nodes had been reset.
pub(super) fn forget_pods(
    cluster: &mut Cluster,
    is_chosen: impl Fn(&RunningPod) -> bool,
) -> Result<(), Error> {
    let (chosen, rest): (Vec<_>, Vec<_>) =
        std::mem::take(&mut cluster.pods).into_iter().partition(is_chosen);
    cluster.pods = rest;
    for pod in chosen {
        // Its link goes with the reset: a route to an address that is given away again would
        // be in the way.
        let link = api::names::host_veth_name(&pod.pod.namespace, &pod.pod.name, "cali");
        let link = link.ok_or_else(|| Error::wrong(format!("{} has no link", pod.pod.name)))?;
        cluster.node(&pod.node)?.run(&["ip", "link", "delete", &link.to_string()])?;
        let object = cluster.api.get_in::<core::Pod>(&pod.pod.namespace, &pod.pod.name)?;
        object.map_or(Ok(()), |object| cluster.api.delete(&object))?;
    }
    Ok(())
}

pub(super) fn delete_node(cluster: &Cluster, name: &str) -> Result<(), Error> {
    let node = cluster.api.get::<core::Node>(name)?;
    node.map_or(Ok(()), |node| cluster.api.delete(&node))
}

/// Returns the addresses that blocks say are taken.
fn taken(cluster: &Cluster) -> Result<BTreeSet<IpAddr>, Error> {
    let mut taken = BTreeSet::new();
    for object in cluster.api.list::<api::IpamBlock>()? {
        let block = Block::try_from(&object).map_err(Error::wrong)?;
        let slots = (0_u128..).zip(&block.allocations).filter(|(_, slot)| slot.is_some());
        taken.extend(slots.filter_map(|(ordinal, _)| block.cidr.nth(ordinal)));
    }
    Ok(taken)
}

/// Requires that the addresses of live pods are taken, no others, and by as many handles.
fn require_exact(cluster: &Cluster) -> Result<(), Error> {
    let live: BTreeSet<IpAddr> =
        cluster.pods.iter().flat_map(|pod| pod.addrs().iter().copied()).collect();
    let taken = taken(cluster)?;
    require(taken == live, || format!("taken: {taken:?}, in use: {live:?}"))?;
    let handles = cluster.api.list::<api::IpamHandle>()?.len();
    require(handles == cluster.pods.len(), || {
        format!("{handles} handles for {} pods", cluster.pods.len())
    })
}

/// Requires that for some looks nothing is released.
fn require_calm(cluster: &Cluster, before: &BTreeSet<IpAddr>) -> Result<(), Error> {
    std::thread::sleep(CALM);
    let after = taken(cluster)?;
    require(after == *before, || format!("before: {before:?}, after: {after:?}"))
}

fn ready(cluster: &Cluster) -> Result<(), Error> {
    eventually("the controller is ready", WITHIN, || ask(cluster).map(drop))
}

/// Asks the controller whether it is ready, as the kubelet does.
fn ask(cluster: &Cluster) -> Result<String, Error> {
    let program = cluster.program("calico-kube-controllers");
    output(std::process::Command::new(program).args(["check-status", "--ready"]))
}

fn require(is_so: bool, what: impl FnOnce() -> String) -> Result<(), Error> {
    if is_so { Ok(()) } else { Err(Error::wrong(what())) }
}
