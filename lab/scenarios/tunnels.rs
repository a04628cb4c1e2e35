//! Tunnels over a fabric of racks behind a router that knows nothing of pods.
//!
//! What each mode does is judged by packets on the cables of the nodes. The scenarios take the kind
//! of tunnel: IP in IP needs a kernel with its module.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use lab::Error;
use lab::capture::{Capture, Seen};
use lab::cluster::{Cluster, Fabric, Families, Plan, RunningPod, eventually};
use lab::control_plane::Kind;
use lab::node::Node;
use lab::protocol::Ledger;
use lab::reachability::Matrix;
use model::desired::TunnelDevice;
use nix::sys::signal::Signal;

use crate::scenarios::faults::flows;
use crate::scenarios::{ipam, renamed_node, tunnel_services, tunnel_strangers};

/// How long nodes may take to hear of objects and to act.
const WITHIN: Duration = Duration::from_secs(30);
/// Long enough for a packet that comes at all.
const SOON: Duration = Duration::from_secs(2);
/// The most datagrams that a change of mode may cost a flow; one is sent each 10 ms.
const LOST: u64 = 100;

/// What wraps packets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Tunnel {
    /// IP in IP, for IPv4 only.
    Ipip,
    /// VXLAN, for both families.
    Vxlan,
}

impl Tunnel {
    /// Returns the device for IPv4.
    const fn device(self) -> &'static str {
        match self {
            Self::Ipip => TunnelDevice::IPIP,
            Self::Vxlan => TunnelDevice::VXLAN_V4,
        }
    }

    /// Returns the filter for echo messages, plain or in a tunnel: slow machines cannot write down
    /// all that goes over the cables.
    const fn echoes(self) -> &'static str {
        match self {
            // Behind the outer header is the inner one, with its protocol at 9.
            Self::Ipip => "icmp or (ip proto 4 and ip[29] = 1)",
            // Behind the outer header are those of UDP, VXLAN and Ethernet, 30 bytes.
            Self::Vxlan => "icmp or icmp6 or (udp port 4789 and (ip[59] = 1 or ip6[76] = 58))",
        }
    }
}

/// VXLAN in all its modes, for both families.
pub(crate) fn vxlan_modes(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    modes(dir, control_plane, Tunnel::Vxlan)
}

/// IP in IP in all its modes.
pub(crate) fn ipip_modes(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    modes(dir, control_plane, Tunnel::Ipip)
}

/// Without a tunnel racks do not reach each other; with one they do; modes change under traffic.
fn modes(dir: &Path, control_plane: Kind, tunnel: Tunnel) -> Result<(), Error> {
    let families = if tunnel == Tunnel::Vxlan { Families::Dual } else { Families::V4 };
    let plan = Plan { control_plane, nodes: 3, families, fabric: Fabric::Racks };
    let mut cluster = Cluster::up(dir, plan, &mut |step| eprintln!("{step}"))?;
    cluster.add_pods("pod", 3)?;
    eventually("the rack to reach itself", WITHIN, || require_racks_apart(&cluster))?;
    let near = flows(&cluster, "node-1", "node-2")?;
    start(&cluster, &near)?;
    for (step, mode) in ["Always", "CrossSubnet", "Always", "Never"].into_iter().enumerate() {
        eprintln!("{tunnel:?} {mode}");
        set_mode(&cluster, tunnel, mode)?;
        if mode == "Never" {
            eventually("the racks to be apart", WITHIN, || require_racks_apart(&cluster))?;
            continue;
        }
        let reached = || Matrix::probe(&cluster, SOON)?.require_full();
        eventually("all pods to reach each other", WITHIN, reached)?;
        let is_always = mode == "Always";
        eventually("routes of the mode", WITHIN, || require_routes(&cluster, tunnel, is_always))?;
        require_wrapped(&dir.join(step.to_string()), &cluster, tunnel, is_always)?;
        if step == 0 {
            tunnel_services::lead_through(&cluster, "node-3", tunnel.device())?;
        }
    }
    for (from, to) in &near {
        let ledger = cluster.node(&from.node)?.stop_flow(&from.pod.container, to.addr()?)?;
        require_few_lost(from, to, &ledger)?;
    }
    eventually("nothing to be left of the tunnel", WITHIN, || require_gone(&cluster, tunnel))
}

/// VXLAN without BGP: nodes come, change their address and their name, go, and what strangers send
/// is dropped.
pub(crate) fn vxlan_without_bgp(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let plan = Plan { control_plane, nodes: 2, families: Families::V4, fabric: Fabric::Routed };
    let mut cluster = Cluster::without_daemons(dir, plan, &mut |step| eprintln!("{step}"))?;
    for node in &cluster.nodes {
        cluster.start_daemon_with(node, &WITHOUT_BGP)?;
    }
    cluster.wait_ready()?;
    cluster.add_pods("pod", 2)?;
    Matrix::probe(&cluster, WITHIN)?.require_full()?;
    require_no_bgp(&cluster)?;
    eprintln!("strangers send");
    tunnel_strangers::are_dropped(&cluster)?;
    eprintln!("a path is narrow");
    require_narrow_paths_told(&cluster)?;

    eprintln!("a node comes");
    let third = cluster.add_node(dir, 3)?;
    cluster.start_daemon_with(&third, &WITHOUT_BGP)?;
    cluster.nodes.push(third);
    cluster.wait_ready()?;
    cluster.add_pods("more", 3)?;
    Matrix::probe(&cluster, WITHIN)?.require_full()?;

    eprintln!("it gets another address");
    readdress(&mut cluster, "node-3")?;
    let reached = || Matrix::probe(&cluster, SOON)?.require_full();
    eventually("a node to be found at its new address", WITHIN, reached)?;

    eprintln!("it gets another name");
    renamed_node::is_followed(&mut cluster, dir, ("node-3", "renamed-3"))?;

    eprintln!("it goes");
    let gone = "renamed-3";
    cluster.remove_pods(|pod| pod.node == gone)?;
    cluster.end_daemon(cluster.node(gone)?, Signal::SIGTERM)?;
    ipam::delete_node(&cluster, gone)?;
    let left = cluster.nodes.iter().filter(|node| node.name != gone);
    eventually("a node to be forgotten", WITHIN, || {
        left.clone().try_for_each(|node| require_entries(node, 1))
    })?;
    cluster.nodes.retain(|node| node.name != gone);
    Matrix::probe(&cluster, WITHIN)?.require_full()
}

pub(super) const WITHOUT_BGP: [(&str, &str); 3] = [
    ("CALICO_NETWORKING_BACKEND", "vxlan"),
    ("CLUSTER_TYPE", "k8s"),
    ("CALICO_IPV4POOL_VXLAN", "Always"),
];

fn set_mode(cluster: &Cluster, tunnel: Tunnel, mode: &str) -> Result<(), Error> {
    for name in ["default-ipv4-ippool", "default-ipv6-ippool"] {
        let Some(mut pool) = cluster.api.get::<api::IpPool>(name)? else { continue };
        match tunnel {
            Tunnel::Ipip => pool.spec.ipip_mode = Some(mode.to_owned()),
            Tunnel::Vxlan => pool.spec.vxlan_mode = Some(mode.to_owned()),
        }
        cluster.api.update(&pool)?;
    }
    Ok(())
}

fn start(cluster: &Cluster, flows: &[(RunningPod, RunningPod)]) -> Result<(), Error> {
    for (from, to) in flows {
        cluster.node(&from.node)?.start_flow(&from.pod.container, to.addr()?)?;
    }
    Ok(())
}

/// Pods of one rack reach each other, and none of another.
fn require_racks_apart(cluster: &Cluster) -> Result<(), Error> {
    let reached = Matrix::probe(cluster, SOON)?;
    let unreached = reached.unreached();
    let is_between = |cell: &String| cell.matches("pod-3").count() == 1;
    let families = cluster.pods.first().map_or(0, |pod| pod.addrs().len());
    // Two pods there and one here, both ways.
    if unreached.len() == families.saturating_mul(4) && unreached.iter().all(is_between) {
        return Ok(());
    }
    Err(Error::wrong(format!("not as without a tunnel:\n{reached}")))
}

fn pod_on<'a>(cluster: &'a Cluster, node: &str) -> Result<&'a RunningPod, Error> {
    let pod = cluster.pods.iter().find(|pod| pod.node == node);
    pod.ok_or_else(|| Error::wrong(format!("no pod on {node}")))
}

/// Returns the interface by which a node sends to an address.
fn way(node: &Node, addr: IpAddr) -> Result<String, Error> {
    let text = node.run(&["ip", "-json", "route", "get", &addr.to_string()])?;
    let routes: serde_json::Value = serde_json::from_str(&text).map_err(Error::wrong)?;
    let device = routes.pointer("/0/dev").and_then(serde_json::Value::as_str);
    device.map(str::to_owned).ok_or_else(|| Error::wrong(format!("no way to {addr}: {text}")))
}

/// Every node sends to each other node's pod by the interface of the mode.
fn require_routes(cluster: &Cluster, tunnel: Tunnel, is_always: bool) -> Result<(), Error> {
    for node in &cluster.nodes {
        for pod in cluster.pods.iter().filter(|pod| pod.node != node.name) {
            let is_far = node.name == "node-3" || pod.node == "node-3";
            for addr in pod.addrs() {
                let expected = match (is_far || is_always, tunnel) {
                    (false, _) => "eth0",
                    (true, Tunnel::Ipip) => "tunl0",
                    (true, Tunnel::Vxlan) if addr.is_ipv6() => "vxlan-v6.calico",
                    (true, Tunnel::Vxlan) => "vxlan.calico",
                };
                let found = way(node, *addr)?;
                if found != expected {
                    let what = format!("{} sends to {addr} by {found}", node.name);
                    return Err(Error::wrong(format!("{what}, not by {expected}")));
                }
            }
        }
    }
    Ok(())
}

/// Judges by what is on the cables: packets between racks are wrapped, those within a rack if the
/// mode says so, and none goes both ways.
fn require_wrapped(
    dir: &Path,
    cluster: &Cluster,
    tunnel: Tunnel,
    is_always: bool,
) -> Result<(), Error> {
    std::fs::create_dir_all(dir).map_err(Error::file(dir))?;
    for (from, to, is_wrapped) in
        [("node-1", "node-2", is_always), ("node-1", "node-3", true), ("node-3", "node-2", true)]
    {
        let (pod, target) = (pod_on(cluster, from)?, pod_on(cluster, to)?);
        for (own, addr) in pod.addrs().iter().zip(target.addrs()) {
            // Each with a log of its own: tcpdump's is added to.
            let name = format!("{from}-{to}-{}-{is_always}", if own.is_ipv6() { 6 } else { 4 });
            let capture = Capture::start(dir, &name, tunnel.echoes())?;
            let ping = ["ping", "-n", "-c", "3", "-i", "0.2", "-W", "2", &addr.to_string()];
            let said = cluster.node(from)?.run(&in_pod(pod, &ping))?;
            eprintln!("{}", said.lines().last().unwrap_or_default());
            let seen = capture.end()?;
            let plain = count(&seen, &[&own.to_string(), &addr.to_string(), "ICMP"], tunnel, false);
            let nodes = [outer(cluster, from, addr)?, outer(cluster, to, addr)?];
            let wrapped = count(&seen, &[&nodes[0], &nodes[1]], tunnel, true);
            if (plain > 0, wrapped > 0) != (!is_wrapped, is_wrapped) {
                let what = format!("{from} to {to}: {plain} plain and {wrapped} wrapped packets");
                return Err(Error::wrong(format!("{what}\n{}", seen.packets.join("\n"))));
            }
        }
    }
    Ok(())
}

/// Returns the command that runs `command` in a pod.
fn in_pod<'a>(pod: &'a RunningPod, command: &[&'a str]) -> Vec<&'a str> {
    [&["ip", "netns", "exec", pod.pod.container.as_str()], command].concat()
}

/// Returns the address by which packets to `addr` reach a node when they are wrapped.
fn outer(cluster: &Cluster, node: &str, addr: &IpAddr) -> Result<String, Error> {
    let node = cluster.node(node)?;
    let own = node.addrs.iter().find(|own| own.is_ipv6() == addr.is_ipv6());
    own.map(ToString::to_string).ok_or_else(|| Error::wrong(format!("{} has none", node.name)))
}

/// Counts the packets between two addresses that are wrapped, or are not.
fn count(seen: &Seen, words: &[&str], tunnel: Tunnel, is_wrapped: bool) -> usize {
    let wrapped = |line: &&String| match tunnel {
        Tunnel::Vxlan => line.contains("VXLAN"),
        // `IP 198.18.1.11 > 198.18.2.13: IP 10.244.0.1 > …`
        Tunnel::Ipip => line.matches(" IP ").count() == 2,
    };
    let packets = seen.packets.iter().filter(|line| wrapped(line) == is_wrapped);
    packets.filter(|line| words.iter().all(|word| line.contains(word))).count()
}

fn require_few_lost(from: &RunningPod, to: &RunningPod, ledger: &Ledger) -> Result<(), Error> {
    eprintln!("{} -> {}: {ledger:?}", from.pod.name, to.pod.name);
    let is_well = ledger.lost() < LOST && ledger.longest_gap_ms < 1000;
    if is_well && ledger.tcp_error.is_none() && ledger.sent > 200 {
        return Ok(());
    }
    Err(Error::wrong(format!("{} -> {}: {ledger:?}", from.pod.name, to.pod.name)))
}

/// No device, no annotation and no address of the tunnel is left.
fn require_gone(cluster: &Cluster, tunnel: Tunnel) -> Result<(), Error> {
    for node in &cluster.nodes {
        let links = node.run(&["ip", "-brief", "link", "show", "up"])?;
        let names: &[&str] = match tunnel {
            Tunnel::Ipip => &["tunl0"],
            Tunnel::Vxlan => &["vxlan.calico", "vxlan-v6.calico"],
        };
        if names.iter().any(|name| links.contains(name)) {
            return Err(Error::wrong(format!("{} still has a tunnel:\n{links}", node.name)));
        }
        let object = cluster.api.get::<core::Node>(&node.name)?.unwrap_or_default();
        let annotations = object.metadata.annotations.unwrap_or_default();
        if let Some(name) = annotations.keys().find(|name| name.ends_with("TunnelAddr")) {
            return Err(Error::wrong(format!("{} still has {name}", node.name)));
        }
    }
    let handles = cluster.api.list::<api::IpamHandle>()?;
    let names = handles.iter().filter_map(|handle| handle.metadata.name.as_deref());
    match names.clone().find(|name| name.contains("tunnel-addr")) {
        None => Ok(()),
        Some(name) => Err(Error::wrong(format!("handle {name} is still there"))),
    }
}

fn require_no_bgp(cluster: &Cluster) -> Result<(), Error> {
    for node in &cluster.nodes {
        let listening = node.run(&["ss", "-Hltn", "sport = :179"])?;
        if !listening.trim().is_empty() {
            return Err(Error::wrong(format!("{} speaks BGP: {listening}", node.name)));
        }
    }
    Ok(())
}

/// `calicoctl check` says that the fabric drops large packets, and how large ones come through.
fn require_narrow_paths_told(cluster: &Cluster) -> Result<(), Error> {
    let node = cluster.node("node-1")?;
    let script = format!("{} check -o json || [ $? = 3 ]", cluster.program("calicoctl"));
    let told = || {
        let text = node.run(&["sh", "-c", &script])?;
        let found: serde_json::Value = serde_json::from_str(&text).map_err(Error::wrong)?;
        let findings = found.get("findings").and_then(serde_json::Value::as_array);
        let mut of_paths = findings.into_iter().flatten();
        let finding = of_paths.find(|finding| finding["object"].to_string().contains("path"));
        Ok::<_, Error>(finding.map(ToString::to_string))
    };
    if let Some(finding) = told()? {
        return Err(Error::wrong(format!("the fabric is well, and yet: {finding}")));
    }
    let far = cluster.node("node-2")?.addr()?;
    // What a tunnel of others below this fabric does, when nobody has told anybody its MTU.
    let narrow = "add table netdev narrow; add chain netdev narrow in \
                  { type filter hook ingress device eth0 priority 0; }; \
                  add rule netdev narrow in meta length > 1400 drop";
    node.run(&["nft", narrow])?;
    let finding = told()?.unwrap_or_default();
    for word in ["path-drops-large-packets", &far.to_string(), "1500 bytes", "1400 bytes"] {
        if !finding.contains(word) {
            return Err(Error::wrong(format!("`{word}` is not in what is found: {finding}")));
        }
    }
    node.run(&["nft", "delete table netdev narrow"])?;
    match told()? {
        None => Ok(()),
        Some(finding) => Err(Error::wrong(format!("the fabric is well again, and yet: {finding}"))),
    }
}

/// Gives a node another address in its subnet, and starts its daemon again.
fn readdress(cluster: &mut Cluster, name: &str) -> Result<(), Error> {
    let node = cluster.node(name)?;
    let old = node.addr()?.to_string();
    let new = old.replace(".10", ".77");
    cluster.end_daemon(node, Signal::SIGTERM)?;
    node.run(&["ip", "address", "delete", &format!("{old}/24"), "dev", "eth0"])?;
    node.run(&["ip", "address", "add", &format!("{new}/24"), "dev", "eth0"])?;
    let gateway = old.replace(".10", ".1");
    node.run(&["ip", "route", "replace", "default", "via", &gateway])?;
    let addrs = vec![new.parse().map_err(Error::wrong)?];
    for node in cluster.nodes.iter_mut().filter(|node| node.name == name) {
        node.addrs.clone_from(&addrs);
    }
    cluster.start_daemon_with(cluster.node(name)?, &WITHOUT_BGP)
}

/// The node's VXLAN device leads to so many others.
fn require_entries(node: &Node, expected: usize) -> Result<(), Error> {
    let text = node.run(&["bridge", "fdb", "show", "dev", "vxlan.calico"])?;
    if text.lines().count() == expected {
        return Ok(());
    }
    Err(Error::wrong(format!("{} has other far ends than {expected}:\n{text}", node.name)))
}
