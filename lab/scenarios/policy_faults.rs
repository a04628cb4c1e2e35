//! What must not open a door: crashes, somebody else's nftables, and pods that have just started.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab::Error;
use lab::cluster::{Cluster, NewPod, RunningPod, eventually};
use lab::control_plane::Kind;
use lab::node::Node;
use lab::policy::case::Case;
use lab::policy::{judge, world};
use lab::protocol::{Attempt, Knocks, Transport, Trial};
use model::net::Family;
use nix::sys::signal::Signal;

/// How long somebody else's change of our tables may last.
const REPAIRED_WITHIN: Duration = Duration::from_secs(1);
/// How long a connection may take whose first packet gets through: less than until the second.
const FIRST_TRY_MS: u64 = 950;
/// How many pods start under policy; `POLICY_PODS` says another number.
const LATE: usize = 40;
/// How many threads keep the machine busy meanwhile.
const BUSY: usize = 4;
/// Fewer knocks than these would not have seen anything.
const ENOUGH: u64 = 200;

/// Nobody comes to pods called `db`.
const CLOSED: &str = "
- name: closed
  apply: [{gnp: closed, spec: {order: 1, selector: app == 'db', types: [Ingress]}}]
  expect: ['- * > */db']
";
/// A table of somebody else.
const THEIRS: &str = "
table inet theirs {
    set friends { type ipv4_addr; elements = { 203.0.113.1, 203.0.113.2 }; }
    chain in { type filter hook input priority 5; policy accept; ip saddr @friends accept; }
}";

/// Nothing is let through while calico-node is killed, ended, and starts again; the kernel's
/// tables are taken over as they are, ours and others'.
pub(crate) fn stays_denied(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let (cluster, case) = closed(dir, control_plane)?;
    let expected = case.expected()?;
    let before = tables(&cluster)?;
    let pairs = [("red/web", "red/db"), ("blue/web", "blue/db"), ("red/job", "blue/db")];
    let knockers = Knockers::start(&cluster, &pairs)?;
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        for node in &cluster.nodes {
            cluster.end_daemon(node, signal)?;
            judge::require_packets(&cluster, &expected)?;
            cluster.start_daemon(node)?;
            cluster.wait_ready()?;
            judge::wait_policies(&cluster, 1)?;
        }
    }
    knockers.require_closed()?;
    let after = tables(&cluster)?;
    if before != after {
        let (before, after) = (before.join("\n"), after.join("\n"));
        return Err(Error::wrong(format!("tables changed; before:\n{before}\nafter:\n{after}")));
    }
    judge::require_packets(&cluster, &expected)
}

/// What somebody does to our tables is put right within a second, and nothing is done to theirs.
pub(crate) fn flush_is_repaired(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let (cluster, case) = closed(dir, control_plane)?;
    let node = cluster.node("node-1")?;
    let before = words(&node.run(&["nft", "--stateless", "list", "ruleset"])?);
    let theirs = node.run(&["nft", "--handle", "list", "table", "inet", "theirs"])?;
    let tables = node.run(&["nft", "list", "tables"])?;
    for table in tables.lines().filter(|table| !table.ends_with("theirs")) {
        let delete = format!("delete {table}");
        let took = repaired(node, &delete, &before)?;
        eprintln!("`{delete}` was repaired after {} ms", took.as_millis());
    }
    if node.run(&["nft", "--handle", "list", "table", "inet", "theirs"])? != theirs {
        return Err(Error::wrong("somebody else's table was changed"));
    }
    judge::require_packets(&cluster, &case.expected()?)?;
    let took = repaired(node, &format!("flush ruleset; {THEIRS}"), &before)?;
    eprintln!("a flush was repaired after {} ms", took.as_millis());
    judge::require_packets(&cluster, &case.expected()?)
}

/// A pod that starts sends all the time: nothing that its policy denies ever passes, however
/// late a busy machine's calico-node hears of it.
pub(crate) fn first_packets(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let mut cluster = world::up(dir, control_plane)?;
    let policies = "
- name: late
  apply:
    - {np: red/late, spec: {selector: app == 'late', types: [Ingress, Egress], egress: [{action: Allow, destination: {selector: app == 'web'}}]}}
";
    for object in Case::read_all(policies)?.iter().map(Case::objects) {
        object?.iter().try_for_each(|object| cluster.api.create_any(object).map(drop))?;
    }
    judge::wait_policies(&cluster, 1)?;
    let (open, shut) = (pod(&cluster, "red/web")?.addr()?, pod(&cluster, "red/db")?.addr()?);
    let asked = std::env::var("POLICY_PODS").ok().and_then(|text| text.parse().ok());
    let _busy = Busy::start();
    for (number, node) in (1..=asked.unwrap_or(LATE)).zip(["node-1", "node-2"].into_iter().cycle())
    {
        let late = start_late(&cluster, &format!("late-{number}"), node, [open, shut])?;
        cluster.pods.push(late);
    }
    Ok(())
}

/// Threads that do nothing, all the time, until this is dropped.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn start() -> Self {
        let has_ended = Arc::new(AtomicBool::new(false));
        for _ in 0..BUSY {
            let flag = Arc::clone(&has_ended);
            std::thread::spawn(move || {
                while !flag.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(has_ended)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Starts a pod that knocks from its first moment, and somebody who knocks at it.
fn start_late(
    cluster: &Cluster,
    name: &str,
    node: &str,
    [open, shut]: [IpAddr; 2],
) -> Result<RunningPod, Error> {
    let pod = cluster.create_pod(&NewPod {
        labels: [("app".to_owned(), "late".to_owned())].into(),
        account: "job".to_owned(),
        ..NewPod::plain("red", name, node)
    })?;
    let (container, node) = (pod.container.clone(), cluster.node(node)?);
    node.prepare(&container)?;
    node.start_knocking(&container, open)?;
    node.start_knocking(&container, shut)?;
    let late = cluster.attach_pod(pod, &node.name)?;
    let ask = |to: IpAddr| Attempt { to, transport: Transport::Tcp, port: 7 };
    let visitor = self::pod(cluster, "red/web")?;
    let visits = Trial {
        container: visitor.pod.container.clone(),
        stopped: late.addrs().iter().copied().map(ask).collect(),
        passing: Vec::new(),
    };
    let visited = cluster.node(&visitor.node)?.attempt(vec![visits], 0)?;
    if visited.iter().any(|passed| !passed.is_empty()) {
        return Err(Error::wrong(format!("{name} was reached: {visited:?}")));
    }
    // ADD has returned, so its policy is in force, and the first packet gets through.
    let allowed = Trial { container: container.clone(), stopped: vec![], passing: vec![ask(open)] };
    if node.attempt(vec![allowed], FIRST_TRY_MS)?.first().map(Vec::len) != Some(1) {
        return Err(Error::wrong(format!("{name} does not reach at once whom it may")));
    }
    let (opened, closed) =
        (node.stop_knocking(&container, open)?, node.stop_knocking(&container, shut)?);
    eprintln!("{name}: allowed {opened:?}, denied {closed:?}");
    if opened.echoed == 0 || closed.sent == 0 || closed.echoed > 0 || closed.connected > 0 {
        return Err(Error::wrong(format!("{name}: allowed {opened:?}, denied {closed:?}")));
    }
    Ok(late)
}

/// Makes a cluster with a closed door, and with a table of somebody else on each node.
pub(crate) fn closed(dir: &Path, control_plane: Kind) -> Result<(Cluster, Case), Error> {
    let cluster = world::up(dir, control_plane)?;
    for node in &cluster.nodes {
        node.run(&["nft", THEIRS])?;
    }
    let case = Case::read_all(CLOSED)?.into_iter().next();
    let case = case.ok_or_else(|| Error::wrong("no case"))?;
    for object in case.objects()? {
        cluster.api.create_any(&object)?;
    }
    judge::wait_policies(&cluster, 1)?;
    judge::require_packets(&cluster, &case.expected()?)?;
    Ok((cluster, case))
}

/// Runs a command of nft(8), and returns how long it took until all was as before.
fn repaired(node: &Node, command: &str, before: &[String]) -> Result<Duration, Error> {
    node.run(&["nft", command])?;
    let started = Instant::now();
    eventually("repaired tables", REPAIRED_WITHIN, || {
        let now = words(&node.run(&["nft", "--stateless", "list", "ruleset"])?);
        if now == before { Ok(started.elapsed()) } else { Err(Error::wrong(now.join(" "))) }
    })
}

/// Returns the words of a text, sorted: elements of sets come in any order.
pub(crate) fn words(text: &str) -> Vec<String> {
    let separators = |letter: char| letter.is_whitespace() || letter == ',';
    let mut words: Vec<String> =
        text.split(separators).filter(|word| !word.is_empty()).map(str::to_owned).collect();
    words.sort();
    words
}

/// Returns every node's tables with their handles, which a rule that is replaced does not keep.
fn tables(cluster: &Cluster) -> Result<Vec<String>, Error> {
    let list = |node: &Node| {
        let text = node.run(&["nft", "--handle", "--stateless", "list", "ruleset"])?;
        Ok(words(&text).join(" "))
    };
    cluster.nodes.iter().map(list).collect()
}

pub(crate) fn pod(cluster: &Cluster, name: &str) -> Result<RunningPod, Error> {
    let found = cluster.pods.iter().find(|pod| world::name(pod) == name).cloned();
    let found = found.filter(|pod| world::addr(pod, Family::V4).is_some());
    found.ok_or_else(|| Error::wrong(format!("there is no pod {name}")))
}

/// Pods that knock all the time at others which they may not reach, by both families.
pub(crate) struct Knockers<'a> {
    cluster: &'a Cluster,
    pairs: Vec<(RunningPod, RunningPod)>,
}

impl<'a> Knockers<'a> {
    /// Has the first of each pair of pods knock at the second.
    pub(crate) fn start(cluster: &'a Cluster, pairs: &[(&str, &str)]) -> Result<Self, Error> {
        let pairs = pairs.iter().map(|(from, to)| Ok((pod(cluster, from)?, pod(cluster, to)?)));
        let pairs = pairs.collect::<Result<Vec<_>, Error>>()?;
        for (from, to) in &pairs {
            for addr in to.addrs() {
                cluster.node(&from.node)?.start_knocking(&from.pod.container, *addr)?;
            }
        }
        Ok(Self { cluster, pairs })
    }

    /// Ends it, and fails if anybody was ever answered.
    pub(crate) fn require_closed(self) -> Result<(), Error> {
        for (from, to) in &self.pairs {
            for addr in to.addrs() {
                let node = self.cluster.node(&from.node)?;
                let knocks = node.stop_knocking(&from.pod.container, *addr)?;
                require_closed(&format!("{} -> {addr}", world::name(from)), &knocks)?;
            }
        }
        Ok(())
    }
}

fn require_closed(what: &str, knocks: &Knocks) -> Result<(), Error> {
    eprintln!("{what}: {knocks:?}");
    if knocks.sent > ENOUGH && knocks.echoed == 0 && knocks.connected == 0 {
        return Ok(());
    }
    Err(Error::wrong(format!("{what}: {knocks:?}")))
}
