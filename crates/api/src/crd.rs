//! The definitions of all kinds (`apiextensions.k8s.io/v1`), made from their types.
//!
//! `manifests/crds` and `manifests/docker/crds` hold them as files; a test compares the two.

use serde_json::{Value, json};

use crate::Kind;
use crate::wire::object;

/// Returns the `CustomResourceDefinition` of every kind of Calico's, in the order of their plurals.
#[must_use]
pub fn definitions() -> Vec<Value> {
    let mut all = vec![
        definition::<crate::BgpConfigurationSpec>(),
        definition::<crate::BgpFilterSpec>(),
        definition::<crate::BgpPeerSpec>(),
        definition::<crate::BlockAffinitySpec>(),
        definition::<crate::CalicoNodeStatusSpec>(),
        definition::<crate::ClusterInformationSpec>(),
        definition::<crate::FelixConfigurationSpec>(),
        definition::<crate::GlobalNetworkPolicySpec>(),
        definition::<crate::GlobalNetworkSetSpec>(),
        definition::<crate::HostEndpointSpec>(),
        definition::<crate::IpPoolSpec>(),
        definition::<crate::IpReservationSpec>(),
        definition::<crate::IpamBlockSpec>(),
        definition::<crate::IpamConfigSpec>(),
        definition::<crate::IpamHandleSpec>(),
        definition::<crate::KubeControllersConfigurationSpec>(),
        definition::<crate::CalicoNetworkPolicySpec>(),
        definition::<crate::NetworkSetSpec>(),
        definition::<crate::StagedGlobalNetworkPolicySpec>(),
        definition::<crate::StagedKubernetesNetworkPolicySpec>(),
        definition::<crate::StagedNetworkPolicySpec>(),
        definition::<crate::TierSpec>(),
    ];
    all.sort_by_key(|definition| definition.pointer("/metadata/name").map(Value::to_string));
    all
}

/// Returns those of the kinds for workloads that are no pods, which clusters may be without (ADR 10).
#[must_use]
pub fn definitions_for_docker() -> Vec<Value> {
    vec![definition::<crate::ProfileSpec>(), definition::<crate::WorkloadEndpointSpec>()]
}

/// Returns the definition of one kind.
fn definition<S: Kind>() -> Value {
    let singular = S::KIND.to_lowercase();
    let mut names = json!({
        "kind": S::KIND,
        "listKind": format!("{}List", S::KIND),
        "plural": S::PLURAL,
        "singular": singular,
    });
    if let (false, Some(names)) = (S::SHORT_NAMES.is_empty(), names.as_object_mut()) {
        names.insert("shortNames".to_owned(), S::SHORT_NAMES.into());
    }
    let version = json!({
        "name": "v1",
        "served": true,
        "storage": true,
        "schema": {"openAPIV3Schema": schema::<S>()},
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{}.crd.projectcalico.org", S::PLURAL)},
        "spec": {
            "group": "crd.projectcalico.org",
            "names": names,
            "preserveUnknownFields": false,
            "scope": if S::IS_NAMESPACED { "Namespaced" } else { "Cluster" },
            "versions": [with_status::<S>(version)],
        },
    })
}

/// Returns the schema of a whole object.
fn schema<S: Kind>() -> Value {
    let text = json!({"type": "string"});
    // What the status of kinds without a typed one holds is up to its writer.
    let status = S::status_schema().unwrap_or_else(|| object(&[]));
    let mut schema = json!({
        "type": "object",
        "properties": {
            "apiVersion": text,
            "kind": text,
            "metadata": {"type": "object"},
            "spec": S::schema(),
        },
    });
    if let Some(properties) = schema.pointer_mut("/properties").and_then(Value::as_object_mut) {
        properties.insert("status".to_owned(), status);
    }
    schema
}

/// Adds the `status` subresource for kinds whose status is written apart.
fn with_status<S: Kind>(mut version: Value) -> Value {
    if let (Some(_), Some(version)) = (S::status_schema(), version.as_object_mut()) {
        version.insert("subresources".to_owned(), json!({"status": {}}));
    }
    version
}
