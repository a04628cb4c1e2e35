//! What there is to ask for: the documents of `/api`, `/apis` and below, and aggregated discovery.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use sha2::Digest as _;

use crate::resource::{Body, Registry, Resource, Subresource};

/// The kinds of a group, by version.
type Versions<'a> = BTreeMap<&'a str, Vec<&'a Arc<Resource>>>;

/// Returns `/api`.
pub(crate) fn core_versions(address: &str) -> Value {
    let server = json!({"clientCIDR": "0.0.0.0/0", "serverAddress": address});
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [server]})
}

/// Returns `/apis`.
pub(crate) fn groups(registry: &Registry) -> Value {
    let groups = by_group(registry);
    let named = known_first(&groups).filter(|(name, _)| !name.is_empty());
    let groups: Vec<Value> = named.map(|(name, versions)| group_body(name, versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// Returns `/apis/GROUP`.
pub(crate) fn group(registry: &Registry, name: &str) -> Option<Value> {
    let groups = by_group(registry);
    let mut body = group_body(name, groups.get(name).filter(|_| !name.is_empty())?);
    let fields = body.as_object_mut()?;
    fields.insert("kind".to_owned(), json!("APIGroup"));
    fields.insert("apiVersion".to_owned(), json!("v1"));
    Some(body)
}

/// Returns `/api/v1` or `/apis/GROUP/VERSION`.
pub(crate) fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let groups = by_group(registry);
    let kinds = groups.get(group)?.get(version)?;
    let resources: Vec<Value> = kinds
        .iter()
        .flat_map(|resource| {
            let subresources = resource.subresources.iter();
            let below = subresources.map(|subresource| subresource_body(resource, *subresource));
            std::iter::once(resource_body(resource)).chain(below).collect::<Vec<_>>()
        })
        .collect();
    let name = group_version(group, version);
    let mut body = json!({"kind": "APIResourceList", "groupVersion": name, "resources": resources});
    if !group.is_empty() {
        body.as_object_mut()?.insert("apiVersion".to_owned(), json!("v1"));
    }
    Some(body)
}

/// Returns aggregated discovery: of the core group at `/api`, of all others at `/apis`.
pub(crate) fn aggregated(registry: &Registry, is_wanted: fn(&str) -> bool) -> Value {
    let groups = by_group(registry);
    let wanted = known_first(&groups).filter(|(name, _)| is_wanted(name));
    let items: Vec<Value> = wanted
        .map(|(name, versions)| {
            let versions: Vec<Value> = preferred_first(versions)
                .map(|version| aggregated_version(version, versions))
                .collect();
            let metadata = if name.is_empty() { json!({}) } else { json!({"name": name}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    })
}

/// Returns `/`.
pub(crate) fn index(registry: &Registry) -> Value {
    let mut paths: Vec<String> = ["/api", "/api/v1", "/apis"].map(str::to_owned).to_vec();
    for (name, versions) in by_group(registry).iter().filter(|(name, _)| !name.is_empty()) {
        paths.push(format!("/apis/{name}"));
        paths.extend(versions.keys().map(|version| format!("/apis/{name}/{version}")));
    }
    let rest = ["/healthz", "/livez", "/openapi/v3", "/readyz", "/version"];
    paths.extend(rest.map(str::to_owned));
    json!({"paths": paths})
}

fn by_group(registry: &Registry) -> BTreeMap<&str, Versions<'_>> {
    let mut groups: BTreeMap<&str, Versions<'_>> = BTreeMap::new();
    for resource in registry.iter() {
        let versions = groups.entry(&*resource.group).or_default();
        versions.entry(&*resource.version).or_default().push(resource);
    }
    groups
}

/// Built-in groups come first: kubectl takes a kind of several groups from the first.
fn known_first<'a>(
    groups: &'a BTreeMap<&'a str, Versions<'a>>,
) -> impl Iterator<Item = (&'a str, &'a Versions<'a>)> {
    let is_custom = |versions: &Versions<'_>| {
        versions.values().flatten().any(|it| matches!(it.body, Body::Custom { .. }))
    };
    let mut all: Vec<_> = groups.iter().map(|(name, versions)| (*name, versions)).collect();
    all.sort_by_key(|(_, versions)| is_custom(versions));
    all.into_iter()
}

/// Custom resources name their verbs in another order.
fn verbs(resource: &Resource) -> Vec<&'static str> {
    let mut verbs = resource.verbs.to_vec();
    if matches!(resource.body, Body::Custom { .. }) {
        let order = ["delete", "deletecollection", "get", "list", "patch", "create", "update"];
        verbs.sort_by_key(|verb| order.iter().position(|it| it == verb).unwrap_or(order.len()));
    }
    verbs
}

/// Returns what tells clients in which form a kind is stored, as Kubernetes reckons it.
fn storage_hash(resource: &Resource) -> String {
    let Resource { group, version, kind, .. } = resource;
    let digest = sha2::Sha256::digest(format!("{group}/{version}/{kind}"));
    let (first, _) = digest.split_at_checked(8).unwrap_or((&digest, &[]));
    data_encoding::BASE64.encode(first)
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn group_body(name: &str, versions: &Versions<'_>) -> Value {
    let versions: Vec<Value> = preferred_first(versions)
        .map(|version| json!({"groupVersion": group_version(name, version), "version": version}))
        .collect();
    let preferred = versions.first().cloned().unwrap_or_default();
    json!({"name": name, "versions": versions, "preferredVersion": preferred})
}

/// Orders as Kubernetes does: `v2`, `v1`, `v1beta1`, `v1alpha1`, then other names.
fn preferred_first<'a>(versions: &Versions<'a>) -> impl Iterator<Item = &'a str> {
    let mut names: Vec<&str> = versions.keys().copied().collect();
    names.sort_by_key(|name| Reverse(priority(name)));
    names.into_iter()
}

/// Returns what makes a version preferred: its stage, then its numbers.
fn priority(version: &str) -> (u8, u32, u32) {
    let parsed = version.strip_prefix('v').and_then(|rest| {
        let end = rest.find(|char: char| !char.is_ascii_digit()).unwrap_or(rest.len());
        let (major, stage) = rest.split_at_checked(end)?;
        let major = major.parse().ok()?;
        if stage.is_empty() {
            return Some((3, major, 0));
        }
        let numbered = |rank, stage: &str| stage.parse().ok().map(|minor| (rank, major, minor));
        let beta = stage.strip_prefix("beta").and_then(|minor| numbered(2, minor));
        beta.or_else(|| numbered(1, stage.strip_prefix("alpha")?))
    });
    parsed.unwrap_or_default()
}

fn resource_body(resource: &Resource) -> Value {
    let mut body = Map::from_iter([
        ("name".to_owned(), json!(&*resource.plural)),
        ("singularName".to_owned(), json!(&*resource.singular)),
        ("namespaced".to_owned(), json!(resource.namespaced)),
        ("kind".to_owned(), json!(&*resource.kind)),
        ("verbs".to_owned(), json!(verbs(resource))),
        ("storageVersionHash".to_owned(), json!(storage_hash(resource))),
    ]);
    for (key, names) in
        [("shortNames", &resource.short_names), ("categories", &resource.categories)]
    {
        if !names.is_empty() {
            body.insert(key.to_owned(), json!(names));
        }
    }
    Value::Object(body)
}

fn subresource_body(resource: &Resource, subresource: Subresource) -> Value {
    let mut body = json!({
        "name": format!("{}/{}", resource.plural, subresource.as_str()),
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": &*resource.kind,
        "verbs": subresource.verbs(),
    });
    if let (Subresource::Token, Some(fields)) = (subresource, body.as_object_mut()) {
        fields.insert("group".to_owned(), json!("authentication.k8s.io"));
        fields.insert("version".to_owned(), json!("v1"));
        fields.insert("kind".to_owned(), json!("TokenRequest"));
    }
    body
}

fn aggregated_version(version: &str, versions: &Versions<'_>) -> Value {
    let kinds = versions.get(version).into_iter().flatten();
    let resources: Vec<Value> = kinds.map(|resource| aggregated_resource(resource)).collect();
    json!({"version": version, "resources": resources, "freshness": "Current"})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let kind_of = |subresource: Subresource| match subresource {
        Subresource::Token => {
            json!({"group": "authentication.k8s.io", "version": "v1", "kind": "TokenRequest"})
        }
        Subresource::Status | Subresource::Finalize => response_kind(resource),
    };
    let below = resource.subresources.iter().map(|subresource| {
        json!({
            "subresource": subresource.as_str(),
            "responseKind": kind_of(*subresource),
            "verbs": subresource.verbs(),
        })
    });
    let below: Vec<Value> = below.collect();
    let mut body = json!({
        "resource": &*resource.plural,
        "responseKind": response_kind(resource),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": &*resource.singular,
        "verbs": verbs(resource),
    });
    if let Some(fields) = body.as_object_mut() {
        let Resource { short_names, categories, .. } = resource;
        for (key, names) in [("shortNames", short_names), ("categories", categories)] {
            if !names.is_empty() {
                fields.insert(key.to_owned(), json!(names));
            }
        }
        if !below.is_empty() {
            fields.insert("subresources".to_owned(), json!(below));
        }
    }
    body
}

/// The group and version of a built-in kind are those of the document, and left out.
fn response_kind(resource: &Resource) -> Value {
    match &resource.body {
        Body::Builtin(_) => {
            json!({"group": "", "version": "", "kind": &*resource.kind})
        }
        Body::Custom { .. } => {
            json!({"group": &*resource.group, "version": &*resource.version, "kind": &*resource.kind})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_groups_with_their_preferred_version() {
        let registry = Registry::new([]);
        let body = group(&registry, "networking.k8s.io").unwrap();
        let version = json!({"groupVersion": "networking.k8s.io/v1", "version": "v1"});
        assert_eq!(
            body,
            json!({"kind": "APIGroup", "apiVersion": "v1", "name": "networking.k8s.io",
                "versions": [version], "preferredVersion": version})
        );
        assert!(group(&registry, "").is_none() && group(&registry, "none").is_none());
        let groups = groups(&registry);
        assert!(groups["groups"].as_array().unwrap().iter().all(|group| group["name"] != ""));
    }

    #[test]
    fn describes_resources_as_a_real_server() {
        let body = resources(&Registry::new([]), "", "v1").unwrap();
        let all = body["resources"].as_array().unwrap();
        let find = |name: &str| all.iter().find(|it| it["name"] == name).unwrap();
        assert_eq!(
            find("pods"),
            &json!({"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod",
                "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
                "shortNames": ["po"], "storageVersionHash": "xPOwRZ+Yhw8=", "categories": ["all"]})
        );
        assert_eq!(
            find("serviceaccounts/token"),
            &json!({"name": "serviceaccounts/token", "singularName": "", "namespaced": true,
                "group": "authentication.k8s.io", "version": "v1", "kind": "TokenRequest", "verbs": ["create"]})
        );
        assert!(body.get("apiVersion").is_none(), "the core group's list has none");
    }

    #[test]
    fn prefers_stable_versions() {
        let mut names = ["v1alpha1", "v2", "v1beta2", "foo", "v10", "v1beta1", "v1"];
        names.sort_by_key(|name| Reverse(priority(name)));
        assert_eq!(names, ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "foo"]);
    }

    #[test]
    fn aggregates_the_core_group_apart() {
        let registry = Registry::new([]);
        let core = aggregated(&registry, str::is_empty);
        assert_eq!(core["items"].as_array().unwrap().len(), 1);
        let others = aggregated(&registry, |name| !name.is_empty());
        assert!(others["items"].as_array().unwrap().len() > 5);
    }
}
