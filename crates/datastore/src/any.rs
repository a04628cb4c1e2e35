//! Objects of any kind, as JSON: for tools that move objects without knowing their types.

use http::header::CONTENT_TYPE;
use http::{Method, Request};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use serde_json::{Map, Value, json};

use crate::client::Client;
use crate::error::{Error, Target};
use crate::request::{self, Effect};

/// Where the objects of one kind are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// `/api/v1` or `/apis/GROUP/VERSION`.
    pub root: String,
    /// The name in paths: `pods`.
    pub plural: String,
    /// Whether objects are in namespaces.
    pub namespaced: bool,
    /// Whether the status is written apart.
    pub has_status: bool,
}

impl Client {
    /// Finds out where the objects of a kind are; `None` if the server does not know it.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn find_kind(&self, api_version: &str, kind: &str) -> Result<Option<Place>, Error> {
        let prefix = if api_version.contains('/') { "/apis" } else { "/api" };
        let root = format!("{prefix}/{api_version}");
        let target = self.any("get", format!("the kinds of {api_version}"));
        let list = match self.send(&target, (Method::GET, &root), None).await {
            Err(Error::NotFound { .. } | Error::UnknownKind { .. }) => return Ok(None),
            other => other?,
        };
        let list: APIResourceList = serde_json::from_value(list).map_err(|error| {
            let problem = error.to_string();
            Error::Invalid { target: Box::new(target), problem }
        })?;
        let named = |name: &str| list.resources.iter().any(|it| it.name == name);
        let found = list.resources.iter().find(|it| it.kind == kind && !it.name.contains('/'));
        Ok(found.map(|found| Place {
            has_status: named(&format!("{}/status", found.name)),
            plural: found.name.clone(),
            namespaced: found.namespaced,
            root,
        }))
    }

    /// Creates an object of any kind.
    ///
    /// # Errors
    ///
    /// As [`Client::create`].
    pub async fn create_any(&self, place: &Place, object: &Value) -> Result<Value, Error> {
        let target = self.any("create", named(object));
        self.send(&target, (Method::POST, &place.collection(object)), Some(object)).await
    }

    /// Reads the object of the same name.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn get_any(&self, place: &Place, object: &Value) -> Result<Value, Error> {
        let target = self.any("get", named(object));
        self.send(&target, (Method::GET, &place.object(object)), None).await
    }

    /// Replaces an object of any kind; its `metadata.resourceVersion` must be that of the server.
    ///
    /// # Errors
    ///
    /// As [`Client::update`].
    pub async fn update_any(&self, place: &Place, object: &Value) -> Result<Value, Error> {
        let target = self.any("update", named(object));
        self.send(&target, (Method::PUT, &place.object(object)), Some(object)).await
    }

    /// Reads all objects of a kind, or those of one namespace, page by page.
    ///
    /// # Errors
    ///
    /// As [`Client::list`].
    pub async fn list_any(
        &self,
        place: &Place,
        namespace: Option<&str>,
    ) -> Result<Vec<Value>, Error> {
        let target = self.any("list", place.plural.clone());
        let Place { root, plural, .. } = place;
        let path = match namespace {
            Some(namespace) => format!("{root}/namespaces/{}/{plural}", segment(namespace)),
            None => format!("{root}/{plural}"),
        };
        let mut objects = Vec::new();
        let mut page = String::new();
        loop {
            let path = format!("{path}?limit=500{page}");
            let list = self.send(&target, (Method::GET, &path), None).await?;
            let items = list.get("items").and_then(Value::as_array);
            objects.extend(items.into_iter().flatten().cloned());
            match text(&list, "/metadata/continue").filter(|token| !token.is_empty()) {
                Some(token) => page = format!("&continue={}", segment(token)),
                None => return Ok(objects),
            }
        }
    }

    /// Deletes the object of the same name, if it is still the version that `object` says, if any.
    ///
    /// # Errors
    ///
    /// As [`Client::delete`].
    pub async fn delete_any(&self, place: &Place, object: &Value) -> Result<(), Error> {
        let target = self.any("delete", named(object));
        let conditions: Map<String, Value> = ["resourceVersion", "uid"]
            .into_iter()
            .filter_map(|key| {
                Some((key.to_owned(), object.pointer(&format!("/metadata/{key}"))?.clone()))
            })
            .collect();
        let options =
            json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": conditions});
        self.send(&target, (Method::DELETE, &place.object(object)), Some(&options)).await.map(drop)
    }

    /// Writes the status of an object of any kind, where that is written apart.
    ///
    /// # Errors
    ///
    /// As [`Client::patch_status`].
    pub async fn status_any(&self, place: &Place, object: &Value) -> Result<Value, Error> {
        let target = self.any("patch the status of", named(object));
        let path = format!("{}/status", place.object(object));
        let status = json!({"status": object.get("status")});
        self.send(&target, (Method::PATCH, &path), Some(&status)).await
    }

    fn any(&self, verb: &'static str, object: String) -> Target {
        Target { verb, kind: "object", object, server: self.server() }
    }

    pub(crate) async fn send(
        &self,
        target: &Target,
        (method, path): (Method, &str),
        body: Option<&Value>,
    ) -> Result<Value, Error> {
        let effect = if method == Method::GET { Effect::Read } else { Effect::Write };
        let is_patch = method == Method::PATCH;
        let kind = if is_patch { "application/merge-patch+json" } else { "application/json" };
        let body = body.map(ToString::to_string).unwrap_or_default().into_bytes();
        let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, kind);
        let request = request.body(body).map_err(kube::core::request::Error::BuildRequest);
        let answer = request::answer(&self.transport(), target, request, effect).await?;
        serde_json::from_slice(&answer).map_err(|error| {
            let problem = error.to_string();
            Error::Invalid { target: Box::new(target.clone()), problem }
        })
    }
}

impl Place {
    fn collection(&self, object: &Value) -> String {
        let Self { root, plural, namespaced, .. } = self;
        let namespace = segment(text(object, "/metadata/namespace").unwrap_or("default"));
        if *namespaced {
            format!("{root}/namespaces/{namespace}/{plural}")
        } else {
            format!("{root}/{plural}")
        }
    }

    fn object(&self, object: &Value) -> String {
        let name = segment(text(object, "/metadata/name").unwrap_or_default());
        format!("{}/{name}", self.collection(object))
    }
}

fn text<'a>(object: &'a Value, path: &str) -> Option<&'a str> {
    object.pointer(path).and_then(Value::as_str)
}

/// Names an object for people: `Pod default/web`.
fn named(object: &Value) -> String {
    let kind = text(object, "/kind").unwrap_or_default();
    let name = text(object, "/metadata/name").unwrap_or_default();
    match text(object, "/metadata/namespace") {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

/// A name cannot lead out of its segment of the path, whatever it contains (RFC 3986 §3.3).
pub(crate) fn segment(name: &str) -> String {
    let dots = matches!(name, "." | "..");
    let escape = |byte: u8| match byte {
        b'.' if !dots => ".".to_owned(),
        b'-' | b'_' | b':' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    name.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_segment() {
        let place = Place {
            root: "/api/v1".to_owned(),
            plural: "pods".to_owned(),
            namespaced: true,
            has_status: true,
        };
        let path = |namespace: &str, name: &str| {
            place.object(&json!({"metadata": {"name": name, "namespace": namespace}}))
        };
        assert_eq!(path("a", "b.c-d"), "/api/v1/namespaces/a/pods/b.c-d");
        assert_eq!(path("a", "../x?y"), "/api/v1/namespaces/a/pods/..%2Fx%3Fy");
        assert_eq!(path("..", "x"), "/api/v1/namespaces/%2E%2E/pods/x");
    }
}
