//! Policies, in force and staged: `NetworkPolicy`, `GlobalNetworkPolicy` and their three staged kinds.

mod entity;
mod rule;
mod staged;

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

use model::policy::{Enforcement, Order, Policy, PolicyId, PolicyKind, Rule, Stage};
use model::tier::Tier;
use selector::Selector;

use crate::invalid::{Fault, parse_some, word};
use crate::object::kind;
use crate::wire::{Decimal, wire};
use crate::{Invalid, Kind, Object};

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

impl TryFrom<&CalicoNetworkPolicy> for Policy {
    type Error = Invalid;

    fn try_from(object: &CalicoNetworkPolicy) -> Result<Self, Invalid> {
        let parts = parts!(object.spec, Network, Enforcement::Enforced);
        policy(object, &parts).map_err(|fault| object.faulty(fault))
    }
}

impl TryFrom<&GlobalNetworkPolicy> for Policy {
    type Error = Invalid;

    fn try_from(object: &GlobalNetworkPolicy) -> Result<Self, Invalid> {
        let spec = &object.spec;
        let flags = [spec.do_not_track, spec.pre_dnat, spec.apply_on_forward];
        let has_egress = has_egress(spec.types.as_deref(), spec.egress.as_deref());
        let read = || {
            let stage = stage(flags, has_egress)?;
            let namespace_selector = spec.namespace_selector.as_deref();
            let parts = parts!(spec, Global, Enforcement::Enforced);
            policy(object, &Parts { namespace_selector, stage, ..parts })
        };
        read().map_err(|fault| object.faulty(fault))
    }
}

/// Says something about packets from its endpoints?
fn has_egress(types: Option<&[String]>, egress: Option<&[RuleSpec]>) -> bool {
    types.is_some_and(|types| types.iter().any(|name| name == "Egress"))
        || egress.is_some_and(|rules| !rules.is_empty())
}

/// Reads `doNotTrack`, `preDNAT` and `applyOnForward`.
fn stage(flags: [Option<bool>; 3], has_egress: bool) -> Result<Stage, Fault> {
    let [is_untracked, is_pre_dnat, is_forward] = flags.map(Option::unwrap_or_default);
    let field = if is_untracked { "doNotTrack" } else { "preDNAT" };
    let wrong = |problem: &str| Err(Fault::new(field, true, problem));
    match (is_untracked, is_pre_dnat) {
        (true, true) => wrong("doNotTrack and preDNAT exclude each other: leave one out"),
        (false, false) if is_forward => Ok(Stage::Forward),
        (false, false) => Ok(Stage::Normal),
        _ if !is_forward => wrong("applies to forwarded packets too: set applyOnForward to true"),
        (true, false) => Ok(Stage::Untracked),
        (false, true) if has_egress => {
            wrong("only packets that arrive can be seen: leave egress rules and type Egress out")
        }
        (false, true) => Ok(Stage::PreDnat),
    }
}

/// The most rules of a direction.
const MAX_RULES: usize = 1024;

fn policy<S: Kind>(object: &Object<S>, parts: &Parts<'_>) -> Result<Policy, Fault> {
    let namespace = S::IS_NAMESPACED.then(|| object.metadata.namespace.clone().unwrap_or_default());
    let (is_ingress, is_egress) = directions(parts)?;
    let order = parts.order.map_or(Ok(Order::LAST), Order::new);
    let hints = parts.performance_hints.unwrap_or_default();
    for hint in hints {
        word("performanceHints", Some(hint), &[("AssumeNeededOnEveryNode", ())], ())?;
    }
    let direction = |field: &str, rules: Option<&[RuleSpec]>| {
        rules_of(field, rules.unwrap_or_default(), namespace.as_deref(), parts.stage)
    };
    let ingress = direction("ingress", parts.ingress)?;
    let egress = direction("egress", parts.egress)?;
    let tier = parts.tier.filter(|tier| !tier.is_empty()).unwrap_or(Tier::DEFAULT);
    Ok(Policy {
        selector: applies_to(parts, namespace.as_deref())?,
        id: PolicyId { kind: parts.kind, namespace, name: object.name().to_owned() },
        tier: tier.to_owned(),
        order: order
            .map_err(|error| Fault::new("order", parts.order.unwrap_or_default(), error))?,
        ingress: is_ingress.then_some(ingress),
        egress: is_egress.then_some(egress),
        stage: parts.stage,
        enforcement: parts.enforcement,
        is_needed_everywhere: !hints.is_empty(),
    })
}

/// Returns whether it says something about packets to, and from, its endpoints.
fn directions(parts: &Parts<'_>) -> Result<(bool, bool), Fault> {
    let types = parts.types.unwrap_or_default();
    for name in types {
        word("types", Some(name), &[("Ingress", ()), ("Egress", ())], ())?;
        if types.iter().filter(|other| *other == name).count() > 1 {
            return Err(Fault::new("types", name, "is listed twice: list it once"));
        }
    }
    let says = |name: &str| types.iter().any(|found| found == name);
    let has = |rules: Option<&[RuleSpec]>| rules.is_some_and(|rules| !rules.is_empty());
    let (has_ingress, has_egress) = (has(parts.ingress), has(parts.egress));
    if types.is_empty() {
        return Ok((has_ingress || !has_egress, has_egress));
    }
    Ok((says("Ingress"), says("Egress")))
}

fn rules_of(
    field: &str,
    rules: &[RuleSpec],
    namespace: Option<&str>,
    stage: Stage,
) -> Result<Vec<Rule>, Fault> {
    if rules.len() > MAX_RULES {
        let problem = format!("rules are too many: use at most {MAX_RULES}");
        return Err(Fault::new(field, rules.len(), problem));
    }
    let is_ingress = field == "ingress";
    let read = |(index, wire): (usize, &RuleSpec)| {
        rule::rule(wire, namespace, is_ingress)
            .and_then(|rule| rule::check_stage(wire, stage).map(|()| rule))
            .map_err(|fault| fault.under(format!("{field}[{index}]")))
    };
    rules.iter().enumerate().map(read).collect()
}

/// Returns the whole selector of the endpoints that a policy applies to.
fn applies_to(parts: &Parts<'_>, namespace: Option<&str>) -> Result<Selector, Fault> {
    let own: Option<Selector> = parse_some("selector", parts.selector)?;
    let accounts: Option<Selector> =
        parse_some("serviceAccountSelector", parts.service_account_selector)?;
    let namespaces = match namespace {
        Some(namespace) => Some(in_namespace(namespace)?),
        None => namespaces("namespaceSelector", parts.namespace_selector)?,
    };
    let accounts = accounts.map(|accounts| accounts.prefixed("pcsa."));
    Ok([own, accounts, namespaces]
        .into_iter()
        .flatten()
        .reduce(Selector::and)
        .unwrap_or_else(Selector::all))
}
