//! Whatever happened, and in whatever order: the state follows from what is there.

use model::desired::policy::{PolicyChange, PolicyState};

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

/// Plays a history; returns how many states were compared.
fn play(steps: &[Step]) -> Result<usize, String> {
    let mut policies = Policies::new(cluster::this_node());
    let mut inputs = Inputs::new(cluster::this_node());
    let mut copy = PolicyState::default();
    let mut compared = 0;
    for step in steps {
        match step {
            Step::Apply(change) => {
                inputs.apply(change.clone());
                policies.apply(change.clone());
            }
            Step::Take => {
                for change in policies.take_changes() {
                    check_change(&copy, &change)?;
                    copy.apply(&change);
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
fn check_change(before: &PolicyState, change: &PolicyChange) -> Result<(), String> {
    let mut after = before.clone();
    after.apply(change);
    if after == *before {
        return Err(format!("{change:?} changes nothing"));
    }
    let missing = missing(&after);
    if missing.is_empty() { Ok(()) } else { Err(format!("{change:?} leaves {missing:?} missing")) }
}

/// Returns what a state names and does not have.
fn missing(state: &PolicyState) -> Vec<String> {
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
    }
    let rules = state.policies.values().chain(state.profiles.values());
    for rule in rules.flat_map(|rules| rules.ingress.iter().chain(&rules.egress)) {
        for end in [&rule.source, &rule.destination] {
            let named = end.ports.iter().flat_map(|ports| &ports.named);
            let sets = end.in_sets.iter().chain(&end.not_in_sets).chain(&end.service);
            let sets = sets.chain(named).chain(&end.not_ports.named);
            let sets = sets.filter(|id| !state.sets.contains_key(*id));
            missing.extend(sets.map(ToString::to_string));
        }
    }
    missing
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
        if play(&fewer).is_err() { steps = fewer } else { index += 1 }
    }
    steps
}

fn check(seeds: std::ops::Range<u64>) {
    let mut compared = 0;
    for seed in seeds {
        match play(&history(seed)) {
            Ok(count) => compared += count,
            Err(_) => {
                let steps = smallest(history(seed));
                let error = play(&steps).unwrap_err();
                panic!("seed {seed}: {steps:#?}\n{error}");
            }
        }
    }
    println!("{compared} states compared");
}

#[test]
fn first_half_of_the_histories_end_as_the_oracle_says() {
    check(0..1_000);
}
