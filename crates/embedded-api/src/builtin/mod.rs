//! The kinds that are built in: their names, defaults and rules, as kube-apiserver 1.34 has them.

use crate::resource::Subresource;

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
}

impl Builtin {
    const fn new(group: &'static str, names: [&'static str; 3]) -> Self {
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
        }
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

/// Every kind that is built in.
pub static KINDS: &[Builtin] = &[
    Builtin::new("", ["configmaps", "configmap", "ConfigMap"]).short(&["cm"]),
    Builtin::new("", ["endpoints", "endpoints", "Endpoints"]).short(&["ep"]),
    Builtin::new("", ["events", "event", "Event"]).short(&["ev"]),
    Builtin::new("", ["namespaces", "namespace", "Namespace"])
        .short(&["ns"])
        .cluster_scoped()
        .below(&[Subresource::Finalize, Subresource::Status]),
    Builtin::new("", ["nodes", "node", "Node"])
        .short(&["no"])
        .cluster_scoped()
        .below(&[Subresource::Status]),
    Builtin::new("", ["pods", "pod", "Pod"])
        .short(&["po"])
        .categories(&["all"])
        .below(&[Subresource::Status]),
    Builtin::new("", ["secrets", "secret", "Secret"]),
    Builtin::new("", ["serviceaccounts", "serviceaccount", "ServiceAccount"])
        .short(&["sa"])
        .below(&[Subresource::Token]),
    Builtin::new("", ["services", "service", "Service"])
        .short(&["svc"])
        .categories(&["all"])
        .below(&[Subresource::Status]),
    Builtin::new("events.k8s.io", ["events", "event", "Event"]).short(&["ev"]),
    Builtin::new("discovery.k8s.io", ["endpointslices", "endpointslice", "EndpointSlice"]),
    Builtin::new("networking.k8s.io", ["networkpolicies", "networkpolicy", "NetworkPolicy"])
        .short(&["netpol"]),
    Builtin::new("coordination.k8s.io", ["leases", "lease", "Lease"]),
    Builtin::new("policy", ["poddisruptionbudgets", "poddisruptionbudget", "PodDisruptionBudget"])
        .short(&["pdb"])
        .below(&[Subresource::Status]),
    Builtin::new(
        "apiextensions.k8s.io",
        ["customresourcedefinitions", "customresourcedefinition", "CustomResourceDefinition"],
    )
    .short(&["crd", "crds"])
    .categories(&["api-extensions"])
    .cluster_scoped()
    .below(&[Subresource::Status]),
    Builtin::new(RBAC, ["clusterrolebindings", "clusterrolebinding", "ClusterRoleBinding"])
        .cluster_scoped(),
    Builtin::new(RBAC, ["clusterroles", "clusterrole", "ClusterRole"]).cluster_scoped(),
    Builtin::new(RBAC, ["rolebindings", "rolebinding", "RoleBinding"]),
    Builtin::new(RBAC, ["roles", "role", "Role"]),
];
