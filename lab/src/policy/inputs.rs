//! What the evaluator is told: the objects as the API server holds them.

use std::sync::Arc;

use api::PolicyObject;
use api::kubernetes::ClusterNetworkPolicy;
use calc::policy::{Change, Inputs, NetworkSetId};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use model::id::NamespacedName;
use model::policy::Policy;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Error;
use crate::cluster::Cluster;

/// How interfaces of pods are called on the node.
const PREFIX: &str = "cali";

/// Returns what is true of a cluster's pods, namespaces, accounts and tiers, without policies.
///
/// # Errors
///
/// [`Error`] of the API, or of an object that cannot be read.
pub fn of_cluster(cluster: &Cluster) -> Result<Inputs, Error> {
    let mut inputs = Inputs::new("node-1".parse().map_err(Error::wrong)?);
    for pod in cluster.api.list::<Pod>()? {
        apply(&mut inputs, &as_value(&pod, "v1", "Pod")?)?;
    }
    for namespace in cluster.api.list::<Namespace>()? {
        apply(&mut inputs, &as_value(&namespace, "v1", "Namespace")?)?;
    }
    for account in cluster.api.list::<ServiceAccount>()? {
        apply(&mut inputs, &as_value(&account, "v1", "ServiceAccount")?)?;
    }
    for tier in cluster.api.list::<api::Tier>()? {
        apply(&mut inputs, &as_value(&tier, "crd.projectcalico.org/v1", "Tier")?)?;
    }
    Ok(inputs)
}

/// Takes note of an object; a policy is what nodes make of it, whatever it says.
///
/// # Errors
///
/// [`Error::Wrong`] for an object that is not of its kind, or of one that decides about nothing.
pub fn apply(inputs: &mut Inputs, object: &Value) -> Result<(), Error> {
    let word = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let namespace = word("/metadata/namespace").to_owned();
    let name = word("/metadata/name").to_owned();
    let id = NamespacedName { namespace: namespace.clone(), name: name.clone() };
    let change = match (word("/apiVersion"), word("/kind")) {
        ("v1", "Pod") => {
            let pod = api::kubernetes::workload_endpoint(&read(object)?, PREFIX);
            Change::Workload(id, pod.map_err(Error::wrong)?.map(Arc::new))
        }
        ("v1", "Namespace") => {
            let profile = api::kubernetes::namespace_profile(&read(object)?);
            Change::Profile(profile.name.clone(), Some(Arc::new(profile)))
        }
        ("v1", "ServiceAccount") => {
            let profile = api::kubernetes::service_account_profile(&read(object)?);
            Change::Profile(profile.name.clone(), Some(Arc::new(profile)))
        }
        ("v1", "Service") => return Ok(()),
        ("discovery.k8s.io/v1", _) => {
            let slice = api::kubernetes::endpoint_slice(&read::<EndpointSlice>(object)?);
            Change::EndpointSlice(id, Some(Arc::new(slice.map_err(Error::wrong)?)))
        }
        (_, "Tier") => {
            let tier = model::tier::Tier::try_from(&read::<api::Tier>(object)?);
            Change::Tier(name, Some(tier.map_err(Error::wrong)?))
        }
        (_, "NetworkSet") => {
            let set = (&read::<api::NetworkSet>(object)?).try_into().map_err(Error::wrong)?;
            let id = NetworkSetId { namespace: Some(namespace), name };
            Change::NetworkSet(id, Some(Arc::new(set)))
        }
        (_, "GlobalNetworkSet") => {
            let set = (&read::<api::GlobalNetworkSet>(object)?).try_into().map_err(Error::wrong)?;
            Change::NetworkSet(NetworkSetId { namespace: None, name }, Some(Arc::new(set)))
        }
        _ => policy(object)?,
    };
    inputs.apply(change);
    Ok(())
}

fn policy(object: &Value) -> Result<Change, Error> {
    let word = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let policy = match (word("apiVersion"), word("kind")) {
        ("networking.k8s.io/v1", "NetworkPolicy") => salvaged::<NetworkPolicy>(object)?,
        (_, "NetworkPolicy") => salvaged::<api::CalicoNetworkPolicy>(object)?,
        (_, "GlobalNetworkPolicy") => salvaged::<api::GlobalNetworkPolicy>(object)?,
        (_, "ClusterNetworkPolicy") => salvaged::<ClusterNetworkPolicy>(object)?,
        (_, "StagedNetworkPolicy") => salvaged::<api::StagedNetworkPolicy>(object)?,
        (_, "StagedGlobalNetworkPolicy") => salvaged::<api::StagedGlobalNetworkPolicy>(object)?,
        (_, "StagedKubernetesNetworkPolicy") => {
            salvaged::<api::StagedKubernetesNetworkPolicy>(object)?
        }
        (_, kind) => return Err(Error::wrong(format!("{kind} decides about no packet"))),
    };
    Ok(Change::Policy(policy.id.clone(), Some(Arc::new(policy))))
}

/// Reads a policy as nodes do, whatever it says.
fn salvaged<T: DeserializeOwned + PolicyObject>(object: &Value) -> Result<Policy, Error> {
    Ok(read::<T>(object)?.reading().policy)
}

fn read<T: DeserializeOwned>(object: &Value) -> Result<T, Error> {
    serde_json::from_value(object.clone()).map_err(Error::wrong)
}

/// Returns an object of a list with what lists leave out.
fn as_value(object: &impl serde::Serialize, version: &str, kind: &str) -> Result<Value, Error> {
    let mut value = serde_json::to_value(object).map_err(Error::wrong)?;
    if let Some(fields) = value.as_object_mut() {
        fields.insert("apiVersion".to_owned(), version.into());
        fields.insert("kind".to_owned(), kind.into());
    }
    Ok(value)
}
