//! From what the kernel holds to what it should hold.

use std::collections::BTreeSet;

use model::net::Family;
use model::ruleset::{
    Chain, ChainSnapshot, Element, Rule, RuleId, Ruleset, SetSnapshot, Snapshot, Step,
    TableSnapshot, Tables, Transaction,
};

/// Returns the least transaction that makes of `actual` what `desired` is.
///
/// Rules are compared by their identities, and what is equal stays with its
/// counters. A table that somebody made in another way is made anew, also
/// within the one transaction, so that no packet meets half of it.
#[must_use]
pub fn plan(desired: &Tables, actual: &Snapshot) -> Transaction {
    let mut steps = Vec::new();
    for family in Family::ALL {
        let planned = match (desired.get(&family), actual.tables.get(&family)) {
            (None, None) => Vec::new(),
            (None, Some(_)) => vec![Step::DeleteTable],
            (Some(ruleset), None) => create(family, ruleset),
            (Some(ruleset), Some(table)) if is_foreign(ruleset, table) => {
                [vec![Step::DeleteTable], create(family, ruleset)].concat()
            }
            (Some(ruleset), Some(table)) => table_steps(family, table, ruleset),
        };
        steps.extend(planned.into_iter().map(|step| (family, step)));
    }
    Transaction { generation: Some(actual.generation), steps }
}

fn create(family: Family, ruleset: &Ruleset) -> Vec<Step> {
    let steps = table_steps(family, &TableSnapshot::default(), ruleset);
    [vec![Step::CreateTable], steps].concat()
}

/// Is there something by a wanted name that cannot be changed into what is wanted?
fn is_foreign(desired: &Ruleset, actual: &TableSnapshot) -> bool {
    let chain = |(name, chain): (&String, &ChainSnapshot)| {
        let wanted = desired.chains.get(name);
        chain.is_strange || wanted.is_some_and(|wanted| wanted.base != chain.base)
    };
    let set = |(name, set): (&String, &SetSnapshot)| {
        let wanted = desired.sets.get(name);
        wanted.is_some_and(|wanted| set.is_strange || set.kind != Some(wanted.kind))
    };
    actual.is_strange || actual.chains.iter().any(chain) || actual.sets.iter().any(set)
}

/// Returns the steps for one table that is there.
///
/// What is needed comes first, what is not needed any more last.
pub(crate) fn table_steps(family: Family, actual: &TableSnapshot, desired: &Ruleset) -> Vec<Step> {
    let mut stages = Stages::default();
    for (name, set) in &desired.sets {
        let found = actual.sets.get(name);
        if found.is_none() {
            stages.create.push(Step::CreateSet(name.clone(), set.kind));
        }
        let nothing = BTreeSet::new();
        let there = found.map_or(&nothing, |found| &found.elements);
        let excess: Vec<Element> = there.difference(&set.elements).cloned().collect();
        let missing: Vec<Element> = set.elements.difference(there).cloned().collect();
        if !excess.is_empty() {
            stages.clear.push(Step::Remove(name.clone(), excess));
        }
        if !missing.is_empty() {
            stages.fill.push(Step::Add(name.clone(), missing));
        }
    }
    for (name, chain) in &desired.chains {
        stages.chain(family, (name, chain), actual.chains.get(name));
    }
    for name in actual.sets.keys().filter(|name| !desired.sets.contains_key(*name)) {
        stages.delete.push(Step::DeleteSet(name.clone()));
    }
    for name in actual.chains.keys().filter(|name| !desired.chains.contains_key(*name)) {
        stages.clear.push(Step::FlushChain(name.clone()));
        stages.delete.push(Step::DeleteChain(name.clone()));
    }
    [stages.create, stages.clear, stages.rules, stages.fill, stages.delete].concat()
}

/// Steps in the order in which the kernel can take them.
#[derive(Debug, Default)]
struct Stages {
    create: Vec<Step>,
    clear: Vec<Step>,
    rules: Vec<Step>,
    fill: Vec<Step>,
    delete: Vec<Step>,
}

impl Stages {
    fn chain(
        &mut self,
        family: Family,
        (name, chain): (&String, &Chain),
        found: Option<&ChainSnapshot>,
    ) {
        if found.is_none() {
            self.create.push(Step::CreateChain(name.clone(), chain.base));
        }
        let there = found.map_or(&[][..], |found| &found.rules);
        let ids = chain.rules.iter().map(|rule| Some(RuleId::of(rule, family)));
        let same = ids.zip(there).take_while(|(wanted, there)| wanted == *there).count();
        let missing: &[Rule] = if same == there.len() {
            // What is there stays, with its counters.
            chain.rules.get(same..).unwrap_or_default()
        } else {
            self.clear.push(Step::FlushChain(name.clone()));
            &chain.rules
        };
        let append = |rule: &Rule| Step::Append(name.clone(), rule.clone());
        self.rules.extend(missing.iter().map(append));
    }
}
