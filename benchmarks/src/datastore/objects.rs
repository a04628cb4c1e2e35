//! The objects that are written.

use http::Method;
use lab::rest::Request;
use serde_json::json;

/// Where configuration maps are.
pub(super) const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// Where pods are.
pub(super) const PODS: &str = "/api/v1/namespaces/default/pods";

/// Returns the creation of a small configuration map.
pub(super) fn map(name: &str) -> Request {
    let data = json!({"key": "a value of about the length that such values have"});
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data,
    });
    Request::json(Method::POST, MAPS, &object)
}

/// Returns the creation of a pod on a node.
pub(super) fn pod(name: &str) -> Request {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "bench", "tier": "none"}},
        "spec": {
            "nodeName": "node-1",
            "containers": [{"name": "one", "image": "registry.example/one:1"}],
        },
    });
    Request::json(Method::POST, PODS, &object)
}
