//! Staged policies: what policies would do, before they do it.

use k8s_openapi::api::networking::v1::NetworkPolicySpec;
use model::policy::{Enforcement, Policy, PolicyKind};
use serde_json::Value;

use super::{Parts, RuleSpec, Salvage, has_egress, parts, policy, policy_object, stage};
use crate::Object;
use crate::invalid::{Fault, word};
use crate::object::kind;
use crate::wire::{Decimal, wire};

/// What a `NetworkPolicy` would do.
pub type StagedNetworkPolicy = Object<StagedNetworkPolicySpec>;

/// What a `GlobalNetworkPolicy` would do.
pub type StagedGlobalNetworkPolicy = Object<StagedGlobalNetworkPolicySpec>;

/// What a `NetworkPolicy` of Kubernetes would do.
pub type StagedKubernetesNetworkPolicy = Object<StagedKubernetesNetworkPolicySpec>;

wire! {
    /// The spec of a [`StagedNetworkPolicy`].
    pub struct StagedNetworkPolicySpec {
        /// What is staged: `Set` the policy, or `Delete` it; absent is `Set`.
        staged_action: Option<String> = "stagedAction",
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

    /// The spec of a [`StagedGlobalNetworkPolicy`].
    pub struct StagedGlobalNetworkPolicySpec {
        /// What is staged: `Set` the policy, or `Delete` it; absent is `Set`.
        staged_action: Option<String> = "stagedAction",
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

    /// The spec of a [`StagedKubernetesNetworkPolicy`]: that of Kubernetes, and what is staged.
    pub struct StagedKubernetesNetworkPolicySpec {
        /// What is staged: `Set` the policy, or `Delete` it; absent is `Set`.
        staged_action: Option<String> = "stagedAction",
        /// The pods that it applies to.
        pod_selector: Option<LabelSelectorSpec> = "podSelector",
        /// `Ingress`, `Egress`.
        policy_types: Option<Vec<String>> = "policyTypes",
        /// Rules for packets to the pods, as Kubernetes has them.
        ingress: Option<Vec<KubernetesRuleSpec>> = "ingress",
        /// Rules for packets from the pods, as Kubernetes has them.
        egress: Option<Vec<KubernetesRuleSpec>> = "egress",
    }

    /// A label selector of Kubernetes, kept as it is.
    pub struct LabelSelectorSpec {}

    /// A rule of Kubernetes, kept as it is.
    pub struct KubernetesRuleSpec {}
}

kind! { StagedNetworkPolicySpec: "StagedNetworkPolicy" "stagednetworkpolicies" namespaced }
kind! {
    StagedGlobalNetworkPolicySpec: "StagedGlobalNetworkPolicy" "stagedglobalnetworkpolicies" cluster
}
kind! {
    StagedKubernetesNetworkPolicySpec:
    "StagedKubernetesNetworkPolicy" "stagedkubernetesnetworkpolicies" namespaced
}

policy_object!(StagedNetworkPolicy, namespaced);
policy_object!(StagedGlobalNetworkPolicy, global);
policy_object!(StagedKubernetesNetworkPolicy, kubernetes);

fn namespaced(object: &StagedNetworkPolicy, salvage: &mut Salvage) -> Policy {
    let enforcement = enforcement(object.spec.staged_action.as_deref(), salvage);
    policy(object, &parts!(object.spec, StagedNetwork, enforcement), salvage)
}

fn global(object: &StagedGlobalNetworkPolicy, salvage: &mut Salvage) -> Policy {
    let spec = &object.spec;
    let enforcement = enforcement(spec.staged_action.as_deref(), salvage);
    let parts = parts!(spec, StagedGlobal, enforcement);
    let has_egress = has_egress(&parts);
    let stage =
        stage([spec.do_not_track, spec.pre_dnat, spec.apply_on_forward], has_egress, salvage);
    let namespace_selector = spec.namespace_selector.as_deref();
    policy(object, &Parts { namespace_selector, stage, ..parts }, salvage)
}

fn kubernetes(object: &StagedKubernetesNetworkPolicy, salvage: &mut Salvage) -> Policy {
    let enforcement = enforcement(object.spec.staged_action.as_deref(), salvage);
    let spec = salvage.needed(kubernetes_spec(&object.spec), NetworkPolicySpec::default());
    let kind = PolicyKind::StagedKubernetes;
    let policy = crate::kubernetes::policy_of(kind, &object.metadata, &spec, salvage);
    Policy { enforcement, ..policy }
}

/// Reads the part of the spec that is Kubernetes'.
fn kubernetes_spec(spec: &StagedKubernetesNetworkPolicySpec) -> Result<NetworkPolicySpec, Fault> {
    let json = serde_json::to_value(spec).and_then(serde_json::from_value::<NetworkPolicySpec>);
    json.map_err(|error| {
        Fault::new("ingress", Value::Null, format!("{error}: write it as Kubernetes does"))
    })
}

/// Reads what is staged; nothing that is staged is ever enforced.
fn enforcement(text: Option<&str>, salvage: &mut Salvage) -> Enforcement {
    let actions = [("Set", Enforcement::Staged), ("Delete", Enforcement::StagedDelete)];
    let read = word("stagedAction", text, &actions, Enforcement::Staged);
    salvage.needed(read, Enforcement::Staged)
}
