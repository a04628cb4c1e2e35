//! The state of policy, recomputed from nothing: slow, and plainly what the words say.
//!
//! [`super::Policies`] must give the same for the same objects, whatever
//! happened before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use model::Labels;
use model::desired::policy::{
    Direction, EndpointPath, HostInterface, HostPolicy, PolicyRules, PolicyState, SetMember,
    TierPath, WorkloadPolicy,
};
use model::endpoint::NamedPort;
use model::host_endpoint::{HostEndpoint, HostInterface as Wanted};
use model::net::{Cidr, IfName};
use model::policy::{Enforcement, Policy, PolicyId, Protocol, Rule, Stage};
use model::vrf::{Vrfs, Zone};

use super::Inputs;
use super::compile::Compiled;
use super::order::{self, PolicyPlace};
use super::question::{self, Question, Reach};
use super::zones::{self, Home};

/// Returns what the node of `inputs` should enforce.
#[must_use]
pub fn state(inputs: &Inputs) -> PolicyState {
    let vrfs = inputs.vrfs();
    let mut state = PolicyState { hosts: hosts(inputs), ..PolicyState::default() };
    for (pod, endpoint) in &inputs.workloads {
        if endpoint.node != inputs.this_node {
            continue;
        }
        let labels = inputs.workload_labels(endpoint);
        let zone = vrfs.zone(endpoint.vrf.as_ref());
        let path = Arc::new(path(inputs, &labels, (&endpoint.profiles, zone), Use::Normal));
        let (addrs, mac) = (endpoint.addrs.clone(), endpoint.mac);
        let allowed_sources = endpoint.allowed_sources.clone();
        let (controls, if_name) = (endpoint.controls, endpoint.if_name.clone());
        let endpoint = pod.clone();
        let policy = WorkloadPolicy { endpoint, addrs, mac, allowed_sources, controls, path };
        // Of two pods with one interface, the first by name has it.
        state.workloads.entry(if_name).or_insert(policy);
    }
    let mut questions = BTreeSet::new();
    add_rules(inputs, &mut state, &mut questions);
    for (question, zone) in questions {
        let members = members((inputs, &vrfs), &question, zone);
        state.sets.insert(question.id().in_zone(zone), members);
    }
    state
}

/// Which of an endpoint's paths.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Use {
    Normal,
    Forward,
    PreDnat,
    Untracked,
}

impl Use {
    pub(super) const fn includes(self, stage: Stage) -> bool {
        match self {
            Self::Normal => matches!(stage, Stage::Normal | Stage::Forward),
            Self::Forward => matches!(stage, Stage::Forward),
            Self::PreDnat => matches!(stage, Stage::PreDnat),
            Self::Untracked => matches!(stage, Stage::Untracked),
        }
    }
}

/// Returns the enforced policies that apply to whoever has `labels`, in order.
pub(super) fn applying<'a>(inputs: &'a Inputs, labels: &Labels, wanted: Use) -> Vec<&'a Policy> {
    let mut found: Vec<&Policy> = inputs
        .policies
        .values()
        .map(AsRef::as_ref)
        .filter(|policy| policy.enforcement == Enforcement::Enforced)
        .filter(|policy| wanted.includes(policy.stage))
        .filter(|policy| policy.selector.matches(labels))
        .collect();
    found.sort_by_key(|policy| {
        let (tier, _) = order::tier(&inputs.tiers, &policy.tier);
        (tier, PolicyPlace::of(&policy.id, policy.order))
    });
    found
}

fn path(
    inputs: &Inputs,
    labels: &Labels,
    (profiles, zone): (&[String], Zone),
    wanted: Use,
) -> EndpointPath {
    let applying = applying(inputs, labels, wanted);
    let direction = |rules_of: fn(&Policy) -> bool, has_rules: fn(&PolicyRules) -> bool| {
        let mut tiers: Vec<TierPath> = Vec::new();
        for policy in applying.iter().filter(|policy| rules_of(policy)) {
            let is_same = |path: &&mut TierPath| path.tier == policy.tier;
            match tiers.last_mut().filter(is_same) {
                Some(path) => path.policies.push(policy.id.clone()),
                None => tiers.push(TierPath {
                    tier: policy.tier.clone(),
                    default_action: order::tier(&inputs.tiers, &policy.tier).1,
                    policies: vec![policy.id.clone()],
                }),
            }
        }
        let is_used =
            |name: &&String| wanted == Use::Normal && has_rules(&profile_rules(inputs, name).rules);
        Direction { tiers, profiles: profiles.iter().filter(is_used).cloned().collect(), zone }
    };
    EndpointPath {
        ingress: direction(|policy| policy.ingress.is_some(), |rules| !rules.ingress.is_empty()),
        egress: direction(|policy| policy.egress.is_some(), |rules| !rules.egress.is_empty()),
    }
}

fn profile_rules(inputs: &Inputs, name: &str) -> Compiled {
    let rules = |profile: Arc<model::policy::Profile>| {
        Compiled::of(&profile.ingress, &profile.egress, Stage::Normal)
    };
    inputs.profile(name).map(rules).unwrap_or_default()
}

/// Returns this node's host endpoints; of two for one interface, the first by name has it.
fn hosts(inputs: &Inputs) -> BTreeMap<HostInterface, Arc<HostPolicy>> {
    let mut hosts = BTreeMap::new();
    for host in inputs.hosts.values().filter(|host| host.node == inputs.this_node) {
        let policy = Arc::new(host_policy(inputs, host));
        for interface in interfaces_of(&host.interface, &host.expected_addrs, &inputs.interfaces) {
            hosts.entry(interface).or_insert_with(|| Arc::clone(&policy));
        }
    }
    hosts
}

/// Returns the interfaces that a host endpoint is.
pub(super) fn interfaces_of(
    wanted: &Wanted,
    expected: &[IpAddr],
    interfaces: &BTreeMap<IfName, Vec<IpAddr>>,
) -> Vec<HostInterface> {
    match wanted {
        Wanted::All => vec![HostInterface::All],
        Wanted::Named(name) => vec![HostInterface::Named(name.clone())],
        Wanted::WithExpectedAddr => {
            let has = |addrs: &[IpAddr]| addrs.iter().any(|addr| expected.contains(addr));
            let found = interfaces.iter().filter(|(_, addrs)| has(addrs));
            found.map(|(name, _)| HostInterface::Named(name.clone())).collect()
        }
    }
}

fn host_policy(inputs: &Inputs, host: &HostEndpoint) -> HostPolicy {
    let labels = inputs.host_labels(host);
    let path = |wanted| path(inputs, &labels, (&host.profiles, Zone::Default), wanted);
    HostPolicy {
        endpoint: host.name.clone(),
        addrs: host.expected_addrs.clone(),
        normal: path(Use::Normal),
        forward: path(Use::Forward),
        pre_dnat: path(Use::PreDnat).ingress,
        untracked: path(Use::Untracked),
    }
}

/// Adds the rules of all that the paths name, and of what every node should hold.
fn add_rules(inputs: &Inputs, state: &mut PolicyState, questions: &mut BTreeSet<(Question, Zone)>) {
    let mut policies: BTreeSet<(PolicyId, Zone)> = BTreeSet::new();
    let mut profiles: BTreeSet<(String, Zone)> = BTreeSet::new();
    let normal = state.workloads.values().map(|workload| workload.path.as_ref());
    let hosts = state.hosts.values();
    let hosts = hosts.flat_map(|host| [&host.normal, &host.forward, &host.untracked]);
    let directions = normal.chain(hosts).flat_map(|path| [&path.ingress, &path.egress]);
    for direction in directions.chain(state.hosts.values().map(|host| &host.pre_dnat)) {
        let zone = direction.zone;
        let ids = direction.tiers.iter().flat_map(|tier| tier.policies.iter().cloned());
        policies.extend(ids.map(|id| (id, zone)));
        profiles.extend(direction.profiles.iter().cloned().map(|name| (name, zone)));
    }
    let is_everywhere = |policy: &&Arc<Policy>| {
        policy.is_needed_everywhere && policy.enforcement == Enforcement::Enforced
    };
    let everywhere = inputs.policies.values().filter(is_everywhere);
    policies.extend(everywhere.map(|policy| (policy.id.clone(), Zone::Default)));
    for (id, zone) in policies {
        let Some(policy) = inputs.policies.get(&id) else { continue };
        let rules = |rules: &Option<Vec<Rule>>| rules.clone().unwrap_or_default();
        let compiled = Compiled::of(&rules(&policy.ingress), &rules(&policy.egress), policy.stage);
        state.policies.insert(id, Arc::new(compiled.rules));
        questions.extend(compiled.questions.into_iter().map(|question| (question, zone)));
    }
    for (name, zone) in profiles {
        let compiled = profile_rules(inputs, &name);
        state.profiles.insert(name, Arc::new(compiled.rules));
        questions.extend(compiled.questions.into_iter().map(|question| (question, zone)));
    }
}

/// Returns the members of the set that answers `question` for endpoints of `zone`.
fn members(
    (inputs, vrfs): (&Inputs, &Vrfs),
    question: &Question,
    zone: Zone,
) -> BTreeSet<SetMember> {
    let mut members = BTreeSet::new();
    for slice in inputs.slices.values() {
        if question.service().is_some_and(|name| question::service_of(slice).as_ref() == Some(name))
        {
            let is_meant = |addr| answers_in(inputs, vrfs, &slice.id.namespace, addr, zone);
            members.extend(question::members_of_slice(question, slice, is_meant));
        }
    }
    let Some(selector) = question.selector() else { return members };
    for endpoint in inputs.workloads.values() {
        let is_near = endpoint.node == inputs.this_node || !is_of_node(question);
        let is_near = is_near && zones::means(Home::In(vrfs.zone(endpoint.vrf.as_ref())), zone);
        if is_near && selector.matches(&inputs.workload_labels(endpoint)) {
            members.extend(members_of_endpoint(question, &endpoint.addrs, &endpoint.ports));
        }
    }
    for host in inputs.hosts.values() {
        let is_near = host.node == inputs.this_node || !is_of_node(question);
        let is_near = is_near && zone == Zone::Default;
        if is_near && selector.matches(&inputs.host_labels(host)) {
            members.extend(members_of_endpoint(question, &host.expected_addrs, &host.ports));
        }
    }
    if matches!(question, Question::Selected(_)) && zone != Zone::Nowhere {
        for set in inputs.network_sets.values() {
            if selector.matches(&inputs.network_set_labels(set)) {
                members.extend(set.nets.iter().copied().map(SetMember::Net));
            }
        }
    }
    members
}

/// Does an address of a Service's endpoints mean these to endpoints of `zone`? Of a pod of a VRF in
/// the Service's namespace it is in that pod's zone; else in the default one.
pub(super) fn answers_in(
    inputs: &Inputs,
    vrfs: &Vrfs,
    namespace: &str,
    addr: IpAddr,
    zone: Zone,
) -> bool {
    let pods = inputs.workloads.values();
    let pods = pods.filter(|pod| pod.vrf.is_some() && pod.pod.namespace == namespace);
    let mut zones =
        pods.filter(|pod| pod.addrs.contains(&addr)).map(|pod| vrfs.zone(pod.vrf.as_ref()));
    let default = zones.clone().next().is_none().then_some(Zone::Default);
    zones.by_ref().chain(default).any(|home| zones::means(Home::In(home), zone))
}

/// Is a question only about endpoints of this node?
fn is_of_node(question: &Question) -> bool {
    matches!(question, Question::NamedPort { reach: Reach::Node, .. })
}

fn members_of_endpoint(
    question: &Question,
    addrs: &[IpAddr],
    ports: &[NamedPort],
) -> BTreeSet<SetMember> {
    match question {
        Question::Selected(_) => {
            addrs.iter().copied().map(Cidr::host).map(SetMember::Net).collect()
        }
        Question::NamedPort { name, protocol, .. } => {
            let is_meant =
                |port: &&NamedPort| port.name == *name && Protocol(port.protocol) == *protocol;
            let found = ports.iter().filter(is_meant);
            found
                .flat_map(|port| {
                    addrs.iter().map(|addr| SetMember::Port(*addr, *protocol, port.port))
                })
                .collect()
        }
        Question::ServiceAddrs(_) | Question::ServicePorts(_) => BTreeSet::new(),
    }
}
