//! What becomes of a packet, from policies and labels, and why: for people, and to judge the rest.
//!
//! This knows nothing of sets: who an address is, it looks up in [`Inputs`]
//! again for each rule.

mod connection;
mod facts;
mod trace;

pub use connection::{Crossing, Probe, barrier, connection};
pub use trace::{PolicyTrace, RuleTrace, Verdict};

use std::sync::Arc;

use model::Labels;
use model::id::NodeName;
use model::policy::{Action, Policy, Profile, Rule, Stage};
use model::tier::TierAction;
use model::vrf::{Vrfs, Zone};

use super::Inputs;
use super::compile::{End, obstacle, own_end};
use super::oracle::{self, Use};
use super::order;
use super::packet::{Cause, Decision, Endpoint, Packet, Way};
use facts::Judge;

/// Returns what becomes of `packet` at `endpoint`, and how that was found.
///
/// `None` if there is no such endpoint, or no such way for it. Neither where
/// the endpoint is nor whether it has the packet's addresses matters.
#[must_use]
pub fn verdict(inputs: &Inputs, endpoint: &Endpoint, packet: &Packet, way: Way) -> Option<Verdict> {
    let vrfs = inputs.vrfs();
    let (labels, profiles, node, zone) = match endpoint {
        Endpoint::Workload(pod) => {
            let found = inputs.workloads.get(pod)?;
            if !way.has_profiles() {
                return None;
            }
            let zone = vrfs.zone(found.vrf.as_ref());
            (inputs.workload_labels(found), &found.profiles, &found.node, zone)
        }
        Endpoint::Host(name) => {
            let found = inputs.hosts.get(name)?;
            (inputs.host_labels(found), &found.profiles, &found.node, Zone::Default)
        }
    };
    let mut evaluation = Evaluation { inputs, packet, way, node, vrfs, zone, steps: Vec::new() };
    let decision = evaluation.decision(&labels, profiles);
    Some(Verdict { decision, steps: evaluation.steps })
}

struct Evaluation<'a> {
    inputs: &'a Inputs,
    packet: &'a Packet,
    way: Way,
    /// Where the endpoint is.
    node: &'a NodeName,
    vrfs: Vrfs,
    /// Whom addresses mean to the endpoint.
    zone: Zone,
    steps: Vec<PolicyTrace>,
}

impl Evaluation<'_> {
    fn decision(&mut self, labels: &Labels, profiles: &[String]) -> Decision {
        let inputs = self.inputs;
        let wanted = match self.way {
            Way::Ingress | Way::Egress => Use::Normal,
            Way::ForwardIngress | Way::ForwardEgress => Use::Forward,
            Way::PreDnat => Use::PreDnat,
            Way::UntrackedIngress | Way::UntrackedEgress => Use::Untracked,
        };
        let mut policies = oracle::applying(inputs, labels, wanted);
        policies.retain(|policy| rules_of(policy, self.way).is_some());
        for tier in policies.chunk_by(|one, other| one.tier == other.tier) {
            if let Some(decision) = self.tier(tier) {
                return decision;
            }
        }
        if !self.way.has_profiles() {
            return Decision::Undecided;
        }
        for profile in profiles.iter().filter_map(|name| inputs.profile(name)) {
            if let Some(decision) = self.profile(&profile) {
                return decision;
            }
        }
        Decision::Denied(Cause::NoProfile)
    }

    /// Returns what policies of one tier decide, if they do.
    fn tier(&mut self, policies: &[&Policy]) -> Option<Decision> {
        for policy in policies {
            let rules = rules_of(policy, self.way).unwrap_or_default();
            let (matching, trace) = self.first(rules, policy.stage);
            self.steps.push(PolicyTrace::of_policy(policy, trace));
            match matching {
                Some((index, Action::Allow)) => {
                    return Some(Decision::Allowed(Cause::Policy(policy.id.clone(), index)));
                }
                Some((index, Action::Deny)) => {
                    return Some(Decision::Denied(Cause::Policy(policy.id.clone(), index)));
                }
                Some((_, Action::Pass)) => return None,
                Some((_, Action::Log)) | None => {}
            }
        }
        let tier = &policies.first()?.tier;
        let (_, action) = order::tier(&self.inputs.tiers, tier);
        let denies = action == TierAction::Deny && !self.way.is_early();
        denies.then(|| Decision::Denied(Cause::TierDefault(tier.clone())))
    }

    fn profile(&mut self, profile: &Arc<Profile>) -> Option<Decision> {
        let rules = if self.way.is_ingress() { &profile.ingress } else { &profile.egress };
        let (matching, trace) = self.first(rules, Stage::Normal);
        self.steps.push(PolicyTrace::of_profile(profile, trace));
        match matching {
            Some((index, Action::Allow)) => {
                Some(Decision::Allowed(Cause::Profile(profile.name.clone(), index)))
            }
            Some((index, Action::Deny)) => {
                Some(Decision::Denied(Cause::Profile(profile.name.clone(), index)))
            }
            Some((_, Action::Log | Action::Pass)) | None => None,
        }
    }

    /// Returns the first rule that matches and does more than log, and what was seen until then.
    fn first(&self, rules: &[Rule], stage: Stage) -> (Option<(usize, Action)>, Vec<RuleTrace>) {
        let end = if self.way.is_ingress() { End::Destination } else { End::Source };
        let Self { inputs, packet, node, vrfs, zone, .. } = self;
        let own = own_end(end, stage);
        let judge = Judge { inputs, packet, node, own, vrfs, zone: *zone };
        let mut trace = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            // What cannot be followed denies.
            let obstacle = obstacle(rule);
            let action = if obstacle.is_some() { Action::Deny } else { rule.action };
            let mismatch = judge.mismatch(rule);
            let is_match = mismatch.is_none();
            trace.push(RuleTrace { index, action, obstacle, mismatch });
            if is_match && action != Action::Log {
                return (Some((index, action)), trace);
            }
        }
        (None, trace)
    }
}

fn rules_of(policy: &Policy, way: Way) -> Option<&[Rule]> {
    let rules = if way.is_ingress() { &policy.ingress } else { &policy.egress };
    rules.as_deref()
}
