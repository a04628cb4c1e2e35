//! `OpenAPI` v3: enough for kubectl to validate, apply, patch and explain.
//!
//! The schemas of the built-in kinds are those of kube-apiserver 1.34 (Apache-2.0).

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::resource::{Body, Registry, Resource};

/// Definitions by name: what the built-in kinds consist of.
const SCHEMAS: &str = include_str!("openapi/schemas.json");
const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const REFERENCE: &str = "#/components/schemas/";

/// Returns `/openapi/v3`: where the documents are.
pub(crate) fn index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for resource in registry.iter() {
        let (path, hash) = (path(resource), hash(registry, resource));
        let url = format!("/openapi/v3/{path}?hash={hash}");
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

/// Returns the document of a group and version.
pub(crate) fn document(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let all: Map<String, Value> = serde_json::from_str(SCHEMAS).unwrap_or_default();
    let (mut paths, mut wanted, mut schemas) = (Map::new(), BTreeSet::new(), Map::new());
    for resource in registry.iter() {
        if *resource.group != *group || *resource.version != *version {
            continue;
        }
        add_paths(&mut paths, resource);
        if let Body::Custom { version, .. } = &resource.body {
            wanted.insert(METADATA.to_owned());
            schemas.insert(custom_name(resource), custom_schema(resource, &version.raw_schema));
        } else {
            let kind = kind_of(resource);
            let named = all.iter().filter(|(_, schema)| {
                let kinds = schema.get("x-kubernetes-group-version-kind").and_then(Value::as_array);
                kinds.is_some_and(|kinds| kinds.contains(&kind))
            });
            wanted.extend(named.map(|(name, _)| name.clone()));
        }
    }
    if paths.is_empty() {
        return None;
    }
    while let Some(name) = wanted.pop_first() {
        let Some(schema) = all.get(&name).filter(|_| !schemas.contains_key(&name)) else {
            continue;
        };
        references(schema, &mut wanted);
        schemas.insert(name, schema.clone());
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.34.4"},
        "paths": paths,
        "components": {"schemas": schemas},
    }))
}

/// Returns `api/v1` or `apis/GROUP/VERSION`.
fn path(resource: &Resource) -> String {
    let Resource { group, version, .. } = resource;
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// Clients keep a document as long as its hash stays.
fn hash(registry: &Registry, of: &Resource) -> String {
    let mut hash = Sha256::new();
    hash.update(env!("CARGO_PKG_VERSION"));
    for resource in registry.iter() {
        if resource.group == of.group && resource.version == of.version {
            hash.update(resource.plural.as_bytes());
            if let Body::Custom { version, .. } = &resource.body {
                hash.update(version.raw_schema.to_string());
            }
        }
    }
    data_encoding::HEXUPPER.encode(&hash.finalize())
}

fn kind_of(resource: &Resource) -> Value {
    let Resource { group, version, kind, .. } = resource;
    json!({"group": **group, "version": **version, "kind": **kind})
}

fn add_paths(paths: &mut Map<String, Value>, resource: &Resource) {
    let namespace = if resource.namespaced { "namespaces/{namespace}/" } else { "" };
    let collection = format!("/{}/{namespace}{}", path(resource), resource.plural);
    let object = format!("{collection}/{{name}}");
    let operation = |action: &str| {
        let parameters = ["dryRun", "fieldManager", "fieldValidation"];
        let text = json!({"type": "string", "uniqueItems": true});
        let parameters =
            parameters.map(|name| json!({"name": name, "in": "query", "schema": text}));
        let is_write = matches!(action, "post" | "put" | "patch");
        let parameters = if is_write { parameters.to_vec() } else { Vec::new() };
        json!({
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": kind_of(resource),
            "parameters": parameters,
            "responses": {"200": {"description": "OK"}},
        })
    };
    let mut patch = operation("patch");
    if let Some(fields) = patch.as_object_mut() {
        fields.insert("requestBody".to_owned(), json!({"content": patches(resource)}));
    }
    paths.insert(collection, json!({"get": operation("list"), "post": operation("post")}));
    let operations = json!({
        "get": operation("get"),
        "put": operation("put"),
        "patch": patch,
        "delete": operation("delete"),
    });
    paths.insert(object, operations);
}

/// Returns the types of patches that a kind takes.
fn patches(resource: &Resource) -> Value {
    let any = || json!({"schema": {"type": "object"}});
    let mut patches = json!({
        "application/json-patch+json": any(),
        "application/merge-patch+json": any(),
    });
    if let (Body::Builtin(_), Some(patches)) = (&resource.body, patches.as_object_mut()) {
        patches.insert("application/strategic-merge-patch+json".to_owned(), any());
    }
    patches
}

/// Returns the group backwards, as Kubernetes names definitions: `org.projectcalico.crd.v1.IPPool`.
fn custom_name(resource: &Resource) -> String {
    let mut parts: Vec<&str> = resource.group.split('.').collect();
    parts.reverse();
    format!("{}.{}.{}", parts.join("."), resource.version, resource.kind)
}

fn custom_schema(resource: &Resource, raw: &Value) -> Value {
    let mut schema = raw.clone();
    let Some(fields) = schema.as_object_mut() else { return json!({"type": "object"}) };
    fields.insert("type".to_owned(), json!("object"));
    let kinds = json!([kind_of(resource)]);
    fields.insert("x-kubernetes-group-version-kind".to_owned(), kinds);
    let properties = fields.entry("properties").or_insert_with(|| json!({}));
    if let Some(properties) = properties.as_object_mut() {
        let about = "The version of the schema that the object is written in.";
        properties.insert("apiVersion".to_owned(), json!({"type": "string", "description": about}));
        let about = "The kind of the object.";
        properties.insert("kind".to_owned(), json!({"type": "string", "description": about}));
        let reference = format!("{REFERENCE}{METADATA}");
        let about = "Name, namespace, labels and what else every object has.";
        let metadata = json!({"description": about, "allOf": [{"$ref": reference}]});
        properties.insert("metadata".to_owned(), metadata);
    }
    schema
}

/// Collects the names of the definitions that a schema mentions.
fn references(schema: &Value, into: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            let reference = fields.get("$ref").and_then(Value::as_str);
            into.extend(reference.and_then(|it| it.strip_prefix(REFERENCE)).map(str::to_owned));
            fields.values().for_each(|value| references(value, into));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn describes_every_built_in_kind_completely() {
        let registry = Registry::new([]);
        for resource in registry.iter() {
            let document = document(&registry, &resource.group, &resource.version).unwrap();
            let schemas = document["components"]["schemas"].as_object().unwrap();
            let kind = kind_of(resource);
            let is_there = schemas.values().any(|schema| {
                schema["x-kubernetes-group-version-kind"]
                    .as_array()
                    .is_some_and(|it| it.contains(&kind))
            });
            assert!(is_there, "{kind}");
            let mut wanted = BTreeSet::new();
            references(&document, &mut wanted);
            for name in wanted {
                assert!(schemas.contains_key(&name), "{name}");
            }
        }
        assert!(document(&registry, "none", "v1").is_none());
    }

    #[test]
    fn offers_field_validation_for_every_kind() {
        let document = document(&Registry::new([]), "", "v1").unwrap();
        let pods = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
        let names: Vec<&Value> =
            pods["parameters"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
        assert!(names.contains(&&json!("fieldValidation")));
        assert_eq!(pods["x-kubernetes-group-version-kind"]["kind"], "Pod");
    }
}
