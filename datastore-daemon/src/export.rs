//! `calico-datastore export`: every object as YAML, in an order in which they can be made.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use embedded_api::resource::{Registry, Resource};
use embedded_api::service::Target;
use embedded_api::verb::ListOptions;
use serde_json::Value;
use tracing::info;

use crate::error::Error;
use crate::offline::{Copy, print};

/// Whether secrets are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Secrets {
    /// They are.
    Included,
    /// They are not.
    Omitted,
}

impl Secrets {
    /// Reads the flag.
    pub(crate) const fn included(flag: bool) -> Self {
        if flag { Self::Included } else { Self::Omitted }
    }
}

/// What only its own server can know, and another refuses or replaces.
const OWN: [&str; 8] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    // An owner has another uid elsewhere, and a garbage collector would delete its objects.
    "ownerReferences",
];

/// Prints every object.
pub(crate) async fn run(directory: &Path, secrets: Secrets) -> Result<(), Error> {
    let copy = Copy::of(directory).await?;
    let registry = copy.service.registry();
    let mut count = 0_usize;
    for resource in ordered(&registry, secrets) {
        let target = Target {
            resource: Arc::clone(resource),
            namespace: String::new(),
            name: String::new(),
            subresource: None,
        };
        let list = copy.service.list(&target, &ListOptions::default()).await?;
        for json in &list.items {
            let object: Value = serde_json::from_slice(json).unwrap_or_default();
            let Some(object) = portable(resource, object) else { continue };
            let yaml = serde_saphyr::to_string(&object);
            let yaml = yaml.map_err(|_| Error::Yaml(resource.qualified()))?;
            print(format!("---\n{yaml}").as_bytes())?;
            count = count.saturating_add(1);
        }
    }
    info!(objects = count, ?secrets, "exported");
    Ok(())
}

/// Returns each kind once: definitions first, then namespaces, then what is in no namespace.
fn ordered(registry: &Registry, secrets: Secrets) -> Vec<&Arc<Resource>> {
    let mut kinds: BTreeMap<(u8, String), &Arc<Resource>> = BTreeMap::new();
    for resource in registry.iter() {
        let name = resource.qualified();
        let rank = match name.as_str() {
            "customresourcedefinitions.apiextensions.k8s.io" => 0,
            "namespaces" => 1,
            "serviceaccounts" => 2,
            "secrets" if secrets == Secrets::Omitted => continue,
            "events" | "events.events.k8s.io" | "leases.coordination.k8s.io" => continue,
            _ if !resource.namespaced => 3,
            _ => 4,
        };
        kinds.entry((rank, name)).or_insert(resource);
    }
    kinds.into_values().collect()
}

/// Removes what cannot be taken elsewhere; `None` for what every cluster has already.
fn portable(resource: &Resource, mut object: Value) -> Option<Value> {
    let kind = resource.qualified();
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    let is_given = match kind.as_str() {
        "namespaces" => {
            matches!(name, "default" | "kube-system" | "kube-public" | "kube-node-lease")
        }
        "services" | "endpoints" => namespace == "default" && name == "kubernetes",
        "configmaps" => name == "kube-root-ca.crt",
        "serviceaccounts" => name == "default",
        _ => false,
    };
    if is_given {
        return None;
    }
    let headless = text("/spec/clusterIP") == "None";
    let metadata = object.get_mut("metadata")?.as_object_mut()?;
    for field in OWN {
        metadata.remove(field);
    }
    let fields = object.as_object_mut()?;
    fields.insert("apiVersion".to_owned(), resource.api_version().into());
    fields.insert("kind".to_owned(), (*resource.kind).into());
    match kind.as_str() {
        "customresourcedefinitions.apiextensions.k8s.io" | "namespaces" => {
            object.as_object_mut()?.remove("status");
        }
        "services" if !headless => {
            let spec = object.get_mut("spec")?.as_object_mut()?;
            spec.remove("clusterIP");
            spec.remove("clusterIPs");
        }
        _ => {}
    }
    Some(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn registry() -> Registry {
        Registry::new([])
    }

    #[test]
    fn orders_definitions_and_namespaces_first() {
        let registry = registry();
        let names: Vec<String> =
            ordered(&registry, Secrets::Omitted).iter().map(|kind| kind.qualified()).collect();
        assert_eq!(names[..2], ["customresourcedefinitions.apiextensions.k8s.io", "namespaces"]);
        assert!(!names.contains(&"secrets".to_owned()) && !names.contains(&"events".to_owned()));
        let with: Vec<_> = ordered(&registry, Secrets::Included);
        assert_eq!(with.len(), names.len() + 1);
    }

    #[test]
    fn leaves_out_what_another_server_refuses() {
        let registry = registry();
        let service = registry.get("", "v1", "services").unwrap();
        let object = json!({"metadata": {"name": "s", "namespace": "n", "uid": "u", "resourceVersion": "5", "labels": {"a": "b"}},
            "spec": {"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "type": "ClusterIP"}});
        let expected = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "s", "namespace": "n", "labels": {"a": "b"}}, "spec": {"type": "ClusterIP"}});
        assert_eq!(portable(service, object), Some(expected));
        let headless = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "h", "namespace": "n"}, "spec": {"clusterIP": "None"}});
        assert_eq!(portable(service, headless.clone()), Some(headless));
        let given = json!({"metadata": {"name": "kubernetes", "namespace": "default"}});
        assert_eq!(portable(service, given), None);
    }
}
