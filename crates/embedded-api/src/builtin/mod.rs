//! The kinds that are built in: their names, defaults and rules, as kube-apiserver 1.34 has them.

pub(crate) mod allocate;
pub(crate) mod core;
pub(crate) mod decode;
mod discovery;
pub(crate) mod events;
mod node;
pub(crate) mod pod;
mod policy;
mod rbac;
mod service;

use k8s_openapi::api;

use self::decode::{Decode, typed};
use crate::Object;
use crate::cause::Cause;
use crate::resource::Subresource;
use crate::verb::names;

/// A kind that is built in.
#[derive(Debug)]
pub struct Builtin {
    /// The API group; empty is the core group.
    pub group: &'static str,
    /// The version: `v1`.
    pub version: &'static str,
    /// The name in paths.
    pub plural: &'static str,
    /// The name for one.
    pub singular: &'static str,
    /// The kind.
    pub kind: &'static str,
    /// Abbreviations that kubectl takes.
    pub short_names: &'static [&'static str],
    /// Groups of kinds that kubectl takes.
    pub categories: &'static [&'static str],
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
    /// What can be asked for below an object.
    pub subresources: &'static [Subresource],
    /// What its objects must be.
    pub(crate) rules: Rules,
}

/// Changes an object before it is judged.
pub(crate) type Change = fn(&mut Object);
/// Changes an object that replaces another.
pub(crate) type Carry = fn(&mut Object, &Object);
/// Judges an object.
pub(crate) type Judge = fn(&Object) -> Vec<Cause>;
/// Judges an object against the one that it replaces.
pub(crate) type Compare = fn(&Object, &Object) -> Vec<Cause>;

/// What the objects of a kind must be, as the API server's strategies and defaults say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Decodes the body.
    pub(crate) decode: Decode,
    /// What names look like.
    pub(crate) name: names::Rule,
    /// Fills in what is absent.
    pub(crate) default: Change,
    /// Sets what a client does not choose at creation.
    pub(crate) on_create: Change,
    /// Carries over what a client does not choose at an update.
    pub(crate) on_update: Carry,
    /// Completes a status.
    pub(crate) on_status: Change,
    /// Judges a new object.
    pub(crate) validate: Judge,
    /// Judges an update.
    pub(crate) validate_update: Compare,
    /// Judges an update of the status.
    pub(crate) validate_status: Compare,
    /// What else is special.
    pub(crate) traits: &'static [Trait],
}

/// What is special about a kind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Trait {
    /// `metadata.generation` counts changes of the spec.
    Generation,
    /// An update must name the revision that it replaces.
    RequiresVersion,
    /// An update of what is not there creates it.
    CreatesOnUpdate,
    /// A deletion answers with the object.
    ReturnsDeleted,
}

fn nothing(_: &mut Object) {}

fn keep_nothing(_: &mut Object, _: &Object) {}

fn anything(_: &Object) -> Vec<Cause> {
    Vec::new()
}

impl Builtin {
    const fn new(group: &'static str, names: [&'static str; 3], decode: Decode) -> Self {
        let [plural, singular, kind] = names;
        Self {
            group,
            version: "v1",
            plural,
            singular,
            kind,
            short_names: &[],
            categories: &[],
            namespaced: true,
            subresources: &[],
            rules: Rules {
                decode,
                name: names::Rule::Subdomain,
                default: nothing,
                on_create: nothing,
                on_update: keep_nothing,
                on_status: nothing,
                validate: anything,
                validate_update: |new, _| anything(new),
                validate_status: |new, _| anything(new),
                traits: &[],
            },
        }
    }

    const fn with(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    const fn short(self, short_names: &'static [&'static str]) -> Self {
        Self { short_names, ..self }
    }

    const fn categories(self, categories: &'static [&'static str]) -> Self {
        Self { categories, ..self }
    }

    const fn cluster_scoped(self) -> Self {
        Self { namespaced: false, ..self }
    }

    const fn below(self, subresources: &'static [Subresource]) -> Self {
        Self { subresources, ..self }
    }
}

const RBAC: &str = "rbac.authorization.k8s.io";

const CONFIG_MAP: Builtin =
    Builtin::new("", ["configmaps", "configmap", "ConfigMap"], typed::<api::core::v1::ConfigMap>)
        .short(&["cm"]);
const ENDPOINTS: Builtin =
    Builtin::new("", ["endpoints", "endpoints", "Endpoints"], typed::<api::core::v1::Endpoints>)
        .short(&["ep"]);
const EVENT: Builtin =
    Builtin::new("", ["events", "event", "Event"], typed::<api::core::v1::Event>).short(&["ev"]);
const NAMESPACE: Builtin =
    Builtin::new("", ["namespaces", "namespace", "Namespace"], typed::<api::core::v1::Namespace>)
        .short(&["ns"])
        .cluster_scoped()
        .below(&[Subresource::Finalize, Subresource::Status]);
const NODE: Builtin = Builtin::new("", ["nodes", "node", "Node"], typed::<api::core::v1::Node>)
    .short(&["no"])
    .cluster_scoped()
    .below(&[Subresource::Status]);
const POD: Builtin = Builtin::new("", ["pods", "pod", "Pod"], typed::<api::core::v1::Pod>)
    .short(&["po"])
    .categories(&["all"])
    .below(&[Subresource::Status]);
const SECRET: Builtin =
    Builtin::new("", ["secrets", "secret", "Secret"], typed::<api::core::v1::Secret>);
const SERVICE_ACCOUNT: Builtin = Builtin::new(
    "",
    ["serviceaccounts", "serviceaccount", "ServiceAccount"],
    typed::<api::core::v1::ServiceAccount>,
)
.short(&["sa"])
.below(&[Subresource::Token]);
const SERVICE: Builtin =
    Builtin::new("", ["services", "service", "Service"], typed::<api::core::v1::Service>)
        .short(&["svc"])
        .categories(&["all"])
        .below(&[Subresource::Status]);
const EVENTS_EVENT: Builtin =
    Builtin::new("events.k8s.io", ["events", "event", "Event"], typed::<api::events::v1::Event>)
        .short(&["ev"]);
const ENDPOINT_SLICE: Builtin = Builtin::new(
    "discovery.k8s.io",
    ["endpointslices", "endpointslice", "EndpointSlice"],
    typed::<api::discovery::v1::EndpointSlice>,
);
const NETWORK_POLICY: Builtin = Builtin::new(
    "networking.k8s.io",
    ["networkpolicies", "networkpolicy", "NetworkPolicy"],
    typed::<api::networking::v1::NetworkPolicy>,
)
.short(&["netpol"]);
const LEASE: Builtin = Builtin::new(
    "coordination.k8s.io",
    ["leases", "lease", "Lease"],
    typed::<api::coordination::v1::Lease>,
);
const BUDGET: Builtin = Builtin::new(
    "policy",
    ["poddisruptionbudgets", "poddisruptionbudget", "PodDisruptionBudget"],
    typed::<api::policy::v1::PodDisruptionBudget>,
)
.short(&["pdb"])
.below(&[Subresource::Status]);
const DEFINITION: Builtin = Builtin::new(
    "apiextensions.k8s.io",
    ["customresourcedefinitions", "customresourcedefinition", "CustomResourceDefinition"],
    typed::<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>,
)
.short(&["crd", "crds"])
.categories(&["api-extensions"])
.cluster_scoped()
.below(&[Subresource::Status]);
const CLUSTER_ROLE_BINDING: Builtin = Builtin::new(
    RBAC,
    ["clusterrolebindings", "clusterrolebinding", "ClusterRoleBinding"],
    typed::<api::rbac::v1::ClusterRoleBinding>,
)
.cluster_scoped();
const CLUSTER_ROLE: Builtin = Builtin::new(
    RBAC,
    ["clusterroles", "clusterrole", "ClusterRole"],
    typed::<api::rbac::v1::ClusterRole>,
)
.cluster_scoped();
const ROLE_BINDING: Builtin = Builtin::new(
    RBAC,
    ["rolebindings", "rolebinding", "RoleBinding"],
    typed::<api::rbac::v1::RoleBinding>,
);
const ROLE: Builtin = Builtin::new(RBAC, ["roles", "role", "Role"], typed::<api::rbac::v1::Role>);

/// Every kind that is built in.
pub static KINDS: &[Builtin] = &[
    CONFIG_MAP.with(core::config_map(CONFIG_MAP.rules)),
    ENDPOINTS.with(discovery::endpoints(ENDPOINTS.rules)),
    EVENT.with(events::event(EVENT.rules)),
    NAMESPACE.with(core::namespace(NAMESPACE.rules)),
    NODE.with(node::node(NODE.rules)),
    POD.with(pod::pod(POD.rules)),
    SECRET.with(core::secret(SECRET.rules)),
    SERVICE_ACCOUNT.with(core::service_account(SERVICE_ACCOUNT.rules)),
    SERVICE.with(service::service(SERVICE.rules)),
    EVENTS_EVENT.with(events::events_event(EVENTS_EVENT.rules)),
    ENDPOINT_SLICE.with(discovery::endpoint_slice(ENDPOINT_SLICE.rules)),
    NETWORK_POLICY.with(policy::network_policy(NETWORK_POLICY.rules)),
    LEASE.with(core::lease(LEASE.rules)),
    BUDGET.with(core::budget(BUDGET.rules)),
    DEFINITION.with(core::definition(DEFINITION.rules)),
    CLUSTER_ROLE_BINDING.with(rbac::cluster_binding(CLUSTER_ROLE_BINDING.rules)),
    CLUSTER_ROLE.with(rbac::role(CLUSTER_ROLE.rules)),
    ROLE_BINDING.with(rbac::binding(ROLE_BINDING.rules)),
    ROLE.with(rbac::role(ROLE.rules)),
];
