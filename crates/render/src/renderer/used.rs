//! Which policies are looked at in which direction, for endpoints of which zones: the others need
//! no chain.

use std::collections::{BTreeMap, BTreeSet};

use model::desired::policy::{EndpointPath, HostPolicy, PolicyChange, PolicyState};
use model::policy::PolicyId;
use model::vrf::Zone;

use crate::name::Toward;

/// Whose rules.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Whose {
    /// A policy's of a direction.
    Policy(PolicyId, Toward),
    /// A profile's.
    Profile(String),
}

/// Somebody's rules, and the zone of those who look at them.
pub(crate) type Use = (Whose, Zone);

/// How many endpoints look at each policy in each direction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Used(BTreeMap<Use, usize>);

impl Used {
    pub(super) fn of(state: &PolicyState) -> Self {
        let mut used = Self::default();
        for workload in state.workloads.values() {
            used.add(&uses_of_path(&workload.path));
        }
        for host in state.hosts.values() {
            used.add(&uses_of_host(host));
        }
        used
    }

    /// Returns the zones of those who look at somebody's rules.
    pub(crate) fn zones(&self, whose: &Whose) -> BTreeSet<Zone> {
        let all = (whose.clone(), Zone::Default)..=(whose.clone(), Zone::Nowhere);
        self.0.range(all).map(|((_, zone), _)| *zone).collect()
    }

    /// Returns the zones of all, and the default one.
    pub(super) fn all_zones(&self) -> BTreeSet<Zone> {
        self.0.keys().map(|(_, zone)| *zone).chain([Zone::Default]).collect()
    }

    /// Returns whose rules an endpoint's change makes used or unused.
    pub(super) fn flipped(&self, before: &BTreeSet<Use>, after: &BTreeSet<Use>) -> BTreeSet<Whose> {
        let comes = after.difference(before).filter(|one| !self.0.contains_key(*one));
        let goes = before.difference(after).filter(|one| self.0.get(*one) == Some(&1));
        comes.chain(goes).map(|(whose, _)| whose.clone()).collect()
    }

    pub(super) fn replace(&mut self, before: &BTreeSet<Use>, after: &BTreeSet<Use>) {
        self.add(after);
        for one in before {
            let left = self.0.get(one).copied().unwrap_or_default().saturating_sub(1);
            if left == 0 {
                self.0.remove(one)
            } else {
                self.0.insert(one.clone(), left)
            };
        }
    }

    fn add(&mut self, uses: &BTreeSet<Use>) {
        for one in uses {
            let count = self.0.entry(one.clone()).or_default();
            *count = count.saturating_add(1);
        }
    }
}

/// Returns what an endpoint looks at before and after its change; nothing for other changes.
pub(super) fn uses_of_change(
    state: &PolicyState,
    change: &PolicyChange,
) -> (BTreeSet<Use>, BTreeSet<Use>) {
    match change {
        PolicyChange::Workload(name, after) => {
            let before = state.workloads.get(name).map(|workload| &workload.path);
            let after = after.as_ref().map(|workload| &workload.path);
            if before == after {
                return Default::default();
            }
            let uses = |path: Option<&std::sync::Arc<EndpointPath>>| {
                path.map(|path| uses_of_path(path)).unwrap_or_default()
            };
            (uses(before), uses(after))
        }
        PolicyChange::Host(interface, after) => {
            let before = state.hosts.get(interface).map(|host| uses_of_host(host));
            let after = after.as_ref().map(|host| uses_of_host(host));
            (before.unwrap_or_default(), after.unwrap_or_default())
        }
        PolicyChange::Policy(..)
        | PolicyChange::Profile(..)
        | PolicyChange::SetAdded { .. }
        | PolicyChange::SetMembers { .. }
        | PolicyChange::SetRemoved(_) => Default::default(),
    }
}

fn uses_of_path(path: &EndpointPath) -> BTreeSet<Use> {
    let directions = [(Toward::Ingress, &path.ingress), (Toward::Egress, &path.egress)];
    let uses = directions.into_iter().flat_map(|(toward, direction)| {
        let policies = direction.tiers.iter().flat_map(|tier| &tier.policies);
        let policies = policies.map(move |id| Whose::Policy(id.clone(), toward));
        let profiles = direction.profiles.iter().cloned().map(Whose::Profile);
        policies.chain(profiles).map(|whose| (whose, direction.zone))
    });
    uses.collect()
}

fn uses_of_host(host: &HostPolicy) -> BTreeSet<Use> {
    let pre_dnat = EndpointPath { ingress: host.pre_dnat.clone(), ..EndpointPath::default() };
    let paths = [&host.normal, &host.forward, &host.untracked, &pre_dnat];
    paths.into_iter().flat_map(uses_of_path).collect()
}
