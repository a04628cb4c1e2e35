//! The benchmark `overlay`: what pods of two nodes have of the way between them, beside the same
//! way without us; and what it takes to lead to a thousand nodes.
//!
//! ```text
//!  node-1, node-2: calico-node, pods by CNI ──┐
//!                                             ├─ one bridge
//!  node-3, node-4: veth, routes, nothing else ┘
//! ```
//!
//! Each round measures both ways, one after the other, so that what else the machine does meets
//! both. Figures of different kernels cannot be compared, nor those of different runs: the ratios
//! can.

mod programming;
mod report;
mod traffic;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1 as core;
use lab::cluster::{Cluster, Fabric, Families, Plan, eventually};
use lab::control_plane::Kind;
use lab::node::Node;
use lab::rest::Request;
use lab::sandbox::{self, Inside};
use lab::{Error, Signal};
use serde_json::json;

use self::programming::{BLOCKS, Far, Programming};
use self::traffic::{Carried, End};
use crate::{cpu, load_average, step};

/// How long nodes may take to change the way that packets go.
const WITHIN: Duration = Duration::from_secs(60);
/// How many write objects at a time.
const WRITERS: u32 = 16;
/// The network namespace of a pod that nobody but the benchmark has made.
const BARE: &str = "bare";

/// How much to measure.
#[derive(Clone, Copy, Debug)]
struct Extent {
    /// Rounds of each mode.
    rounds: usize,
    /// Seconds of each figure.
    seconds: u32,
    /// How long one mode may take: no round is begun later, and the first always is.
    within: Duration,
    /// Other nodes.
    nodes: u32,
}

impl Extent {
    const QUICK: Self = Self { rounds: 1, seconds: 1, within: Duration::from_secs(60), nodes: 50 };
    const FULL: Self =
        Self { rounds: 5, seconds: 2, within: Duration::from_secs(90), nodes: 1_000 };
    /// For a machine that is emulated.
    const SLOW: Self = Self { rounds: 3, seconds: 3, within: Duration::from_secs(90), nodes: 0 };
    /// How much longer is measured what has an aim that is finer than rounds differ.
    const OF_AIM: u32 = 4;

    /// Returns how much to measure of one mode.
    fn of(self, mode: Mode) -> Self {
        if mode != Mode::Plain || self.nodes < Self::FULL.nodes {
            return self;
        }
        let rounds = self.rounds.saturating_mul(usize::try_from(Self::OF_AIM).unwrap_or(1));
        Self { rounds, within: self.within.saturating_mul(Self::OF_AIM), ..self }
    }
}

/// How packets travel between nodes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    Plain,
    Vxlan,
    Ipip,
    Wireguard,
}

impl Mode {
    /// Those that each kernel has.
    const FIRST: [Self; 2] = [Self::Plain, Self::Vxlan];
    /// Those that some have.
    const SECOND: [Self; 4] = [Self::Plain, Self::Vxlan, Self::Ipip, Self::Wireguard];

    const fn name(self) -> &'static str {
        match self {
            Self::Plain => "not encapsulated",
            Self::Vxlan => "VXLAN",
            Self::Ipip => "IP in IP",
            Self::Wireguard => "WireGuard",
        }
    }

    /// The interface by which packets leave for the other node.
    const fn device(self) -> &'static str {
        match self {
            Self::Plain => "eth0",
            Self::Vxlan => "vxlan.calico",
            Self::Ipip => "tunl0",
            Self::Wireguard => "wireguard.cali",
        }
    }
}

/// What one mode carried, round by round, beside the bare way.
#[derive(Debug)]
struct Compared {
    mode: Mode,
    bare: Vec<Carried>,
    ours: Vec<Carried>,
}

/// What calico-node took to lead to many nodes.
#[derive(Clone, Copy, Debug)]
struct Started {
    /// From its start, with nothing in the kernel, until all routes were there.
    all_routes: Duration,
    /// Its processor time until then.
    processor: Duration,
}

/// Makes a lab and measures in it.
///
/// # Errors
///
/// [`Error`] if the lab cannot be made.
pub(crate) fn run(is_quick: bool, is_second: bool) -> Result<ExitCode, Error> {
    let extent = match (is_quick, is_second) {
        (true, false) => "quick",
        (false, false) => "full",
        (_, true) => "slow",
    };
    sandbox::run(&["overlay".to_owned(), extent.to_owned()]).map(ExitCode::from)
}

/// Measures inside of the lab, and prints the figures.
///
/// # Errors
///
/// [`Error`] if something cannot be measured.
pub(crate) fn measure(dir: &Path, extent: &str) -> Result<ExitCode, Error> {
    let inside = Inside::enter(dir)?;
    let (extent, modes) = match extent {
        "quick" => (Extent::QUICK, Mode::FIRST.as_slice()),
        "full" => (Extent::FULL, Mode::FIRST.as_slice()),
        _ => (Extent::SLOW, Mode::SECOND.as_slice()),
    };
    let before = load_average();
    step(&format!("starting two nodes with calico-node, two without; load average {before}"));
    let plan = Plan {
        control_plane: Kind::Embedded,
        nodes: 2,
        families: Families::V4,
        fabric: Fabric::Bridge,
    };
    let mut cluster = Cluster::up(&inside.dir, plan, &mut |_| {})?;
    let (third, fourth) = (cluster.add_node(&inside.dir, 3)?, cluster.add_node(&inside.dir, 4)?);
    let bare = [bare_pod(&third, &fourth, 3, 4)?, bare_pod(&fourth, &third, 4, 3)?];
    let mut compared = Vec::new();
    for mode in modes {
        compared.push(compare(&mut cluster, *mode, &bare, extent)?);
    }
    let (mut programming, mut started) = (Programming::default(), None);
    if extent.nodes > 0 {
        step(&format!("leading to {} nodes", extent.nodes));
        programming = programming::measure(&inside.dir, extent.nodes, extent.rounds)?;
        started = Some(start_among_many(&cluster, extent.nodes)?);
    }
    report::print(&compared, &programming, started, &[before, load_average()]);
    Ok(ExitCode::SUCCESS)
}

fn compare(
    cluster: &mut Cluster,
    mode: Mode,
    bare: &[End<'_>; 2],
    extent: Extent,
) -> Result<Compared, Error> {
    let extent = extent.of(mode);
    step(&format!("{}: {} rounds", mode.name(), extent.rounds));
    set(cluster, mode)?;
    // Pods get their MTU when they are made.
    cluster.remove_pods(|_| true)?;
    let mtu = mtu(cluster.node("node-1")?, mode)?;
    cluster.add_pods(mode.device().split('.').next().unwrap_or("pod"), 2)?;
    let [from, to] = cluster.pods.as_slice() else { return Err(Error::wrong("not two pods")) };
    let [from, to] = [from, to].map(|pod| {
        let (netns, addr) = (pod.pod.container.clone(), pod.addr()?.to_string());
        Ok::<_, Error>(End { node: cluster.node(&pod.node)?, netns, addr })
    });
    let (from, to) = (from?, to?);
    eventually("the way of the mode", WITHIN, || {
        let said = from.node.run(&["ip", "route", "get", &to.addr])?;
        if said.contains(&format!("dev {} ", mode.device())) {
            return Ok(());
        }
        Err(Error::wrong(format!("packets go by {said}")))
    })?;
    let probe = ["ip", "netns", "exec", &from.netns, "ping", "-c", "1", "-W", "1", &to.addr];
    eventually("the pods to reach each other", WITHIN, || from.node.run(&probe).map(drop))?;
    step(&format!("the MTU of pods is {mtu}"));
    let mut compared = Compared { mode, bare: Vec::new(), ours: Vec::new() };
    let [bare_from, bare_to] = bare;
    let started = Instant::now();
    for round in 0..extent.rounds {
        if round > 0 && started.elapsed() > extent.within {
            step(&format!("only {round} rounds: the machine is too slow for more"));
            break;
        }
        let bare = || traffic::measure(bare_from, bare_to, extent.seconds);
        let ours = || traffic::measure(&from, &to, extent.seconds);
        // Each goes first as often as the other.
        let (bare, ours) = if round.is_multiple_of(2) {
            (bare()?, ours()?)
        } else {
            let ours = ours()?;
            (bare()?, ours)
        };
        compared.bare.push(bare);
        compared.ours.push(ours);
    }
    Ok(compared)
}

/// Has the cluster's packets travel so.
fn set(cluster: &Cluster, mode: Mode) -> Result<(), Error> {
    let word = |is_on: bool| Some(if is_on { "Always" } else { "Never" }.to_owned());
    let name = "default-ipv4-ippool";
    let pool = cluster.api.get::<api::IpPool>(name)?;
    let mut pool = pool.ok_or_else(|| Error::wrong(format!("there is no pool {name}")))?;
    // One after the other: a pool may not have both.
    pool.spec.vxlan_mode = word(mode == Mode::Vxlan);
    pool.spec.ipip_mode = word(mode == Mode::Ipip);
    cluster.api.update(&pool)?;
    let path = "/apis/crd.projectcalico.org/v1/felixconfigurations/default";
    let spec = json!({"spec": {"wireguardEnabled": mode == Mode::Wireguard}});
    cluster.api.send(Request::merge(path, &spec))?.success()?;
    Ok(())
}

/// Returns the MTU for new pods, once it is that of the mode.
fn mtu(node: &Node, mode: Mode) -> Result<&'static str, Error> {
    let expected = match mode {
        Mode::Plain => "1500",
        Mode::Vxlan => "1450",
        Mode::Ipip => "1480",
        Mode::Wireguard => "1440",
    };
    eventually("the MTU of the mode", WITHIN, || {
        let found = node.run(&["cat", "/var/lib/calico/mtu"])?;
        if found.trim() == expected {
            return Ok(());
        }
        Err(Error::wrong(format!("it is {}, not {expected}", found.trim())))
    })?;
    Ok(expected)
}

/// Makes a pod of the least that carries packets: a veth pair and routes.
fn bare_pod<'a>(node: &'a Node, other: &Node, own: u8, far: u8) -> Result<End<'a>, Error> {
    let addr = format!("10.99.{own}.1");
    let script = format!(
        "set -e\n\
         ip netns add {BARE}\n\
         ip link add {BARE}0 type veth peer name eth0 netns {BARE}\n\
         ip link set {BARE}0 up\n\
         echo 1 >/proc/sys/net/ipv4/conf/{BARE}0/proxy_arp\n\
         echo 0 >/proc/sys/net/ipv4/neigh/{BARE}0/proxy_delay\n\
         echo 1 >/proc/sys/net/ipv4/ip_forward\n\
         ip -n {BARE} link set lo up\n\
         ip -n {BARE} link set eth0 up\n\
         ip -n {BARE} address add {addr}/32 dev eth0\n\
         ip -n {BARE} route add 169.254.1.1 dev eth0\n\
         ip -n {BARE} route add default via 169.254.1.1\n\
         ip route add {addr} dev {BARE}0\n\
         ip route add 10.99.{far}.1 via {}\n",
        other.addr()?
    );
    node.run(&["sh", "-c", &script])?;
    Ok(End { node, netns: BARE.to_owned(), addr })
}

/// Starts calico-node in a cluster of many nodes, none of which its kernel knows.
fn start_among_many(cluster: &Cluster, nodes: u32) -> Result<Started, Error> {
    set(cluster, Mode::Vxlan)?;
    cluster.api.create_any(&json!({
        "apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": "far"},
        "spec": {"cidr": programming::POOL, "blockSize": 26, "vxlanMode": "Always"},
    }))?;
    add_all_far(cluster, nodes)?;
    let node = cluster.node("node-1")?;
    cluster.end_daemon(node, Signal::SIGTERM)?;
    node.run(&["ip", "link", "delete", Mode::Vxlan.device()])?;
    let expected = usize::try_from(nodes.saturating_mul(BLOCKS)).unwrap_or(usize::MAX);
    let started = Instant::now();
    cluster.start_daemon(node)?;
    eventually("all routes", WITHIN, || {
        let said =
            node.run(&["ip", "route", "show", "dev", Mode::Vxlan.device(), "proto", "80"])?;
        let found = said.lines().count();
        // node-2's block is one more.
        if found >= expected {
            return Ok(());
        }
        Err(Error::wrong(format!("{found} routes of {expected}")))
    })?;
    let all_routes = started.elapsed();
    let pid = node.program_pid("calico-node")?.unwrap_or_default();
    Ok(Started { all_routes, processor: cpu::of_process(pid) })
}

/// Makes the objects of other nodes, several at a time: each request waits for the disk.
fn add_all_far(cluster: &Cluster, nodes: u32) -> Result<(), Error> {
    let step = usize::try_from(WRITERS).unwrap_or(1);
    std::thread::scope(|scope| {
        let write = |first: u32| {
            let mut own = (first..nodes).step_by(step).map(Far::new);
            scope.spawn(move || own.try_for_each(|far| add_far(cluster, &far)))
        };
        let writers: Vec<_> = (0..WRITERS).map(write).collect();
        writers.into_iter().try_for_each(|writer| {
            writer.join().unwrap_or_else(|_| Err(Error::wrong("a writer panicked")))
        })
    })
}

/// Makes the objects of another node with its blocks.
fn add_far(cluster: &Cluster, far: &Far) -> Result<(), Error> {
    let Far { number, addr, tunnel, mac } = far;
    let name = format!("far-{number}");
    let annotations = BTreeMap::from([
        ("projectcalico.org/IPv4Address", format!("{addr}/16")),
        ("projectcalico.org/IPv4VXLANTunnelAddr", tunnel.to_string()),
        ("projectcalico.org/VXLANTunnelMACAddr", mac.to_string()),
    ]);
    cluster.api.create::<core::Node>(json!({
        "metadata": {"name": name, "annotations": annotations},
    }))?;
    for (block, len) in far.blocks() {
        let id = format!("{name}-{}-{len}", block.to_string().replace('.', "-"));
        cluster.api.create_any(&json!({
            "apiVersion": "crd.projectcalico.org/v1", "kind": "BlockAffinity",
            "metadata": {"name": id},
            "spec": {
                "cidr": format!("{block}/{len}"), "node": name, "state": "confirmed",
                "type": "host", "deleted": "false",
            },
        }))?;
    }
    Ok(())
}
