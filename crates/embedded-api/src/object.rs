//! A Kubernetes object as JSON, with its metadata apart, since every verb works on that.

use serde::de::Error as _;
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// Any object, as the client sent it or as it is kept.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Object {
    /// `metadata`: `ObjectMeta` of meta/v1.
    pub metadata: Map<String, Value>,
    /// Everything else: `apiVersion`, `kind`, `spec`, `status`, `data`, ….
    pub body: Map<String, Value>,
}

impl Object {
    /// Splits a JSON value.
    ///
    /// # Errors
    ///
    /// A text if it is no object, or its metadata is none.
    pub fn from_value(value: Value) -> Result<Self, String> {
        let Value::Object(body) = value else {
            return Err("an object of the API must be a JSON object".to_owned());
        };
        Self::from_map(body)
    }

    fn from_map(mut body: Map<String, Value>) -> Result<Self, String> {
        let metadata = match body.remove("metadata") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(metadata)) => metadata,
            Some(_) => return Err("metadata must be a JSON object".to_owned()),
        };
        Ok(Self { metadata, body })
    }

    /// Joins the object into one JSON value again.
    #[must_use]
    pub fn into_value(self) -> Value {
        let mut map = self.body;
        map.insert("metadata".to_owned(), Value::Object(self.metadata));
        Value::Object(map)
    }

    /// Returns the text of a field of the metadata; absent, null and empty are the same.
    #[must_use]
    pub fn meta(&self, field: &str) -> Option<&str> {
        self.metadata.get(field)?.as_str().filter(|text| !text.is_empty())
    }

    /// Sets a field of the metadata.
    pub fn set_meta(&mut self, field: &str, value: impl Into<Value>) {
        self.metadata.insert(field.to_owned(), value.into());
    }

    /// Returns `metadata.name`.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.meta("name")
    }

    /// Returns `metadata.namespace`.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.meta("namespace")
    }

    /// Returns `metadata.uid`.
    #[must_use]
    pub fn uid(&self) -> Option<&str> {
        self.meta("uid")
    }

    /// Returns `metadata.resourceVersion`.
    #[must_use]
    pub fn resource_version(&self) -> Option<&str> {
        self.meta("resourceVersion")
    }

    /// Returns whether `metadata.deletionTimestamp` is set.
    #[must_use]
    pub fn is_terminating(&self) -> bool {
        self.meta("deletionTimestamp").is_some()
    }

    /// Returns the finalizers.
    pub fn finalizers(&self) -> impl Iterator<Item = &str> {
        let list = self.metadata.get("finalizers").and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str)
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in &self.body {
            map.serialize_entry(key, value)?;
        }
        map.serialize_entry("metadata", &self.metadata)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_map(Map::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
