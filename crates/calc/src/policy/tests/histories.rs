//! Whatever happened, and in whatever order: the state follows from what is there.

use model::desired::policy::{CompiledEntity, CompiledRule, PolicyChange, PolicyState};
use model::vrf::Zone;

use super::cluster;
use super::random::Random;
use crate::policy::{Change, Inputs, Policies, oracle};

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    Apply(Change),
    /// Changes are taken, and the result is compared.
    Take,
}

fn history(seed: u64) -> Vec<Step> {
    let mut random = Random::new(seed);
    let rhythm = 1 + random.below(12);
    let mut steps = Vec::new();
    for _ in 0..(4 + random.below(28)) {
        steps.push(Step::Apply(cluster::change(&mut random)));
        if random.one_in(rhythm) {
            steps.push(Step::Take);
        }
    }
    steps.push(Step::Take);
    steps
}

/// What is looked at in a history.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Check {
    States,
    EachChange,
}

/// Plays a history; returns how many states were compared.
fn play(steps: &[Step], check: Check) -> Result<usize, String> {
    let mut policies = Policies::new(cluster::this_node());
    let mut inputs = Inputs::new(cluster::this_node());
    let mut copy = PolicyState::default();
    let mut compared = 0;
    // Whoever changes his zone may leave rules behind that have changed at the same time.
    let is_in_vrf = |step: &Step| match step {
        Step::Apply(Change::Workload(_, Some(pod))) => pod.vrf.is_some(),
        Step::Apply(_) | Step::Take => false,
    };
    let has_vrfs = steps.iter().any(is_in_vrf);
    for step in steps {
        match step {
            Step::Apply(change) => {
                inputs.apply(change.clone());
                policies.apply(change.clone());
            }
            Step::Take => {
                for change in policies.take_changes() {
                    if check == Check::EachChange {
                        check_change(&copy, &change, !has_vrfs)?;
                    }
                    copy.apply(&change);
                }
                let missing = missing(&copy, true);
                if !missing.is_empty() {
                    return Err(format!("{missing:?} missing"));
                }
                compare("the copy", &copy, policies.state())?;
                compare("the oracle", policies.state(), &oracle::state(&inputs))?;
                compared += 1;
            }
        }
    }
    Ok(compared)
}

/// Every change changes something, and names only what is there.
fn check_change(
    before: &PolicyState,
    change: &PolicyChange,
    are_sets_due: bool,
) -> Result<(), String> {
    let mut after = before.clone();
    after.apply(change);
    if after == *before {
        return Err(format!("{change:?} changes nothing"));
    }
    let missing = missing(&after, are_sets_due);
    if missing.is_empty() { Ok(()) } else { Err(format!("{change:?} leaves {missing:?} missing")) }
}

/// Returns what a state names and does not have.
fn missing(state: &PolicyState, are_sets_due: bool) -> Vec<String> {
    let mut missing = Vec::new();
    let hosts = state.hosts.values();
    let hosts = hosts.flat_map(|host| [&host.normal, &host.forward, &host.untracked]);
    let paths = state.workloads.values().map(|workload| workload.path.as_ref()).chain(hosts);
    let directions = paths.flat_map(|path| [&path.ingress, &path.egress]);
    for direction in directions.chain(state.hosts.values().map(|host| &host.pre_dnat)) {
        let ids = direction.tiers.iter().flat_map(|tier| &tier.policies);
        let ids = ids.filter(|id| !state.policies.contains_key(*id));
        missing.extend(ids.map(ToString::to_string));
        let profiles = direction.profiles.iter();
        missing.extend(profiles.filter(|name| !state.profiles.contains_key(*name)).cloned());
        let policies = direction.tiers.iter().flat_map(|tier| &tier.policies);
        let policies = policies.filter_map(|id| state.policies.get(id));
        let profiles = direction.profiles.iter().filter_map(|name| state.profiles.get(name));
        let rules = policies.chain(profiles);
        let rules = rules.filter(|_| are_sets_due);
        for rule in rules.flat_map(|rules| rules.ingress.iter().chain(&rules.egress)) {
            missing.extend(missing_sets(state, rule, direction.zone));
        }
    }
    missing
}

fn missing_sets(state: &PolicyState, rule: &CompiledRule, zone: Zone) -> Vec<String> {
    let of_end = |end: &CompiledEntity| {
        let named = end.ports.iter().flat_map(|ports| &ports.named);
        let sets = end.in_sets.iter().chain(&end.not_in_sets).chain(&end.service);
        let sets = sets.chain(named).chain(&end.not_ports.named);
        let sets = sets.map(|id| id.in_zone(zone)).filter(|id| !state.sets.contains_key(id));
        sets.map(|id| id.to_string()).collect::<Vec<_>>()
    };
    [&rule.source, &rule.destination].into_iter().flat_map(of_end).collect()
}

fn compare(whose: &str, ours: &PolicyState, theirs: &PolicyState) -> Result<(), String> {
    if ours == theirs {
        return Ok(());
    }
    Err(format!("differs from {whose}:\n{ours:#?}\n---\n{theirs:#?}"))
}

/// Leaves out what a failure does not need.
fn smallest(mut steps: Vec<Step>) -> Vec<Step> {
    let mut index = 0;
    while index < steps.len() {
        let mut fewer = steps.clone();
        fewer.remove(index);
        if play(&fewer, Check::EachChange).is_err() { steps = fewer } else { index += 1 }
    }
    steps
}

/// Plays histories, and fails with the shortest that fails.
fn check(seeds: std::ops::Range<u64>) {
    let mut compared = 0;
    let least = seeds.clone().count() * 5;
    for seed in seeds {
        // Steps between two states are many: a part of them is enough.
        let check = if seed % 8 == 0 { Check::EachChange } else { Check::States };
        compared += play(&history(seed), check).unwrap_or_else(|_| {
            let steps = smallest(history(seed));
            let error = play(&steps, Check::EachChange).unwrap_err();
            panic!("seed {seed}: {steps:#?}\n{error}")
        });
    }
    assert!(compared > least, "{compared} states compared");
}

// Four tests, since tests run side by side: 100,000 histories with 500,000 states in all, 34 s of
// a processor's time.

#[test]
fn histories_end_as_the_oracle_says() {
    check(0..25_000);
}

#[test]
fn more_histories_end_as_the_oracle_says() {
    check(25_000..50_000);
}

#[test]
fn yet_more_histories_end_as_the_oracle_says() {
    check(50_000..75_000);
}

#[test]
fn all_other_histories_end_as_the_oracle_says() {
    check(75_000..100_000);
}

/// Returns which object a change is about.
fn object(change: &Change) -> String {
    match change {
        Change::Workload(id, _) => format!("pod {id}"),
        Change::Host(name, _) => format!("host {name}"),
        Change::NetworkSet(id, _) => format!("{id:?}"),
        Change::Policy(id, _) => id.to_string(),
        Change::Tier(name, _) => format!("tier {name}"),
        Change::Profile(name, _) => format!("profile {name}"),
        Change::EndpointSlice(id, _) => format!("slice {id}"),
        Change::Pool(name, _) => format!("pool {name}"),
        Change::Interface(name, _) => format!("interface {name}"),
    }
}

/// Calls `visit` with every order of `list` (Heap's algorithm).
fn each_order(list: &mut [Change], len: usize, visit: &mut impl FnMut(&[Change])) {
    if len < 2 {
        return visit(list);
    }
    for index in 0..len {
        each_order(list, len - 1, visit);
        list.swap(if len.is_multiple_of(2) { index } else { 0 }, len - 1);
    }
}

#[test]
fn every_order_of_changes_leads_to_the_same_state() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let before: Vec<Change> = (0..12).map(|_| cluster::change(&mut random)).collect();
        let mut different = std::collections::BTreeMap::new();
        while different.len() < 5 {
            let change = cluster::change(&mut random);
            different.insert(object(&change), change);
        }
        let mut changes: Vec<Change> = different.into_values().collect();
        let mut inputs = Inputs::new(cluster::this_node());
        before.iter().chain(&changes).for_each(|change| inputs.apply(change.clone()));
        let expected = oracle::state(&inputs);
        each_order(&mut changes, 5, &mut |order| {
            let mut policies = Policies::new(cluster::this_node());
            for change in &before {
                policies.apply(change.clone());
            }
            policies.take_changes();
            for change in order {
                policies.apply(change.clone());
                if random.one_in(2) {
                    policies.take_changes();
                }
            }
            policies.take_changes();
            assert_eq!(*policies.state(), expected, "seed {seed}: {order:#?}");
        });
    }
}

#[test]
fn nothing_is_kept_of_what_is_gone() {
    let mut bare = Policies::new(cluster::this_node());
    bare.take_changes();
    for seed in 0..1_000 {
        let mut policies = Policies::new(cluster::this_node());
        let mut seen = std::collections::BTreeMap::new();
        for step in history(seed) {
            if let Step::Apply(change) = &step {
                policies.apply(change.clone());
                seen.insert(object(change), gone(change));
            } else {
                policies.take_changes();
            }
        }
        for change in seen.into_values() {
            policies.apply(change);
        }
        policies.take_changes();
        assert_eq!(*policies.state(), PolicyState::default(), "seed {seed}");
        assert_eq!(policies.kept(), bare.kept(), "seed {seed}");
    }
}

/// Returns the change that takes the object of `change` away.
fn gone(change: &Change) -> Change {
    match change.clone() {
        Change::Workload(id, _) => Change::Workload(id, None),
        Change::Host(name, _) => Change::Host(name, None),
        Change::NetworkSet(id, _) => Change::NetworkSet(id, None),
        Change::Policy(id, _) => Change::Policy(id, None),
        Change::Tier(name, _) => Change::Tier(name, None),
        Change::Profile(name, _) => Change::Profile(name, None),
        Change::EndpointSlice(id, _) => Change::EndpointSlice(id, None),
        Change::Pool(name, _) => Change::Pool(name, None),
        Change::Interface(name, _) => Change::Interface(name, None),
    }
}
