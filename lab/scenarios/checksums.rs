//! An interface to the fabric that cannot fill in checksums inside of tunnels.
//!
//! What such an interface does is done to a node's VXLAN packets on its cable: the checksum
//! outside is made well (it is taken away, as RFC 768 allows), and what is inside goes on as it is. So a
//! checksum that was left to the interface never gets right, and one that is right stays so.

use std::path::Path;
use std::time::Duration;

use lab::cluster::{Cluster, Fabric, Families, Plan, eventually};
use lab::control_plane::Kind;
use lab::node::Node;
use lab::process::ip;
use lab::reachability::Matrix;
use lab::rest::Request;
use lab::{Error, Signal};
use serde_json::json;

/// How long nodes may take to find out and to act.
const WITHIN: Duration = Duration::from_secs(60);
/// Long enough for a packet that comes at all.
const SOON: Duration = Duration::from_secs(2);
/// What `calicoctl check` tells.
const SPOILED: Option<&str> = Some("tunnel-spoils-checksums");
const FILLED: Option<&str> = Some("tunnel-fills-in-checksums");
/// The fabric's bridge, and the end of node-1's cable there.
const BRIDGE: &str = "fabric";
const CABLE: &str = "port-1";
/// The pair of devices by which packets take the way of the bad interface.
const PAIR: [&str; 2] = ["bad-in", "bad-out"];

/// Pods do not reach each other over a bad interface; calico-node finds out and they do; what
/// administrators say goes before it.
pub(crate) fn are_spoiled(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let plan = Plan { control_plane, nodes: 2, families: Families::V4, fabric: Fabric::Bridge };
    let mut cluster = Cluster::without_daemons(dir, plan, &mut |step| eprintln!("{step}"))?;
    for node in &cluster.nodes {
        cluster.start_daemon_with(node, &super::tunnels::WITHOUT_BGP)?;
    }
    cluster.wait_ready()?;
    cluster.add_pods("pod", 2)?;
    let reached = || Matrix::probe(&cluster, SOON)?.require_full();
    eventually("pods to reach each other", WITHIN, reached)?;
    let (first, second) = (cluster.node("node-1")?, cluster.node("node-2")?);
    require_told(&cluster, first, None)?;
    // Nobody acts while administrators say that all is well.
    override_it(&cluster, "ChecksumOffloadBroken=false")?;
    let relay = spoil(&cluster)?;
    require_unreached(&cluster)?;
    require_told(&cluster, first, SPOILED)?;
    override_it(&cluster, "")?;
    cluster.end_daemon(first, Signal::SIGTERM)?;
    cluster.start_daemon_with(first, &super::tunnels::WITHOUT_BGP)?;
    eventually("pods to reach each other again", WITHIN, reached)?;
    require_told(&cluster, first, FILLED)?;
    require_told(&cluster, second, None)?;
    // A restart neither forgets nor tries it on the pods.
    cluster.end_daemon(first, Signal::SIGKILL)?;
    cluster.start_daemon_with(first, &super::tunnels::WITHOUT_BGP)?;
    cluster.wait_ready()?;
    reached()?;
    override_it(&cluster, "ChecksumOffloadBroken=true")?;
    eventually("all to fill them in", WITHIN, || require_told(&cluster, second, FILLED))?;
    reached()?;
    drop(relay);
    override_it(&cluster, "ChecksumOffloadBroken=false")?;
    for node in [first, second] {
        eventually("all to leave them", WITHIN, || require_told(&cluster, node, None))?;
    }
    eventually("pods to reach each other as before", WITHIN, reached)
}

/// The bad interface, until it is dropped.
struct Relay(std::process::Child);

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
        drop(std::process::Command::new("nft").args(["delete", "table", "netdev", "bad"]).output());
        drop(ip(&["link", "delete", PAIR[0]]));
    }
}

/// Has node-1's VXLAN packets pass through a program that copies them as they are.
fn spoil(cluster: &Cluster) -> Result<Relay, Error> {
    ip(&["link", "add", PAIR[0], "type", "veth", "peer", "name", PAIR[1]])?;
    for name in PAIR {
        ip(&["link", "set", name, "up"])?;
    }
    let (from, to) = (format!("INTERFACE:{}", PAIR[1]), format!("INTERFACE:{BRIDGE}"));
    let mut command = std::process::Command::new("socat");
    command.args(["-u", "-b65536", &from, &to]);
    let relay = command.spawn().map_err(|error| Error::program("socat", error))?;
    let relay = Relay(relay);
    let rules = format!(
        "add table netdev bad; add chain netdev bad in {{ type filter hook ingress device {CABLE} \
         priority 0; }}; add rule netdev bad in udp dport 4789 @th,48,16 set 0 fwd to {}",
        PAIR[0]
    );
    lab::process::output(std::process::Command::new("nft").arg(&rules))?;
    eventually("the bad interface to be in between", WITHIN, || require_unreached(cluster))?;
    Ok(relay)
}

fn require_unreached(cluster: &Cluster) -> Result<(), Error> {
    let probed = Matrix::probe(cluster, SOON)?;
    if probed.require_full().is_err() {
        return Ok(());
    }
    Err(Error::wrong(format!("pods reach each other all the same:\n{probed}")))
}

/// Says what administrators know.
fn override_it(cluster: &Cluster, features: &str) -> Result<(), Error> {
    let path = "/apis/crd.projectcalico.org/v1/felixconfigurations/default";
    let change = json!({"spec": {"featureDetectOverride": features}});
    cluster.api.send(Request::merge(path, &change))?.success().map(drop)
}

/// `calicoctl check` says this about the node's tunnel, and nothing else.
fn require_told(cluster: &Cluster, node: &Node, expected: Option<&str>) -> Result<(), Error> {
    let script = format!("{} check -o json || [ $? = 3 ]", cluster.program("calicoctl"));
    let text = node.run(&["sh", "-c", &script])?;
    let found: serde_json::Value = serde_json::from_str(&text).map_err(Error::wrong)?;
    let findings = found.get("findings").and_then(serde_json::Value::as_array);
    let ids = findings.into_iter().flatten().filter_map(|finding| finding["id"].as_str());
    let told: Vec<&str> = ids.filter(|id| id.starts_with("tunnel")).collect();
    if told == expected.into_iter().collect::<Vec<_>>() {
        return Ok(());
    }
    Err(Error::wrong(format!("{} is told, not {expected:?}: {text}", told.join(", "))))
}
