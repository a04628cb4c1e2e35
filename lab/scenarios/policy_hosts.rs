//! The machines themselves: closed ones stay in touch, and what leaves them is translated.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use lab::Error;
use lab::cluster::{Cluster, eventually};
use lab::control_plane::Kind;
use lab::policy::case::Case;
use lab::policy::cell::Passing;
use lab::policy::{judge, world};
use lab::protocol::{Attempt, Transport, Trial};
use lab::reachability::Matrix;
use nix::sys::signal::Signal;
use serde_json::json;

/// How long nodes may take to hear of objects and to act.
const WITHIN: Duration = Duration::from_secs(20);
/// How long a connection may take on a busy machine.
const PATIENCE: Duration = Duration::from_millis(500);
/// Where calico-node shows its metrics, which no failsafe port is.
const METRICS: u16 = 9091;
/// BGP, which is one.
const BGP: u16 = 179;

/// Nothing may come into hosts or leave them.
const CLOSED: &str = "
- name: closed
  apply: [{gnp: closed, spec: {selector: role == 'host', types: [Ingress, Egress]}}]
";
/// But metrics may be read.
const METRICS_OPEN: &str = "
- name: metrics
  apply: [{gnp: metrics, spec: {order: 1, selector: role == 'host', ingress: [{action: Allow, protocol: TCP, destination: {ports: [9091]}}]}}]
";
/// What hosts forward, they forward but for one port.
const FORWARD: &str = "
- name: forward
  apply:
    - gnp: forward
      spec:
        order: 2
        selector: role == 'host'
        applyOnForward: true
        types: [Ingress]
        ingress: [{action: Deny, protocol: TCP, destination: {ports: [80]}}, {action: Allow}]
";

/// Machines that everything is denied keep their API server and their BGP sessions, also over a
/// crash; their pods are not concerned, until a policy is for what is forwarded.
pub(crate) fn closed_hosts(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let cluster = world::up(dir, control_plane)?;
    let all: Passing = world::cells().into_iter().collect();
    for node in &cluster.nodes {
        cluster.api.create_any(&json!({
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": "HostEndpoint",
            "metadata": {"name": node.name, "labels": {"role": "host"}},
            "spec": {"node": node.name, "interfaceName": "eth0", "expectedIPs": node.addrs},
        }))?;
    }
    make(&cluster, CLOSED)?;
    eventually("every node to be closed", WITHIN, || require_door(&cluster, Door::Closed))?;
    judge::require_packets(&cluster, &all)?;
    let victim = cluster.node("node-1")?;
    cluster.end_daemon(victim, Signal::SIGKILL)?;
    cluster.start_daemon(victim)?;
    cluster.wait_ready()?;
    require_door(&cluster, Door::Closed)?;
    make(&cluster, METRICS_OPEN)?;
    eventually("metrics to be readable", WITHIN, || require_door(&cluster, Door::Open))?;
    make(&cluster, FORWARD)?;
    judge::require_packets(&cluster, &forwarded(&cluster, all))
}

/// Whom pods meet outside of all pools sees the node's address, if the pool says so; pods see
/// each other's own addresses all the time.
pub(crate) fn translated_outside(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let cluster = world::up(dir, control_plane)?;
    let outside = TcpListener::bind((cluster.control_plane.endpoint().ip(), 0));
    let outside = outside.and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, listener) = outside.map_err(|error| Error::program("listener", error))?;
    let pool = json!({
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "IPPool",
        "metadata": {"name": "default-ipv4-ippool"},
    });
    // Nobody outside knows a way to pods: without translation there is no answer.
    require_answers(&cluster, address, 0)?;
    cluster.api.patch_any(&pool, &json!({"spec": {"natOutgoing": true}}))?;
    eventually("answers to every pod", WITHIN, || {
        require_answers(&cluster, address, cluster.pods.len())
    })?;
    let nodes: Vec<IpAddr> = cluster.nodes.iter().flat_map(|node| node.addrs.clone()).collect();
    for _ in &cluster.pods {
        let (_, seen) = listener.accept().map_err(|error| Error::program("listener", error))?;
        if !nodes.contains(&seen.ip()) {
            return Err(Error::wrong(format!("{} was seen outside", seen.ip())));
        }
    }
    // This asks pods whom they saw.
    Matrix::probe(&cluster, WITHIN)?.require_full()
}

/// Fails unless this many pods reach an address outside.
fn require_answers(cluster: &Cluster, address: SocketAddr, wanted: usize) -> Result<(), Error> {
    let (to, port) = (address.ip(), address.port());
    let attempt = Attempt { to, transport: Transport::Tcp, port };
    let mut answered = 0_usize;
    for pod in &cluster.pods {
        let (container, passing) = (pod.pod.container.clone(), vec![attempt]);
        let trial = Trial { container, stopped: Vec::new(), passing };
        let passed = cluster.node(&pod.node)?.attempt(vec![trial], 300)?;
        answered = answered.saturating_add(passed.iter().map(Vec::len).sum());
    }
    if answered == wanted {
        return Ok(());
    }
    Err(Error::wrong(format!("{answered} instead of {wanted} pods were answered")))
}

/// Returns the cells that come through if TCP to port 80 does not from node to node.
fn forwarded(cluster: &Cluster, mut cells: Passing) -> Passing {
    let node = |name: &str| {
        let pod = cluster.pods.iter().find(|pod| world::name(pod) == name);
        pod.map(|pod| pod.node.clone())
    };
    cells.retain(|cell| {
        let is_web = cell.transport == Transport::Tcp && cell.port == 80;
        !is_web || node(&cell.from) == node(&cell.to)
    });
    cells
}

/// Whether metrics can be read from outside.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Door {
    Open,
    Closed,
}

/// Fails unless nodes' metrics are as said; BGP always answers, at both families' addresses.
fn require_door(cluster: &Cluster, door: Door) -> Result<(), Error> {
    for node in &cluster.nodes {
        for addr in &node.addrs {
            let answers =
                |port| TcpStream::connect_timeout(&SocketAddr::new(*addr, port), PATIENCE).is_ok();
            if answers(METRICS) != (door == Door::Open) {
                return Err(Error::wrong(format!("metrics of {addr} are not as they should be")));
            }
            if !answers(BGP) {
                return Err(Error::wrong(format!("BGP of {addr} does not answer")));
            }
        }
    }
    Ok(())
}

fn make(cluster: &Cluster, cases: &str) -> Result<(), Error> {
    for case in Case::read_all(cases)? {
        for object in case.objects()? {
            cluster.api.create_any(&object)?;
        }
    }
    Ok(())
}
