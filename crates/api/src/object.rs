//! Any object of the group `crd.projectcalico.org/v1`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::Invalid;
use crate::annotations::METADATA;
use crate::invalid::Fault;
use crate::wire::mismatch;

/// What makes a `spec` an object's.
pub trait Kind {
    /// The object's kind: `IPPool`.
    const KIND: &'static str;
    /// The kind in URLs: `ippools`.
    const PLURAL: &'static str;
    /// Whether objects live in namespaces.
    type Scope: k8s_openapi::ResourceScope;
    /// What users may write instead of the plural.
    const SHORT_NAMES: &'static [&'static str] = &[];
    /// Whether objects live in namespaces, as a value.
    const IS_NAMESPACED: bool;

    /// Returns the schema of the spec (`OpenAPI` 3, structural).
    fn schema() -> Value;

    /// Returns the schema of the status, for kinds whose status is written apart.
    #[must_use]
    fn status_schema() -> Option<Value> {
        None
    }
}

/// Makes specs of wire types: `Spec: "Kind" "plural" cluster ["short"]`.
///
/// Fields in braces are required although reading works without them, and a
/// type after `status` is that of the status.
macro_rules! kind {
    (
        $spec:ident: $kind:literal $plural:literal $scope:ident
        $([$($short:literal),+])? $({$($required:literal),+})? $(status $status:ident)?
    ) => {
        impl $crate::Kind for $spec {
            const KIND: &'static str = $kind;
            const PLURAL: &'static str = $plural;
            type Scope = $crate::object::kind!(@scope $scope);
            const IS_NAMESPACED: bool = $crate::object::kind!(@is_namespaced $scope);
            $(const SHORT_NAMES: &'static [&'static str] = &[$($short),+];)?

            fn schema() -> ::serde_json::Value {
                let schema = <$spec as $crate::wire::Schema>::schema();
                $(let schema = $crate::wire::requiring(schema, &[$($required),+]);)?
                schema
            }

            $(fn status_schema() -> Option<::serde_json::Value> {
                Some(<$status as $crate::wire::Schema>::schema())
            })?
        }
    };
    (@scope cluster) => { ::k8s_openapi::ClusterResourceScope };
    (@scope namespaced) => { ::k8s_openapi::NamespaceResourceScope };
    (@is_namespaced cluster) => { false };
    (@is_namespaced namespaced) => { true };
}

pub(crate) use kind;

/// An object of ours, with all that this version does not know of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object<S> {
    /// Name, labels, resource version and the rest.
    pub metadata: ObjectMeta,
    /// What the object says.
    pub spec: S,
    /// Other top-level fields, such as `status`.
    pub unknown: Map<String, Value>,
}

/// The group of all these objects, with its version.
pub const API_VERSION: &str = "crd.projectcalico.org/v1";

impl<S: Kind> Object<S> {
    /// Makes an object with a name.
    #[must_use]
    pub fn named(name: impl Into<String>, spec: S) -> Self {
        let metadata = ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
        Self { metadata, spec, unknown: Map::new() }
    }

    /// Returns the name, empty for an object without one.
    #[must_use]
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Returns the error for a field of this object.
    #[expect(clippy::needless_pass_by_value, reason = "callers pass literals and values alike")]
    pub(crate) fn invalid(
        &self,
        field: &str,
        value: impl ToString,
        problem: impl ToString,
    ) -> Invalid {
        let (value, problem) = (value.to_string(), problem.to_string());
        Invalid { object: self.title(), field: field.to_owned(), value, problem }
    }

    /// Returns the error for a fault found somewhere in the spec.
    pub(crate) fn faulty(&self, fault: Fault) -> Invalid {
        fault.under("spec").of(self.title())
    }

    /// Returns the error for a fault found in an annotation.
    pub(crate) fn misannotated(&self, fault: Fault) -> Invalid {
        fault.under("metadata.annotations").of(self.title())
    }

    /// Returns an annotation's value; an empty one counts as absent.
    ///
    /// Calico's own programs keep what people annotate in JSON, in one annotation of its own.
    pub(crate) fn annotation(&self, name: &str) -> Option<String> {
        let all = self.metadata.annotations.as_ref()?;
        let nested = || {
            let json: Value = serde_json::from_str(all.get(METADATA)?).ok()?;
            json.get("annotations")?.get(name)?.as_str().map(str::to_owned)
        };
        all.get(name).cloned().or_else(nested).filter(|value| !value.is_empty())
    }

    /// Returns the labels as people see them.
    ///
    /// Calico's own programs keep those of people in JSON, in one annotation of its own; where both
    /// name a label, that one counts.
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.metadata.labels.clone().unwrap_or_default();
        let annotations = self.metadata.annotations.as_ref();
        let nested = annotations.and_then(|all| {
            let json: Value = serde_json::from_str(all.get(METADATA)?).ok()?;
            let nested = json.get("labels")?.as_object()?.clone();
            Some(
                nested
                    .into_iter()
                    .filter_map(|(key, value)| Some((key, value.as_str()?.to_owned()))),
            )
        });
        labels.extend(nested.into_iter().flatten());
        labels
    }

    /// Returns the kind and the name, as errors show them.
    fn title(&self) -> String {
        match &self.metadata.namespace {
            Some(namespace) => format!("{} {namespace}/{}", S::KIND, self.name()),
            None => format!("{} {}", S::KIND, self.name()),
        }
    }

    /// Reads an object from JSON that may be anything.
    ///
    /// # Errors
    ///
    /// [`Invalid`] if the JSON is of another kind, or a field is of another type.
    pub fn from_json(json: &Value) -> Result<Self, Invalid>
    where
        S: serde::de::DeserializeOwned + Default,
    {
        let text = |value: Option<&Value>| {
            value.and_then(Value::as_str).map(str::to_owned).unwrap_or_default()
        };
        let name = text(json.pointer("/metadata/name"));
        let object = match json.pointer("/metadata/namespace").and_then(Value::as_str) {
            Some(namespace) => format!("{} {namespace}/{name}", S::KIND),
            None => format!("{} {name}", S::KIND),
        };
        for (field, expected) in [("kind", S::KIND), ("apiVersion", API_VERSION)] {
            let found = text(json.get(field));
            if found != expected {
                let problem = format!("is not the one wanted here: use {expected}");
                return Err(Fault::new(field, found, problem).of(object));
            }
        }
        let spec = json.get("spec").and_then(|spec| mismatch(&S::schema(), spec));
        if let Some(fault) = spec {
            return Err(fault.under("spec").of(object));
        }
        Self::deserialize(json).map_err(|error| {
            let problem = format!("{error}: write what its schema in manifests/crds says");
            Fault::new("metadata", "", problem).of(object)
        })
    }
}

impl<S: Kind> k8s_openapi::Resource for Object<S> {
    const API_VERSION: &'static str = API_VERSION;
    const GROUP: &'static str = "crd.projectcalico.org";
    const KIND: &'static str = S::KIND;
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = S::PLURAL;
    type Scope = S::Scope;
}

impl<S: Kind> k8s_openapi::Metadata for Object<S> {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl<S: Kind + Serialize> Serialize for Object<S> {
    fn serialize<R: Serializer>(&self, serializer: R) -> Result<R::Ok, R::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Wire<'a, S> {
            api_version: &'static str,
            kind: &'static str,
            metadata: &'a ObjectMeta,
            spec: &'a S,
            #[serde(flatten)]
            unknown: &'a Map<String, Value>,
        }
        let Self { metadata, spec, unknown } = self;
        Wire { api_version: API_VERSION, kind: S::KIND, metadata, spec, unknown }
            .serialize(serializer)
    }
}

impl<'de, S: Deserialize<'de> + Default> Deserialize<'de> for Object<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(bound = "S: Deserialize<'de> + Default")]
        struct Wire<S> {
            #[serde(default, rename = "apiVersion")]
            _api_version: Option<String>,
            #[serde(default, rename = "kind")]
            _kind: Option<String>,
            #[serde(default)]
            metadata: ObjectMeta,
            #[serde(default)]
            spec: S,
            #[serde(flatten)]
            unknown: Map<String, Value>,
        }
        let Wire { metadata, spec, unknown, .. } = Wire::deserialize(deserializer)?;
        Ok(Self { metadata, spec, unknown })
    }
}
