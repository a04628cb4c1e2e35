//! Two of the judges: the evaluator, and packets.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use calc::policy::why::{Probe, connection};
use calc::policy::{Endpoint, Inputs};
use model::id::NamespacedName;
use model::net::Family;
use model::policy::Protocol;
use serde_json::Value;

use super::case::Case;
use super::cell::{Cell, Passing, difference};
use super::{inputs, world};
use crate::Error;
use crate::cluster::{Cluster, eventually};
use crate::node::Node;
use crate::protocol::{Attempt, Transport, Trial};

/// How long nodes may take to hear of objects.
const HEARD_WITHIN: Duration = Duration::from_secs(20);
/// How long packets may take to agree: what counts does not tell of sets and tiers.
const AGREE_WITHIN: Duration = Duration::from_secs(10);
/// How long one round of attempts waits for those that should come through.
const ROUND: Duration = Duration::from_secs(2);
/// Where calico-node shows its metrics.
const METRICS_PORT: u16 = 9091;

/// Applies a case, judges it by the evaluator, by packets and by what is `written`, if that
/// is, and removes it.
///
/// # Errors
///
/// [`Error::Wrong`] with the cells in which two of the judges differ.
pub fn judge(
    cluster: &Cluster,
    without: &Inputs,
    case: &Case,
    written: Option<&Passing>,
) -> Result<(), Error> {
    let objects = case.objects()?;
    let mut made = Vec::new();
    let verdict = apply(cluster, &objects, &mut made).and_then(|()| {
        let mut inputs = without.clone();
        made.iter().try_for_each(|object| inputs::apply(&mut inputs, object))?;
        judge_applied(cluster, &inputs, case, written)
    });
    // Those that refer to others go first, as they came last.
    let removed: Result<(), Error> =
        made.iter().rev().try_for_each(|object| cluster.api.delete_any(object));
    let verdict = verdict.map_err(|error| Error::wrong(format!("{}: {error}", case.name)));
    verdict.and(removed).and_then(|()| wait_policies(cluster, 0))
}

fn apply(cluster: &Cluster, objects: &[Value], made: &mut Vec<Value>) -> Result<(), Error> {
    for object in objects {
        made.push(cluster.api.create_any(object)?);
    }
    Ok(())
}

fn judge_applied(
    cluster: &Cluster,
    inputs: &Inputs,
    case: &Case,
    written: Option<&Passing>,
) -> Result<(), Error> {
    let found = evaluated(inputs);
    let disagreement =
        written.and_then(|written| difference(("written", written), ("evaluated", &found)));
    if let Some(disagreement) = disagreement {
        return Err(Error::wrong(disagreement));
    }
    wait_policies(cluster, case.policies()?)?;
    require_packets(cluster, &found)?;
    eprintln!("agreed: {}: {} cells come through", case.name, found.len());
    Ok(())
}

/// Judges a cluster as it is: the objects of cases that are there, and all others.
///
/// # Errors
///
/// As for [`judge`].
pub fn judge_as_is(cluster: &Cluster, made: &[Value]) -> Result<usize, Error> {
    let mut inputs = inputs::of_cluster(cluster)?;
    made.iter().try_for_each(|object| inputs::apply(&mut inputs, object))?;
    let is_policy = |object: &&Value| {
        object.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("Policy"))
    };
    wait_policies(cluster, made.iter().filter(is_policy).count())?;
    let found = evaluated(&inputs);
    require_packets(cluster, &found).map(|()| found.len())
}

/// Returns the cells that come through by the evaluator.
#[must_use]
pub fn evaluated(inputs: &Inputs) -> Passing {
    let mut cells = world::cells();
    cells.retain(|cell| is_passing(inputs, cell));
    cells.into_iter().collect()
}

/// Does a cell come through, at both ends?
fn is_passing(inputs: &Inputs, cell: &Cell) -> bool {
    let endpoint = |name: &str| {
        let (namespace, name) = name.split_once('/').unwrap_or_default();
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Endpoint::Workload(NamespacedName { namespace, name })
    };
    let protocol = match (cell.transport, cell.family) {
        (Transport::Tcp, _) => Protocol::TCP,
        (Transport::Udp, _) => Protocol::UDP,
        (Transport::Sctp, _) => Protocol::SCTP,
        (Transport::Icmp, Family::V4) => Protocol::ICMP,
        (Transport::Icmp, Family::V6) => Protocol::ICMP_V6,
    };
    let probe = Probe { protocol, port: cell.port };
    let crossings = connection(inputs, &endpoint(&cell.from), &endpoint(&cell.to), probe);
    let mut ends =
        crossings.iter().filter(|crossing| crossing.packet.family() == cell.family).peekable();
    ends.peek().is_some() && ends.all(|crossing| crossing.verdict.decision.is_passing())
}

/// Sends packets again and again until they agree with what is expected.
///
/// # Errors
///
/// [`Error::Wrong`] with the cells that do not after some time.
pub fn require_packets(cluster: &Cluster, expected: &Passing) -> Result<(), Error> {
    let started = Instant::now();
    loop {
        let seen = by_packets(cluster, expected)?;
        match difference(("expected", expected), ("packets", &seen)) {
            None => return Ok(()),
            Some(difference) if started.elapsed() > AGREE_WITHIN => {
                return Err(Error::wrong(difference));
            }
            Some(_) => {}
        }
    }
}

/// Tries all cells at once; returns those that come through.
///
/// # Errors
///
/// [`Error`] if a node's agent fails.
pub fn by_packets(cluster: &Cluster, expected: &Passing) -> Result<Passing, Error> {
    let mut attempts = Attempts::new(cluster, expected);
    let within = u64::try_from(ROUND.as_millis()).map_err(Error::wrong)?;
    let trials: Vec<(&Node, Vec<Trial>)> = cluster
        .nodes
        .iter()
        .map(|node| (node, attempts.trials.remove(&node.name).unwrap_or_default()))
        .collect();
    let passed = std::thread::scope(|scope| {
        let running: Vec<_> = trials
            .into_iter()
            .map(|(node, trials)| {
                scope.spawn(move || {
                    let containers: Vec<String> =
                        trials.iter().map(|trial| trial.container.clone()).collect();
                    Ok(containers.into_iter().zip(node.attempt(trials, within)?).collect())
                })
            })
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err(Error::wrong("a judge panicked")))
        };
        running.into_iter().map(join).collect::<Result<Vec<Vec<(String, Vec<Attempt>)>>, Error>>()
    })?;
    let mut seen = Passing::new();
    for (container, passed) in passed.into_iter().flatten() {
        let cells = passed.into_iter().map(|attempt| (container.clone(), attempt));
        seen.extend(cells.filter_map(|key| attempts.cells.get(&key).cloned()));
    }
    Ok(seen)
}

/// Cells as the agents know them.
#[derive(Default)]
struct Attempts {
    /// By node.
    trials: BTreeMap<String, Vec<Trial>>,
    /// By container and what it tries.
    cells: BTreeMap<(String, Attempt), Cell>,
}

impl Attempts {
    fn new(cluster: &Cluster, expected: &Passing) -> Self {
        let mut this = Self::default();
        let pods: BTreeMap<String, _> =
            cluster.pods.iter().map(|pod| (world::name(pod), pod)).collect();
        let mut trials: BTreeMap<(String, String), Trial> = BTreeMap::new();
        for cell in world::cells() {
            let (Some(from), Some(to)) = (pods.get(&cell.from), pods.get(&cell.to)) else {
                continue;
            };
            let Some(to) = world::addr(to, cell.family) else { continue };
            let attempt = Attempt { to, transport: cell.transport, port: cell.port };
            let container = from.pod.container.clone();
            let trial = trials.entry((from.node.clone(), container.clone())).or_insert_with(|| {
                let container = container.clone();
                Trial { container, stopped: Vec::new(), passing: Vec::new() }
            });
            if expected.contains(&cell) {
                trial.passing.push(attempt);
            } else {
                trial.stopped.push(attempt);
            }
            this.cells.insert((container, attempt), cell);
        }
        for ((node, _), trial) in trials {
            this.trials.entry(node).or_default().push(trial);
        }
        this
    }
}

/// Waits until every node knows this many policies; what it knows is in the kernel.
///
/// # Errors
///
/// [`Error::Timeout`] with the number that a node has.
pub fn wait_policies(cluster: &Cluster, count: usize) -> Result<(), Error> {
    let what = format!("every node to know {count} policies");
    eventually(&what, HEARD_WITHIN, || {
        for node in &cluster.nodes {
            let has = metric(node, "felix_cluster_num_policies")?;
            if has != count.to_string() {
                return Err(Error::wrong(format!("{} knows {has}", node.name)));
            }
        }
        Ok(())
    })
}

/// Returns the value of one of a node's metrics.
///
/// # Errors
///
/// [`Error`] if calico-node does not answer, or has no such metric.
pub fn metric(node: &Node, name: &str) -> Result<String, Error> {
    let failed = |error: std::io::Error| Error::program("metrics", error);
    let server = SocketAddr::new(node.addr()?, METRICS_PORT);
    let mut stream = TcpStream::connect_timeout(&server, ROUND).map_err(failed)?;
    stream.set_read_timeout(Some(ROUND)).map_err(failed)?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(failed)?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map(str::to_owned).ok_or_else(|| Error::wrong(format!("{} has no {name}", node.name)))
}
