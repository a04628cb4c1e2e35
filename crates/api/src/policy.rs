//! Policies, in force and staged: `NetworkPolicy`, `GlobalNetworkPolicy` and their three staged kinds.

mod entity;
mod reading;
mod rule;
mod staged;

pub use reading::{PolicyObject, Reading};
pub use rule::{
    EntityRuleSpec, HttpPathSpec, HttpSpec, IcmpSpec, RuleMetadataSpec, RuleSpec,
    ServiceAccountsSpec, ServiceRefSpec,
};
pub use staged::{
    KubernetesRuleSpec, LabelSelectorSpec, StagedGlobalNetworkPolicy,
    StagedGlobalNetworkPolicySpec, StagedKubernetesNetworkPolicy,
    StagedKubernetesNetworkPolicySpec, StagedNetworkPolicy, StagedNetworkPolicySpec,
};

pub(crate) use entity::{in_namespace, is_port_name, namespaces, net};
pub(crate) use reading::Salvage;

use model::policy::{Enforcement, Order, Policy, PolicyId, PolicyKind, Rule, Stage};
use model::tier::Tier;
use selector::Selector;

use crate::invalid::{Fault, parse_some, word};
use crate::object::kind;
use crate::wire::{Decimal, wire};
use crate::{Kind, Object};

/// Rules for endpoints of one namespace.
pub type CalicoNetworkPolicy = Object<CalicoNetworkPolicySpec>;

/// Rules for endpoints of all namespaces, and of hosts.
pub type GlobalNetworkPolicy = Object<GlobalNetworkPolicySpec>;

wire! {
    /// The spec of a [`CalicoNetworkPolicy`].
    pub struct CalicoNetworkPolicySpec {
        /// The tier; absent is `default`.
        tier: Option<String> = "tier",
        /// The place in the tier; absent is last.
        order: Option<Decimal> = "order",
        /// The endpoints that it applies to; absent is all.
        selector: Option<String> = "selector",
        /// Their service accounts.
        service_account_selector: Option<String> = "serviceAccountSelector",
        /// `Ingress`, `Egress`; absent follows from the rules.
        types: Option<Vec<String>> = "types",
        /// Rules for packets to the endpoints.
        ingress: Option<Vec<RuleSpec>> = "ingress",
        /// Rules for packets from the endpoints.
        egress: Option<Vec<RuleSpec>> = "egress",
        /// `AssumeNeededOnEveryNode`.
        performance_hints: Option<Vec<String>> = "performanceHints",
    }

    /// The spec of a [`GlobalNetworkPolicy`].
    pub struct GlobalNetworkPolicySpec {
        /// The tier; absent is `default`.
        tier: Option<String> = "tier",
        /// The place in the tier; absent is last.
        order: Option<Decimal> = "order",
        /// The endpoints that it applies to; absent is all.
        selector: Option<String> = "selector",
        /// Their namespaces.
        namespace_selector: Option<String> = "namespaceSelector",
        /// Their service accounts.
        service_account_selector: Option<String> = "serviceAccountSelector",
        /// `Ingress`, `Egress`; absent follows from the rules.
        types: Option<Vec<String>> = "types",
        /// Rules for packets to the endpoints.
        ingress: Option<Vec<RuleSpec>> = "ingress",
        /// Rules for packets from the endpoints.
        egress: Option<Vec<RuleSpec>> = "egress",
        /// Whether it is looked at before connections are tracked.
        do_not_track: Option<bool> = "doNotTrack",
        /// Whether it is looked at before destinations are translated.
        pre_dnat: Option<bool> = "preDNAT",
        /// Whether it also applies to what hosts forward.
        apply_on_forward: Option<bool> = "applyOnForward",
        /// `AssumeNeededOnEveryNode`.
        performance_hints: Option<Vec<String>> = "performanceHints",
    }
}

kind! { CalicoNetworkPolicySpec: "NetworkPolicy" "networkpolicies" namespaced }
kind! { GlobalNetworkPolicySpec: "GlobalNetworkPolicy" "globalnetworkpolicies" cluster }

/// What all these kinds have in common.
struct Parts<'a> {
    kind: PolicyKind,
    enforcement: Enforcement,
    tier: Option<&'a str>,
    order: Option<f64>,
    selector: Option<&'a str>,
    namespace_selector: Option<&'a str>,
    service_account_selector: Option<&'a str>,
    types: Option<&'a [String]>,
    ingress: Option<&'a [RuleSpec]>,
    egress: Option<&'a [RuleSpec]>,
    stage: Stage,
    performance_hints: Option<&'a [String]>,
}

/// Takes the parts that a spec of any kind has from it.
macro_rules! parts {
    ($spec:expr, $kind:ident, $enforcement:expr) => {
        $crate::policy::Parts {
            kind: ::model::policy::PolicyKind::$kind,
            enforcement: $enforcement,
            tier: $spec.tier.as_deref(),
            order: $spec.order.map(|order| order.0),
            selector: $spec.selector.as_deref(),
            namespace_selector: None,
            service_account_selector: $spec.service_account_selector.as_deref(),
            types: $spec.types.as_deref(),
            ingress: $spec.ingress.as_deref(),
            egress: $spec.egress.as_deref(),
            stage: ::model::policy::Stage::Normal,
            performance_hints: $spec.performance_hints.as_deref(),
        }
    };
}

use parts;

/// Says that an object of Calico's is a policy that `read` reads.
macro_rules! policy_object {
    ($object:ty, $read:path) => {
        impl $crate::policy::PolicyObject for $object {
            fn reading(&self) -> $crate::policy::Reading {
                let mut salvage = $crate::policy::Salvage::default();
                let policy = $read(self, &mut salvage);
                salvage.reading(policy, |fault| self.faulty(fault))
            }

            fn generation(&self) -> i64 {
                self.metadata.generation.unwrap_or_default()
            }
        }

        impl TryFrom<&$object> for ::model::policy::Policy {
            type Error = $crate::Invalid;

            fn try_from(object: &$object) -> Result<Self, $crate::Invalid> {
                $crate::policy::PolicyObject::reading(object).complete()
            }
        }
    };
}

use policy_object;

policy_object!(CalicoNetworkPolicy, namespaced);
policy_object!(GlobalNetworkPolicy, global);

fn namespaced(object: &CalicoNetworkPolicy, salvage: &mut Salvage) -> Policy {
    policy(object, &parts!(object.spec, Network, Enforcement::Enforced), salvage)
}

fn global(object: &GlobalNetworkPolicy, salvage: &mut Salvage) -> Policy {
    let spec = &object.spec;
    let parts = parts!(spec, Global, Enforcement::Enforced);
    let has_egress = has_egress(&parts);
    let stage =
        stage([spec.do_not_track, spec.pre_dnat, spec.apply_on_forward], has_egress, salvage);
    let namespace_selector = spec.namespace_selector.as_deref();
    policy(object, &Parts { namespace_selector, stage, ..parts }, salvage)
}

/// Says something about packets from its endpoints?
fn has_egress(parts: &Parts<'_>) -> bool {
    parts.types.is_some_and(|types| types.iter().any(|name| name == "Egress"))
        || parts.egress.is_some_and(|rules| !rules.is_empty())
}

/// Reads `doNotTrack`, `preDNAT` and `applyOnForward`; where they contradict each other, rules
/// are looked at as early as one of them says.
fn stage(flags: [Option<bool>; 3], has_egress: bool, salvage: &mut Salvage) -> Stage {
    let [is_untracked, is_pre_dnat, is_forward] = flags.map(Option::unwrap_or_default);
    let field = if is_untracked { "doNotTrack" } else { "preDNAT" };
    let wrong = |problem: &str| Err(Fault::new(field, true, problem));
    let (stage, check) = match (is_untracked, is_pre_dnat) {
        (true, true) => {
            (Stage::Untracked, wrong("doNotTrack and preDNAT exclude each other: leave one out"))
        }
        (true, false) => (Stage::Untracked, Ok(())),
        (false, true) if has_egress && is_forward => (
            Stage::PreDnat,
            wrong("only packets that arrive can be seen: leave egress rules and type Egress out"),
        ),
        (false, true) => (Stage::PreDnat, Ok(())),
        (false, false) => (if is_forward { Stage::Forward } else { Stage::Normal }, Ok(())),
    };
    let is_early = is_untracked || is_pre_dnat;
    let check = check.and_then(|()| {
        if is_early && !is_forward {
            wrong("applies to forwarded packets too: set applyOnForward to true")
        } else {
            Ok(())
        }
    });
    salvage.needed(check, ());
    stage
}

/// The most rules of a direction.
const MAX_RULES: usize = 1024;

fn policy<S: Kind>(object: &Object<S>, parts: &Parts<'_>, salvage: &mut Salvage) -> Policy {
    let namespace = S::IS_NAMESPACED.then(|| object.metadata.namespace.clone().unwrap_or_default());
    let (is_ingress, is_egress) = directions(parts, salvage);
    let hints = parts.performance_hints.unwrap_or_default();
    for hint in hints {
        let known = [("AssumeNeededOnEveryNode", ())];
        if let Err(fault) = word("performanceHints", Some(hint), &known, ()) {
            salvage.note(fault);
        }
    }
    let order = parts.order.map_or(Ok(Order::LAST), Order::new);
    let order = order.map_err(|error| Fault::new("order", parts.order.unwrap_or_default(), error));
    let order = salvage.needed(order, Order::LAST);
    let selector = applies_to(parts, namespace.as_deref(), salvage);
    let place = (namespace.as_deref(), parts.stage);
    let ingress = rules_of("ingress", parts.ingress.unwrap_or_default(), place, salvage);
    let egress = rules_of("egress", parts.egress.unwrap_or_default(), place, salvage);
    let tier = parts.tier.filter(|tier| !tier.is_empty()).unwrap_or(Tier::DEFAULT);
    Policy {
        selector,
        id: PolicyId { kind: parts.kind, namespace, name: object.name().to_owned() },
        tier: tier.to_owned(),
        order,
        ingress: is_ingress.then(|| salvage.rules(ingress)),
        egress: is_egress.then(|| salvage.rules(egress)),
        stage: parts.stage,
        enforcement: parts.enforcement,
        is_needed_everywhere: !hints.is_empty(),
    }
}

/// Returns whether it says something about packets to, and from, its endpoints.
fn directions(parts: &Parts<'_>, salvage: &mut Salvage) -> (bool, bool) {
    let types = parts.types.unwrap_or_default();
    let known = [("Ingress", ()), ("Egress", ())];
    for name in types {
        if let Err(fault) = word("types", Some(name), &known, ()) {
            return salvage.needed(Err(fault), (true, true));
        }
    }
    let is_twice = |name: &&String| types.iter().filter(|other| other == name).count() > 1;
    if let Some(name) = types.iter().find(is_twice) {
        salvage.note(Fault::new("types", name, "is listed twice: list it once"));
    }
    let says = |name: &str| types.iter().any(|found| found == name);
    let has = |rules: Option<&[RuleSpec]>| rules.is_some_and(|rules| !rules.is_empty());
    let (has_ingress, has_egress) = (has(parts.ingress), has(parts.egress));
    if types.is_empty() {
        return (has_ingress || !has_egress, has_egress);
    }
    (says("Ingress"), says("Egress"))
}

/// Reads the rules of a direction; one that cannot be read denies everything in its place.
fn rules_of(
    field: &str,
    rules: &[RuleSpec],
    (namespace, stage): (Option<&str>, Stage),
    salvage: &mut Salvage,
) -> Vec<Rule> {
    if rules.len() > MAX_RULES {
        let problem = format!("rules are too many: use at most {MAX_RULES}");
        salvage.needed(Err(Fault::new(field, rules.len(), problem)), ());
        return Vec::new();
    }
    let is_ingress = field == "ingress";
    let mut read = |(index, wire): (usize, &RuleSpec)| {
        let rule = rule::rule(wire, namespace, is_ingress)
            .and_then(|rule| rule::check_stage(wire, stage).map(|()| rule));
        rule.unwrap_or_else(|fault| {
            let fault = fault.under(format!("{field}[{index}]"));
            let reason = fault.clone().of(String::new()).detail();
            salvage.note(fault);
            Rule::refused(reason)
        })
    };
    rules.iter().enumerate().map(&mut read).collect()
}

/// Reads the rules of a direction of a profile; one that cannot be read denies everything.
pub(crate) fn profile_rules(field: &str, rules: Option<&[RuleSpec]>) -> (Vec<Rule>, Vec<Fault>) {
    let mut salvage = Salvage::default();
    let rules = rules_of(field, rules.unwrap_or_default(), (None, Stage::Normal), &mut salvage);
    let rules = salvage.rules(rules);
    (rules, salvage.into_faults())
}

/// Returns the whole selector of the endpoints that a policy applies to.
fn applies_to(parts: &Parts<'_>, namespace: Option<&str>, salvage: &mut Salvage) -> Selector {
    let own = salvage.condition(parse_some("selector", parts.selector));
    let accounts: Result<Option<Selector>, Fault> =
        parse_some("serviceAccountSelector", parts.service_account_selector);
    let accounts = salvage.condition(accounts).map(|accounts| accounts.prefixed("pcsa."));
    let namespaces = salvage.condition(match namespace {
        Some(namespace) => in_namespace(namespace).map(Some),
        None => namespaces("namespaceSelector", parts.namespace_selector),
    });
    salvage.bounded([own, accounts, namespaces])
}
