//! What is translated on its way through tunnels, told by whom the far pod sees.
//!
//! Services, ports of nodes and of hosts are rules of nftables as kube-proxy and the plugin
//! `portmap` make them: destinations are translated where packets come in, and what is marked for it
//! gets the address of the device that it leaves by.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
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
use model::desired::TunnelDevice;
use serde_json::json;

/// How long nodes may take to hear of objects and to act.
const WITHIN: Duration = Duration::from_secs(30);
/// Whom a server sees, it says on this port.
const PORT: u16 = 8080;
/// An address that nobody has, and leads to a pod of another node.
const SERVICE: &str = "10.96.0.10";
/// A port of all nodes, and one of the pod's own, that lead there, too.
const NODE_PORT: u16 = 30_080;
const HOST_PORT: u16 = 8088;
/// Who is outside: the lab itself.
const OUTSIDE: &str = "192.0.2.1";

/// The selector of closed hosts.
pub(super) const HOSTS: &str = "role == 'host'";

/// Pods, services and ports of hosts on two racks.
pub(crate) fn vxlan(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let plan = Plan { control_plane, nodes: 2, families: Families::V4, fabric: Fabric::Routed };
    let mut cluster = Cluster::without_daemons(dir, plan, &mut |step| eprintln!("{step}"))?;
    for node in &cluster.nodes {
        cluster.start_daemon_with(node, &super::tunnels::WITHOUT_BGP)?;
    }
    cluster.wait_ready()?;
    cluster.add_pods("pod", 2)?;
    let pool = json!({
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "IPPool",
        "metadata": {"name": "default-ipv4-ippool"},
    });
    cluster.api.patch_any(&pool, &json!({"spec": {"natOutgoing": true}}))?;
    Matrix::probe(&cluster, WITHIN)?.require_full()?;
    let (near, far) = (pod_on(&cluster, "node-1")?, pod_on(&cluster, "node-2")?);
    let (first, second) = (cluster.node("node-1")?, cluster.node("node-2")?);
    translate(&cluster, far)?;
    serve(second, Some(far))?;
    serve(second, None)?;
    let tunnel = addr_of(first, TunnelDevice::VXLAN_V4)?;
    let far_tunnel = addr_of(second, TunnelDevice::VXLAN_V4)?;
    let capture = Capture::start(dir, "plain", "tcp and net 10.244.0.0/16")?;
    let all_as_wanted = || {
        for (what, from, to, port, expected) in [
            ("a pod and another node's", Asks::Pod(first, near), far.addr()?, PORT, near.addr()?),
            ("a pod and a service", Asks::Pod(first, near), addr(SERVICE)?, 80, near.addr()?),
            ("a node and a service", Asks::Node(first), addr(SERVICE)?, 80, tunnel),
            ("outside and a host's port", Asks::Outside, second.addr()?, HOST_PORT, addr(OUTSIDE)?),
            ("outside and another node's port", Asks::Outside, first.addr()?, NODE_PORT, tunnel),
        ] {
            let seen =
                from.ask(to, port).map_err(|error| Error::wrong(format!("{what}: {error}")))?;
            if seen != expected {
                return Err(Error::wrong(format!("{what}: {seen} is seen, not {expected}")));
            }
        }
        Ok(())
    };
    eventually("all that is translated to arrive", WITHIN, all_as_wanted)?;
    require_outside_sees(first, near)?;
    // Whatever goes to the far pod goes inside of the tunnel; only the answers to outside do not.
    let seen = capture.end()?.packets;
    let own = near.addr()?.to_string();
    if let Some(line) = seen.iter().find(|line| line.contains(&own)) {
        return Err(Error::wrong(format!("packets of a pod were not wrapped: {line}")));
    }
    // The server of the node itself is reached through the tunnel, until policy for hosts says no.
    Asks::Node(first).ask(far_tunnel, PORT)?;
    close_hosts(&cluster)?;
    eventually("hosts to be closed, also through the tunnel", WITHIN, || {
        match Asks::Node(first).ask(far_tunnel, PORT) {
            Err(_) => Ok(()),
            Ok(seen) => Err(Error::wrong(format!("the server of node-2 has seen {seen}"))),
        }
    })?;
    all_but_nodes(&cluster, first, near, far)?;
    Matrix::probe(&cluster, WITHIN)?.require_full()
}

/// A service whose pod is on `far` is reached from node-1 through a tunnel, by a pod, and by the
/// node itself, which has the address of its own end, `device`, there.
pub(super) fn lead_through(cluster: &Cluster, far: &str, device: &str) -> Result<(), Error> {
    let (first, near, far) =
        (cluster.node("node-1")?, pod_on(cluster, "node-1")?, pod_on(cluster, far)?);
    translate(cluster, far)?;
    serve(cluster.node(&far.node)?, Some(far))?;
    let service = addr(SERVICE)?;
    for (from, expected) in
        [(Asks::Pod(first, near), near.addr()?), (Asks::Node(first), addr_of(first, device)?)]
    {
        let seen = eventually("a service to be reached", WITHIN, || from.ask(service, 80))?;
        if seen != expected {
            return Err(Error::wrong(format!("behind a service {seen} is seen, not {expected}")));
        }
    }
    Ok(())
}

/// What is forwarded goes on although hosts are closed, and so does the tunnel.
fn all_but_nodes(
    cluster: &Cluster,
    first: &Node,
    near: &RunningPod,
    far: &RunningPod,
) -> Result<(), Error> {
    let second = cluster.node("node-2")?;
    for (from, to, port) in [
        (Asks::Pod(first, near), far.addr()?, PORT),
        (Asks::Pod(first, near), addr(SERVICE)?, 80),
        (Asks::Outside, second.addr()?, HOST_PORT),
        (Asks::Outside, first.addr()?, NODE_PORT),
    ] {
        from.ask(to, port)?;
    }
    Ok(())
}

/// Who asks.
#[derive(Clone, Copy)]
enum Asks<'a> {
    Pod(&'a Node, &'a RunningPod),
    Node(&'a Node),
    Outside,
}

impl Asks<'_> {
    /// Returns whom the server sees.
    fn ask(self, to: IpAddr, port: u16) -> Result<IpAddr, Error> {
        let target = format!("TCP:{to}:{port},connect-timeout=2");
        let command = ["socat", "-u", &target, "STDOUT"];
        let said = match self {
            Self::Pod(node, pod) => {
                let netns = ["ip", "netns", "exec", pod.pod.container.as_str()];
                node.run(&[&netns[..], &command].concat())?
            }
            Self::Node(node) => node.run(&command)?,
            Self::Outside => {
                // The lab has an address on each rack besides.
                let target = format!("{target},bind={OUTSIDE}");
                output(Command::new("socat").args(["-u", &target, "STDOUT"]))?
            }
        };
        addr(said.trim())
    }
}

/// A server of the pod, or of the node itself, says to each whom it sees.
fn serve(node: &Node, pod: Option<&RunningPod>) -> Result<(), Error> {
    let listen = format!("TCP-LISTEN:{PORT},fork,reuseaddr");
    let command = ["socat", &listen, "SYSTEM:echo $SOCAT_PEERADDR"];
    let variables = std::collections::BTreeMap::new();
    match pod {
        Some(pod) => {
            let netns = ["ip", "netns", "exec", pod.pod.container.as_str()];
            let command: Vec<&str> = netns.into_iter().chain(command).collect();
            node.start_program("server-of-pod", &command, &variables)
        }
        None => node.start_program("server", &command, &variables),
    }
}

/// Makes the rules of kube-proxy and portmap that lead to a pod.
fn translate(cluster: &Cluster, far: &RunningPod) -> Result<(), Error> {
    let pod = far.addr()?;
    for node in &cluster.nodes {
        let host_port = if node.name == far.node {
            format!("fib daddr type local tcp dport {HOST_PORT} dnat to {pod}:{PORT}\n")
        } else {
            String::new()
        };
        let rules = format!(
            "table ip kube {{\n\
             chain lead {{\n\
             ip daddr {SERVICE} tcp dport 80 ip saddr != 10.244.0.0/16 meta mark set meta mark or 0x4000\n\
             ip daddr {SERVICE} tcp dport 80 dnat to {pod}:{PORT}\n\
             fib daddr type local tcp dport {NODE_PORT} meta mark set meta mark or 0x4000\n\
             fib daddr type local tcp dport {NODE_PORT} dnat to {pod}:{PORT}\n\
             {host_port}}}\n\
             chain in {{ type nat hook prerouting priority dstnat; jump lead; }}\n\
             chain own {{ type nat hook output priority -100; jump lead; }}\n\
             chain out {{ type nat hook postrouting priority srcnat;\n\
             meta mark & 0x4000 != 0 masquerade; }}\n\
             }}\n"
        );
        node.run(&["nft", &rules])?;
    }
    Ok(())
}

/// Outside of the cluster a pod is seen by its node's address.
fn require_outside_sees(node: &Node, pod: &RunningPod) -> Result<(), Error> {
    let listener = TcpListener::bind((addr(OUTSIDE)?, 0)).map_err(Error::wrong)?;
    let port = listener.local_addr().map_err(Error::wrong)?.port();
    let seen = std::thread::spawn(move || {
        let (mut stream, seen): (TcpStream, SocketAddr) = listener.accept()?;
        // Until the other end is closed.
        stream.read_to_end(&mut Vec::new()).map(|_| seen.ip())
    });
    let target = format!("TCP:{OUTSIDE}:{port},connect-timeout=2");
    let netns = ["ip", "netns", "exec", pod.pod.container.as_str()];
    node.run(&[&netns[..], &["socat", "-u", "/dev/null", &target]].concat())?;
    let seen = seen.join().map_err(|_| Error::wrong("the listener panicked"))?;
    let seen = seen.map_err(Error::wrong)?;
    if seen == node.addr()? {
        return Ok(());
    }
    Err(Error::wrong(format!("outside a pod is seen as {seen}, not as its node {}", node.addr()?)))
}

/// Denies hosts everything that is no failsafe.
pub(super) fn close_hosts(cluster: &Cluster) -> Result<(), Error> {
    for node in &cluster.nodes {
        cluster.api.create_any(&json!({
            "apiVersion": "crd.projectcalico.org/v1", "kind": "HostEndpoint",
            "metadata": {"name": node.name, "labels": {"role": "host"}},
            "spec": {"node": node.name, "interfaceName": "*", "expectedIPs": node.addrs},
        }))?;
    }
    cluster.api.create_any(&json!({
        "apiVersion": "crd.projectcalico.org/v1", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "default.closed"},
        "spec": {"tier": "default", "selector": HOSTS, "types": ["Ingress", "Egress"]},
    }))?;
    Ok(())
}

fn addr_of(node: &Node, device: &str) -> Result<IpAddr, Error> {
    let text = node.run(&["ip", "-json", "address", "show", "dev", device])?;
    let found: serde_json::Value = serde_json::from_str(&text).map_err(Error::wrong)?;
    let local = found.pointer("/0/addr_info/0/local").and_then(serde_json::Value::as_str);
    addr(local.ok_or_else(|| Error::wrong(format!("{device} has no address: {text}")))?)
}

fn addr(text: &str) -> Result<IpAddr, Error> {
    text.parse().map_err(|_| Error::wrong(format!("`{text}` is no address")))
}

fn pod_on<'a>(cluster: &'a Cluster, node: &str) -> Result<&'a RunningPod, Error> {
    let pod = cluster.pods.iter().find(|pod| pod.node == node);
    pod.ok_or_else(|| Error::wrong(format!("no pod on {node}")))
}
