//! What ADD and DEL read of the datastore, and what they write of the pod.

use api::ClusterInformation;
use datastore::Client;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Of what something is to be known.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Subject {
    /// A pod: its namespace and its name.
    pub pod: Option<(String, String)>,
    /// A namespace.
    pub namespace: Option<String>,
    /// A node.
    pub node: Option<String>,
    /// Will addresses be assigned next? What these depend on is read meanwhile.
    #[serde(default)]
    pub gets_addrs: bool,
}

/// What one round of reading finds out.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Facts {
    /// The cluster's own object.
    pub cluster: Option<ClusterInformation>,
    /// The pod.
    pub pod: Option<Pod>,
    /// Its namespace.
    pub namespace: Option<Namespace>,
    /// This node, if it was asked for.
    pub node: Option<Node>,
}

/// Reads `ClusterInformation` and what is named, all at once.
///
/// # Errors
///
/// What the datastore fails with.
pub async fn read(client: &Client, subject: &Subject) -> Result<Facts, datastore::Error> {
    let cluster = client.get::<ClusterInformation>("default");
    let pod = async {
        match &subject.pod {
            Some((namespace, name)) => client.get_in::<Pod>(namespace, name).await,
            None => Ok(None),
        }
    };
    let namespace = async {
        match &subject.namespace {
            Some(namespace) => client.get::<Namespace>(namespace).await,
            None => Ok(None),
        }
    };
    let node = async {
        match &subject.node {
            Some(node) => client.get::<Node>(node).await,
            None => Ok(None),
        }
    };
    // Boxed, because requests are large and callers hold several.
    let read = Box::pin(async { tokio::try_join!(cluster, pod, namespace, node) });
    let (cluster, pod, namespace, node) = read.await?;
    Ok(Facts { cluster, pod, namespace, node })
}

/// Is the patch one of annotations that plugins write, and of nothing else?
#[must_use]
pub fn is_ours(patch: &Value) -> bool {
    const OURS: [&str; 4] = [
        api::annotations::POD_IP,
        api::annotations::POD_IPS,
        api::annotations::CONTAINER_ID,
        api::annotations::VRF_NAME,
    ];
    let has_only = |value: &Value, allowed: &[&str]| {
        let object = value.as_object();
        object.is_some_and(|object| object.keys().all(|key| allowed.contains(&key.as_str())))
    };
    let Some(metadata) = patch.get("metadata") else { return false };
    has_only(patch, &["metadata"])
        && has_only(metadata, &["uid", "resourceVersion", "annotations"])
        && metadata.get("annotations").is_some_and(|annotations| has_only(annotations, &OURS))
}

/// Merges a patch into the status of a pod, which is where kubelets and plugins write.
///
/// # Errors
///
/// What the datastore fails with.
pub async fn annotate(
    client: &Client,
    (namespace, name): (&str, &str),
    patch: &Value,
) -> Result<(), datastore::Error> {
    client.patch_status::<Pod>(Some(namespace), name, patch).await.map(drop)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn only_what_plugins_write_is_written() {
        let annotations = json!({"cni.projectcalico.org/podIP": "10.0.0.1/32"});
        for (patch, is_ours) in [
            (json!({"metadata": {"uid": "u", "annotations": annotations}}), true),
            (json!({"metadata": {"resourceVersion": "1", "annotations": {}}}), true),
            (json!({"metadata": {"annotations": {"other": "x"}}}), false),
            (json!({"metadata": {"labels": {"a": "b"}, "annotations": annotations}}), false),
            (json!({"metadata": {"annotations": annotations}, "status": {}}), false),
            (json!({"metadata": {"uid": "u"}}), false),
            (json!({}), false),
            (json!([1]), false),
        ] {
            assert_eq!(super::is_ours(&patch), is_ours, "{patch}");
        }
    }
}
