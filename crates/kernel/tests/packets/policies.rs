//! Policies in few words.

use std::sync::Arc;

use model::desired::policy::{
    CompiledRule, Direction, EndpointPath, PolicyRules, PolicyState, Ports, SetId, SetKind,
    TierPath,
};
use model::policy::{Action, PolicyId, PolicyKind, Protocol};
use model::tier::TierAction;

pub(crate) fn id(name: &str) -> PolicyId {
    PolicyId { kind: PolicyKind::Global, namespace: None, name: name.to_owned() }
}

pub(crate) fn set_id(kind: SetKind, number: u8) -> SetId {
    SetId::new(kind, [number; 16])
}

pub(crate) fn rule(action: Action, protocol: Option<Protocol>) -> CompiledRule {
    CompiledRule { protocol, ..CompiledRule::of(action) }
}

/// Allows TCP to these ports.
pub(crate) fn tcp_to(ranges: &[(u16, u16)]) -> CompiledRule {
    let mut allow = rule(Action::Allow, Some(Protocol::TCP));
    allow.destination.ports = Some(Ports { ranges: ranges.to_vec(), named: Vec::new() });
    allow
}

/// A path for packets to an endpoint by policies of one tier; those from it all pass.
pub(crate) fn ingress(policies: &[&str]) -> EndpointPath {
    let policies = policies.iter().map(|name| id(name)).collect();
    let default_action = TierAction::Deny;
    let tier = TierPath { tier: "default".to_owned(), default_action, policies };
    EndpointPath {
        ingress: Direction { tiers: vec![tier], ..Direction::default() },
        egress: open().egress,
    }
}

/// The path of endpoints without policy: the namespace's profile allows everything.
pub(crate) fn open() -> EndpointPath {
    let direction = Direction { profiles: vec!["kns.default".to_owned()], ..Direction::default() };
    EndpointPath { ingress: direction.clone(), egress: direction }
}

/// Adds a policy for packets to endpoints.
pub(crate) fn with(mut state: PolicyState, name: &str, rules: Vec<CompiledRule>) -> PolicyState {
    let all = || vec![rule(Action::Allow, None)];
    let profile = PolicyRules { ingress: all(), egress: all() };
    state.profiles.insert("kns.default".to_owned(), Arc::new(profile));
    state.policies.insert(id(name), ingress_rules(rules));
    state
}

pub(crate) fn ingress_rules(ingress: Vec<CompiledRule>) -> Arc<PolicyRules> {
    Arc::new(PolicyRules { ingress, egress: Vec::new() })
}
