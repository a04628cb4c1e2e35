//! What comes first: tiers by order and name, policies by order, name, namespace and kind.

use std::collections::BTreeMap;

use model::policy::{Order, PolicyId, PolicyKind};
use model::tier::{Tier, TierAction};

/// A tier's place among all.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct TierPlace {
    /// Tiers that are no objects come last.
    is_missing: bool,
    order: Order,
    name: String,
}

/// A policy's place in its tier.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct PolicyPlace {
    order: Order,
    name: String,
    namespace: Option<String>,
    kind: &'static str,
}

impl PolicyPlace {
    pub(super) fn of(id: &PolicyId, order: Order) -> Self {
        Self {
            order,
            name: id.name.clone(),
            namespace: id.namespace.clone(),
            kind: kind_name(id.kind),
        }
    }
}

/// Returns the name of a kind among Calico's, by which ties are broken.
const fn kind_name(kind: PolicyKind) -> &'static str {
    match kind {
        PolicyKind::Network => "NetworkPolicy",
        PolicyKind::Global => "GlobalNetworkPolicy",
        PolicyKind::StagedNetwork => "StagedNetworkPolicy",
        PolicyKind::StagedGlobal => "StagedGlobalNetworkPolicy",
        PolicyKind::StagedKubernetes => "StagedKubernetesNetworkPolicy",
        PolicyKind::Kubernetes => "KubernetesNetworkPolicy",
        PolicyKind::KubernetesCluster => "KubernetesClusterNetworkPolicy",
    }
}

/// Returns a tier's place and what it does with packets that no rule of it matches.
///
/// A policy whose tier is missing is in force all the same: after all others,
/// with Deny. That it does nothing would be a hole.
pub(super) fn tier(tiers: &BTreeMap<String, Tier>, name: &str) -> (TierPlace, TierAction) {
    let place = |is_missing, order| TierPlace { is_missing, order, name: name.to_owned() };
    if let Some((_, order, action)) = Tier::fixed().iter().find(|(fixed, ..)| *fixed == name) {
        return (place(false, Order::new(*order).unwrap_or(Order::LAST)), *action);
    }
    match tiers.get(name) {
        Some(tier) => (place(false, tier.order), tier.default_action),
        None => (place(true, Order::LAST), TierAction::Deny),
    }
}

/// Is there a tier of that name?
pub(super) fn is_tier(tiers: &BTreeMap<String, Tier>, name: &str) -> bool {
    tiers.contains_key(name) || Tier::fixed().iter().any(|(fixed, ..)| *fixed == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(kind: PolicyKind, namespace: Option<&str>, name: &str) -> PolicyId {
        PolicyId { kind, namespace: namespace.map(str::to_owned), name: name.to_owned() }
    }

    #[test]
    fn ties_are_broken_by_name_namespace_and_kind() {
        let (low, high) = (Order::new(1.0).unwrap(), Order::LAST);
        let sorted = [
            (id(PolicyKind::Network, Some("b"), "z"), low),
            (id(PolicyKind::Global, None, "a"), high),
            (id(PolicyKind::Kubernetes, Some("a"), "a"), high),
            (id(PolicyKind::Network, Some("a"), "a"), high),
            (id(PolicyKind::Kubernetes, Some("b"), "a"), high),
            (id(PolicyKind::Global, None, "b"), high),
        ];
        let places = sorted.map(|(id, order)| PolicyPlace::of(&id, order));
        assert!(places.is_sorted());
    }

    #[test]
    fn tiers_that_are_missing_come_last_and_deny() {
        let own = |name: &str, order, default_action| {
            (name.to_owned(), Tier { name: name.to_owned(), order, default_action })
        };
        let tiers = BTreeMap::from([
            own("unset", Order::LAST, TierAction::Pass),
            own("first", Order::new(-1.0).unwrap(), TierAction::Pass),
            own("default", Order::new(-2.0).unwrap(), TierAction::Pass),
        ]);
        let names = ["first", "kube-admin", "default", "kube-baseline", "unset", "a-missing"];
        let found = names.map(|name| tier(&tiers, name));
        assert!(found.iter().map(|(place, _)| place).is_sorted());
        let actions = found.map(|(_, action)| action == TierAction::Deny);
        assert_eq!(actions, [false, false, true, false, false, true]);
    }
}
