//! The border between the server's JSON and our types, one object at a time.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DynamicResourceScope;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::client::Object;

/// Which object of a kind: its name, and its namespace if it has one.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ObjectKey {
    /// The namespace, or `None` for a cluster-wide object.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

impl ObjectKey {
    /// Returns the key of the object with this `metadata`.
    #[must_use]
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self {
            namespace: metadata.namespace.clone().filter(|namespace| !namespace.is_empty()),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(formatter, "{namespace}/")?;
        }
        formatter.write_str(&self.name)
    }
}

/// Reads one object, or says why it cannot be read.
///
/// `managedFields` is dropped here: it is often half of an object and nobody reads it.
pub(crate) fn read<T: Object>(mut value: Value) -> Result<T, String> {
    if let Some(object) = value.as_object_mut() {
        // The server leaves these two out of the items of a list of built-in kinds.
        object.entry("apiVersion").or_insert_with(|| T::API_VERSION.into());
        object.entry("kind").or_insert_with(|| T::KIND.into());
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    }
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// An object in a list or a watch that is there even if its contents cannot be read.
#[derive(Clone, Debug)]
pub(crate) struct Item<T> {
    /// Name, namespace and resource version only.
    identity: ObjectMeta,
    /// The object, or why it cannot be read.
    pub(crate) contents: Result<T, String>,
    kind: PhantomData<T>,
}

impl<T> Item<T> {
    pub(crate) fn key(&self) -> ObjectKey {
        ObjectKey::of(&self.identity)
    }
}

impl<'de, T: Object> Deserialize<'de> for Item<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let text = |field: &str| {
            let text = value.get("metadata")?.get(field)?.as_str()?;
            Some(text.to_owned())
        };
        let identity = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        Ok(Self { identity, contents: read(value), kind: PhantomData })
    }
}

impl<T: Object> kube::Resource for Item<T> {
    type DynamicType = ();
    type Scope = DynamicResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        T::KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        T::GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        T::VERSION.into()
    }

    fn api_version((): &()) -> Cow<'_, str> {
        T::API_VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        T::URL_PATH_SEGMENT.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.identity
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.identity
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;

    #[test]
    fn drops_managed_fields_and_fills_in_the_kind() {
        let map: ConfigMap = read(json!({
            "metadata": {"name": "a", "managedFields": [{"manager": "kubectl"}]},
            "data": {"key": "value"},
        }))
        .unwrap();
        assert_eq!(map.metadata.name.as_deref(), Some("a"));
        assert_eq!(map.metadata.managed_fields, None);
    }

    #[test]
    fn keeps_the_name_of_an_object_that_cannot_be_read() {
        let bad = json!({
            "metadata": {"name": "a", "namespace": "b", "resourceVersion": "7"},
            "data": {"key": 5},
        });
        let item: Item<ConfigMap> = serde_json::from_value(bad).unwrap();
        assert_eq!(item.key().to_string(), "b/a");
        assert!(item.contents.is_err());
        assert_eq!(kube::Resource::meta(&item).resource_version.as_deref(), Some("7"));
    }
}
