//! What a policy says, also if not all of it can be read: what cannot be read opens nothing.
//!
//! | What cannot be read | What it does |
//! |---|---|
//! | a rule of Calico's | denies everything, in its place |
//! | a rule of Kubernetes | allows nothing; its policy still isolates |
//! | the tier's place, the types, when rules are looked at | all rules deny, in the directions that are named, or both |
//! | a selector | all rules deny, for whom the other selectors choose |
//! | a selector, and nothing else bounds the policy | nobody is chosen: one typo must not cut a whole cluster off |
//! | anything but the name | denies in its namespace; without one, nobody is chosen |
//! | hints, a type that is listed twice | what is meant is clear, and done |
//!
//! All of it is reported. It depends on the object as it is, not on what it was before.

use model::policy::{Enforcement, Order, Policy, PolicyId, PolicyKind, Rule, Stage};
use model::tier::Tier;
use selector::Selector;

use super::in_namespace;
use crate::Invalid;
use crate::invalid::Fault;

/// An object that is a policy.
pub trait PolicyObject {
    /// Reads it, whatever it says.
    fn reading(&self) -> Reading;

    /// Returns which state of the object's spec it is (`metadata.generation`), 0 if nobody counts.
    fn generation(&self) -> i64;
}

/// A policy, and what of its object could not be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// What to enforce.
    pub policy: Policy,
    /// What is wrong, in the order in which it was found.
    pub faults: Vec<Invalid>,
}

impl Reading {
    /// Returns what an object is of which only the name could be read, and why: it denies in its
    /// namespace, and without one nowhere.
    #[must_use]
    pub fn unreadable(id: PolicyId, problem: String) -> Self {
        let object = id.to_string();
        let mut salvage = Salvage::default();
        salvage.condition(Err(Fault::new("object", "", problem)));
        let place = id.namespace.as_deref().map(in_namespace).transpose();
        let place = salvage.condition(place);
        let is_additive = matches!(id.kind, PolicyKind::Kubernetes | PolicyKind::StagedKubernetes);
        let rules = if is_additive { Vec::new() } else { salvage.rules(Vec::new()) };
        let policy = Policy {
            selector: salvage.bounded([place, None, None]),
            tier: Tier::DEFAULT.to_owned(),
            order: Order::LAST,
            ingress: Some(rules.clone()),
            egress: Some(rules),
            stage: Stage::Normal,
            enforcement: if id.kind.is_staged() {
                Enforcement::Staged
            } else {
                Enforcement::Enforced
            },
            is_needed_everywhere: false,
            id,
        };
        salvage.reading(policy, |fault| fault.of(object.clone()))
    }

    /// Returns the policy if all of it could be read.
    ///
    /// # Errors
    ///
    /// The first fault.
    pub fn complete(self) -> Result<Policy, Invalid> {
        match self.faults.into_iter().next() {
            Some(fault) => Err(fault),
            None => Ok(self.policy),
        }
    }
}

/// What could not be read so far.
#[derive(Debug, Default)]
pub(crate) struct Salvage {
    faults: Vec<Fault>,
    /// What closes all rules, in words.
    closed: Option<String>,
    is_unbounded: bool,
}

impl Salvage {
    /// Takes note of a fault that leaves no doubt about what is meant.
    pub(crate) fn note(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// Returns what was read; without it, no rule can be followed.
    pub(crate) fn needed<T>(&mut self, read: Result<T, Fault>, otherwise: T) -> T {
        read.unwrap_or_else(|fault| {
            self.closed.get_or_insert_with(|| fault.clone().of(String::new()).detail());
            self.note(fault);
            otherwise
        })
    }

    /// Returns a condition on whom the policy is for; without it, the others decide.
    pub(crate) fn condition(&mut self, read: Result<Option<Selector>, Fault>) -> Option<Selector> {
        self.is_unbounded |= read.is_err();
        self.needed(read, None)
    }

    /// Returns the selector that has all conditions; nobody's if one is missing and none bounds it.
    pub(crate) fn bounded(&self, conditions: [Option<Selector>; 3]) -> Selector {
        let selector = conditions.into_iter().flatten().reduce(Selector::and);
        let selector = selector.unwrap_or_else(Selector::all);
        if self.is_unbounded && selector == Selector::all() { Selector::none() } else { selector }
    }

    /// Returns the rules of a direction, or the one that denies if they cannot be followed.
    pub(crate) fn rules(&self, rules: Vec<Rule>) -> Vec<Rule> {
        match &self.closed {
            Some(reason) => vec![Rule::refused(reason.clone())],
            None => rules,
        }
    }

    /// Returns the rules of a direction of Kubernetes, or none, which allows nothing.
    pub(crate) fn allowing(&self, rules: Vec<Rule>) -> Vec<Rule> {
        if self.closed.is_some() { Vec::new() } else { rules }
    }

    /// Returns what is wrong.
    pub(crate) fn into_faults(self) -> Vec<Fault> {
        self.faults
    }

    /// Returns the policy with what is wrong with it; `whose` says of which object that is.
    pub(crate) fn reading(self, policy: Policy, whose: impl Fn(Fault) -> Invalid) -> Reading {
        Reading { policy, faults: self.faults.into_iter().map(whose).collect() }
    }
}
