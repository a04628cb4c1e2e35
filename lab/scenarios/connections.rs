//! Connections that outlive what allowed them: ended if administrators want that, and gone
//! with the pod whose address they were of.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1 as core;
use kernel::conntrack::Conntrack;
use kernel::netns::Netns;
use lab::Error;
use lab::cluster::{Cluster, RunningPod};
use lab::control_plane::Kind;
use lab::policy::case::Case;
use lab::policy::{judge, world};
use lab::protocol::{Ledger, Pod};
use lab::rest::Request;
use model::net::Family;
use serde_json::{Value, json};

/// How long a connection may go on that policy no longer allows.
const CUT_WITHIN: Duration = Duration::from_secs(1);
/// How long connections are watched after that.
const WATCHED: Duration = Duration::from_secs(2);
/// How much slower than the clock a busy machine may be.
const SLACK: Duration = Duration::from_millis(300);

pub(super) const SETTINGS: &str = "/apis/crd.projectcalico.org/v1/felixconfigurations/default";

/// `db` pods are reached from blue namespaces only.
const ONLY_BLUE: &str = "
- name: only-blue
  apply:
    - {gnp: only-blue, spec: {order: 1, selector: app == 'db', types: [Ingress], ingress: [{action: Allow, source: {namespaceSelector: kubernetes.io/metadata.name == 'blue'}}]}}
";
/// Nobody reaches `closed` pods.
const CLOSED: &str = "
- name: closed
  apply: [{gnp: closed, spec: {order: 1, selector: app == 'closed', types: [Ingress]}}]
";

/// What a new policy denies ends within a second, and nothing else does.
pub(crate) fn denied_end(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let cluster = world::up(dir, control_plane)?;
    let settings = json!({"spec": {"deniedConnectionAction": "End"}});
    cluster.api.send(Request::merge(SETTINGS, &settings))?.success()?;
    let target = addr(&pod(&cluster, "red/db")?)?;
    let denied = [pod(&cluster, "red/web")?, pod(&cluster, "red/job")?];
    let allowed = [pod(&cluster, "blue/web")?, pod(&cluster, "blue/db")?];
    require_ends(&cluster, (&denied, &allowed), target, || {
        apply(&cluster, ONLY_BLUE)?;
        judge::wait_policies(&cluster, 1)
    })
}

/// Fails unless, of flows to `target`, what is then put in force ends soon those that come from
/// the first of these, and no others.
pub(super) fn require_ends(
    cluster: &Cluster,
    (denied, allowed): (&[RunningPod], &[RunningPod]),
    target: IpAddr,
    put_in_force: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    for from in denied.iter().chain(allowed) {
        cluster.node(&from.node)?.start_flow(&from.pod.container, target)?;
    }
    put_in_force()?;
    let in_force = Instant::now();
    std::thread::sleep(CUT_WITHIN.saturating_add(WATCHED));
    let stop = |from: &RunningPod| -> Result<(Ledger, Duration), Error> {
        let watched = in_force.elapsed();
        let ledger = cluster.node(&from.node)?.stop_flow(&from.pod.container, target)?;
        eprintln!("{}: {ledger:?} after {watched:?}", world::name(from));
        Ok((ledger, watched))
    };
    for from in denied {
        let (ledger, watched) = stop(from)?;
        require_cut(&world::name(from), &ledger, watched)?;
    }
    for from in allowed {
        let (ledger, _) = stop(from)?;
        require_going_on(&world::name(from), &ledger)?;
    }
    Ok(())
}

/// Fails unless a flow was ended soon, which policy has denied for as long as this.
fn require_cut(name: &str, ledger: &Ledger, watched: Duration) -> Result<(), Error> {
    let least = watched.saturating_sub(CUT_WITHIN).saturating_sub(SLACK).as_millis();
    let is_silent = |ms: u64| u128::from(ms) >= least;
    let error = ledger.tcp_error.as_deref().unwrap_or_default();
    let is_reset = error.to_lowercase().contains("reset");
    if is_reset && is_silent(ledger.silent_ms) && is_silent(ledger.tcp_silent_ms) {
        return Ok(());
    }
    Err(Error::wrong(format!("{name} was not cut: {ledger:?}")))
}

/// Fails unless a flow goes on.
fn require_going_on(name: &str, ledger: &Ledger) -> Result<(), Error> {
    let is_going_on =
        u128::from(ledger.silent_ms.max(ledger.tcp_silent_ms)) < CUT_WITHIN.as_millis();
    if is_going_on && ledger.tcp_error.is_none() {
        return Ok(());
    }
    Err(Error::wrong(format!("{name} was cut: {ledger:?}")))
}

/// Whoever talks to a pod does not reach the next owner of its address, whom policy closes:
/// the same source port notwithstanding.
pub(crate) fn freed_are_forgotten(dir: &Path, control_plane: Kind) -> Result<(), Error> {
    let mut cluster = world::up(dir, control_plane)?;
    apply(&cluster, CLOSED)?;
    judge::wait_policies(&cluster, 1)?;
    let (from, to) = (pod(&cluster, "red/web")?, pod(&cluster, "red/db")?);
    let target = addr(&to)?;
    cluster.node(&from.node)?.start_flow(&from.pod.container, target)?;
    let freed: BTreeSet<IpAddr> = to.addrs().iter().copied().collect();
    if connections(&cluster, &to.node, &freed)? == 0 {
        return Err(Error::wrong("the kernel does not know the connections"));
    }
    cluster.remove_pods(|pod| world::name(pod) == "red/db")?;
    let known = connections(&cluster, &to.node, &freed)?;
    if known > 0 {
        return Err(Error::wrong(format!("{known} connections of {freed:?} are left")));
    }
    let removed = Instant::now();
    let wanted = json!({api::annotations::IP_ADDRS: format!("[\"{target}\"]")});
    let next = attach(&cluster, ("next", &to.node), &json!({"app": "closed"}), &wanted)?;
    if !next.addrs().contains(&target) {
        return Err(Error::wrong(format!("the next pod has {:?}", next.addrs())));
    }
    cluster.pods.push(next);
    std::thread::sleep(WATCHED);
    let watched = removed.elapsed().saturating_sub(SLACK).as_millis();
    let ledger = cluster.node(&from.node)?.stop_flow(&from.pod.container, target)?;
    eprintln!("{ledger:?} in {watched} ms");
    if u128::from(ledger.silent_ms) >= watched {
        return Ok(());
    }
    Err(Error::wrong(format!("the next owner of {target} was reached: {ledger:?}")))
}

/// Starts a pod in `red` with these labels and annotations.
pub(super) fn attach(
    cluster: &Cluster,
    (name, node): (&str, &str),
    labels: &Value,
    annotations: &Value,
) -> Result<RunningPod, Error> {
    let object = cluster.api.create::<core::Pod>(json!({
        "metadata": {
            "name": name, "namespace": "red", "labels": labels, "annotations": annotations,
        },
        "spec": {"nodeName": node, "containers": [{"name": "echo", "image": "lab/echo"}]},
    }))?;
    let uid = object.metadata.uid.unwrap_or_default();
    let container = uid.replace('-', "");
    let pod = Pod { namespace: "red".to_owned(), name: name.to_owned(), uid, container };
    cluster.attach_pod(pod, node)
}

/// Returns how many connections of these addresses a node's kernel knows.
fn connections(cluster: &Cluster, node: &str, addrs: &BTreeSet<IpAddr>) -> Result<usize, Error> {
    let failed = |error: &dyn std::fmt::Display| Error::program("connections", error.to_string());
    let pid = cluster.node(node)?.pid();
    let netns = Netns::open(Path::new(&format!("/proc/{pid}/ns/net")));
    let netns = netns.map_err(|error| failed(&error))?;
    let mut conntrack = Conntrack::open_in(&netns).map_err(|error| failed(&error))?;
    let flows = conntrack.flows(|flow| flow.is_of_any(addrs)).map_err(|error| failed(&error))?;
    for flow in &flows {
        eprintln!("{node} knows {flow}");
    }
    Ok(flows.len())
}

fn apply(cluster: &Cluster, cases: &str) -> Result<(), Error> {
    for case in Case::read_all(cases)? {
        case.objects()?.iter().try_for_each(|object| cluster.api.create_any(object).map(drop))?;
    }
    Ok(())
}

fn pod(cluster: &Cluster, name: &str) -> Result<RunningPod, Error> {
    let found = cluster.pods.iter().find(|pod| world::name(pod) == name).cloned();
    found.ok_or_else(|| Error::wrong(format!("there is no pod {name}")))
}

fn addr(pod: &RunningPod) -> Result<IpAddr, Error> {
    world::addr(pod, Family::V4).ok_or_else(|| Error::wrong("a pod has no IPv4 address"))
}
