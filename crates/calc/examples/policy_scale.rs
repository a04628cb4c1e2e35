//! Measures the calculation of policy: `policy_scale PODS POLICIES LOCAL_PODS`.
//!
//! Builds a cluster of namespaces with a hundred pods each and policies as
//! people write them, feeds it to one node, and prints the time to the first
//! state, the memory, and what single changes cost; and what routes keep of each pod.

#![expect(clippy::print_stdout, reason = "figures are what it is for")]
#![expect(clippy::arithmetic_side_effects, reason = "small numbers")]
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "nothing but measuring is at stake")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use calc::policy::{Change, Policies};
use model::endpoint::{NamedPort, WorkloadEndpoint};
use model::id::NamespacedName;
use model::policy::{
    Action, Enforcement, EntityMatch, Order, Policy, PolicyId, PolicyKind, PortMatch, Profile,
    Protocol, Rule, Stage,
};
use selector::Selector;

const PODS_PER_NAMESPACE: usize = 100;

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse().expect("a number"));
    let mut next = |default| args.next().unwrap_or(default);
    let (pods, policies, local) = (next(30_000_usize), next(30_000), next(100));
    let (kept, whole) = (kept_for_routes(pods), kept_as_a_whole(pods));
    println!("of a far pod routes keep {kept} bytes; as a whole it would be {whole}");
    let mut engine = Policies::new("n0".parse().unwrap());
    let before = resident();
    let mut feeding = Duration::ZERO;
    let mut feed = |change: Change| {
        let start = Instant::now();
        engine.apply(change);
        feeding += start.elapsed();
    };
    let namespaces = pods.div_ceil(PODS_PER_NAMESPACE);
    (0..policies).for_each(|number| feed(policy(number, namespaces, 80)));
    (0..pods).for_each(|number| feed(pod(number, is_local(number, pods, local), "v1")));
    (0..namespaces).for_each(|number| feed(namespace(number, "a")));
    let start = Instant::now();
    let changes = engine.take_changes();
    let first = start.elapsed();
    let state = engine.state();
    let members: usize = state.sets.values().map(std::collections::BTreeSet::len).sum();
    println!(
        "{pods} pods, {policies} policies, {local} local pods: fed in {feeding:?}, first state in \
         {first:?}, {} changes: {} policies, {} sets, {members} members",
        changes.len(),
        state.policies.len(),
        state.sets.len(),
    );
    drop(changes);
    println!("resident memory {} MB, {} MB before", resident() / 1024, before / 1024);
    println!("{:?}", engine.counts());

    let far = (0..pods).find(|number| !is_local(*number, pods, local)).unwrap_or(0);
    let near = (0..pods).find(|number| is_local(*number, pods, local)).unwrap_or(0);
    for (name, number) in [("a far pod's label", far), ("a local pod's label", near)] {
        let at = is_local(number, pods, local);
        let make = |turn: usize| pod(number, at, if turn.is_multiple_of(2) { "v2" } else { "v1" });
        measure(&mut engine, name, 1000, make);
    }
    let make = |turn: usize| pod(far, false, if turn.is_multiple_of(2) { "gone" } else { "v1" });
    measure(&mut engine, "a far pod gone or back", 1000, make);
    let number = (0..policies).find(|number| number % namespaces == near / PODS_PER_NAMESPACE);
    let make = |turn: usize| {
        policy(number.unwrap_or(0), namespaces, u16::try_from(81 + turn % 2).unwrap())
    };
    measure(&mut engine, "a local policy's port", 1000, make);
    let make =
        |turn: usize| everybody(if turn.is_multiple_of(2) { "app == 'a1'" } else { "app == 'a2'" });
    measure(&mut engine, "a policy of all pods, new selector in its rule", 100, make);
    let make = |turn: usize| {
        namespace(near / PODS_PER_NAMESPACE, if turn.is_multiple_of(2) { "b" } else { "a" })
    };
    measure(&mut engine, "a namespace's label", 100, make);
}

/// Returns how many bytes of memory routes take for each pod of other nodes.
fn kept_for_routes(pods: usize) -> u64 {
    let mut cluster = calc::Cluster::new("n0".parse().unwrap());
    let before = resident();
    for number in 0..pods {
        if let Change::Workload(id, endpoint) = pod(number, false, "v1") {
            cluster.apply(calc::Change::Endpoint(id, endpoint));
        }
    }
    per_pod(before, pods)
}

/// Returns how many bytes the pods take as the datastore tells of them.
fn kept_as_a_whole(pods: usize) -> u64 {
    let before = resident();
    let kept: Vec<Change> = (0..pods).map(|number| pod(number, false, "v1")).collect();
    let bytes = per_pod(before, pods);
    drop(kept);
    bytes
}

fn per_pod(before: u64, pods: usize) -> u64 {
    resident().saturating_sub(before) * 1024 / u64::try_from(pods.max(1)).unwrap()
}

/// Prints how long a change takes, from taking note of it to the changes of the state.
fn measure(engine: &mut Policies, name: &str, turns: usize, make: impl Fn(usize) -> Change) {
    let tries = engine.counts().tries;
    let mut changes = 0;
    let mut times: Vec<Duration> = (0..turns)
        .map(|turn| {
            let change = make(turn);
            let start = Instant::now();
            engine.apply(change);
            changes += engine.take_changes().len();
            start.elapsed()
        })
        .collect();
    times.sort();
    let at = |percent: usize| times.get(turns * percent / 100).copied().unwrap_or_default();
    println!(
        "{name}: p50 {:?}, p99 {:?}; {} changes, {} selectors tried each",
        at(50),
        at(99),
        changes / turns,
        (engine.counts().tries - tries) / u64::try_from(turns).unwrap(),
    );
}

fn is_local(number: usize, pods: usize, local: usize) -> bool {
    // Spread over the namespaces, as a scheduler would.
    number.is_multiple_of((pods / local.max(1)).max(1))
        && number / (pods / local.max(1)).max(1) < local
}

fn namespace(number: usize, zone: &str) -> Change {
    let name = format!("kns.ns-{number}");
    let labels = [
        ("pcns.projectcalico.org/name", format!("ns-{number}")),
        ("pcns.kubernetes.io/metadata.name", format!("ns-{number}")),
        ("pcns.team", format!("team-{}", number % 20)),
        ("pcns.zone", zone.to_owned()),
    ];
    let profile = Profile {
        name: name.clone(),
        labels_to_apply: labels.map(|(key, value)| (key.to_owned(), value)).into(),
        ..Profile::default_allow()
    };
    Change::Profile(name, Some(Arc::new(profile)))
}

fn pod(number: usize, is_local: bool, version: &str) -> Change {
    let namespace = format!("ns-{}", number / PODS_PER_NAMESPACE);
    let app = number % 20;
    let labels = [
        ("app", format!("a{app}")),
        ("app.kubernetes.io/name", format!("application-{app}")),
        ("app.kubernetes.io/instance", format!("application-{app}-of-{namespace}")),
        ("app.kubernetes.io/managed-by", "helm".to_owned()),
        ("pod-template-hash", format!("{:08x}", number.wrapping_mul(2_654_435_761))),
        ("version", version.to_owned()),
        ("projectcalico.org/namespace", namespace.clone()),
        ("projectcalico.org/orchestrator", "k8s".to_owned()),
        ("projectcalico.org/serviceaccount", "default".to_owned()),
    ];
    let id = NamespacedName { namespace: namespace.clone(), name: format!("application-{number}") };
    if version == "gone" {
        return Change::Workload(id, None);
    }
    let addr = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + u32::try_from(number).unwrap()));
    let node = if is_local { "n0".to_owned() } else { format!("n{}", 1 + number % 999) };
    let endpoint = WorkloadEndpoint {
        labels: labels.map(|(key, value)| (key.to_owned(), value)).into(),
        profiles: vec![format!("kns.{namespace}"), format!("ksa.{namespace}.default")],
        ports: vec![NamedPort { name: "http".to_owned(), protocol: 6, port: 8080 }],
        ..WorkloadEndpoint::new(
            id.clone(),
            node.parse().unwrap(),
            format!("cali{number:011x}").parse().unwrap(),
            vec![addr],
        )
    };
    Change::Workload(id, Some(Arc::new(endpoint)))
}

fn select(text: &str) -> Selector {
    text.parse().unwrap()
}

fn policy(number: usize, namespaces: usize, port: u16) -> Change {
    let namespace = format!("ns-{}", number % namespaces);
    let (app, peer) = (number % 20, (number / 20) % 20);
    let here = select(&format!("projectcalico.org/namespace == '{namespace}'"));
    let pods = |app| select(&format!("projectcalico.org/orchestrator == 'k8s' && app == 'a{app}'"));
    let from = |selector| EntityMatch { selector: Some(selector), ..EntityMatch::default() };
    let to = |port| EntityMatch { ports: Some(vec![port]), ..EntityMatch::default() };
    let allow = |source, destination| Rule {
        protocol: Some(Protocol::TCP),
        source,
        destination,
        ..Rule::of(Action::Allow)
    };
    let team = select(&format!("pcns.team == 'team-{}'", number % 20)).and(pods(peer));
    let nets = Some(vec![format!("192.0.{}.0/24", number % 256).parse().unwrap()]);
    let ingress = vec![
        allow(from(pods(peer).and(here.clone())), to(PortMatch::Range(port, port))),
        allow(from(team), to(PortMatch::Named("http".to_owned()))),
        allow(EntityMatch { nets, ..EntityMatch::default() }, EntityMatch::default()),
    ];
    let kind = PolicyKind::Kubernetes;
    let id = PolicyId { kind, namespace: Some(namespace), name: format!("policy-{number}") };
    let policy = Policy {
        id: id.clone(),
        tier: "default".to_owned(),
        order: Order::new(1000.0).unwrap(),
        selector: pods(app).and(here),
        ingress: Some(ingress),
        egress: None,
        stage: Stage::Normal,
        enforcement: Enforcement::Enforced,
        is_needed_everywhere: false,
    };
    Change::Policy(id, Some(Arc::new(policy)))
}

/// Returns a policy for every pod that allows one kind of sender.
fn everybody(sender: &str) -> Change {
    let source = EntityMatch { selector: Some(select(sender)), ..EntityMatch::default() };
    let id = PolicyId { kind: PolicyKind::Global, namespace: None, name: "everybody".to_owned() };
    let policy = Policy {
        id: id.clone(),
        tier: "default".to_owned(),
        order: Order::LAST,
        selector: Selector::all(),
        ingress: Some(vec![Rule { source, ..Rule::of(Action::Allow) }]),
        egress: None,
        stage: Stage::Normal,
        enforcement: Enforcement::Enforced,
        is_needed_everywhere: false,
    };
    Change::Policy(id, Some(Arc::new(policy)))
}

/// Returns the resident memory of this process in kilobytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
