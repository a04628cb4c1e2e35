//! Measures nftables on this machine, in a fresh network namespace; needs root.
//!
//! `cargo run --profile lab -p kernel --example nftables`

#![expect(clippy::arithmetic_side_effects, reason = "its numbers are small")]

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kernel::{Netns, Nftables};
use model::desired::policy::{
    CompiledEntity, CompiledRule, Direction, EndpointPath, PolicyChange, PolicyRules, PolicyState,
    Ports, SetId, SetKind, SetMember, TierPath, WorkloadPolicy,
};
use model::id::NamespacedName;
use model::net::{Cidr, Family};
use model::policy::{Action, PolicyId, PolicyKind, Protocol};
use model::ruleset::Transaction;
use model::tier::TierAction;
use render::{Renderer, Settings, plan};

const POLICIES: u32 = 5_000;
const RULES: u32 = 5;
const SETS: u32 = 500;
const MEMBERS: u32 = 50_000;
const PODS: u32 = 100;
const ROUNDS: u32 = 1_000;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A namespace that goes when the program ends.
struct Named(String);

impl Drop for Named {
    fn drop(&mut self) {
        drop(Netns::remove(&self.0));
    }
}

fn main() -> Outcome<()> {
    let named = Named(format!("kernel-measure-nft-{}", std::process::id()));
    let netns = Netns::create(&named.0)?;
    let mut nftables = Nftables::open_in(&netns)?;
    let state = state()?;
    for families in [BTreeSet::from([Family::V4]), Family::ALL.into()] {
        let settings = Settings { families, ..Settings::default() };
        measure(&mut nftables, state.clone(), settings)?;
    }
    Ok(())
}

fn measure(nftables: &mut Nftables, state: PolicyState, settings: Settings) -> Outcome<()> {
    say(&format!("families: {:?}", settings.families));
    let start = Instant::now();
    let mut renderer = Renderer::new(state, settings);
    let making = start.elapsed();
    let chains: usize = renderer.tables().values().map(|table| table.chains.len()).sum();
    let tables = renderer.tables().values().flat_map(|table| table.chains.values());
    let rules: usize = tables.map(|chain| chain.rules.len()).sum();
    say(&format!("{chains} chains, {rules} rules, rendered in {making:.1?}"));

    load(nftables, &renderer)?;
    let mut number = 0;
    series("an address comes or goes", nftables, || {
        number += 1;
        let members = BTreeSet::from([SetMember::Net(host(MEMBERS + number / 2)?)]);
        let none = BTreeSet::new();
        let (add, remove) = if number % 2 == 0 { (members, none) } else { (none, members) };
        // Odd rounds remove what the round before has added.
        let (add, remove) =
            if number == 1 { (BTreeSet::new(), BTreeSet::new()) } else { (add, remove) };
        Ok(renderer.apply(&[PolicyChange::SetMembers { id: set_id(0), add, remove }]))
    })?;
    let mut number = 0;
    series("a pod comes or goes", nftables, || {
        number += 1;
        let pod = workload(PODS + 1)?;
        let value = (number % 2 == 1).then_some(pod);
        Ok(renderer.apply(&[PolicyChange::Workload("calinew".parse()?, value)]))
    })?;
    let mut number = 0;
    series("a policy changes", nftables, || {
        number += 1;
        let rules = rules_of(number % 2, if number % 2 == 0 { 8_000 } else { 8_001 });
        Ok(renderer.apply(&[PolicyChange::Policy(policy_id(0), Some(rules))]))
    })?;
    let mut number = 0;
    series("a policy of one pod comes or goes", nftables, || {
        number += 1;
        let is_there = number % 2 == 1;
        let policy = PolicyChange::Policy(policy_id(POLICIES), is_there.then(|| rules_of(1, 80)));
        let pod = workload(if is_there { PODS - 1 } else { 0 })?;
        let mut path = (*pod.path).clone();
        let tiers = path.ingress.tiers.iter_mut().filter(|_| is_there);
        tiers.for_each(|tier| tier.policies.push(policy_id(POLICIES)));
        let pod = WorkloadPolicy { path: Arc::new(path), ..pod };
        let pod = PolicyChange::Workload("cali0".parse()?, Some(pod));
        Ok(renderer.apply(&if is_there { [policy, pod] } else { [pod, policy] }))
    })
}

/// Fills the kernel's tables, reads them back and compares.
fn load(nftables: &mut Nftables, renderer: &Renderer) -> Outcome<()> {
    let found = nftables.snapshot()?;
    let start = Instant::now();
    let transaction = plan(renderer.tables(), &found);
    let planned = start.elapsed();
    let start = Instant::now();
    nftables.apply(&transaction)?;
    let steps = transaction.steps.len();
    say(&format!(
        "load: {steps} steps, planned in {planned:.1?}, applied in {:.1?}",
        start.elapsed()
    ));

    let start = Instant::now();
    let found = nftables.snapshot()?;
    let read = start.elapsed();
    let start = Instant::now();
    let nothing = plan(renderer.tables(), &found);
    let compared = start.elapsed();
    let left = nothing.steps.len();
    say(&format!("adopt: read in {read:.1?}, compared in {compared:.1?}, {left} steps left"));
    Ok(())
}

/// Makes many changes, and says what they take: to render, and in the kernel.
fn series(
    what: &str,
    nftables: &mut Nftables,
    mut change: impl FnMut() -> Outcome<Transaction>,
) -> Outcome<()> {
    let mut times: [Vec<Duration>; 2] = Default::default();
    let mut busy = Duration::ZERO;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let transaction = change()?;
        let rendered = start.elapsed();
        let (start, before) = (Instant::now(), on_processor()?);
        nftables.apply(&transaction)?;
        busy += on_processor()?.saturating_sub(before);
        for (times, time) in times.iter_mut().zip([rendered, start.elapsed()]) {
            times.push(time);
        }
    }
    let [rendered, applied] = times.map(|mut times| {
        times.sort();
        let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
        format!("{:.1?} {:.1?} {:.1?}", at(50), at(90), at(99))
    });
    let mean = busy / ROUNDS;
    say(&format!(
        "{what} (p50 p90 p99): rendered in {rendered}, applied in {applied}; \
         on the processor {mean:.1?} on average"
    ));
    Ok(())
}

/// Returns how long this thread has been on a processor (proc(5), `schedstat`): unlike
/// the time of day, that is ours alone on a busy machine.
fn on_processor() -> Outcome<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = text.split(' ').next().unwrap_or_default().parse()?;
    Ok(Duration::from_nanos(nanos))
}

#[expect(clippy::print_stdout, reason = "figures are what this program is for")]
fn say(line: &str) {
    println!("{line}");
}

fn state() -> Outcome<PolicyState> {
    let mut state = PolicyState::default();
    for number in 0..SETS {
        let members = if number == 0 { MEMBERS } else { 100 };
        let hosts = (0..members).map(|member| host(member).map(SetMember::Net));
        state.sets.insert(set_id(number), hosts.collect::<Outcome<_>>()?);
    }
    for number in 0..POLICIES {
        state.policies.insert(policy_id(number), rules_of(number, 80));
    }
    for number in 0..PODS {
        state.workloads.insert(format!("cali{number}").parse()?, workload(number)?);
    }
    let all = vec![rule(Action::Allow)];
    let profile = PolicyRules { ingress: all.clone(), egress: all };
    state.profiles.insert("kns.default".to_owned(), Arc::new(profile));
    Ok(state)
}

fn host(number: u32) -> Outcome<Cidr> {
    let all: Cidr = "10.0.0.0/8".parse()?;
    Ok(Cidr::host(all.nth(number.into()).ok_or("no such address")?))
}

fn set_id(number: u32) -> SetId {
    SetId::new(SetKind::Selected, u128::from(number).to_be_bytes())
}

fn policy_id(number: u32) -> PolicyId {
    let namespace = Some("default".to_owned());
    PolicyId { kind: PolicyKind::Network, namespace, name: format!("policy-{number}") }
}

fn rule(action: Action) -> CompiledRule {
    CompiledRule {
        action,
        family: None,
        protocol: None,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: CompiledEntity::default(),
        destination: CompiledEntity::default(),
        never: None,
    }
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
fn workload(number: u32) -> Outcome<WorkloadPolicy> {
    let share = POLICIES / PODS;
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
        path: Arc::new(EndpointPath {
            ingress: Direction { tiers: vec![tier], profiles: Vec::new() },
            egress: Direction { tiers: Vec::new(), profiles: vec!["kns.default".to_owned()] },
        }),
    })
}
