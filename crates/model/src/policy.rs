//! Policies: which packets may pass.
//!
//! A [`Policy`] applies to the endpoints that its selector matches and lies in
//! a [`crate::tier::Tier`]. For each direction, tiers are visited in their
//! order and policies in theirs; the first rule that matches decides. What no
//! tier decides, the endpoint's [`Profile`]s do.
//!
//! Selectors here are complete: what the objects say about namespaces and
//! service accounts has been made part of them.

mod report;
mod rule;

pub use report::{Heard, InvalidHeard, NodeReport};
pub use rule::{
    Action, EntityMatch, HttpMatch, HttpPath, IcmpMatch, PortMatch, Protocol, Rule, UnknownProtocol,
};

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use selector::Selector;

use crate::Labels;

/// Rules for the endpoints that a selector matches.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Which object it is.
    pub id: PolicyId,
    /// The tier that it lies in.
    pub tier: String,
    /// Its place in the tier.
    pub order: Order,
    /// The endpoints that it applies to.
    pub selector: Selector,
    /// Rules for packets to the endpoints; `None` if it says nothing about them.
    pub ingress: Option<Vec<Rule>>,
    /// Rules for packets from the endpoints; `None` if it says nothing about them.
    pub egress: Option<Vec<Rule>>,
    /// When its rules are looked at.
    pub stage: Stage,
    /// Whether it is in force.
    pub enforcement: Enforcement,
    /// Whether every node should hold it, so that a first endpoint need not wait.
    pub is_needed_everywhere: bool,
}

/// Which object a policy is.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PolicyId {
    /// The object's kind.
    pub kind: PolicyKind,
    /// The object's namespace; `None` for kinds without.
    pub namespace: Option<String>,
    /// The object's name.
    pub name: String,
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}/{namespace}/{}", self.kind, self.name),
            None => write!(f, "{}/{}", self.kind, self.name),
        }
    }
}

/// Text that names no policy.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "`{0}` names no policy: use KIND/NAMESPACE/NAME or KIND/NAME, with a kind such as np or gnp"
)]
pub struct InvalidPolicyId(String);

impl FromStr for PolicyId {
    type Err = InvalidPolicyId;

    fn from_str(text: &str) -> Result<Self, InvalidPolicyId> {
        let read = || {
            let (kind, rest) = text.split_once('/')?;
            let kind = PolicyKind::ALL.into_iter().find(|known| known.short_name() == kind)?;
            let (namespace, name) = if kind.is_namespaced() {
                let (namespace, name) = rest.split_once('/')?;
                (Some(namespace.to_owned()).filter(|namespace| !namespace.is_empty()), name)
            } else {
                (None, rest)
            };
            let is_whole = namespace.is_some() == kind.is_namespaced() && !name.is_empty();
            is_whole.then(|| Self { kind, namespace, name: name.to_owned() })
        };
        read().ok_or_else(|| InvalidPolicyId(text.to_owned()))
    }
}

/// The kinds of objects that policies come from.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum PolicyKind {
    /// Calico's `NetworkPolicy`.
    Network,
    /// `GlobalNetworkPolicy`.
    Global,
    /// `StagedNetworkPolicy`.
    StagedNetwork,
    /// `StagedGlobalNetworkPolicy`.
    StagedGlobal,
    /// `StagedKubernetesNetworkPolicy`.
    StagedKubernetes,
    /// The `NetworkPolicy` of Kubernetes.
    Kubernetes,
    /// The `ClusterNetworkPolicy` of Kubernetes.
    KubernetesCluster,
}

impl PolicyKind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Network,
        Self::Global,
        Self::StagedNetwork,
        Self::StagedGlobal,
        Self::StagedKubernetes,
        Self::Kubernetes,
        Self::KubernetesCluster,
    ];

    /// Returns the short name, as in `np/default/allow-dns`.
    #[must_use]
    pub const fn short_name(self) -> &'static str {
        match self {
            Self::Network => "np",
            Self::Global => "gnp",
            Self::StagedNetwork => "snp",
            Self::StagedGlobal => "sgnp",
            Self::StagedKubernetes => "sknp",
            Self::Kubernetes => "knp",
            Self::KubernetesCluster => "kcnp",
        }
    }

    /// Are its objects in namespaces?
    #[must_use]
    pub const fn is_namespaced(self) -> bool {
        !matches!(self, Self::Global | Self::StagedGlobal | Self::KubernetesCluster)
    }

    /// Is it a kind that is never enforced?
    #[must_use]
    pub const fn is_staged(self) -> bool {
        matches!(self, Self::StagedNetwork | Self::StagedGlobal | Self::StagedKubernetes)
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short_name())
    }
}

/// When the rules of a policy are looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// For packets of the endpoints themselves.
    Normal,
    /// Also for packets that a host endpoint's machine forwards.
    Forward,
    /// Before destinations are translated; of host endpoints, also when forwarding.
    PreDnat,
    /// Before connections are tracked; of host endpoints, also when forwarding.
    Untracked,
}

/// Whether a policy is in force.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Enforcement {
    /// It is.
    Enforced,
    /// It is not: flows only report what it would do.
    Staged,
    /// It is not: flows only report what the absence of the policy of that name would do.
    StagedDelete,
}

/// A place among policies or tiers: smaller ones first, unset ones last.
#[derive(Clone, Copy, Debug)]
pub struct Order(f64);

/// A number that is no place, since it compares to nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("NaN is no order: use a number, or leave it out to come last")]
pub struct NotAnOrder;

impl Order {
    /// After all others.
    pub const LAST: Self = Self(f64::INFINITY);

    /// Makes a place.
    ///
    /// # Errors
    ///
    /// [`NotAnOrder`] for NaN.
    pub fn new(number: f64) -> Result<Self, NotAnOrder> {
        // Adding zero makes -0 and 0 the same place.
        if number.is_nan() { Err(NotAnOrder) } else { Ok(Self(number + 0.0)) }
    }

    /// Returns the number, infinity for the last place.
    #[must_use]
    pub const fn number(self) -> f64 {
        self.0
    }
}

impl PartialEq for Order {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Order {}

impl PartialOrd for Order {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Order {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// What endpoints inherit: labels, and rules for what no tier decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Its name: `kns.<namespace>`, `ksa.<namespace>.<account>`.
    pub name: String,
    /// Labels that its endpoints have beside their own.
    pub labels_to_apply: Labels,
    /// Rules for packets to its endpoints.
    pub ingress: Vec<Rule>,
    /// Rules for packets from its endpoints.
    pub egress: Vec<Rule>,
}

impl Profile {
    /// Returns the profile that lets everything pass, `projectcalico-default-allow`.
    #[must_use]
    pub fn default_allow() -> Self {
        Self {
            name: "projectcalico-default-allow".to_owned(),
            labels_to_apply: Labels::new(),
            ingress: vec![Rule::of(Action::Allow)],
            egress: vec![Rule::of(Action::Allow)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unset_orders_come_last_and_nan_is_none() {
        let order = |number| Order::new(number).unwrap();
        assert!(order(-1.0) < order(0.0) && order(0.5) < order(1000.0));
        assert!(order(f64::MAX) < Order::LAST);
        assert_eq!(order(-0.0), order(0.0));
        assert_eq!(Order::new(f64::NAN), Err(NotAnOrder));
    }

    #[test]
    fn ids_are_written_with_the_short_kind() {
        let id = PolicyId {
            kind: PolicyKind::Kubernetes,
            namespace: Some("default".into()),
            name: "allow-dns".into(),
        };
        assert_eq!(id.to_string(), "knp/default/allow-dns");
        let id = PolicyId { kind: PolicyKind::Global, namespace: None, name: "deny".into() };
        assert_eq!(id.to_string(), "gnp/deny");
        for text in ["knp/default/allow-dns", "gnp/deny", "kcnp/a", "sknp/a/b"] {
            assert_eq!(text.parse::<PolicyId>().unwrap().to_string(), text);
        }
        for wrong in ["", "np/a", "np//a", "np/a/", "gnp/", "x/a", "deny"] {
            assert!(wrong.parse::<PolicyId>().is_err(), "{wrong}");
        }
    }
}
