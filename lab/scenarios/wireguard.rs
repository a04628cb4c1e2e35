//! Encryption between nodes, seen from the fabric.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lab::Error;
use lab::capture::Capture;
use lab::cluster::{Cluster, Fabric, Families, Plan, RunningPod, eventually};
use lab::control_plane::Kind;
use lab::node::Node;
use lab::process::output;
use lab::reachability::Matrix;
use lab::rest::Request;
use lab::routes;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::faults::flows;
use super::tunnel_services;
use super::wireguard_secrets::{LOUD, Secrets};

/// How long nodes may take to hear of a change and to act.
const WITHIN: Duration = Duration::from_secs(60);
/// How long pods talk on after the last node has changed its keys.
const WITH_NEW_KEYS: Duration = Duration::from_secs(3);
/// How often pods are deleted and made again, and daemons killed; `WIREGUARD_DELETIONS` and
/// `WIREGUARD_RESTARTS` ask for more, on a machine that emulates fast enough.
const DELETIONS: usize = 4;
const RESTARTS: usize = 1;
/// How many datagrams show that a flow went on meanwhile: one is sent every ten milliseconds, and
/// changing the keys of two nodes takes from one second to many.
const ENOUGH: u64 = 25;
/// Packets of pods that are not encrypted: nobody else has these addresses.
const CLEAR: &str = "net 10.244.0.0/16 or net fd00:10:244::/48";

/// In strict mode nothing of pods is seen on the fabric while pods are deleted, daemons killed, and
/// keys changed under traffic; nothing is lost by it.
pub(crate) fn strict(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let plan = Plan { control_plane, nodes: 2, families: Families::Dual, fabric: Fabric::Bridge };
    let mut cluster = Cluster::without_daemons(dir, plan, &mut |step| eprintln!("{step}"))?;
    let mut secrets = Secrets::of(&cluster)?;
    for node in &cluster.nodes {
        cluster.start_daemon_with(node, LOUD)?;
    }
    cluster.wait_ready()?;
    cluster.add_pods("pod", 4)?;
    require_seen_in_clear(dir, &cluster)?;
    eventually("routes as modelled", WITHIN, || routes::require_as_modelled(&cluster))?;
    encrypt(&cluster)?;
    secrets.learn(&cluster, "first")?;
    Matrix::probe(&cluster, WITHIN)?.require_full()?;
    let clear = Capture::start(dir, "clear", CLEAR)?;
    count_encrypted(&cluster)?;
    tunnel_services::lead_through(&cluster, "node-2", "wireguard.cali")?;
    let flows = flows(&cluster, "node-1", "node-2")?;
    for (from, to) in &flows {
        cluster.node(&from.node)?.start_flow(&from.pod.container, to.addr()?)?;
    }
    delete_under_fire(&mut cluster, number("WIREGUARD_DELETIONS", DELETIONS))?;
    for _ in 0..number("WIREGUARD_RESTARTS", RESTARTS) {
        let victim = cluster.node("node-1")?;
        cluster.end_daemon(victim, Signal::SIGKILL)?;
        cluster.start_daemon_with(victim, LOUD)?;
        cluster.wait_ready()?;
    }
    for (from, to) in &flows {
        let ledger = cluster.node(&from.node)?.stop_flow(&from.pod.container, to.addr()?)?;
        super::faults::require_lossless(from, to, &ledger)?;
    }
    change_all_keys(&cluster, &flows)?;
    secrets.learn(&cluster, "changed")?;
    Matrix::probe(&cluster, WITHIN)?.require_full()?;
    let encrypted = encrypted()?;
    let clear = clear.end()?.packets;
    eprintln!("{} packets in clear, {encrypted} encrypted", clear.len());
    if encrypted < 1_000 {
        return Err(Error::wrong(format!("only {encrypted} packets were encrypted")));
    }
    if let Some(first) = clear.first() {
        return Err(Error::wrong(format!("{} packets in clear: {first}", clear.len())));
    }
    secrets.require_nowhere(dir, &cluster)
}

/// Proves that the capture would see what it must not see later.
fn require_seen_in_clear(dir: &Path, cluster: &Cluster) -> Result<(), Error> {
    let capture = Capture::start(dir, "before", CLEAR)?;
    Matrix::probe(cluster, WITHIN)?.require_full()?;
    let seen = capture.end()?.packets;
    for family in ["IP", "IP6"] {
        if !seen.iter().any(|line| line.contains(&format!(" {family} "))) {
            return Err(Error::wrong(format!("the capture has seen no {family} packet of pods")));
        }
    }
    Ok(())
}

/// Turns encryption on, and waits until each node talks to the other.
fn encrypt(cluster: &Cluster) -> Result<(), Error> {
    let spec = json!({
        "wireguardEnabled": true, "wireguardEnabledV6": true, "wireguardStrictMode": true,
    });
    let path = "/apis/crd.projectcalico.org/v1/felixconfigurations/default";
    let change = json!({ "spec": &spec });
    let answer = cluster.api.send(Request::merge(path, &change))?;
    if answer.success().is_err() {
        cluster.api.create_any(&json!({
            "apiVersion": "crd.projectcalico.org/v1", "kind": "FelixConfiguration",
            "metadata": {"name": "default"}, "spec": spec,
        }))?;
    }
    for node in &cluster.nodes {
        eventually(&format!("WireGuard on {}", node.name), WITHIN, || {
            for device in ["wireguard.cali", "wg-v6.cali"] {
                let peers = node.run(&["wg", "show", device, "allowed-ips"])?;
                let routes = node.run(&["ip", "rule", "show"])?;
                // A peer with a block, and the rule that leads there.
                if !peers.contains('/') || !routes.contains("fwmark 0x200000/0x200000") {
                    return Err(Error::wrong(format!("{peers}\n{routes}")));
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Has the kernel count what comes out of nodes encrypted: writing all of it down as a capture does
/// would be most of a slow machine's work.
fn count_encrypted(cluster: &Cluster) -> Result<(), Error> {
    let chains = (1..=cluster.nodes.len()).map(|number| {
        format!(
            "chain cable-{number} {{ type filter hook ingress device port-{number} priority 0;\n\
             udp dport {{ 51820, 51821 }} counter name encrypted\n}}\n"
        )
    });
    let chains: String = chains.collect();
    let rules = format!("table netdev fabric {{\ncounter encrypted {{ }}\n{chains}}}\n");
    output(Command::new("nft").arg(&rules)).map(drop)
}

/// Returns how many packets that were.
fn encrypted() -> Result<u64, Error> {
    let list = ["--json", "list", "counter", "netdev", "fabric", "encrypted"];
    let text = output(Command::new("nft").args(list))?;
    let found: Value = serde_json::from_str(&text).map_err(Error::wrong)?;
    let mut entries = found.get("nftables").and_then(Value::as_array).into_iter().flatten();
    let packets = entries.find_map(|entry| entry.pointer("/counter/packets")?.as_u64());
    packets.ok_or_else(|| Error::wrong(format!("no counter: {text}")))
}

/// Deletes pods while others talk to them, and makes new ones, two at a time, one on each node:
/// each packet is for an address that is just going, gone, or somebody else's.
fn delete_under_fire(cluster: &mut Cluster, times: usize) -> Result<(), Error> {
    let shooters = [pod_on(cluster, "node-1")?, pod_on(cluster, "node-2")?];
    for round in 0..times.div_ceil(2) {
        cluster.add_pods("target", 2)?;
        let targets = cluster.pods.iter().filter(|pod| pod.pod.name.starts_with("target-"));
        let shots: Vec<(&RunningPod, IpAddr)> = targets
            .flat_map(|target| {
                let far = shooters.iter().filter(|shooter| shooter.node != target.node);
                far.flat_map(|far| target.addrs().iter().map(move |addr| (far, *addr)))
            })
            .collect();
        for (shooter, addr) in &shots {
            cluster.node(&shooter.node)?.start_knocking(&shooter.pod.container, *addr)?;
        }
        cluster.remove_pods(|pod| pod.pod.name.starts_with("target-"))?;
        for (shooter, addr) in &shots {
            let node = cluster.node(&shooter.node)?;
            let knocks = node.stop_knocking(&shooter.pod.container, *addr)?;
            eprintln!("round {round}: {addr}: {knocks:?}");
            if knocks.sent == 0 {
                return Err(Error::wrong(format!("nobody shot at {addr}")));
            }
        }
    }
    Ok(())
}

/// Has all nodes change their keys while pods talk, and lets them talk on with the new ones.
fn change_all_keys(cluster: &Cluster, flows: &[(RunningPod, RunningPod)]) -> Result<(), Error> {
    for (from, to) in flows {
        cluster.node(&from.node)?.start_flow(&from.pod.container, to.addr()?)?;
    }
    for node in &cluster.nodes {
        change_keys(cluster, node)?;
    }
    // A fast machine is done before a hundred packets are sent.
    std::thread::sleep(WITH_NEW_KEYS);
    for (from, to) in flows {
        let ledger = cluster.node(&from.node)?.stop_flow(&from.pod.container, to.addr()?)?;
        eprintln!("keys change, {} -> {}: {ledger:?}", from.pod.name, to.pod.name);
        // A datagram and an echo every ten milliseconds fill WireGuard's queue of 128 packets in
        // 640; only a machine on which the API takes longer may lose what comes then. Without
        // the greeting of the new key it would take WireGuard five seconds.
        let is_queued = ledger.longest_gap_ms < 600;
        let is_well = ledger.tcp_error.is_none() && ledger.longest_gap_ms < 5_000;
        if !is_well || (is_queued && ledger.lost() > 0) || ledger.sent < ENOUGH {
            return Err(Error::wrong(format!("keys changed, and {ledger:?}")));
        }
    }
    Ok(())
}

/// Has a node change its keys, and looks whether all have noticed.
fn change_keys(cluster: &Cluster, node: &Node) -> Result<(), Error> {
    let key = || node.run(&["wg", "show", "wireguard.cali", "public-key"]);
    let before = key()?;
    let said = node.run(&[&cluster.program("calico-node"), "wireguard", "rotate"])?;
    eprintln!("{}: {said}", node.name);
    let after = key()?;
    if before == after || !said.contains(after.trim()) {
        return Err(Error::wrong(format!("the key was {before} and is {after}")));
    }
    if !said.contains("1 of 1 peers") {
        return Err(Error::wrong(format!("not all peers have noticed: {said}")));
    }
    Ok(())
}

fn pod_on(cluster: &Cluster, node: &str) -> Result<RunningPod, Error> {
    let pod = cluster.pods.iter().find(|pod| pod.node == node).cloned();
    pod.ok_or_else(|| Error::wrong(format!("no pod on {node}")))
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
