//! Who is no node of the cluster gets nothing through a tunnel, whatever hosts' own policy says;
//! and nodes get everything through theirs.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use lab::Error;
use lab::cluster::{Cluster, RunningPod, eventually};
use lab::process::{ip, output};
use lab::rest::Request;
use model::desired::TunnelDevice;
use serde_json::{Value, json};

use super::faults::{flows, require_lossless};
use super::tunnel_services::{HOSTS, close_hosts};

/// How long nodes may take to hear of objects and to act.
const WITHIN: Duration = Duration::from_secs(30);
/// How long a connection may take on a busy machine.
const PATIENCE: Duration = Duration::from_millis(500);
/// Where calico-node shows its metrics, which no failsafe port is.
const METRICS: u16 = 9091;

/// The router, which is no node, sends to a pod by VXLAN: nothing comes of it, be hosts without
/// policy, closed or open, unless `externalNodesList` names it; and closed hosts' pods talk on.
pub(super) fn are_dropped(cluster: &Cluster) -> Result<(), Error> {
    let flows = flows(cluster, "node-1", "node-2")?;
    for (from, to) in &flows {
        cluster.node(&from.node)?.start_flow(&from.pod.container, to.addr()?)?;
    }
    let pod = &flows.first().ok_or_else(|| Error::wrong("no pods"))?.0;
    let stranger = Stranger::of(cluster, pod)?;
    stranger.require_dropped()?;
    close_hosts(cluster)?;
    eventually("hosts to be closed", WITHIN, || require_hosts(cluster, Hosts::Closed))?;
    stranger.require_dropped()?;
    let open = json!({
        "apiVersion": "crd.projectcalico.org/v1", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "default.open"},
        "spec": {
            "tier": "default", "order": 1, "selector": HOSTS, "types": ["Ingress", "Egress"],
            "ingress": [{"action": "Allow"}], "egress": [{"action": "Allow"}],
        },
    });
    cluster.api.create_any(&open)?;
    eventually("hosts to be open", WITHIN, || require_hosts(cluster, Hosts::Open))?;
    stranger.require_dropped()?;
    require_counted(cluster, pod)?;

    let object = "/apis/crd.projectcalico.org/v1/felixconfigurations/default";
    let patch = json!({"spec": {"externalNodesList": ["192.0.2.1", "198.18.0.0/16"]}});
    cluster.api.send(Request::merge(object, &patch))?.success()?;
    eventually("an external node to be let in", WITHIN, || stranger.ping())?;
    cluster.api.delete_any(&open)?;
    eventually("hosts to be closed again", WITHIN, || require_hosts(cluster, Hosts::Closed))?;
    // Whoever may send through the tunnel is policy for pods' affair, not for hosts.
    eventually("an external node to stay let in", WITHIN, || stranger.ping())?;
    drop(stranger);
    reopen(cluster)?;
    for (from, to) in &flows {
        let ledger = cluster.node(&from.node)?.stop_flow(&from.pod.container, to.addr()?)?;
        require_lossless(from, to, &ledger)?;
    }
    Ok(())
}

/// A tunnel's end that no node has, until it is dropped.
struct Stranger {
    pod: String,
}

impl Stranger {
    /// Makes one that leads to a pod.
    fn of(cluster: &Cluster, pod: &RunningPod) -> Result<Self, Error> {
        let (node, addr) = (cluster.node(&pod.node)?, pod.addr()?.to_string());
        let own = node.addr()?.to_string();
        let text = node.run(&["ip", "-json", "link", "show", TunnelDevice::VXLAN_V4])?;
        let link: Value = serde_json::from_str(&text).map_err(Error::wrong)?;
        let mac = link.pointer("/0/address").and_then(Value::as_str);
        let mac = mac.ok_or_else(|| Error::wrong(format!("no MAC address: {text}")))?;
        let make = ["link", "add", "stranger", "type", "vxlan", "id", "4096", "dstport", "4789"];
        ip(&[&make[..], &["remote", &own, "nolearning"]].concat())?;
        ip(&["link", "set", "stranger", "up"])?;
        ip(&["route", "add", &addr, "dev", "stranger", "src", "192.0.2.1"])?;
        ip(&["neighbour", "add", &addr, "lladdr", mac, "dev", "stranger", "nud", "permanent"])?;
        Ok(Self { pod: addr })
    }

    fn ping(&self) -> Result<(), Error> {
        output(Command::new("ping").args(["-n", "-c", "1", "-W", "1", &self.pod])).map(drop)
    }

    fn require_dropped(&self) -> Result<(), Error> {
        match self.ping() {
            Err(_) => Ok(()),
            Ok(()) => Err(Error::wrong("a stranger's packets came through a tunnel")),
        }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        drop(ip(&["link", "delete", "stranger"]));
    }
}

/// What hosts let come in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Hosts {
    Closed,
    Open,
}

/// Fails unless all hosts are so, by a port that no failsafe is for.
fn require_hosts(cluster: &Cluster, wanted: Hosts) -> Result<(), Error> {
    for node in &cluster.nodes {
        let at = SocketAddr::new(node.addr()?, METRICS);
        let is_open = TcpStream::connect_timeout(&at, PATIENCE).is_ok();
        if is_open != (wanted == Hosts::Open) {
            return Err(Error::wrong(format!("{} is open: {is_open}", node.name)));
        }
    }
    Ok(())
}

/// `calico-node policy counters` tells of what strangers sent to the pod's node.
fn require_counted(cluster: &Cluster, pod: &RunningPod) -> Result<(), Error> {
    let node = cluster.node(&pod.node)?;
    let counters = node.run(&[&cluster.program("calico-node"), "policy", "counters"])?;
    let line = counters.lines().find(|line| line.contains("VXLAN from a stranger"));
    let packets = line.and_then(|line| line.split_whitespace().find_map(|word| word.parse().ok()));
    if packets.is_some_and(|packets: u64| packets > 0) {
        return Ok(());
    }
    Err(Error::wrong(format!("nothing was counted:\n{counters}")))
}

/// Takes the policy for hosts away.
fn reopen(cluster: &Cluster) -> Result<(), Error> {
    let of = |kind: &str, name: &str| {
        json!({
            "apiVersion": "crd.projectcalico.org/v1", "kind": kind, "metadata": {"name": name},
        })
    };
    for node in &cluster.nodes {
        cluster.api.delete_any(&of("HostEndpoint", &node.name))?;
    }
    cluster.api.delete_any(&of("GlobalNetworkPolicy", "default.closed"))?;
    eventually("hosts to be without policy", WITHIN, || require_hosts(cluster, Hosts::Open))
}
