//! What has changed for this node's endpoints since somebody last asked.

use std::collections::BTreeSet;

use model::desired::policy::{
    CompiledEntity, EndpointPath, HostPolicy, PolicyChange, PolicyRules, PolicyState, SetId,
    WorkloadPolicy,
};
use model::net::IfName;
use model::policy::PolicyId;
use model::vrf::Zone;

/// Whose packets may meet another verdict than before.
#[derive(Debug)]
pub(crate) struct Affected<'a> {
    /// These workloads'.
    pub(crate) workloads: BTreeSet<&'a IfName>,
    /// Those of the machine itself?
    pub(crate) is_host: bool,
    /// Those that the machine passes on, by host endpoints' policy?
    pub(crate) is_forwarded: bool,
}

/// What has changed for this node's endpoints since somebody last asked.
#[derive(Debug, Default)]
pub(crate) struct News {
    is_all: bool,
    are_hosts_changed: bool,
    workloads: BTreeSet<IfName>,
    policies: BTreeSet<PolicyId>,
    profiles: BTreeSet<String>,
    sets: BTreeSet<SetId>,
}

impl News {
    /// Nobody knows what was there before.
    pub(crate) fn everything() -> Self {
        Self { is_all: true, ..Self::default() }
    }

    /// Takes note of changes.
    pub(crate) fn note(&mut self, changes: &[PolicyChange]) {
        for change in changes {
            match change {
                PolicyChange::Workload(name, _) => drop(self.workloads.insert(name.clone())),
                PolicyChange::Policy(id, _) => drop(self.policies.insert(id.clone())),
                PolicyChange::Profile(name, _) => drop(self.profiles.insert(name.clone())),
                PolicyChange::SetMembers { id, .. } => drop(self.sets.insert(*id)),
                PolicyChange::Host(..) => self.are_hosts_changed = true,
                // A set comes and goes with the rules that name it.
                PolicyChange::SetAdded { .. } | PolicyChange::SetRemoved(_) => {}
            }
        }
    }

    /// Is there none?
    pub(crate) fn is_empty(&self) -> bool {
        let are_empty = self.workloads.is_empty()
            && self.policies.is_empty()
            && self.profiles.is_empty()
            && self.sets.is_empty();
        are_empty && !self.is_all && !self.are_hosts_changed
    }

    /// Has a workload come, gone or changed?
    pub(crate) fn are_workloads_changed(&self) -> bool {
        self.is_all || !self.workloads.is_empty()
    }

    /// Returns whose packets may meet another verdict than before.
    pub(crate) fn affected<'a>(&self, state: &'a PolicyState) -> Affected<'a> {
        // Rules name the sets of the default zone.
        let paths = state.workloads.values().map(WorkloadPolicy::zone);
        let zones: BTreeSet<Zone> = paths.chain([Zone::Default]).collect();
        let sets = zones.iter().flat_map(|zone| self.sets.iter().map(|id| id.in_zone(*zone)));
        let sets: BTreeSet<SetId> = sets.collect();
        let names_set = |rules: &PolicyRules| is_in(&sets, rules);
        let has_set = |found: bool| found && !self.sets.is_empty();
        let policies = state.policies.iter();
        let policies: BTreeSet<&PolicyId> = policies
            .filter(|(id, rules)| self.policies.contains(id) || has_set(names_set(rules)))
            .map(|(id, _)| id)
            .collect();
        let profiles = state.profiles.iter();
        let profiles: BTreeSet<&String> = profiles
            .filter(|(name, rules)| self.profiles.contains(*name) || has_set(names_set(rules)))
            .map(|(name, _)| name)
            .collect();
        let is_on = |path: &EndpointPath| {
            [&path.ingress, &path.egress].into_iter().any(|direction| {
                let mut on_way = direction.tiers.iter().flat_map(|tier| &tier.policies);
                on_way.any(|id| policies.contains(id))
                    || direction.profiles.iter().any(|name| profiles.contains(name))
            })
        };
        let is_affected =
            |name: &IfName, path| self.is_all || self.workloads.contains(name) || is_on(path);
        let workloads = state.workloads.iter();
        let workloads = workloads
            .filter(|(name, workload)| is_affected(name, &workload.path))
            .map(|(name, _)| name)
            .collect();
        let early = |host: &HostPolicy| EndpointPath {
            ingress: host.pre_dnat.clone(),
            ..EndpointPath::default()
        };
        let mut hosts = state.hosts.values();
        let is_host = hosts.any(|host| is_on(&host.normal) || is_on(&early(host)));
        let are_all = self.is_all || self.are_hosts_changed;
        let is_forwarded = |host: &HostPolicy| {
            let paths = [&host.forward, &early(host)];
            let has_tiers = |path: &EndpointPath| {
                !path.ingress.tiers.is_empty() || !path.egress.tiers.is_empty()
            };
            paths.into_iter().any(|path| has_tiers(path) && (are_all || is_on(path)))
        };
        Affected {
            workloads,
            is_host: (is_host || are_all) && !state.hosts.is_empty(),
            is_forwarded: state.hosts.values().any(|host| is_forwarded(host)),
        }
    }
}

/// Does one of these rules name one of these sets?
fn is_in(sets: &BTreeSet<SetId>, rules: &PolicyRules) -> bool {
    let of_entity = |entity: &CompiledEntity| {
        let ports = entity.ports.iter().chain([&entity.not_ports]);
        let ports = ports.flat_map(|ports| &ports.named);
        let named = entity.in_sets.iter().chain(&entity.not_in_sets).chain(&entity.service);
        named.chain(ports).any(|id| sets.contains(id))
    };
    let rules = rules.ingress.iter().chain(&rules.egress);
    rules.flat_map(|rule| [&rule.source, &rule.destination]).any(of_entity)
}
