//! What changes cost in the kernel alone: many policies on one node, without API server or watches.

#![expect(clippy::arithmetic_side_effects, reason = "its numbers are small")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kernel::Nftables;
use lab::Error;
use model::desired::policy::{
    CompiledRule, Direction, EndpointPath, PolicyChange, PolicyRules, PolicyState, Ports, SetId,
    SetKind, SetMember, TierPath, WorkloadPolicy,
};
use model::id::NamespacedName;
use model::net::{Cidr, Family};
use model::policy::{Action, PolicyId, PolicyKind, Protocol};
use model::ruleset::Transaction;
use model::tier::TierAction;
use render::{Renderer, Settings, plan};

use super::changes::Latency;
use crate::statistics::percentile;

/// Rules of one policy.
const RULES: u32 = 5;
const SETS: u32 = 500;
/// Members of most sets.
const MEMBERS: u32 = 100;
const PODS: u32 = 100;

/// How much the kernel holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Size {
    /// Policies of five rules each, all of them of one of the node's hundred pods.
    pub(super) policies: u32,
    /// Members of the largest set.
    pub(super) members: u32,
    /// How many changes of each kind are made.
    pub(super) rounds: u32,
}

/// What a table's changes cost.
#[derive(Debug)]
pub(crate) struct Tables {
    /// Of which families, in words.
    pub(crate) families: &'static str,
    /// Rules in the kernel.
    pub(crate) rules: usize,
    /// Until the kernel holds everything.
    pub(crate) load: Duration,
    /// Until a restart has read it and knows that nothing differs.
    pub(crate) adopt: Duration,
    /// How long changes take, and how long they keep a processor busy on average.
    pub(crate) changes: Vec<(&'static str, Latency, Duration)>,
}

/// Measures tables of IPv4, then of both families, in the namespace of the calling thread, and
/// leaves the last ones there.
///
/// # Errors
///
/// [`Error`] if the kernel refuses something.
pub(super) fn measure(size: Size) -> Result<Vec<Tables>, Error> {
    let mut nftables = Nftables::open().map_err(Error::wrong)?;
    let state = state(size)?;
    let one = ("IPv4", BTreeSet::from([Family::V4]));
    [one, ("IPv4 and IPv6", Family::ALL.into())]
        .map(|(words, families)| {
            let settings = Settings { families, ..Settings::default() };
            let renderer = Renderer::new(state.clone(), settings);
            Ok(Tables { families: words, ..of_families(&mut nftables, renderer, size)? })
        })
        .into_iter()
        .collect()
}

fn of_families(
    nftables: &mut Nftables,
    mut renderer: Renderer,
    size: Size,
) -> Result<Tables, Error> {
    let chains = renderer.tables().values().flat_map(|table| table.chains.values());
    let rules = chains.map(|chain| chain.rules.len()).sum();
    let [load, adopt] = load(nftables, &renderer)?;
    let mut changes = Vec::new();
    let mut add = |what, change: &dyn Fn(u32) -> Result<Vec<PolicyChange>, Error>| {
        let next = |number| Ok(renderer.apply(&change(number)?));
        let (latency, busy) = series(nftables, size.rounds, next)?;
        changes.push((what, latency, busy));
        Ok::<_, Error>(())
    };
    add("an address comes or goes", &|number| {
        let members = BTreeSet::from([SetMember::Net(host(size.members)?)]);
        let (add, remove) = on_and_off(number, members);
        Ok(vec![PolicyChange::SetMembers { id: set_id(0), add, remove }])
    })?;
    add("a pod comes or goes", &|number| {
        let (pod, _) = on_and_off(number, Some(workload(0, size)?));
        Ok(vec![PolicyChange::Workload("calinew".parse().map_err(Error::wrong)?, pod)])
    })?;
    add("a policy changes", &|number| {
        let port = if number.is_multiple_of(2) { 8_001 } else { 8_000 };
        Ok(vec![PolicyChange::Policy(policy_id(0), Some(rules_of(0, port)))])
    })?;
    add("a policy of one pod comes or goes", &|number| {
        let new = policy_id(size.policies);
        let (policy, _) = on_and_off(number, Some(rules_of(1, 80)));
        let (ours, _) = on_and_off(number, vec![new.clone()]);
        let mut pod = workload(0, size)?;
        let path = Arc::make_mut(&mut pod.path);
        path.ingress.tiers.iter_mut().for_each(|tier| tier.policies.extend(ours.clone()));
        let (is_new, policy) = (policy.is_some(), PolicyChange::Policy(new, policy));
        let pod = PolicyChange::Workload("cali0".parse().map_err(Error::wrong)?, Some(pod));
        Ok(if is_new { vec![policy, pod] } else { vec![pod, policy] })
    })?;
    Ok(Tables { families: "", rules, load, adopt, changes })
}

/// Returns this and nothing in even rounds, which add, and nothing and this in odd ones.
fn on_and_off<T: Default>(number: u32, this: T) -> (T, T) {
    if number.is_multiple_of(2) { (this, T::default()) } else { (T::default(), this) }
}

/// Fills the kernel's tables, reads them back and compares; returns how long either took.
fn load(nftables: &mut Nftables, renderer: &Renderer) -> Result<[Duration; 2], Error> {
    let found = nftables.snapshot().map_err(Error::wrong)?;
    let started = Instant::now();
    nftables.apply(&plan(renderer.tables(), &found)).map_err(Error::wrong)?;
    let loaded = started.elapsed();
    let started = Instant::now();
    let found = nftables.snapshot().map_err(Error::wrong)?;
    let left = plan(renderer.tables(), &found).steps.len();
    if left > 0 {
        return Err(Error::wrong(format!("{left} steps are left after a load")));
    }
    Ok([loaded, started.elapsed()])
}

/// Makes many changes, and returns what they take in the kernel.
fn series(
    nftables: &mut Nftables,
    rounds: u32,
    mut change: impl FnMut(u32) -> Result<Transaction, Error>,
) -> Result<(Latency, Duration), Error> {
    let mut took = Vec::new();
    let mut busy = Duration::ZERO;
    for number in 0..rounds {
        let transaction = change(number)?;
        let (started, before) = (Instant::now(), on_processor()?);
        nftables.apply(&transaction).map_err(Error::wrong)?;
        busy = busy.saturating_add(on_processor()?.saturating_sub(before));
        took.push(started.elapsed());
    }
    took.sort_unstable();
    let latency = Latency([50, 90, 99].map(|percent| percentile(&took, percent)));
    Ok((latency, busy.checked_div(rounds).unwrap_or_default()))
}

/// Returns how long this thread has been on a processor (proc(5), `schedstat`): unlike
/// the time of day, that is ours alone on a busy machine.
fn on_processor() -> Result<Duration, Error> {
    let path = std::path::Path::new("/proc/thread-self/schedstat");
    let text = std::fs::read_to_string(path).map_err(Error::file(path))?;
    let nanos = text.split(' ').next().unwrap_or_default().parse().map_err(Error::wrong)?;
    Ok(Duration::from_nanos(nanos))
}

fn state(size: Size) -> Result<PolicyState, Error> {
    let mut state = PolicyState::default();
    for number in 0..SETS {
        let members = if number == 0 { size.members } else { MEMBERS };
        let hosts = (0..members).map(|member| host(member).map(SetMember::Net));
        state.sets.insert(set_id(number), hosts.collect::<Result<_, Error>>()?);
    }
    for number in 0..size.policies {
        state.policies.insert(policy_id(number), rules_of(number, 80));
    }
    for number in 0..PODS {
        state.workloads.insert(
            format!("cali{number}").parse().map_err(Error::wrong)?,
            workload(number, size)?,
        );
    }
    let all = vec![rule(Action::Allow)];
    let profile = PolicyRules { ingress: all.clone(), egress: all };
    state.profiles.insert("kns.default".to_owned(), Arc::new(profile));
    Ok(state)
}

fn host(number: u32) -> Result<Cidr, Error> {
    let all: Cidr = "10.0.0.0/8".parse().map_err(Error::wrong)?;
    Ok(Cidr::host(all.nth(number.into()).ok_or_else(|| Error::wrong("no such address"))?))
}

fn set_id(number: u32) -> SetId {
    SetId::new(SetKind::Selected, u128::from(number).to_be_bytes())
}

fn policy_id(number: u32) -> PolicyId {
    let namespace = Some("default".to_owned());
    PolicyId { kind: PolicyKind::Network, namespace, name: format!("policy-{number}") }
}

fn rule(action: Action) -> CompiledRule {
    CompiledRule::of(action)
}

fn rules_of(number: u32, port: u16) -> Arc<PolicyRules> {
    let rule = |index: u32| {
        let mut allow = CompiledRule { protocol: Some(Protocol::TCP), ..rule(Action::Allow) };
        allow.source.in_sets = vec![set_id((number + index) % SETS)];
        allow.destination.ports = Some(Ports { ranges: vec![(port, port)], named: Vec::new() });
        allow
    };
    Arc::new(PolicyRules { ingress: (0..RULES).map(rule).collect(), egress: Vec::new() })
}

/// Each pod has a path of its own with its share of the policies.
fn workload(number: u32, size: Size) -> Result<WorkloadPolicy, Error> {
    let share = size.policies / PODS;
    let first = number % PODS * share;
    let tier = TierPath {
        tier: "default".to_owned(),
        default_action: TierAction::Deny,
        policies: (first..first + share).map(policy_id).collect(),
    };
    let name = format!("pod-{number}");
    Ok(WorkloadPolicy {
        endpoint: NamespacedName { namespace: "default".to_owned(), name },
        addrs: vec![host(1_000_000 + number)?.addr()],
        mac: None,
        allowed_sources: Vec::new(),
        controls: model::endpoint::Controls::NONE,
        path: Arc::new(EndpointPath {
            ingress: Direction { tiers: vec![tier], ..Direction::default() },
            egress: Direction { profiles: vec!["kns.default".to_owned()], ..Direction::default() },
        }),
    })
}
