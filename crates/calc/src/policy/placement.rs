//! Which policies apply to which of this node's endpoints, and in what order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::desired::policy::{Direction, EndpointPath, TierPath};
use model::policy::{Enforcement, Order, Policy, PolicyId, Stage};
use model::tier::Tier;
use model::vrf::Zone;

use super::index::{Index, ItemKey, SelectorKey};
use super::oracle::Use;
use super::order::{self, PolicyPlace, TierPlace};
use super::rulebook::{Owner, Rulebook};
use super::things::Things;

/// Policies by the endpoints that they apply to.
#[derive(Debug, Default)]
pub(super) struct Placement {
    pub(super) tiers: BTreeMap<String, Tier>,
    policies: BTreeMap<PolicyId, Placed>,
    /// How many of them are not in force.
    staged: usize,
    /// Selectors of enforced policies, and the local endpoints that they match.
    pub(super) index: Index,
    by_selector: BTreeMap<SelectorKey, BTreeSet<PolicyId>>,
}

/// What places a policy; its rules are in the [`Rulebook`].
#[derive(Clone, Debug, Eq, PartialEq)]
struct Placed {
    tier: Arc<str>,
    order: Order,
    stage: Stage,
    has_ingress: bool,
    has_egress: bool,
    is_needed_everywhere: bool,
    /// `None` for what is not in force.
    selector: Option<SelectorKey>,
}

impl Placement {
    /// Replaces a policy, and returns the endpoints whose paths may change by that.
    pub(super) fn put(
        &mut self,
        policy: &Policy,
        tier: Arc<str>,
        things: &Things,
    ) -> BTreeSet<ItemKey> {
        let is_enforced = policy.enforcement == Enforcement::Enforced;
        let selector =
            is_enforced.then(|| self.index.add(&policy.selector, |item| things.labels(item)));
        let placed = Placed {
            tier,
            order: policy.order,
            stage: policy.stage,
            has_ingress: policy.ingress.is_some(),
            has_egress: policy.egress.is_some(),
            is_needed_everywhere: policy.is_needed_everywhere && is_enforced,
            selector,
        };
        if let Some(key) = selector {
            self.by_selector.entry(key).or_default().insert(policy.id.clone());
        }
        let old = self.policies.insert(policy.id.clone(), placed.clone());
        self.count_staged(old.as_ref(), Some(&placed));
        if old.as_ref() == Some(&placed) {
            return BTreeSet::new();
        }
        let mut endpoints = self.endpoints(selector);
        let old_selector = old.and_then(|old| old.selector);
        endpoints.extend(self.endpoints(old_selector));
        if old_selector != selector {
            self.forget(old_selector, &policy.id);
        }
        endpoints
    }

    /// Removes a policy, and returns the endpoints whose paths may change by that.
    pub(super) fn remove(&mut self, id: &PolicyId) -> BTreeSet<ItemKey> {
        let Some(old) = self.policies.remove(id) else { return BTreeSet::new() };
        self.count_staged(Some(&old), None);
        let endpoints = self.endpoints(old.selector);
        self.forget(old.selector, id);
        endpoints
    }

    /// Returns how much is kept of anything.
    #[cfg(test)]
    pub(super) fn kept(&self) -> Vec<usize> {
        vec![self.tiers.len(), self.policies.len(), self.by_selector.len(), self.index.kept()]
    }

    fn endpoints(&self, selector: Option<SelectorKey>) -> BTreeSet<ItemKey> {
        let items = selector.map(|key| self.index.items_of(key));
        items.into_iter().flatten().copied().collect()
    }

    /// Forgets that a policy has a selector, and the selector if no policy has it.
    fn forget(&mut self, selector: Option<SelectorKey>, id: &PolicyId) {
        let Some(key) = selector else { return };
        let Some(ids) = self.by_selector.get_mut(&key) else { return };
        ids.remove(id);
        if ids.is_empty() {
            self.by_selector.remove(&key);
            self.index.remove(key);
        }
    }

    /// Replaces a tier, and returns the endpoints whose paths may change by that.
    pub(super) fn put_tier(&mut self, name: String, tier: Option<Tier>) -> BTreeSet<ItemKey> {
        let in_it = self.policies.values().filter(|policy| *policy.tier == *name);
        let endpoints = in_it.flat_map(|policy| self.endpoints(policy.selector)).collect();
        match tier {
            Some(tier) => self.tiers.insert(name, tier),
            None => self.tiers.remove(&name),
        };
        endpoints
    }

    /// Is a policy to be active without an endpoint that it applies to?
    pub(super) fn is_needed_everywhere(&self, id: &PolicyId) -> bool {
        self.policies.get(id).is_some_and(|policy| policy.is_needed_everywhere)
    }

    /// Is a policy in force?
    pub(super) fn is_enforced(&self, id: &PolicyId) -> bool {
        self.policies.get(id).is_some_and(|policy| policy.selector.is_some())
    }

    /// Returns the enforced policies of tiers that are no objects.
    pub(super) fn without_tier(&self) -> impl Iterator<Item = (&PolicyId, &str)> {
        let enforced = self.policies.iter().filter(|(_, policy)| policy.selector.is_some());
        enforced
            .map(|(id, policy)| (id, &*policy.tier))
            .filter(|(_, tier)| !order::is_tier(&self.tiers, tier))
    }

    /// Returns how many policies there are, and how many of them are staged.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.policies.len(), self.staged)
    }

    fn count_staged(&mut self, old: Option<&Placed>, new: Option<&Placed>) {
        let is_staged = |placed: Option<&Placed>| {
            usize::from(placed.is_some_and(|placed| placed.selector.is_none()))
        };
        self.staged = self.staged.saturating_sub(is_staged(old)).saturating_add(is_staged(new));
    }

    /// Returns one of the paths of an endpoint with these profiles.
    pub(super) fn path(
        &self,
        endpoint: ItemKey,
        (profiles, zone): (&[Arc<str>], Zone),
        wanted: Use,
        rulebook: &Rulebook,
    ) -> EndpointPath {
        let keys = self.index.selectors_of(endpoint).iter();
        let ids = keys.filter_map(|key| self.by_selector.get(key)).flatten();
        let found = ids.filter_map(|id| Some((id, self.policies.get(id)?)));
        let mut found: Vec<_> = found.filter(|(_, policy)| wanted.includes(policy.stage)).collect();
        found.sort_by_cached_key(|(id, policy)| self.place(id, policy));
        let mut path = EndpointPath::default();
        (path.ingress.zone, path.egress.zone) = (zone, zone);
        for (id, policy) in found {
            if policy.has_ingress {
                self.extend(&mut path.ingress, id, &policy.tier);
            }
            if policy.has_egress {
                self.extend(&mut path.egress, id, &policy.tier);
            }
        }
        if wanted == Use::Normal {
            for name in profiles {
                let Some(rules) = rulebook.rules(&Owner::Profile(name.to_string())) else {
                    continue;
                };
                if !rules.ingress.is_empty() {
                    path.ingress.profiles.push(name.to_string());
                }
                if !rules.egress.is_empty() {
                    path.egress.profiles.push(name.to_string());
                }
            }
        }
        path
    }

    fn place(&self, id: &PolicyId, policy: &Placed) -> (TierPlace, PolicyPlace) {
        (order::tier(&self.tiers, &policy.tier).0, PolicyPlace::of(id, policy.order))
    }

    /// Appends a policy to a direction.
    fn extend(&self, direction: &mut Direction, id: &PolicyId, tier: &str) {
        match direction.tiers.last_mut().filter(|path| path.tier == tier) {
            Some(path) => path.policies.push(id.clone()),
            None => direction.tiers.push(TierPath {
                tier: tier.to_owned(),
                default_action: order::tier(&self.tiers, tier).1,
                policies: vec![id.clone()],
            }),
        }
    }
}
