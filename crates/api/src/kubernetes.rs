//! The Kubernetes kinds that we read.

mod balancer;
mod cluster_network_policy;
mod endpoint_slice;
mod network_policy;
mod node;
mod pod;
mod profile;
mod service;

pub use balancer::balancer_request;
pub use cluster_network_policy::{
    ClusterNetworkPolicy, ClusterNetworkPolicySpec, ClusterPeer, ClusterProtocol, ClusterRule,
    ClusterSubject, NamespacedPods, PortNumbers, PortOfProtocol, PortRange,
};
pub use endpoint_slice::endpoint_slice;
pub use node::node;
pub use pod::{allowed_sources, controls, floating, has_ended, pod_addrs, vrf, workload_endpoint};
pub use profile::{namespace_profile, namespace_vrf, service_account_profile};
pub use service::service;

pub(crate) use network_policy::policy_of;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use model::id::NamespacedName;

use crate::Invalid;
use crate::invalid::Fault;

/// Returns an annotation's value; an empty one counts as absent.
fn annotation<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    let value = metadata.annotations.as_ref()?.get(name)?;
    (!value.is_empty()).then_some(value)
}

/// Returns the error for a field of a Kubernetes object.
#[expect(clippy::needless_pass_by_value, reason = "callers pass literals and errors alike")]
fn invalid(
    kind: &str,
    metadata: &ObjectMeta,
    (field, value): (&str, &str),
    problem: impl ToString,
) -> Invalid {
    faulty(kind, metadata, Fault::new(field, value, problem.to_string()))
}

/// Returns the error for a fault of a Kubernetes object.
fn faulty(kind: &str, metadata: &ObjectMeta, fault: Fault) -> Invalid {
    let name = metadata.name.as_deref().unwrap_or_default();
    fault.of(match &metadata.namespace {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    })
}

/// Returns an object's namespace and name.
fn id(metadata: &ObjectMeta) -> NamespacedName {
    NamespacedName {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}
