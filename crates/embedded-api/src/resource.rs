//! What can be asked for: the kinds this server knows, built in or defined by custom resources.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::Object;
use crate::builtin::{self, Builtin};
use crate::crd::{CustomKind, Version};

/// The verbs of every kind that can be deleted as a collection.
pub const ALL_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// The verbs of namespaces, which nobody deletes all at once.
pub const NAMESPACE_VERBS: &[&str] =
    &["create", "delete", "get", "list", "patch", "update", "watch"];

/// One kind in one version, as discovery shows it.
#[derive(Clone, Debug)]
pub struct Resource {
    /// The API group; empty is the core group.
    pub group: Arc<str>,
    /// The version: `v1`.
    pub version: Arc<str>,
    /// The name in paths: `pods`.
    pub plural: Arc<str>,
    /// The name for one: `pod`.
    pub singular: Arc<str>,
    /// The kind: `Pod`.
    pub kind: Arc<str>,
    /// The kind of its lists: `PodList`.
    pub list_kind: Arc<str>,
    /// Abbreviations that kubectl takes: `po`.
    pub short_names: Vec<String>,
    /// Groups of kinds that kubectl takes: `all`.
    pub categories: Vec<String>,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
    /// The verbs of the kind itself.
    pub verbs: &'static [&'static str],
    /// What can be asked for below an object.
    pub subresources: Vec<Subresource>,
    /// What decides over the contents of its objects.
    pub body: Body,
}

/// A part of an object with a path of its own.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Subresource {
    /// The observed state.
    Status,
    /// The finalizers of a namespace's spec.
    Finalize,
    /// Tokens for a service account.
    Token,
}

/// What decides over the contents of a kind's objects.
#[derive(Clone, Debug)]
pub enum Body {
    /// Written by hand here.
    Builtin(&'static Builtin),
    /// What a definition says.
    Custom {
        /// The kind in all its versions.
        kind: Arc<CustomKind>,
        /// This version of it.
        version: Arc<Version>,
    },
}

/// Group, version and plural.
type Path = (Arc<str>, Arc<str>, Arc<str>);

/// Every kind that there is at one moment.
#[derive(Clone, Debug)]
pub struct Registry {
    resources: BTreeMap<Path, Arc<Resource>>,
}

impl Subresource {
    /// Returns the last part of its path.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Finalize => "finalize",
            Self::Token => "token",
        }
    }

    /// Returns the verbs that it takes.
    #[must_use]
    pub const fn verbs(self) -> &'static [&'static str] {
        match self {
            Self::Status => &["get", "patch", "update"],
            Self::Finalize => &["update"],
            Self::Token => &["create"],
        }
    }
}

impl Resource {
    /// Returns `apiVersion` of its objects: `v1`, `networking.k8s.io/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            return self.version.to_string();
        }
        format!("{}/{}", self.group, self.version)
    }

    /// Returns its name as messages and keys give it: `pods`, `networkpolicies.networking.k8s.io`.
    #[must_use]
    pub fn qualified(&self) -> String {
        qualify(&self.plural, &self.group)
    }

    /// Returns its kind as messages give it: `Pod`, `NetworkPolicy.networking.k8s.io`.
    #[must_use]
    pub fn qualified_kind(&self) -> String {
        qualify(&self.kind, &self.group)
    }

    /// Returns the subresource with a name, if this kind has it.
    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<Subresource> {
        self.subresources.iter().copied().find(|subresource| subresource.as_str() == name)
    }

    /// Returns whether the status is written apart from the rest.
    #[must_use]
    pub fn has_status(&self) -> bool {
        self.subresources.contains(&Subresource::Status)
    }

    /// Returns what a definition defines: a resource for each version that is served.
    ///
    /// There are none as long as its names are not accepted.
    #[must_use]
    pub fn of_definition(definition: &Object) -> Vec<Self> {
        if !is_established(definition) {
            return Vec::new();
        }
        // What is stored was found valid when it was written.
        let Ok(kind) = CustomKind::new(definition) else { return Vec::new() };
        let kind = Arc::new(kind);
        let served = kind.versions.iter().filter(|version| version.is_served);
        served.map(|version| Self::of_version(&kind, version)).collect()
    }

    fn of_version(kind: &Arc<CustomKind>, version: &Arc<Version>) -> Self {
        let subresources = if version.has_status { vec![Subresource::Status] } else { Vec::new() };
        Self {
            group: kind.group.as_str().into(),
            version: version.name.as_str().into(),
            plural: kind.plural.as_str().into(),
            singular: kind.singular.as_str().into(),
            kind: kind.kind.as_str().into(),
            list_kind: kind.list_kind.as_str().into(),
            short_names: kind.short_names.clone(),
            categories: kind.categories.clone(),
            namespaced: kind.is_namespaced,
            verbs: ALL_VERBS,
            subresources,
            body: Body::Custom { kind: Arc::clone(kind), version: Arc::clone(version) },
        }
    }

    fn of_builtin(kind: &'static Builtin) -> Self {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        Self {
            group: kind.group.into(),
            version: kind.version.into(),
            plural: kind.plural.into(),
            singular: kind.singular.into(),
            kind: kind.kind.into(),
            list_kind: format!("{}List", kind.kind).into(),
            short_names: words(kind.short_names),
            categories: words(kind.categories),
            namespaced: kind.namespaced,
            verbs: if kind.plural == "namespaces" { NAMESPACE_VERBS } else { ALL_VERBS },
            subresources: kind.subresources.to_vec(),
            body: Body::Builtin(kind),
        }
    }
}

fn is_established(definition: &Object) -> bool {
    let conditions = definition.body.get("status").and_then(|status| status.get("conditions"));
    let mut conditions = conditions.and_then(Value::as_array).into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Established" && condition["status"] == "True")
}

pub(crate) fn qualify(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

impl Registry {
    /// Returns the built-in kinds and the given others.
    #[must_use]
    pub fn new(custom: impl IntoIterator<Item = Resource>) -> Self {
        let builtin = builtin::KINDS.iter().map(Resource::of_builtin);
        // A custom resource cannot take the place of a built-in kind.
        let all: Vec<Resource> = custom.into_iter().chain(builtin).collect();
        let keyed = all.into_iter().map(|resource| {
            let Resource { group, version, plural, .. } = &resource;
            ((group.clone(), version.clone(), plural.clone()), Arc::new(resource))
        });
        Self { resources: keyed.collect() }
    }

    /// Returns the kind at a path.
    #[must_use]
    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources.get(&(group.into(), version.into(), plural.into()))
    }

    /// Returns every kind, by group, version and plural.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_built_in_kinds() {
        let registry = Registry::new([]);
        let found = |group, plural| {
            let resource = registry.get(group, "v1", plural).unwrap();
            (resource.api_version(), resource.qualified(), resource.list_kind.to_string())
        };
        assert_eq!(found("", "pods"), ("v1".into(), "pods".into(), "PodList".into()));
        let policies = "networkpolicies.networking.k8s.io".to_owned();
        assert_eq!(
            found("networking.k8s.io", "networkpolicies"),
            ("networking.k8s.io/v1".into(), policies, "NetworkPolicyList".into())
        );
        assert!(registry.get("", "v1", "gadgets").is_none());
    }

    #[test]
    fn namespaces_are_not_deleted_as_a_collection() {
        let registry = Registry::new([]);
        let without: Vec<_> = registry
            .iter()
            .filter(|resource| !resource.verbs.contains(&"deletecollection"))
            .map(|resource| resource.qualified())
            .collect();
        assert_eq!(without, ["namespaces"]);
    }
}
