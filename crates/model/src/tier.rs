//! Tiers: the order in which groups of policies decide.

use crate::policy::Order;

/// A group of policies that decides before the next one does (`Tier`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tier {
    /// The object's name.
    pub name: String,
    /// Its place among tiers.
    pub order: Order,
    /// What happens to packets that policies of it apply to and no rule of it matches.
    pub default_action: TierAction,
}

/// What a tier does with packets that no rule of it matches.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum TierAction {
    /// Drops them.
    Deny,
    /// Leaves them to the next tier.
    Pass,
}

impl Tier {
    /// The tier of policies that name none.
    pub const DEFAULT: &'static str = "default";
    /// The tier of cluster administrators' policies, before all users'.
    pub const KUBE_ADMIN: &'static str = "kube-admin";
    /// The tier of what applies where users say nothing.
    pub const KUBE_BASELINE: &'static str = "kube-baseline";

    /// Returns what the tiers that every cluster has must be: name, order and default action.
    #[must_use]
    pub const fn fixed() -> [(&'static str, f64, TierAction); 3] {
        [
            (Self::KUBE_ADMIN, 1_000.0, TierAction::Pass),
            (Self::DEFAULT, 1_000_000.0, TierAction::Deny),
            (Self::KUBE_BASELINE, 10_000_000.0, TierAction::Pass),
        ]
    }
}
