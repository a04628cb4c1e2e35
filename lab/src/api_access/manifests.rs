//! Applying manifests: what `kubectl apply` is used for, without kubectl.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use http::Method;
use serde_json::Value;

use super::Api;
use crate::Error;
use crate::cluster::eventually;
use crate::rest::Request;

/// How long the server may take to make a namespace or to serve a new kind, on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);

/// Where the objects of one kind are.
#[derive(Clone, Debug)]
struct Place {
    /// `/api/v1` or `/apis/GROUP/VERSION`.
    root: String,
    /// The last part of the path.
    plural: String,
    is_namespaced: bool,
}

/// The kinds that the server has, by API version; asked for once per version.
type Discovered = BTreeMap<String, Vec<Value>>;

impl Api {
    /// Creates the objects of a YAML text, or merges it into those that are there already.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] with the first object that is refused.
    pub fn apply(&self, manifests: &str) -> Result<(), Error> {
        let mut discovered = Discovered::new();
        let objects: Vec<Value> = serde_saphyr::from_multiple(manifests).map_err(Error::wrong)?;
        objects.iter().try_for_each(|object| self.apply_one(object, &mut discovered))
    }

    /// Creates one object, and returns it as the server keeps it.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] with what the server says.
    pub fn create_any(&self, object: &Value) -> Result<Value, Error> {
        let path = self.collection(object)?;
        self.send(Request::json(Method::POST, path, object))?.success()
    }

    /// Merges a patch into an object, of which no more than its names need be there.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] with what the server says.
    pub fn patch_any(&self, object: &Value, change: &Value) -> Result<Value, Error> {
        let path = format!("{}/{}", self.collection(object)?, text(object, "/metadata/name")?);
        self.send(Request::merge(path, change))?.success()
    }

    /// Deletes an object of any kind, which may be gone already.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] with what the server says.
    pub fn delete_any(&self, object: &Value) -> Result<(), Error> {
        let path = format!("{}/{}", self.collection(object)?, text(object, "/metadata/name")?);
        let request = Request { method: Method::DELETE, ..Request::get(path) };
        let answer = self.send(request)?;
        if answer.status == 404 { Ok(()) } else { answer.success().map(drop) }
    }

    /// Returns the path of the collection that an object is in.
    fn collection(&self, object: &Value) -> Result<String, Error> {
        let place = self.place(object, &mut Discovered::new())?;
        let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str);
        Ok(place.collection(namespace.unwrap_or("default")))
    }

    /// Applies a file, or all files of a directory in the order of their names.
    ///
    /// # Errors
    ///
    /// As [`Api::apply`], and [`Error::File`].
    pub fn apply_file(&self, path: &Path) -> Result<(), Error> {
        if !path.is_dir() {
            return self.apply(&std::fs::read_to_string(path).map_err(Error::file(path))?);
        }
        let entries = std::fs::read_dir(path).map_err(Error::file(path))?;
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        paths.iter().try_for_each(|path| self.apply_file(path))
    }

    /// Waits until every kind that was defined is served.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] with those that are not.
    pub fn wait_established(&self) -> Result<(), Error> {
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        eventually("every CustomResourceDefinition to be established", WITHIN, || {
            let list = self.send(Request::get(path))?.success()?;
            let items = list.get("items").and_then(Value::as_array).into_iter().flatten();
            let waiting: Vec<&Value> = items
                .filter(|item| !is_established(item))
                .filter_map(|item| item.pointer("/metadata/name"))
                .collect();
            if waiting.is_empty() { Ok(()) } else { Err(Error::wrong(format!("{waiting:?}"))) }
        })
    }

    /// Waits until a namespace is there: Kubernetes makes its own a moment after it is ready.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`].
    pub fn wait_namespace(&self, name: &str) -> Result<(), Error> {
        let path = format!("/api/v1/namespaces/{name}");
        eventually(&format!("namespace {name}"), WITHIN, || {
            self.send(Request::get(&path))?.success().map(drop)
        })
    }

    fn apply_one(&self, object: &Value, discovered: &mut Discovered) -> Result<(), Error> {
        let name = text(object, "/metadata/name")?;
        let place = self.place(object, discovered)?;
        let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str);
        let collection = place.collection(namespace.unwrap_or("default"));
        let created = self.send(Request::json(Method::POST, &collection, object))?;
        if created.status == 409 {
            let path = format!("{collection}/{name}");
            return self.send(Request::merge(path, object))?.success().map(drop);
        }
        created.success().map(drop)
    }

    /// Returns where the objects of an object's kind are.
    fn place(&self, object: &Value, discovered: &mut Discovered) -> Result<Place, Error> {
        let (version, kind) = (text(object, "/apiVersion")?, text(object, "/kind")?);
        let root = if version.contains('/') {
            format!("/apis/{version}")
        } else {
            format!("/api/{version}")
        };
        if !discovered.contains_key(version) {
            let list = self.send(Request::get(&root))?.success()?;
            let resources = list.get("resources").and_then(Value::as_array).cloned();
            discovered.insert(version.to_owned(), resources.unwrap_or_default());
        }
        let resources = discovered.get(version).into_iter().flatten();
        find(resources, root, kind)
            .ok_or_else(|| Error::wrong(format!("the server has no {kind} in {version}")))
    }
}

impl Place {
    fn collection(&self, namespace: &str) -> String {
        let Self { root, plural, .. } = self;
        if self.is_namespaced {
            format!("{root}/namespaces/{namespace}/{plural}")
        } else {
            format!("{root}/{plural}")
        }
    }
}

/// Returns the place of a kind; names with a slash are subresources.
fn find<'a>(
    mut resources: impl Iterator<Item = &'a Value>,
    root: String,
    kind: &str,
) -> Option<Place> {
    let field = |resource: &'a Value, name: &str| resource.get(name).and_then(Value::as_str);
    let found = resources.find(|resource| {
        field(resource, "kind") == Some(kind)
            && field(resource, "name").is_some_and(|name| !name.contains('/'))
    })?;
    let is_namespaced = found.get("namespaced").and_then(Value::as_bool).unwrap_or_default();
    Some(Place { root, plural: field(found, "name")?.to_owned(), is_namespaced })
}

fn text<'a>(object: &'a Value, pointer: &str) -> Result<&'a str, Error> {
    let text = object.pointer(pointer).and_then(Value::as_str);
    text.ok_or_else(|| Error::wrong(format!("an object without {pointer}: {object}")))
}

fn is_established(definition: &Value) -> bool {
    let conditions = definition.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| {
        condition.get("type").is_some_and(|kind| kind == "Established")
            && condition.get("status").is_some_and(|status| status == "True")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn finds_where_a_kind_is_kept() {
        let resources = [
            json!({"name": "pods/status", "kind": "Pod", "namespaced": true}),
            json!({"name": "pods", "kind": "Pod", "namespaced": true}),
            json!({"name": "nodes", "kind": "Node", "namespaced": false}),
        ];
        let path = |kind: &str| {
            let place = find(resources.iter(), "/api/v1".to_owned(), kind)?;
            Some(place.collection("lab"))
        };
        assert_eq!(path("Pod").as_deref(), Some("/api/v1/namespaces/lab/pods"));
        assert_eq!(path("Node").as_deref(), Some("/api/v1/nodes"));
        assert_eq!(path("Other"), None);
    }

    #[test]
    fn a_definition_without_conditions_is_not_served_yet() {
        let with = |conditions: Value| json!({"status": {"conditions": conditions}});
        assert!(!is_established(&json!({})));
        assert!(!is_established(&with(json!([{"type": "Established", "status": "False"}]))));
        assert!(is_established(&with(json!([{"type": "Established", "status": "True"}]))));
    }
}
