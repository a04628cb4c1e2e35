//! Addresses run out, pools change under live pods, and freed addresses lead nowhere.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use lab::Error;
use lab::cluster::{Cluster, Fabric, Families, NAMESPACE, NewPod, Plan, eventually};
use lab::control_plane::Kind;
use lab::node::Node;
use lab::reachability::Matrix;
use lab::routes;
use model::net::Cidr;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::faults::OUTAGE;

/// How long sessions and routes may take.
const WITHIN: Duration = Duration::from_secs(30);
/// How long an answer is waited for that should not come.
const SILENCE_MS: u64 = 700;

/// Pools of four blocks run out on two nodes: the error and STATUS name the pool, what is free,
/// the limit and the remedy, and a pod that goes makes room (R04).
pub(crate) fn exhaustion(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let mut cluster = up(dir, control_plane)?;
    let api = &cluster.api;
    let default: Option<api::IpPool> = api.get("default-ipv4-ippool")?;
    let mut default = default.ok_or_else(|| Error::wrong("there is no default pool"))?;
    default.spec.disabled = Some(true);
    api.update(&default)?;
    add_pool(&cluster, "small", "10.244.128.0/28")?;
    cluster.add_pods("pod", 16)?;
    let full =
        "pool small 10.244.128.0/28: 0 of 16 addresses free; all blocks are full: delete pods";
    refused(&cluster, "node-1", 106, full)?;
    // STATUS believes for a minute that there is none, unless its own node gives one back.
    cluster.remove_pods(|pod| ["pod-1", "pod-2"].contains(&pod.pod.name.as_str()))?;
    accepted(&cluster, "node-1")?;
    cluster.add_pod(&pod("next", "node-1"))?;
    cluster.add_pod(&pod("borrower", "node-1"))?;
    refused(&cluster, "node-2", 106, full)?;
    cluster.remove_pods(|_| true)?;

    // Now every node is for itself, and may have one block.
    configure(&cluster, 1)?;
    let small: Option<api::IpPool> = cluster.api.get("small")?;
    let mut small = small.ok_or_else(|| Error::wrong("the pool is gone"))?;
    small.spec.disabled = Some(true);
    cluster.api.update(&small)?;
    add_pool(&cluster, "strict", "10.244.129.0/28")?;
    cluster.add_pods("strict", 8)?;
    let capped = "pool strict 10.244.129.0/28: 8 of 16 addresses free; \
                  limit of 1 blocks reached, node node-1 has 1 and all are full: \
                  raise maxBlocksPerHost in IPAMConfig `default`";
    refused(&cluster, "node-1", 119, capped)?;
    cluster.remove_pods(|pod| pod.pod.name == "strict-1")?;
    accepted(&cluster, "node-1")?;
    cluster.add_pod(&pod("again", "node-1"))?;
    configure(&cluster, 0)?;
    for number in 1..=8 {
        cluster.add_pod(&pod(&format!("more-{number}"), "node-1"))?;
    }
    cluster.remove_pods(|pod| pod.pod.name == "strict-2")?;
    let strict = "pool strict 10.244.129.0/28: 1 of 16 addresses free; node node-1 may not borrow \
                  from other nodes' blocks and no block is unclaimed: set strictAffinity to false";
    refused(&cluster, "node-1", 119, strict)?;
    cluster.add_pod(&pod("last", "node-2"))?;
    Matrix::probe(&cluster, WITHIN)?.require_full()
}

/// The block size of a pool changes twice under live pods: no block overlaps another, no address
/// is given twice, and everybody stays in touch (R07).
pub(crate) fn block_size(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let mut cluster = up(dir, control_plane)?;
    cluster.add_pods("first", 8)?;
    for (round, size) in [("larger", 25), ("smaller", 28), ("as-before", 26)] {
        let pool: Option<api::IpPool> = cluster.api.get("default-ipv4-ippool")?;
        let mut pool = pool.ok_or_else(|| Error::wrong("there is no default pool"))?;
        pool.spec.block_size = Some(size);
        cluster.api.update(&pool)?;
        // The old blocks are given up as far as they are empty; live pods keep theirs.
        cluster.remove_pods(|pod| pod.pod.name.ends_with(['1', '2']))?;
        cluster.add_pods(round, 8)?;
        require_distinct(&cluster)?;
    }
    eventually("routes as modelled", WITHIN, || routes::require_as_modelled(&cluster))?;
    Matrix::probe(&cluster, WITHIN)?.require_full()
}

/// While the API server is away, pods keep their routes; and packets to an address that was freed
/// never leave the node of its block: when nobody can be told that a pod has gone, when everybody
/// was, and without calico-node (R08).
pub(crate) fn freed_lead_nowhere(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let mut cluster = up(dir, control_plane)?;
    cluster.add_pods("pod", 8)?;
    Matrix::probe(&cluster, WITHIN)?.require_full()?;
    eventually("routes as modelled", WITHIN, || routes::require_as_modelled(&cluster))?;
    let before: Vec<_> = cluster.nodes.iter().map(routes::actual).collect::<Result<_, _>>()?;
    cluster.control_plane.stop_api_server();
    std::thread::sleep(OUTAGE);
    let during: Vec<_> = cluster.nodes.iter().map(routes::actual).collect::<Result<_, _>>()?;
    if before != during {
        return Err(Error::wrong(format!("routes changed: {before:?}, then {during:?}")));
    }
    Matrix::probe(&cluster, WITHIN)?.require_full()?;
    let freed: Vec<IpAddr> = on(&cluster, "node-1").skip(1).collect();
    for node in &cluster.nodes {
        watch(node, &freed)?;
    }
    let kept = on(&cluster, "node-1").next().ok_or_else(|| Error::wrong("no pod on node-1"))?;
    let is_reached = |cluster: &Cluster| -> Result<(), Error> {
        let reached = reached(cluster, "node-2", &[kept])?;
        require(!reached.is_empty(), || format!("{kept} is in use and yet unreachable"))
    };
    let gone = cluster.pods.iter().find(|pod| pod.addrs().iter().any(|addr| freed.contains(addr)));
    let gone = gone.ok_or_else(|| Error::wrong("one pod on node-1"))?;
    let link = api::names::host_veth_name(&gone.pod.namespace, &gone.pod.name, "cali");
    let link = link.ok_or_else(|| Error::wrong("a pod without interface"))?.to_string();
    cluster.node("node-1")?.run(&["ip", "link", "delete", &link])?;
    require_nowhere(&cluster, &[gone.addr()?])?;
    is_reached(&cluster)?;
    cluster.control_plane.start_api_server()?;

    cluster.remove_pods(|pod| pod.addrs().iter().any(|addr| freed.contains(addr)))?;
    eventually("routes as modelled", WITHIN, || routes::require_as_modelled(&cluster))?;
    require_nowhere(&cluster, &freed)?;
    cluster.end_daemon(cluster.node("node-1")?, Signal::SIGKILL)?;
    require_nowhere(&cluster, &freed)?;
    is_reached(&cluster)
}

fn up(dir: &Path, control_plane: Kind) -> Result<Cluster, Error> {
    let plan = Plan { control_plane, nodes: 2, families: Families::V4, fabric: Fabric::Bridge };
    Cluster::up(dir, plan, &mut |step| eprintln!("{step}"))
}

fn add_pool(cluster: &Cluster, name: &str, cidr: &str) -> Result<(), Error> {
    let pool = json!({
        "metadata": {"name": name},
        "spec": {"cidr": cidr, "blockSize": 30, "nodeSelector": "all()"},
    });
    cluster.api.create::<api::IpPool>(pool).map(drop)
}

/// Makes nodes strict, with at most so many blocks each; zero is Calico's own limit.
fn configure(cluster: &Cluster, max_blocks: i64) -> Result<(), Error> {
    let config: Option<api::IpamConfig> = cluster.api.get("default")?;
    let spec = json!({
        "strictAffinity": true, "autoAllocateBlocks": true, "maxBlocksPerHost": max_blocks,
    });
    match config {
        None => cluster
            .api
            .create::<api::IpamConfig>(json!({"metadata": {"name": "default"}, "spec": spec}))
            .map(drop),
        Some(mut config) => {
            config.spec = serde_json::from_value(spec).map_err(Error::wrong)?;
            cluster.api.update(&config).map(drop)
        }
    }
}

fn pod(name: &str, node: &str) -> NewPod {
    NewPod::plain(NAMESPACE, name, node)
}

/// Requires that a pod gets no address, and the runtime no permission to try, for this reason and
/// with the code of its kind (docs/cni.md).
fn refused(cluster: &Cluster, node: &str, code: u32, reason: &str) -> Result<(), Error> {
    let made = cluster.create_pod(&pod("refused", node))?;
    let said = match cluster.attach_pod(made.clone(), node) {
        Ok(pod) => return Err(Error::wrong(format!("it got {:?}", pod.addrs()))),
        Err(error) => error.to_string(),
    };
    cluster.node(node)?.del(&made)?;
    let object = cluster.api.get_in::<core::Pod>(&made.namespace, &made.name)?;
    object.map_or(Ok(()), |object| cluster.api.delete(&object))?;
    let is_told = said.contains(reason) && said.contains(&format!("code {code}:"));
    require(is_told, || format!("ADD says: {said}, not: {reason}"))?;
    let status = status(cluster.node(node)?)?;
    let code = status.get("code").and_then(Value::as_u64);
    let message = status.get("msg").and_then(Value::as_str).unwrap_or_default();
    require(code == Some(50) && message.contains(reason), || format!("STATUS says: {status}"))
}

fn accepted(cluster: &Cluster, node: &str) -> Result<(), Error> {
    let status = status(cluster.node(node)?)?;
    require(status.is_null(), || format!("STATUS says: {status}"))
}

/// Asks as a runtime does whether the network takes pods; returns the error, or null for yes.
fn status(node: &Node) -> Result<Value, Error> {
    let list = node.run(&["cat", "/etc/cni/net.d/10-calico.conflist"])?;
    let list: Value = serde_json::from_str(&list).map_err(Error::wrong)?;
    let mut config = list.pointer("/plugins/0").cloned().unwrap_or_default();
    if let Some(config) = config.as_object_mut() {
        config.insert("name".to_owned(), list.get("name").cloned().unwrap_or_default());
        config.insert("cniVersion".to_owned(), json!("1.1.0"));
    }
    let script = "printf %s \"$1\" | CNI_COMMAND=STATUS CNI_PATH=/opt/cni/bin \
                  /opt/cni/bin/calico || true";
    let said = node.run(&["sh", "-c", script, "sh", &config.to_string()])?;
    if said.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&said).map_err(Error::wrong)
}

/// Requires that no two blocks overlap and no two pods have the same address.
fn require_distinct(cluster: &Cluster) -> Result<(), Error> {
    let mut blocks: Vec<Cidr> = Vec::new();
    for object in cluster.api.list::<api::IpamBlock>()? {
        let cidr = object.spec.cidr.parse().map_err(Error::wrong)?;
        let other = blocks.iter().find(|other| other.overlaps(&cidr));
        require(other.is_none(), || format!("blocks {cidr} and {other:?} overlap"))?;
        blocks.push(cidr);
    }
    let mut owners: BTreeMap<IpAddr, &str> = BTreeMap::new();
    for pod in &cluster.pods {
        for addr in pod.addrs() {
            let other = owners.insert(*addr, &pod.pod.name);
            require(other.is_none(), || format!("{addr} is of {} and {other:?}", pod.pod.name))?;
        }
    }
    Ok(())
}

/// Returns the addresses of the pods on a node.
fn on<'a>(cluster: &'a Cluster, node: &'a str) -> impl Iterator<Item = IpAddr> + 'a {
    cluster.pods.iter().filter(move |pod| pod.node == node).flat_map(|pod| pod.addrs().to_vec())
}

/// Counts packets to these addresses that leave the node by its cable.
fn watch(node: &Node, addrs: &[IpAddr]) -> Result<(), Error> {
    let addrs: Vec<String> = addrs.iter().map(ToString::to_string).collect();
    let rules = format!(
        "table inet lab-watch {{ chain out {{ type filter hook postrouting priority 300; \
         oifname eth0 ip daddr {{ {} }} counter; }}; }}",
        addrs.join(", ")
    );
    node.run(&["nft", &rules]).map(drop)
}

fn count(node: &Node) -> Result<u64, Error> {
    let text = node.run(&["nft", "list", "table", "inet", "lab-watch"])?;
    let number = text.split("counter packets ").nth(1).and_then(|rest| rest.split(' ').next());
    number.and_then(|number| number.parse().ok()).ok_or_else(|| Error::wrong(text))
}

/// Requires that nobody answers for these addresses of node-1, that node-2 asks node-1 for them,
/// and that node-1 asks nobody.
fn require_nowhere(cluster: &Cluster, freed: &[IpAddr]) -> Result<(), Error> {
    let (owner, other) = (cluster.node("node-1")?, cluster.node("node-2")?);
    let before = count(other)?;
    for node in ["node-1", "node-2"] {
        let reached = reached(cluster, node, freed)?;
        require(reached.is_empty(), || format!("{reached:?} answer to {node}"))?;
    }
    require(count(other)? > before, || "node-2 has not asked".to_owned())?;
    let left = count(owner)?;
    require(left == 0, || format!("{left} packets to freed addresses have left node-1"))
}

fn reached(cluster: &Cluster, node: &str, targets: &[IpAddr]) -> Result<Vec<IpAddr>, Error> {
    let reached = cluster.node(node)?.probe(targets, SILENCE_MS)?;
    Ok(reached.into_iter().flat_map(|one| [one.ping, one.tcp, one.udp].concat()).collect())
}

fn require(is_so: bool, what: impl FnOnce() -> String) -> Result<(), Error> {
    if is_so { Ok(()) } else { Err(Error::wrong(what())) }
}
