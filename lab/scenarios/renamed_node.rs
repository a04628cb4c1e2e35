//! A node comes back under another name: what led to the old one leads to the new one, and nothing
//! else is left of it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use datastore::Object;
use lab::cluster::{Cluster, eventually};
use lab::node::Node;
use lab::reachability::Matrix;
use lab::{Error, Signal, routes};
use model::desired::TunnelDevice;
use serde_json::Value;

use super::ipam;
use super::tunnels::WITHOUT_BGP;

/// How long nodes and the controller may take.
const WITHIN: Duration = Duration::from_secs(60);
/// Long enough for a packet that comes at all. The node's lost pods ask, too, and wait so long.
const SOON: Duration = Duration::from_secs(2);

/// A node is renamed without a reboot, its pods lost without a DEL: its address, its tunnel's
/// device and what is on its disk are the old ones.
pub(super) fn is_followed(
    cluster: &mut Cluster,
    dir: &Path,
    (old, new): (&str, &str),
) -> Result<(), Error> {
    ipam::make_impatient(cluster)?;
    let controllers = cluster.start_controllers(dir)?;
    cluster.end_daemon(cluster.node(old)?, Signal::SIGTERM)?;
    ipam::forget_pods(cluster, |pod| pod.node == old)?;
    ipam::delete_node(cluster, old)?;
    cluster.rename_node(old, new)?;
    cluster.start_daemon_with(cluster.node(new)?, &WITHOUT_BGP)?;
    cluster.wait_ready()?;
    cluster.add_pods(new, cluster.nodes.len())?;
    let reached = || Matrix::probe(cluster, SOON)?.require_full();
    eventually("pods of the new name to be reached", WITHIN, reached)?;
    eventually(&format!("{old} to be forgotten"), WITHIN, || {
        require_forgotten::<api::BlockAffinity>(cluster, old)?;
        require_forgotten::<api::IpamBlock>(cluster, old)?;
        require_forgotten::<api::IpamHandle>(cluster, old)
    })?;
    for node in &cluster.nodes {
        let what = format!("the tunnel of {} to lead to all others", node.name);
        eventually(&what, WITHIN, || require_tunnel(cluster, node))?;
    }
    reached()?;
    controllers.require_running()
}

/// No object of a kind says anything of a node.
fn require_forgotten<T: Object>(cluster: &Cluster, node: &str) -> Result<(), Error> {
    for object in cluster.api.list::<T>()? {
        let text = serde_json::to_string(&object).map_err(Error::wrong)?;
        if text.contains(node) {
            return Err(Error::wrong(format!("{node} is in {text}")));
        }
    }
    Ok(())
}

/// The end of a node's tunnel, as its kernel has it.
struct End {
    addr: String,
    mac: String,
}

impl End {
    fn of(node: &Node) -> Result<Self, Error> {
        let found = json_of(node, &["address", "show", "dev", TunnelDevice::VXLAN_V4])?;
        let text = |field: &str| {
            let text = found.pointer(field).and_then(Value::as_str).map(str::to_owned);
            text.ok_or_else(|| Error::wrong(format!("{}: no {field} in {found}", node.name)))
        };
        Ok(Self { addr: text("/0/addr_info/0/local")?, mac: text("/0/address")? })
    }
}

/// A node's neighbours, forwards and routes are those to the other nodes' ends, and no more.
fn require_tunnel(cluster: &Cluster, node: &Node) -> Result<(), Error> {
    let (mut neighbours, mut forwards) = (BTreeSet::new(), BTreeSet::new());
    let mut ways = BTreeSet::new();
    let blocks = routes::blocks(cluster)?;
    for other in cluster.nodes.iter().filter(|other| other.name != node.name) {
        let end = End::of(other)?;
        neighbours.insert(format!("{} {}", end.addr, end.mac));
        forwards.insert(format!("{} {}", end.mac, other.addr()?));
        let of_other = blocks.iter().filter(|(_, owner)| **owner == other.name);
        ways.extend(of_other.map(|(cidr, _)| format!("{cidr} {}", end.addr)));
    }
    let device = TunnelDevice::VXLAN_V4;
    let found = json_of(node, &["-4", "neighbour", "show", "dev", device])?;
    require_equal(node, "neighbours", &neighbours, &pairs(&found, ["dst", "lladdr"]))?;
    let text = node.run(&["bridge", "-json", "fdb", "show", "dev", device])?;
    let found = serde_json::from_str(&text).map_err(Error::wrong)?;
    require_equal(node, "forwards", &forwards, &pairs(&found, ["mac", "dst"]))?;
    let found = json_of(node, &["-4", "route", "show", "proto", "80", "dev", device])?;
    require_equal(node, "routes", &ways, &pairs(&found, ["dst", "gateway"]))
}

/// Returns what ip(8) says of a node, as JSON.
fn json_of(node: &Node, words: &[&str]) -> Result<Value, Error> {
    let text = node.run(&[&["ip", "-json"], words].concat())?;
    serde_json::from_str(&text).map_err(Error::wrong)
}

/// Returns two fields of each entry of a list.
fn pairs(list: &Value, fields: [&str; 2]) -> BTreeSet<String> {
    let entries = list.as_array().into_iter().flatten();
    let text = |entry: &Value| {
        fields.map(|field| entry.get(field).and_then(Value::as_str).unwrap_or("?").to_owned())
    };
    entries.map(|entry| text(entry).join(" ")).collect()
}

fn require_equal(
    node: &Node,
    what: &str,
    wanted: &BTreeSet<String>,
    found: &BTreeSet<String>,
) -> Result<(), Error> {
    if wanted == found {
        return Ok(());
    }
    Err(Error::wrong(format!("{what} of {}: {found:?}, not {wanted:?}", node.name)))
}
