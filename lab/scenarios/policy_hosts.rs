//! The machines themselves: closed ones stay in touch, and what leaves them is translated.

use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use kernel::conntrack::Conntrack;
use kernel::netns::Netns;
use lab::Error;
use lab::cluster::{Cluster, eventually};
use lab::control_plane::Kind;
use lab::node::Node;
use lab::policy::case::Case;
use lab::policy::cell::Passing;
use lab::policy::{judge, world};
use lab::protocol::{Attempt, Transport, Trial};
use lab::reachability::Matrix;
use lab::rest::Request;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::connections::{SETTINGS, require_ends};
use super::policy_dhcp::require_lease;
use super::policy_faults::pod;

/// How long nodes may take to hear of objects and to act.
const WITHIN: Duration = Duration::from_secs(20);
/// How long a connection may take on a busy machine.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a denied connection may go on, on a busy machine.
const ENDED_WITHIN: Duration = Duration::from_secs(5);
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
/// A port of the node that somebody translates to a pod's.
const TRANSLATED: u16 = 30_080;
/// Before destinations are translated, this port and metrics are denied.
const EARLY_DENY: &str = "
- name: early
  apply: [{gnp: early, spec: {order: 1, selector: role == 'host', preDNAT: true, applyOnForward: true, types: [Ingress], ingress: [{action: Deny, protocol: TCP, destination: {ports: [30080, 9091]}}]}}]
";
/// Or metrics are allowed there, and nowhere else.
const EARLY_ALLOW: &str = "
- name: early
  apply: [{gnp: early, spec: {order: 1, selector: role == 'host', preDNAT: true, applyOnForward: true, types: [Ingress], ingress: [{action: Allow, protocol: TCP, destination: {ports: [9091]}}]}}]
";
/// Nobody may come to the pod that has a floating address.
const FLOATING_DENIED: &str = "
- name: floating
  apply: [{gnp: floating, spec: {selector: app == 'web' && projectcalico.org/namespace == 'red', types: [Ingress]}}]
";
/// Or without tracking, which takes a rule for each direction.
const UNTRACKED: &str = "
- name: untracked
  apply: [{gnp: untracked, spec: {order: 1, selector: role == 'host', doNotTrack: true, applyOnForward: true, types: [Ingress, Egress], ingress: [{action: Allow, protocol: TCP, destination: {ports: [9091]}}], egress: [{action: Allow, protocol: TCP, source: {ports: [9091]}}]}}]
";
/// What hosts forward, they forward but for one port, and that of flows.
const FORWARD: &str = "
- name: forward
  apply:
    - gnp: forward
      spec:
        order: 2
        selector: role == 'host'
        applyOnForward: true
        types: [Ingress]
        ingress:
          - {action: Deny, protocol: TCP, destination: {ports: [7, 80]}}
          - {action: Deny, protocol: UDP, destination: {ports: [7]}}
          - {action: Allow}
";

/// What must always reach a machine: SSH, BGP, etcd, Typha, the API server, and DHCP's answers.
const INBOUND: [(Transport, u16); 9] = [
    (Transport::Tcp, 22),
    (Transport::Tcp, 179),
    (Transport::Tcp, 2379),
    (Transport::Tcp, 2380),
    (Transport::Tcp, 5473),
    (Transport::Tcp, 6443),
    (Transport::Tcp, 6666),
    (Transport::Tcp, 6667),
    (Transport::Udp, 68),
];
/// What a machine must always reach: the same, DNS and DHCP.
const OUTBOUND: [(Transport, u16); 9] = [
    (Transport::Udp, 53),
    (Transport::Udp, 67),
    (Transport::Tcp, 179),
    (Transport::Tcp, 2379),
    (Transport::Tcp, 2380),
    (Transport::Tcp, 5473),
    (Transport::Tcp, 6443),
    (Transport::Tcp, 6666),
    (Transport::Tcp, 6667),
];
/// What is none of that.
const OTHERS: [(Transport, u16); 2] = [(Transport::Tcp, 8443), (Transport::Udp, 8443)];

/// Machines that everything is denied keep what nothing may cut off, and over a crash, too, and
/// the lease of their address; other connections end. Their pods are not concerned, until a policy
/// is for what is forwarded, whose connections then end, too.
pub(crate) fn closed_hosts(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let cluster = world::up(dir, control_plane)?;
    let all: Passing = world::cells().into_iter().collect();
    let settings = json!({"spec": {"deniedConnectionAction": "End"}});
    cluster.api.send(Request::merge(SETTINGS, &settings))?.success()?;
    let readers = readers(&cluster)?;
    make_endpoints(&cluster)?;
    make(&cluster, CLOSED)?;
    eventually("every node to be closed", WITHIN, || require_door(&cluster, Door::Closed))?;
    require_ended(readers)?;
    for node in &cluster.nodes {
        require_failsafes(&cluster, node)?;
    }
    judge::require_packets(&cluster, &all)?;
    let victim = cluster.node("node-1")?;
    require_lease(victim, dir)?;
    cluster.end_daemon(victim, Signal::SIGKILL)?;
    cluster.start_daemon(victim)?;
    cluster.wait_ready()?;
    require_door(&cluster, Door::Closed)?;
    require_failsafes(&cluster, victim)?;
    make(&cluster, METRICS_OPEN)?;
    eventually("metrics to be readable", WITHIN, || require_door(&cluster, Door::Open))?;
    let target = pod(&cluster, "red/db")?;
    let others = cluster.pods.iter().filter(|pod| world::name(pod) != "red/db").cloned();
    let (near, far): (Vec<_>, Vec<_>) = others.partition(|pod| pod.node == target.node);
    require_ends(&cluster, (&far, &near), target.addr()?, || {
        make(&cluster, FORWARD)?;
        judge::wait_policies(&cluster, 3)
    })?;
    judge::require_packets(&cluster, &forwarded(&cluster, all))
}

/// Makes each node's host endpoint.
fn make_endpoints(cluster: &Cluster) -> Result<(), Error> {
    for node in &cluster.nodes {
        cluster.api.create_any(&json!({
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": "HostEndpoint",
            "metadata": {"name": node.name, "labels": {"role": "host"}},
            "spec": {"node": node.name, "interfaceName": "eth0", "expectedIPs": node.addrs},
        }))?;
    }
    Ok(())
}

/// Connects to every node's metrics, by both families.
fn readers(cluster: &Cluster) -> Result<Vec<TcpStream>, Error> {
    let addrs = cluster.nodes.iter().flat_map(|node| &node.addrs);
    let connect = |addr: &IpAddr| {
        let stream = TcpStream::connect_timeout(&SocketAddr::new(*addr, METRICS), PATIENCE)?;
        stream.set_read_timeout(Some(ENDED_WITHIN)).map(|()| stream)
    };
    addrs.map(connect).collect::<Result<_, _>>().map_err(|error| Error::program("metrics", error))
}

/// Fails unless all of these connections are reset soon.
fn require_ended(readers: Vec<TcpStream>) -> Result<(), Error> {
    for mut reader in readers {
        let read = reader.read(&mut [0]);
        let is_reset = read.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
        if !is_reset {
            return Err(Error::wrong(format!("a connection that is denied goes on: {read:?}")));
        }
    }
    Ok(())
}

/// Fails unless what must always come through does, one by one, and the rest does not.
fn require_failsafes(cluster: &Cluster, node: &Node) -> Result<(), Error> {
    let (outside, inside) = (Netns::current()?, network(node)?);
    let outside_addr = cluster.control_plane.endpoint().ip();
    let ways =
        [(&outside, &inside, node.addr()?, INBOUND), (&inside, &outside, outside_addr, OUTBOUND)];
    for (from, at, addr, open) in ways {
        let expected = open.map(|one| (one, true)).into_iter();
        for ((transport, port), is_open) in expected.chain(OTHERS.map(|one| (one, false))) {
            if passes(from, at, (addr, transport, port))? != is_open {
                let what = format!("{transport:?} to {addr} port {port}");
                return Err(Error::wrong(format!("{what}: it should pass: {is_open}")));
            }
        }
    }
    Ok(())
}

/// Asks a server that is made for that, unless there is one already.
fn passes(
    from: &Netns,
    at: &Netns,
    (addr, transport, port): (IpAddr, Transport, u16),
) -> Result<bool, Error> {
    let failed = |error: std::io::Error| Error::program("failsafe port", error);
    let to = SocketAddr::new(addr, port);
    if transport == Transport::Tcp {
        let listener = at.run(|| TcpListener::bind(to))?;
        let _listener = match listener {
            Err(error) if error.kind() == ErrorKind::AddrInUse => None,
            other => Some(other.map_err(failed)?),
        };
        return Ok(from.run(|| TcpStream::connect_timeout(&to, PATIENCE))?.is_ok());
    }
    let server = at.run(|| UdpSocket::bind(to))?.map_err(failed)?;
    let any: IpAddr = if addr.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let client = from.run(|| UdpSocket::bind((any, 0)))?.map_err(failed)?;
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    }
    let asked = client.send_to(b"?", to).and_then(|_| server.recv_from(&mut [0; 8]));
    let answered = asked.and_then(|(_, who)| server.send_to(b"!", who));
    Ok(answered.and_then(|_| client.recv(&mut [0; 8])).is_ok())
}

/// Opens a node's network.
fn network(node: &Node) -> Result<Netns, Error> {
    Ok(Netns::open(Path::new(&format!("/proc/{}/ns/net", node.pid())))?)
}

/// Policy before destinations are translated decides what nobody sees later, and goes before
/// all other; policy without tracking lets connections pass that the kernel then knows nothing of.
pub(crate) fn early_policy(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let cluster = world::up(dir, control_plane)?;
    make_endpoints(&cluster)?;
    let metrics_open = make(&cluster, METRICS_OPEN)?;
    let node = cluster.node("node-1")?;
    let pod = cluster.pods.iter().find(|pod| world::name(pod) == "red/web");
    let pod = pod.ok_or_else(|| Error::wrong("there is no pod red/web"))?.addr()?;
    node.run(&[
        "nft",
        &format!(
            "table ip theirs {{\nchain pre {{\ntype nat hook prerouting priority -100\n\
         tcp dport {TRANSLATED} dnat to {pod}:80\n}}\n}}"
        ),
    ])?;
    let require = |what: &str, translated: bool, metrics: bool| {
        eventually(what, WITHIN, || {
            require_ports(node, [(TRANSLATED, translated), (METRICS, metrics)])
        })
    };
    require("both ports to be open", true, true)?;
    require_tracked(node, true)?;
    let denied = make(&cluster, EARLY_DENY)?;
    require("early policy to go before the other", false, false)?;
    let all: Passing = world::cells().into_iter().collect();
    judge::require_packets(&cluster, &all)?;
    remove(&cluster, &denied)?;
    remove(&cluster, &metrics_open)?;
    require("metrics to be closed without policy", true, false)?;
    let allowed = make(&cluster, EARLY_ALLOW)?;
    require("early policy to be enough", true, true)?;
    remove(&cluster, &allowed)?;
    require("metrics to be closed again", true, false)?;
    make(&cluster, UNTRACKED)?;
    require("policy without tracking to be enough", true, true)?;
    require_tracked(node, false)
}

/// Fails unless a node's ports answer, or do not.
fn require_ports(node: &Node, ports: [(u16, bool); 2]) -> Result<(), Error> {
    for (port, is_open) in ports {
        let at = SocketAddr::new(node.addr()?, port);
        if TcpStream::connect_timeout(&at, PATIENCE).is_ok() != is_open {
            return Err(Error::wrong(format!("port {port} should be open: {is_open}")));
        }
    }
    Ok(())
}

/// Fails unless the kernel knows a connection to the metrics, or does not.
fn require_tracked(node: &Node, is_tracked: bool) -> Result<(), Error> {
    let failed = |error: kernel::conntrack::Error| Error::program("connections", error.to_string());
    let mut conntrack = Conntrack::open_in(&network(node)?).map_err(failed)?;
    let at = SocketAddr::new(node.addr()?, METRICS);
    let stream = TcpStream::connect_timeout(&at, PATIENCE);
    let stream = stream.map_err(|error| Error::program("metrics", error))?;
    let own = stream.local_addr().map_err(|error| Error::program("metrics", error))?.port();
    let flows = conntrack.flows(|flow| flow.original.source_port == own).map_err(failed)?;
    if flows.is_empty() != is_tracked {
        return Ok(());
    }
    Err(Error::wrong(format!("the connection should be tracked: {is_tracked}; known: {flows:?}")))
}

/// Whom pods meet outside of all pools sees the node's address, if the pool says so; pods see
/// each other's own addresses all the time. Floating addresses lead to their pods.
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
    Matrix::probe(&cluster, WITHIN)?.require_full()?;
    floating(&cluster)
}

/// A floating address leads to its pod, from other nodes, from the pod's own, and from the pod
/// itself, where policy for the pod lets it; not before administrators say so, nor any longer than
/// the pod names it.
fn floating(cluster: &Cluster) -> Result<(), Error> {
    let pod = cluster.pods.iter().find(|pod| world::name(pod) == "red/web");
    let pod = pod.ok_or_else(|| Error::wrong("there is no pod red/web"))?;
    let address = SocketAddr::from(([10, 99, 0, 7], 80));
    cluster.api.create::<api::IpPool>(json!({
        "metadata": {"name": "floating"},
        // Nothing is assigned from it unasked.
        "spec": {"cidr": "10.99.0.0/24", "disabled": true, "nodeSelector": "all()"},
    }))?;
    let path = format!("/api/v1/namespaces/{}/pods/{}", pod.pod.namespace, pod.pod.name);
    let wish = |value: Value| {
        let annotations = json!({"cni.projectcalico.org/floatingIPs": value});
        let change = json!({"metadata": {"annotations": annotations}});
        cluster.api.send(Request::merge(&path, &change))?.success().map(drop)
    };
    wish(json!("[\"10.99.0.7\"]"))?;
    require_answers(cluster, address, 0)?;
    let settings = json!({"spec": {"floatingIPs": "Enabled"}});
    cluster.api.send(Request::merge(SETTINGS, &settings))?.success()?;
    let led = |what: &str, pods: usize, nodes: usize| {
        eventually(what, WITHIN, || {
            require_answers(cluster, address, pods)?;
            let mut answered = 0_usize;
            for node in &cluster.nodes {
                let stream = network(node)?.run(|| TcpStream::connect_timeout(&address, PATIENCE));
                answered = answered.saturating_add(usize::from(stream?.is_ok()));
            }
            let wrong = || Error::wrong(format!("{answered}, not {nodes} nodes were answered"));
            if answered == nodes { Ok(()) } else { Err(wrong()) }
        })
    };
    let nodes = cluster.nodes.len();
    led("the floating address to lead to its pod", cluster.pods.len(), nodes)?;
    let denied = make(cluster, FLOATING_DENIED)?;
    // A pod's own node always reaches it.
    led("policy to hold for the floating address", 0, 1)?;
    remove(cluster, &denied)?;
    led("the floating address to lead to its pod again", cluster.pods.len(), nodes)?;
    wish(Value::Null)?;
    led("the floating address to lead nowhere", 0, 0)
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

fn make(cluster: &Cluster, cases: &str) -> Result<Vec<Value>, Error> {
    let mut made = Vec::new();
    for case in Case::read_all(cases)? {
        for object in case.objects()? {
            made.push(cluster.api.create_any(&object)?);
        }
    }
    Ok(made)
}

fn remove(cluster: &Cluster, objects: &[Value]) -> Result<(), Error> {
    objects.iter().try_for_each(|object| cluster.api.delete_any(object))
}
