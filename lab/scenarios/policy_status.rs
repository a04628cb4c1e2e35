//! Whoever writes a policy learns where it is in force.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use api::{PolicyObject, Reading, policy_report};
use calc::policy::status::{ObjectStatus, Published, aggregate, rejected};
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use lab::Error;
use lab::cluster::{Cluster, eventually};
use lab::control_plane::{Identity, Kind};
use lab::policy::case::Case;
use lab::policy::{judge, world};
use lab::rest::Request;
use model::id::NodeName;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::connections::SETTINGS;
use super::policy_faults::pod;
use super::policy_spoofing::inside;

/// How long nodes of a small cluster may take to say what is new.
const WITHIN: Duration = Duration::from_secs(30);

/// How long it may take until the answer to the second packet of a connection is there. That to
/// the first comes here while the sender is still busy with sending, and does not count then.
const SECOND_TRY: Duration = Duration::from_secs(3);

/// One policy for all pods, one for a pod of node-2, one for nobody, and one with a rule that
/// cannot be read.
const POLICIES: &str = "
- name: status
  apply:
    - {gnp: all, spec: {ingress: [{action: Allow}]}}
    - {np: red/db, spec: {selector: app == 'db', ingress: [{action: Allow}]}}
    - {np: red/nobody, spec: {selector: app == 'nobody', ingress: [{action: Allow}]}}
    - {np: blue/wrong, spec: {order: 1, selector: app == 'cache', ingress: [{action: Allow, protocol: HTTP}]}}
";

/// What is said follows policies as they come, change and meet a node that is away.
pub(crate) fn is_told(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let cluster = world::up(dir, control_plane)?;
    let case = Case::read_all(POLICIES)?;
    let mut made = Vec::new();
    for object in case.iter().map(Case::objects).collect::<Result<Vec<_>, _>>()?.concat() {
        made.push(cluster.api.create_any(&object)?);
    }
    let lines =
        ["gnp/all 2 0 0 0", "np/blue/wrong 1 0 0 1", "np/red/db 1 0 0 0", "np/red/nobody 0 0 0 0"];
    require(&cluster, "the policies to be told of", &lines)?;

    let all = made.first().ok_or_else(|| Error::wrong("no policy was made"))?;
    change(&cluster, all)?;
    require(&cluster, "the change to be told of", &lines)?;

    let away = cluster.nodes.get(1).ok_or_else(|| Error::wrong("no second node"))?;
    cluster.end_daemon(away, Signal::SIGKILL)?;
    change(&cluster, all)?;
    // Whether others apply there now, nobody knows before the node is back.
    let lines_without =
        ["gnp/all 1 1 0 0", "np/blue/wrong 1 0 0 1", "np/red/db 1 0 0 0", "np/red/nobody 0 0 1 0"];
    require(&cluster, "the node to be behind", &lines_without)?;
    cluster.start_daemon(away)?;
    require(&cluster, "the node to catch up", &lines)
}

/// A denial that packets meet.
const CLOSED: &str = "
- name: closed
  apply: [{gnp: closed, spec: {order: 1, selector: app == 'db', ingress: [{action: Deny}]}}]
  expect: ['- * > */db']
";

/// Packets that are dropped are counted by the rule that drops them, and people see it.
pub(crate) fn drops_are_attributed(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let cluster = world::up(dir, control_plane)?;
    let case = Case::read_all(CLOSED)?.swap_remove(0);
    for object in case.objects()? {
        cluster.api.create_any(&object)?;
    }
    judge::wait_policies(&cluster, 1)?;
    judge::require_packets(&cluster, &case.expected()?)?;
    let counters = ask(&cluster, &["policy", "counters"])?;
    let line = counters.lines().find(|line| line.ends_with("policy gnp/closed ingress[0]"));
    let packets = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    if packets.is_none_or(|packets| packets == 0) {
        return Err(Error::wrong(format!("nothing was counted:\n{counters}")));
    }
    let answer = ask(&cluster, &["why", "red/web", "red/db", "tcp/80"])?;
    if !answer.contains("bytes of policy gnp/closed ingress[0]") {
        return Err(Error::wrong(format!("why does not say what was counted:\n{answer}")));
    }
    let settings = json!({"spec": {"nftablesFilterDenyAction": "Reject"}});
    cluster.api.send(Request::merge(SETTINGS, &settings))?.success()?;
    eventually("senders to be told", WITHIN, || require_refused(&cluster))?;
    judge::require_packets(&cluster, &case.expected()?)
}

/// Fails unless a pod that is denied learns it.
fn require_refused(cluster: &Cluster) -> Result<(), Error> {
    let (from, to) = (pod(cluster, "red/web")?, pod(cluster, "red/db")?);
    let netns = inside(cluster, &from)?;
    for addr in to.addrs() {
        let to = SocketAddr::new(*addr, 80);
        let connected = netns.run(|| TcpStream::connect_timeout(&to, SECOND_TRY))?;
        if !connected.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
            return Err(Error::wrong(format!("{to}: {connected:?}")));
        }
    }
    Ok(())
}

/// Runs calico-node on the node of the pod `red/db`.
pub(super) fn ask(cluster: &Cluster, words: &[&str]) -> Result<String, Error> {
    let kubeconfig = cluster.control_plane.kubeconfig(Identity::Node);
    let kubeconfig = format!("KUBECONFIG={}", kubeconfig.display());
    let program = cluster.program("calico-node");
    let environment =
        ["env", &kubeconfig, "NODENAME=node-2", "DATASTORE_TYPE=kubernetes", &program];
    cluster.node("node-2")?.run(&[&environment, words].concat())
}

/// Changes a policy so that it says the same.
fn change(cluster: &Cluster, policy: &Value) -> Result<(), Error> {
    let now: api::GlobalNetworkPolicy =
        found(cluster)?.into_iter().next().ok_or_else(|| Error::wrong("the policy is gone"))?;
    let order = now.spec.order.map_or(1.0, |order| order.0 + 1.0);
    cluster.api.patch_any(policy, &json!({"spec": {"order": order}})).map(drop)
}

fn found(cluster: &Cluster) -> Result<Vec<api::GlobalNetworkPolicy>, Error> {
    cluster.api.list()
}

/// Waits until the status says of each policy: programmed, behind, pending, rejected rules.
fn require(cluster: &Cluster, what: &str, lines: &[&str]) -> Result<(), Error> {
    eventually(what, WITHIN, || {
        let found: Vec<String> = status(cluster)?.iter().map(line).collect();
        if found == lines { Ok(()) } else { Err(Error::wrong(format!("the status is {found:#?}"))) }
    })
}

fn line(status: &ObjectStatus) -> String {
    let ObjectStatus { id, programmed, behind, pending, rejected, .. } = status;
    format!("{id} {programmed} {behind} {pending} {}", rejected.len())
}

/// Adds up what the nodes say.
fn status(cluster: &Cluster) -> Result<Vec<ObjectStatus>, Error> {
    let api = &cluster.api;
    let mut objects: Vec<Published> = Vec::new();
    objects.extend(found(cluster)?.iter().map(published));
    objects.extend(api.list::<api::CalicoNetworkPolicy>()?.iter().map(published));
    let nodes = api.list::<Node>()?.into_iter().filter_map(|node| node.metadata.name);
    let nodes: BTreeSet<NodeName> = nodes.filter_map(|name| name.parse().ok()).collect();
    let maps = api.list::<ConfigMap>()?;
    let is_report = |map: &&ConfigMap| {
        map.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(policy_report::LABEL))
    };
    let reports = maps.iter().filter(is_report).map(policy_report::policy_report);
    let reports = reports.collect::<Result<Vec<_>, _>>().map_err(Error::wrong)?;
    let mut all = aggregate(&objects, &nodes, &reports);
    all.sort_by_key(|status| status.id.to_string());
    Ok(all)
}

fn published<T: PolicyObject>(object: &T) -> Published {
    let Reading { policy, faults } = object.reading();
    let faults = faults.iter().map(api::Invalid::detail);
    Published {
        rejected: faults.chain(rejected(&policy)).collect(),
        id: policy.id,
        generation: object.generation(),
    }
}
