//! The benchmark `policy`: a cluster's pods and policies as API objects, fed to one node.

mod changes;
mod connections;
mod objects;
mod report;
mod tables;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod as PodObject;
use lab::Error;
use lab::control_plane::{Identity, Kind};
use lab::process::output;
use lab::rest::{Request, Rest};

use self::changes::Latency;
use self::connections::Costs;
use self::objects::{NETS_PER_SET, PODS_PER_NAMESPACE};
use self::tables::{Size, Tables};
use crate::cni::plugin::Plugin;
use crate::cni::world::{NODE_ADDR, Pod, World};
use crate::daemon::Daemon;
use crate::writers::{self, Until, WRITERS};
use crate::{cni, isolation, load, load_average, step};

/// How much to measure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Extent {
    /// Pods of the cluster; a hundred or so of them are on the node.
    pods: usize,
    /// One of so many pods is on the node.
    every: usize,
    /// How many policies there are, first and then.
    policies: [usize; 2],
    /// How many changes of each kind are made.
    changes: usize,
    /// How many connections are opened.
    connections: usize,
    /// Policies in the datastore while connections are opened.
    in_force: [usize; 2],
    /// Endpoints of the node while connections are opened, at the end.
    endpoints: usize,
    /// Sets with a thousand networks each while connections are opened, at the end.
    sets: usize,
    /// What the kernel holds while it alone is measured.
    tables: Size,
}

/// What one cluster costs its node.
#[derive(Debug)]
pub(crate) struct Scale {
    pub(crate) pods: usize,
    pub(crate) policies: usize,
    pub(crate) ready_after: Duration,
    pub(crate) resident_kib: u64,
    pub(crate) policy: Latency,
    pub(crate) label: Latency,
}

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Findings {
    /// New connections and packets, and under what.
    pub(crate) costs: Vec<(String, Costs)>,
    /// Starts and changes.
    pub(crate) scales: Vec<Scale>,
    /// Changes in the kernel alone.
    pub(crate) tables: Vec<Tables>,
    /// The machine's load average before and after.
    pub(crate) load_average: [String; 2],
}

impl Extent {
    const QUICK: Self = Self {
        pods: 3_000,
        every: 29,
        policies: [300, 3_000],
        changes: 30,
        connections: 300,
        in_force: [100, 500],
        endpoints: 500,
        sets: 5,
        tables: Size { policies: 500, members: 5_000, rounds: 50 },
    };
    const FULL: Self = Self {
        pods: 30_000,
        every: 299,
        policies: [3_000, 30_000],
        changes: 300,
        connections: 4_000,
        in_force: [100, 5_000],
        endpoints: 5_000,
        sets: 50,
        tables: Size { policies: 5_000, members: 50_000, rounds: 500 },
    };

    /// Returns how much to measure: to see whether it works, or to say something.
    pub(crate) const fn of(is_quick: bool) -> Self {
        if is_quick { Self::QUICK } else { Self::FULL }
    }
}

/// Measures the programs in `bin_dir`, or the release beside them, and prints the report.
///
/// # Errors
///
/// [`Error`] if something cannot be measured. What is measured and bad is no error.
pub(crate) fn run(bin_dir: &Path, extent: Extent) -> Result<ExitCode, Error> {
    let bin = cni::programs(bin_dir)?;
    isolation::furnish(NODE_ADDR)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let findings = runtime.map_err(Error::wrong)?.block_on(measure(&bin, extent))?;
    report::print(&findings);
    Ok(ExitCode::SUCCESS)
}

async fn measure(bin: &Path, extent: Extent) -> Result<Findings, Error> {
    let before = load_average();
    step(&format!("measuring {}; load average {before}", bin.display()));
    let costs = connect(bin, extent).await?;
    remove_tables()?;
    step(&format!("{} policies in the kernel", extent.tables.policies));
    let tables = tables::measure(extent.tables)?;
    remove_tables()?;
    let mut scales = Vec::new();
    let cluster = Cluster::start(extent).await?;
    let mut made = 0;
    for policies in extent.policies {
        step(&format!("{} pods, {policies} policies", extent.pods));
        cluster.add_policies(made..policies).await?;
        made = policies;
        scales.push(cluster.measure(bin, policies).await?);
        remove_tables()?;
    }
    Ok(Findings { costs, scales, tables, load_average: [before, load_average()] })
}

/// Opens connections between two pods of the node under nothing, under what others would do, and
/// under ever more policy of ours.
async fn connect(bin: &Path, extent: Extent) -> Result<Vec<(String, Costs)>, Error> {
    let world = World::start(Kind::Embedded).await?;
    let pods = world.pods("talker", 2).await?;
    let [client, server] = pods.as_slice() else { return Err(Error::wrong("not two pods")) };
    let plugin = Plugin::new(bin, &world.kubeconfig(Identity::CniPlugin), "info");
    for pod in &pods {
        plugin.call("ADD", pod).map_err(Error::wrong)?;
    }
    let addr = address(&world, server).await?;
    let forward = PathBuf::from("/proc/sys/net/ipv4/ip_forward");
    std::fs::write(&forward, "1").map_err(Error::file(&forward))?;
    let mut costs = Vec::new();
    let mut measure = |what: String| {
        step(&format!("connections: {what}"));
        let measured = connections::measure(client, server, addr, extent.connections)?;
        costs.push((what, measured));
        Ok::<_, Error>(())
    };
    measure("no rules".to_owned())?;
    linear("nft", &nft_conntrack())?;
    measure("nftables, connections tracked, no policy".to_owned())?;
    output(Command::new("nft").args(["delete", "table", "ip", "bench"]))?;
    let [few, many] = extent.in_force;
    linear("iptables-restore", &iptables(many))?;
    measure(format!("iptables, {many} rules in a row"))?;
    linear("iptables-restore", &iptables(0))?;
    let daemon = Daemon::start(&world, bin).await?;
    measure("ours, no policy".to_owned())?;
    let kubeconfig = world.kubeconfig(Identity::Admin);
    let api = Rest::connect(&kubeconfig)?;
    let namespaces = extent.endpoints.div_ceil(PODS_PER_NAMESPACE);
    write(&world, 0..namespaces, objects::namespace).await?;
    api.send(objects::talkers()).await?.success()?;
    write(&world, 0..few, move |number| objects::policy(number, namespaces)).await?;
    settle().await;
    measure(format!("ours, {few} policies"))?;
    write(&world, 0..extent.endpoints, |number| objects::pod(number, 1)).await?;
    write(&world, 0..extent.sets, objects::network_set).await?;
    write(&world, few..many, move |number| objects::policy(number, namespaces)).await?;
    settle().await;
    let members = extent.sets.saturating_mul(NETS_PER_SET);
    measure(format!("ours, {many} policies, {} endpoints, a set of {members}", extent.endpoints))?;
    daemon.resident_kib()?;
    Ok(costs)
}

/// A cluster of many pods; this node has some of them.
struct Cluster {
    world: World,
    extent: Extent,
}

impl Cluster {
    async fn start(extent: Extent) -> Result<Self, Error> {
        step(&format!("making {} pods", extent.pods));
        let world = World::start(Kind::Embedded).await?;
        write(&world, 0..extent.pods / PODS_PER_NAMESPACE, objects::namespace).await?;
        write(&world, 0..extent.pods, move |number| objects::pod(number, extent.every)).await?;
        Ok(Self { world, extent })
    }

    async fn add_policies(&self, numbers: std::ops::Range<usize>) -> Result<(), Error> {
        let namespaces = self.extent.pods / PODS_PER_NAMESPACE;
        write(&self.world, numbers, move |number| objects::policy(number, namespaces)).await
    }

    /// Starts a node that knows nothing yet, then changes single objects.
    async fn measure(&self, bin: &Path, policies: usize) -> Result<Scale, Error> {
        let Extent { pods, every, changes, .. } = self.extent;
        let daemon = Daemon::start(&self.world, bin).await?;
        let resident_kib = daemon.resident_kib()?;
        let (watched, far) = objects::watched(pods, every, policies)
            .ok_or_else(|| Error::wrong("no policy selects a pod of the node"))?;
        let api = Rest::connect(&self.world.kubeconfig(Identity::Admin))?;
        let namespaces = pods / PODS_PER_NAMESPACE;
        let port = |turn: usize| if turn.is_multiple_of(2) { 81 } else { 80 };
        let policy = |turn| objects::policy_port(watched, namespaces, port(turn));
        let policy = changes::measure(&api, changes, policy).await?;
        let app = |turn: usize| usize::from(!turn.is_multiple_of(2));
        let label = |turn| objects::pod_app(far, app(turn));
        let label = changes::measure(&api, changes, label).await?;
        let ready_after = daemon.ready_after;
        Ok(Scale { pods, policies, ready_after, resident_kib, policy, label })
    }
}

/// Writes numbered objects with several clients.
async fn write(
    world: &World,
    numbers: std::ops::Range<usize>,
    object: impl Fn(usize) -> Request + Send + Sync + 'static,
) -> Result<(), Error> {
    let (first, count) = (numbers.start, numbers.len());
    let object = move |number: usize| object(first.saturating_add(number));
    let kubeconfig = world.kubeconfig(Identity::Admin);
    writers::write(&kubeconfig, WRITERS, Until::Count(count), object).await.map(drop)
}

/// Waits until nothing has changed in the kernel's tables for a while.
async fn settle() {
    changes::quiet(Duration::from_secs(2)).await;
}

/// Returns the address that a pod was given.
async fn address(world: &World, pod: &Pod) -> Result<IpAddr, Error> {
    let object = world.client()?.get_in::<PodObject>("default", &pod.name).await?;
    let annotations = object.and_then(|object| object.metadata.annotations).unwrap_or_default();
    let addr = annotations.get("cni.projectcalico.org/podIP");
    let addr = addr.and_then(|text| text.trim_end_matches("/32").parse().ok());
    addr.ok_or_else(|| Error::wrong(format!("{} has no address", pod.name)))
}

/// Gives a program its rules.
fn linear(program: &str, rules: &str) -> Result<(), Error> {
    let mut command = Command::new(program);
    if program == "nft" {
        command.args(["--file", "-"]);
    }
    let done = load::start(&mut command, rules.as_bytes())?.wait_with_output();
    let done = done.map_err(|error| Error::program(program, error))?;
    if done.status.success() {
        return Ok(());
    }
    Err(Error::program(program, String::from_utf8_lossy(&done.stderr)))
}

/// Returns a ruleset that tracks connections and decides nothing.
fn nft_conntrack() -> String {
    "table ip bench { chain f { type filter hook forward priority 0; \
     ct state established,related accept; }; }\n"
        .to_owned()
}

/// Returns a ruleset of `rules` rules that a new connection goes through one by one.
fn iptables(rules: usize) -> String {
    let mut text = "*filter\n:FORWARD ACCEPT [0:0]\n".to_owned();
    if rules > 0 {
        text.push_str("-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n");
    }
    for rule in 0..rules {
        let (high, low) = ((rule / 256 % 256).to_string(), (rule % 256).to_string());
        text.extend(["-A FORWARD -s 100.64.", &high, ".", &low, "/32 -j ACCEPT\n"]);
    }
    text.push_str("COMMIT\n");
    text
}

/// Takes away the tables that a calico-node has left.
fn remove_tables() -> Result<(), Error> {
    let tables = output(Command::new("nft").args(["list", "tables"]))?;
    for table in tables.lines().filter(|table| table.ends_with(" calico")) {
        let words = table.split(' ').skip(1);
        output(Command::new("nft").args(["delete", "table"]).args(words))?;
    }
    Ok(())
}
