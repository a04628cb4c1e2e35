//! What has withdrawn or kept routes wrongly elsewhere: R08, R14 and R15 of our list of outages.

use std::path::Path;
use std::time::Duration;

use lab::Error;
use lab::bird::{Bird, Neighbour};
use lab::cluster::{Cluster, Fabric, Families, Plan, RunningPod, eventually};
use lab::control_plane::Kind;
use lab::node::Node;
use lab::reachability::Matrix;
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

/// R08: nobody tells that a pod has gone. Packets to its address end at its node, they never
/// leave it for the fabric; other pods keep their routes, and all is right when the API is back.
pub(crate) fn freed_addresses(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let mut cluster = up(dir, control_plane, 2)?;
    cluster.add_pods("pod", 4)?;
    Matrix::probe(&cluster, WITHIN)?.require_full()?;
    let on = |node: &str| cluster.pods.iter().filter(|pod| pod.node == node).cloned().collect();
    let (here, there): (Vec<RunningPod>, Vec<RunningPod>) = (on("node-1"), on("node-2"));
    let [gone, kept] = here.as_slice() else { return Err(Error::wrong("not two pods")) };
    let [from, ..] = there.as_slice() else { return Err(Error::wrong("no pod")) };
    let (gone_addr, kept_addr) = (gone.addr()?, kept.addr()?);
    let (gone, from) = (gone.clone(), from.clone());
    cluster.control_plane.stop_api_server();
    let node = cluster.node("node-1")?;
    count_packets(node, &gone_addr.to_string())?;
    let link = api::names::host_veth_name(&gone.pod.namespace, &gone.pod.name, "cali");
    let link = link.ok_or_else(|| Error::wrong("a pod without interface"))?.to_string();
    node.run(&["ip", "link", "delete", &link])?;
    let target = gone_addr.to_string();
    let ping = ["ip", "netns", "exec", &from.pod.container, "ping", "-c", "20", "-i", "0.05", "-W"];
    let ping = [&ping[..], &["1", &target]].concat();
    // It fails, as nobody answers.
    drop(cluster.node("node-2")?.run(&ping));
    let counts = counts(node)?;
    require(counts == [20, 0], || format!("packets in and out again: {counts:?}, not 20 and 0"))?;
    let held = routes::actual(node)?;
    let kept_line = format!("{kept_addr}/32 dev ");
    require(held.iter().any(|line| line.starts_with(&kept_line)), || format!("{held:?}"))?;
    cluster.control_plane.start_api_server()?;
    let place = cluster.pods.iter().position(|pod| pod.pod.name == gone.pod.name);
    let gone = place.map(|place| cluster.pods.remove(place));
    if let Some(gone) = gone {
        cluster.node("node-1")?.del(&gone.pod)?;
        let pod = cluster
            .api
            .get_in::<k8s_openapi::api::core::v1::Pod>(&gone.pod.namespace, &gone.pod.name)?;
        if let Some(pod) = pod {
            cluster.api.delete(&pod)?;
        }
    }
    eventually("routes as modelled", WITHIN, || routes::require_as_modelled(&cluster))?;
    Matrix::probe(&cluster, WITHIN)?.require_full()
}

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

/// Counts packets to an address as they come into a node, and as they leave it by its uplink.
fn count_packets(node: &Node, addr: &str) -> Result<(), Error> {
    let rules = format!(
        "table ip leak {{ \
         chain in {{ type filter hook prerouting priority -350; \
         iifname eth0 ip daddr {addr} icmp type echo-request counter; }}; \
         chain out {{ type filter hook postrouting priority 300; \
         oifname eth0 ip daddr {addr} counter; }}; }}"
    );
    node.run(&["nft", &rules]).map(drop)
}

fn counts(node: &Node) -> Result<Vec<u64>, Error> {
    let text = node.run(&["nft", "list", "table", "ip", "leak"])?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let counts = words.windows(2).filter(|pair| pair.first() == Some(&"packets"));
    Ok(counts.filter_map(|pair| pair.get(1)?.parse().ok()).collect())
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
