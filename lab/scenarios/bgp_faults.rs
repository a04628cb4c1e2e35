//! What has withdrawn routes wrongly elsewhere: R14 and R15 of our list of outages.

use std::path::Path;
use std::time::Duration;

use lab::Error;
use lab::bird::{Bird, Neighbour};
use lab::cluster::{Cluster, Fabric, Families, Plan, eventually};
use lab::control_plane::Kind;
use lab::routes;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::scenarios::faults;

/// How long sessions and routes may take.
const WITHIN: Duration = Duration::from_secs(60);
/// The router's AS number, and the cluster's.
const ASNS: [u32; 2] = [65_001, 64_512];
/// How often one daemon is killed.
const KILLS: usize = 3;

/// R14 and R15: daemons are killed and started, one again and again, one beside a dead peer, all
/// of them at once. No packet is lost, a router with a session to each node sees no route
/// withdrawn, and every restart says that the node still forwards (the F bit of RFC 4724).
pub(crate) fn restarts(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let mut cluster = up(dir, control_plane, 3)?;
    cluster.add_pods("pod", 3)?;
    let neighbours: Vec<Neighbour> = cluster
        .nodes
        .iter()
        .map(|node| node.addr().map(|addr| Neighbour { addr, asn: ASNS[1] }))
        .collect::<Result<_, _>>()?;
    let bird = Bird::start(dir, ASNS[0], &neighbours)?;
    for (name, addr) in [("router", "192.0.2.1"), ("dead", "192.0.2.200")] {
        cluster.api.create::<api::BgpPeer>(json!({
            "apiVersion": "crd.projectcalico.org/v1", "kind": "BGPPeer",
            "metadata": {"name": name}, "spec": {"peerIP": addr, "asNumber": ASNS[0]},
        }))?;
    }
    eventually("the router to hold the blocks", WITHIN, || require_blocks(&cluster, &bird))?;
    let flows = faults::flows(&cluster, "node-1", "node-3")?;
    for (from, to) in &flows {
        cluster.node(&from.node)?.start_flow(&from.pod.container, to.addr()?)?;
    }
    let before = withdrawals(&bird)?;
    let (first, second) = (cluster.node("node-1")?, cluster.node("node-2")?);
    for _ in 0..KILLS {
        // A daemon that dies before it has told all its routes again loses them: RFC 4724 §4.2.
        cluster.end_daemon(first, Signal::SIGKILL)?;
        cluster.start_daemon(first)?;
        settled(&cluster, &bird, before, "one daemon was killed again and again")?;
    }
    cluster.end_daemon(second, Signal::SIGKILL)?;
    cluster.end_daemon(first, Signal::SIGKILL)?;
    cluster.start_daemon(first)?;
    std::thread::sleep(faults::OUTAGE);
    cluster.start_daemon(second)?;
    settled(&cluster, &bird, before, "one daemon was killed beside a dead one")?;
    for node in &cluster.nodes {
        cluster.end_daemon(node, Signal::SIGKILL)?;
    }
    for node in &cluster.nodes {
        cluster.start_daemon(node)?;
    }
    settled(&cluster, &bird, before, "all daemons were killed at once")?;
    for (from, to) in &flows {
        let ledger = cluster.node(&from.node)?.stop_flow(&from.pod.container, to.addr()?)?;
        faults::require_lossless(from, to, &ledger)?;
    }
    Ok(())
}

fn up(dir: &Path, control_plane: Kind, nodes: u8) -> Result<Cluster, Error> {
    let plan = Plan { control_plane, nodes, families: Families::V4, fabric: Fabric::Bridge };
    Cluster::up(dir, plan, &mut |step| eprintln!("{step}"))
}

/// Waits until all is as before, and fails if the router has been told that a route is gone.
fn settled(cluster: &Cluster, bird: &Bird, before: u64, what: &str) -> Result<(), Error> {
    cluster.wait_ready()?;
    eventually("all sessions, told to keep forwarding", WITHIN, || {
        let text = bird.ask("show protocols all")?;
        let up = text.lines().filter(|line| line.contains("BGP state:"));
        let is_up = up.clone().count() == cluster.nodes.len()
            && up.into_iter().all(|line| line.contains("Established"));
        let kept = text.lines().filter(|line| line.contains("AF preserved: ipv4")).count();
        require(is_up && kept >= 1, || text.clone())
    })?;
    eventually("the router to hold the blocks", WITHIN, || require_blocks(cluster, bird))?;
    eventually("routes as modelled", WITHIN, || routes::require_as_modelled(cluster))?;
    let after = withdrawals(bird)?;
    require(after == before, || {
        format!("after {what} the router has seen {after} withdrawals, before it {before}")
    })
}

fn require_blocks(cluster: &Cluster, bird: &Bird) -> Result<(), Error> {
    let held = bird.destinations()?;
    let wanted: std::collections::BTreeSet<String> = routes::blocks(cluster)?.into_keys().collect();
    require(held == wanted && !wanted.is_empty(), || format!("{held:?}, not {wanted:?}"))
}

/// Returns how many routes the router has removed from its tables so far.
fn withdrawals(bird: &Bird) -> Result<u64, Error> {
    let text = bird.ask("show protocols all")?;
    // "Import withdraws: received rejected filtered ignored accepted"
    let lines = text.lines().filter(|line| line.contains("Import withdraws:"));
    let accepted = lines.filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok());
    Ok(accepted.sum())
}

fn require(is_so: bool, found: impl FnOnce() -> String) -> Result<(), Error> {
    if is_so { Ok(()) } else { Err(Error::wrong(found())) }
}
