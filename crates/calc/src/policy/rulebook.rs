//! Rules of policies and profiles: which are active, and which sets those name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::desired::policy::{
    Direction, EndpointPath, HostPolicy, PolicyChange, PolicyRules, PolicyState, SetId,
};
use model::policy::{PolicyId, Rule, Stage};
use model::vrf::Zone;

use super::compile::Compiled;
use super::sets::Sets;

/// Whose rules.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Owner {
    Policy(PolicyId),
    Profile(String),
}

/// Somebody's rules, as endpoints of a zone look at them.
pub(super) type InZone = (Owner, Zone);

/// The rules of all policies and profiles.
#[derive(Debug, Default)]
pub(super) struct Rulebook {
    entries: BTreeMap<Owner, Entry>,
    /// How many paths and hints name them.
    users: BTreeMap<InZone, u32>,
    /// Those that may have become active or inactive, or have new rules.
    touched: BTreeSet<Owner>,
    /// The sets that rules in the state name.
    in_use: BTreeMap<InZone, Box<[SetId]>>,
}

#[derive(Debug)]
struct Entry {
    rules: Arc<PolicyRules>,
    sets: Box<[SetId]>,
}

impl Rulebook {
    /// Replaces somebody's rules for packets to and from endpoints.
    pub(super) fn put(
        &mut self,
        owner: Owner,
        (ingress, egress): (&[Rule], &[Rule]),
        stage: Stage,
        sets: &mut Sets,
    ) {
        let compiled = Compiled::of(ingress, egress, stage);
        let ids = compiled.questions.into_iter().map(|question| sets.hold(question)).collect();
        let entry = Entry { rules: Arc::new(compiled.rules), sets: ids };
        if let Some(old) = self.entries.insert(owner.clone(), entry) {
            release(&old, sets);
        }
        self.touched.insert(owner);
    }

    /// Removes somebody's rules.
    pub(super) fn remove(&mut self, owner: Owner, sets: &mut Sets) {
        if let Some(old) = self.entries.remove(&owner) {
            release(&old, sets);
            self.touched.insert(owner);
        }
    }

    /// Returns how much is kept of anything.
    #[cfg(test)]
    pub(super) fn kept(&self) -> Vec<usize> {
        vec![self.entries.len(), self.users.len(), self.touched.len(), self.in_use.len()]
    }

    /// Returns somebody's rules.
    pub(super) fn rules(&self, owner: &Owner) -> Option<&PolicyRules> {
        self.entries.get(owner).map(|entry| entry.rules.as_ref())
    }

    /// Returns everybody's rules.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Owner, &PolicyRules)> {
        self.entries.iter().map(|(owner, entry)| (owner, entry.rules.as_ref()))
    }

    /// Takes note that somebody is named once more.
    pub(super) fn start_use(&mut self, one: &InZone) {
        let count = self.users.entry(one.clone()).or_default();
        *count = count.saturating_add(1);
        if *count == 1 {
            self.touched.insert(one.0.clone());
        }
    }

    /// Takes note that he is named once less.
    pub(super) fn end_use(&mut self, one: &InZone) {
        let Some(count) = self.users.get_mut(one) else { return };
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.users.remove(one);
            self.touched.insert(one.0.clone());
        }
    }

    /// Makes the state hold the rules of those that are named, and returns what that changes.
    pub(super) fn settle(&mut self, state: &mut PolicyState, sets: &mut Sets) -> RuleChanges {
        let mut changes = RuleChanges::default();
        for owner in std::mem::take(&mut self.touched) {
            let zones = zones_of(&self.users, &owner);
            let entry = self.entries.get(&owner).filter(|_| !zones.is_empty());
            let rules = entry.map(|entry| Arc::clone(&entry.rules));
            let ids = entry.map(|entry| entry.sets.clone());
            let before = zones_of(&self.in_use, &owner);
            for zone in before.union(&zones) {
                let ids = ids.clone().filter(|_| zones.contains(zone));
                for id in ids.iter().flatten() {
                    sets.start_use(*id, *zone);
                }
                let key = (owner.clone(), *zone);
                let old = match ids {
                    Some(ids) => self.in_use.insert(key, ids),
                    None => self.in_use.remove(&key),
                };
                for id in old.iter().flatten() {
                    sets.end_use(*id, *zone);
                }
            }
            changes.extend(owner, rules, state);
        }
        changes
    }
}

/// Returns the zones in which somebody's rules are named.
fn zones_of<T>(all: &BTreeMap<InZone, T>, owner: &Owner) -> BTreeSet<Zone> {
    let range = (owner.clone(), Zone::Default)..=(owner.clone(), Zone::Nowhere);
    all.range(range).map(|((_, zone), _)| *zone).collect()
}

fn release(entry: &Entry, sets: &mut Sets) {
    for id in &entry.sets {
        sets.release(*id);
    }
}

/// Changes of rules: those that come before endpoints', and those that come after.
#[derive(Debug, Default)]
pub(super) struct RuleChanges {
    pub(super) first: Vec<PolicyChange>,
    pub(super) last: Vec<PolicyChange>,
}

impl RuleChanges {
    /// Puts rules into the state, and takes note if that changes it.
    fn extend(&mut self, owner: Owner, rules: Option<Arc<PolicyRules>>, state: &mut PolicyState) {
        let found = match &owner {
            Owner::Policy(id) => state.policies.get(id),
            Owner::Profile(name) => state.profiles.get(name),
        };
        if found == rules.as_ref() {
            return;
        }
        let list = if rules.is_some() { &mut self.first } else { &mut self.last };
        let change = match owner {
            Owner::Policy(id) => PolicyChange::Policy(id, rules),
            Owner::Profile(name) => PolicyChange::Profile(name, rules),
        };
        state.apply(&change);
        list.push(change);
    }
}

/// Returns whose rules a path names, as often as it does.
pub(super) fn owners_of_path(path: &EndpointPath) -> impl Iterator<Item = InZone> {
    owners(&path.ingress).chain(owners(&path.egress))
}

/// Returns whose rules a host endpoint's paths name, as often as they do.
pub(super) fn owners_of_host(host: &HostPolicy) -> impl Iterator<Item = InZone> {
    let paths = [&host.normal, &host.forward, &host.untracked];
    paths.into_iter().flat_map(owners_of_path).chain(owners(&host.pre_dnat))
}

fn owners(direction: &Direction) -> impl Iterator<Item = InZone> {
    let policies = direction.tiers.iter().flat_map(|tier| tier.policies.iter().cloned());
    let profiles = direction.profiles.iter().cloned().map(Owner::Profile);
    policies.map(Owner::Policy).chain(profiles).map(|owner| (owner, direction.zone))
}
