//! Where each policy is in force, from what nodes report.
//!
//! A node tells which generation of which policies its kernel enforces, and, by a digest, what
//! it has heard of. So a policy that it does not name applies to none of its endpoints, if it
//! has heard of all policies as they are; otherwise nobody knows yet.

use std::collections::{BTreeMap, BTreeSet};

use model::id::NodeName;
use model::policy::{Heard, NodeReport, Policy, PolicyId};

use super::compile::obstacle;

/// A policy object, as the datastore has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Published {
    /// Which one.
    pub id: PolicyId,
    /// Which state of its spec it is in (`metadata.generation`).
    pub generation: i64,
    /// What of it cannot be followed, and denies: see [`rejected`].
    pub rejected: Vec<String>,
}

/// Where a policy is in force.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ObjectStatus {
    /// Which one.
    pub id: PolicyId,
    /// The generation that counts.
    pub generation: i64,
    /// On how many nodes the kernel enforces this generation.
    pub programmed: usize,
    /// On how many nodes it enforces another one.
    pub behind: usize,
    /// Of how many nodes nobody knows yet whether it applies there.
    pub pending: usize,
    /// Nodes that are behind or pending and say why, the first ones by name.
    pub failures: Vec<(NodeName, String)>,
    /// What of it cannot be followed, and denies.
    pub rejected: Vec<String>,
}

/// How many failures a status tells.
pub const MAX_FAILURES: usize = 10;

impl ObjectStatus {
    /// Is it in force wherever it applies?
    #[must_use]
    pub const fn is_in_force(&self) -> bool {
        self.behind == 0 && self.pending == 0
    }
}

/// Returns why which rules of a policy cannot be followed; those deny.
#[must_use]
pub fn rejected(policy: &Policy) -> Vec<String> {
    let directions = [("ingress", &policy.ingress), ("egress", &policy.egress)];
    let rules = directions.into_iter().flat_map(|(field, rules)| {
        rules.iter().flatten().enumerate().map(move |(index, rule)| (field, index, rule))
    });
    // What could not be read is told by whoever read it.
    let known = rules.filter(|(.., rule)| rule.refused.is_none());
    known
        .filter_map(|(field, index, rule)| Some((field, index, obstacle(rule)?)))
        .map(|(field, index, reason)| format!("{field}[{index}] denies: {reason}"))
        .collect()
}

/// Returns the status of each object, in their order.
///
/// `nodes` are those that should report; what others say does not count.
#[must_use]
pub fn aggregate(
    objects: &[Published],
    nodes: &BTreeSet<NodeName>,
    reports: &[NodeReport],
) -> Vec<ObjectStatus> {
    let all: Heard = objects.iter().map(|object| (&object.id, object.generation)).collect();
    let reports: BTreeMap<&NodeName, &NodeReport> = reports
        .iter()
        .filter(|report| nodes.contains(&report.node))
        .map(|report| (&report.node, report))
        .collect();
    let is_settled = |report: &NodeReport| report.heard == all && report.failure.is_none();
    let settled = reports.values().filter(|report| is_settled(report)).count();
    let unsettled = nodes.len().saturating_sub(settled);
    let counts = counts(objects, reports.values().copied(), is_settled);
    let failing: Vec<&NodeReport> =
        reports.values().copied().filter(|report| report.failure.is_some()).collect();
    let status = |object: &Published| {
        let Count { current, old, unsettled: named } =
            counts.get(&object.id).copied().unwrap_or_default();
        let is_late = |report: &&NodeReport| {
            report.programmed.get(&object.id).is_none_or(|at| *at != object.generation)
        };
        let late = failing.iter().copied().filter(is_late);
        let failures =
            late.filter_map(|report| Some((report.node.clone(), report.failure.clone()?)));
        ObjectStatus {
            id: object.id.clone(),
            generation: object.generation,
            programmed: current,
            behind: old,
            pending: unsettled.saturating_sub(named),
            failures: failures.take(MAX_FAILURES).collect(),
            rejected: object.rejected.clone(),
        }
    };
    objects.iter().map(status).collect()
}

/// How many nodes name a policy.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// With the generation that counts.
    current: usize,
    /// With another one.
    old: usize,
    /// Of all of them, those whose kernels do not hold all that there is.
    unsettled: usize,
}

fn counts<'a>(
    objects: &'a [Published],
    reports: impl Iterator<Item = &'a NodeReport>,
    is_settled: impl Fn(&NodeReport) -> bool,
) -> BTreeMap<&'a PolicyId, Count> {
    let generations: BTreeMap<&PolicyId, i64> =
        objects.iter().map(|object| (&object.id, object.generation)).collect();
    let mut counts: BTreeMap<&PolicyId, Count> = BTreeMap::new();
    for report in reports {
        let more_unsettled = usize::from(!is_settled(report));
        for (id, at) in &report.programmed {
            let count = counts.entry(id).or_default();
            let is_current = generations.get(id) == Some(at);
            let named = if is_current { &mut count.current } else { &mut count.old };
            *named = named.saturating_add(1);
            count.unsettled = count.unsettled.saturating_add(more_unsettled);
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use model::policy::{Action, HttpMatch, Rule};

    use super::super::tests::facts;
    use super::*;

    fn published(id: &str, generation: i64) -> Published {
        Published { id: id.parse().unwrap(), generation, rejected: Vec::new() }
    }

    /// Makes the report of a node that has heard of all `objects`.
    fn report(node: &str, objects: &[Published], programmed: &[(&str, i64)]) -> NodeReport {
        NodeReport {
            node: node.parse().unwrap(),
            heard: objects.iter().map(|object| (&object.id, object.generation)).collect(),
            programmed: programmed.iter().map(|(id, at)| (id.parse().unwrap(), *at)).collect(),
            failure: None,
        }
    }

    fn nodes(names: &[&str]) -> BTreeSet<NodeName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    /// Says of each object: programmed, behind, pending.
    fn counts(
        objects: &[Published],
        names: &[&str],
        reports: &[NodeReport],
    ) -> Vec<(usize, usize, usize)> {
        let all = aggregate(objects, &nodes(names), reports);
        all.iter().map(|status| (status.programmed, status.behind, status.pending)).collect()
    }

    #[test]
    fn a_node_that_heard_of_all_and_names_it_not_has_no_use_for_it() {
        let objects = [published("gnp/a", 1), published("np/shop/b", 4)];
        let reports = [
            report("one", &objects, &[("gnp/a", 1), ("np/shop/b", 4)]),
            report("two", &objects, &[("gnp/a", 1)]),
        ];
        assert_eq!(counts(&objects, &["one", "two"], &reports), [(2, 0, 0), (1, 0, 0)]);
        let all = aggregate(&objects, &nodes(&["one", "two"]), &reports);
        assert!(all.iter().all(ObjectStatus::is_in_force));
    }

    #[test]
    fn a_change_is_pending_until_nodes_have_heard_of_it() {
        let before = [published("gnp/a", 1), published("gnp/b", 1)];
        let now = [published("gnp/a", 2), published("gnp/b", 1)];
        let reports = [
            report("one", &now, &[("gnp/a", 2), ("gnp/b", 1)]),
            report("two", &before, &[("gnp/a", 1), ("gnp/b", 1)]),
            report("three", &before, &[("gnp/b", 1)]),
        ];
        let names = ["one", "two", "three", "silent"];
        assert_eq!(counts(&now, &names, &reports), [(1, 1, 2), (3, 0, 1)]);
    }

    #[test]
    fn a_node_whose_kernel_refuses_says_why() {
        let before = [published("gnp/a", 1)];
        let now = [published("gnp/a", 2)];
        let refusing = NodeReport {
            failure: Some("no memory".to_owned()),
            heard: report("two", &now, &[]).heard,
            ..report("two", &before, &[("gnp/a", 1)])
        };
        let reports = [report("one", &now, &[("gnp/a", 2)]), refusing];
        let all = aggregate(&now, &nodes(&["one", "two"]), &reports);
        assert_eq!((all[0].programmed, all[0].behind, all[0].pending), (1, 1, 0));
        assert_eq!(all[0].failures, [("two".parse().unwrap(), "no memory".to_owned())]);
        assert!(!all[0].is_in_force());
    }

    #[test]
    fn what_nodes_say_that_are_gone_does_not_count() {
        let objects = [published("gnp/a", 1)];
        let reports = [report("gone", &objects, &[("gnp/a", 1)])];
        assert_eq!(counts(&objects, &[], &reports), [(0, 0, 0)]);
    }

    #[test]
    fn rules_that_cannot_be_followed_are_told_apart_from_those_that_could_not_be_read() {
        let http = Rule { http: Some(HttpMatch::default()), ..Rule::of(Action::Allow) };
        let unread = Rule::refused("spec.ingress[2]: x".to_owned());
        let policy = facts::policy("p", vec![Rule::of(Action::Deny), http, unread]);
        let found = rejected(&policy);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("ingress[1] denies: http"), "{found:?}");
    }
}
