//! Kinds that are other views of Kubernetes' objects: nodes, workload endpoints and profiles; the
//! latter two with those of Docker's containers, which are objects of their own.

use api::kubernetes;
use api::v3::Resource;
use datastore::{Client, Error as StoreError, Filter};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use serde_json::{Value, json};

use crate::Error;

/// A pod as a place where policy is.
const WORKLOAD: &str = "WorkloadEndpoint";
const NODE: &str = "Node";
const PROFILE: &str = "Profile";

/// Returns the kind that people mean by a word, if it is one of these.
pub(super) fn kind(word: &str) -> Option<&'static str> {
    match word.to_lowercase().as_str() {
        "node" | "nodes" | "no" => Some(NODE),
        "workloadendpoint" | "workloadendpoints" | "wep" | "weps" => Some(WORKLOAD),
        "profile" | "profiles" | "pro" | "pros" => Some(PROFILE),
        _ => None,
    }
}

/// Reads them, those of one namespace if it is given.
///
/// # Errors
///
/// What the datastore fails with.
pub(super) async fn list(
    client: &Client,
    kind: &str,
    namespace: Option<&str>,
) -> Result<Vec<Value>, Error> {
    let all = Filter::default();
    Ok(match kind {
        NODE => client.list::<Node>(&all).await?.iter().map(node).collect(),
        WORKLOAD => {
            let filter = Filter { namespace: namespace.map(str::to_owned), ..all };
            let pods = client.list::<Pod>(&filter).await?;
            let containers = of_docker(client, kind, namespace).await?;
            pods.iter().filter_map(workload).chain(containers).collect()
        }
        _ => {
            let namespaces = client.list::<Namespace>(&all).await?;
            let accounts = client.list::<ServiceAccount>(&all).await?;
            let spaces = namespaces.into_iter().filter_map(|one| one.metadata.name);
            let spaces = spaces.map(|name| format!("kns.{name}"));
            let accounts = accounts.into_iter().filter_map(|one| {
                Some(format!("ksa.{}.{}", one.metadata.namespace?, one.metadata.name?))
            });
            let fixed = std::iter::once("projectcalico-default-allow".to_owned());
            let networks = of_docker(client, kind, None).await?;
            let all = fixed.chain(spaces).chain(accounts).map(|name| profile(&name));
            all.chain(networks).collect()
        }
    })
}

/// Reads those that `calico-docker` writes; most clusters have no such kind.
async fn of_docker(
    client: &Client,
    kind: &str,
    namespace: Option<&str>,
) -> Result<Vec<Value>, Error> {
    let Some(resource) = Resource::find(kind) else { return Ok(Vec::new()) };
    let namespace = namespace.filter(|_| resource.is_namespaced);
    match client.list_any(&super::place(resource), namespace).await {
        Ok(objects) => Ok(objects.iter().map(|object| resource.to_written(object)).collect()),
        Err(StoreError::UnknownKind { .. } | StoreError::NotFound { .. }) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn object(kind: &str, metadata: &Value, spec: &Value) -> Value {
    json!({"apiVersion": api::v3::VERSION, "kind": kind, "metadata": metadata, "spec": spec})
}

fn profile(name: &str) -> Value {
    object(PROFILE, &json!({"name": name}), &json!({}))
}

fn node(object_: &Node) -> Value {
    let metadata = &object_.metadata;
    let name = metadata.name.clone().unwrap_or_default();
    let annotation =
        |key: &str| metadata.annotations.as_ref().and_then(|all| all.get(key)).cloned();
    let mut bgp = json!({});
    for (field, key) in [
        ("ipv4Address", api::annotations::NODE_IPV4),
        ("ipv6Address", api::annotations::NODE_IPV6),
        ("ipv4IPIPTunnelAddr", api::annotations::NODE_IPIP),
        ("asNumber", api::annotations::NODE_ASN),
        ("routeReflectorClusterID", api::annotations::NODE_CLUSTER_ID),
    ] {
        if let (Some(value), Some(bgp)) = (annotation(key), bgp.as_object_mut()) {
            bgp.insert(field.to_owned(), value.into());
        }
    }
    let spec = json!({
        "bgp": bgp,
        "orchRefs": [{"nodeName": name, "orchestrator": "k8s"}],
    });
    object(NODE, &json!({"name": name, "labels": metadata.labels}), &spec)
}

fn workload(pod: &Pod) -> Option<Value> {
    let endpoint = kubernetes::workload_endpoint(pod, "cali").ok()??;
    let name = api::names::wep_name(&endpoint.node, &endpoint.pod.name);
    let networks: Vec<String> =
        endpoint.addrs.iter().map(|addr| model::net::Cidr::host(*addr).to_string()).collect();
    let spec = json!({
        "orchestrator": "k8s",
        "node": endpoint.node.to_string(),
        "pod": endpoint.pod.name,
        "containerID": endpoint.container_id,
        "endpoint": "eth0",
        "interfaceName": endpoint.if_name.to_string(),
        "ipNetworks": networks,
        "profiles": endpoint.profiles,
    });
    let metadata =
        json!({"name": name, "namespace": endpoint.pod.namespace, "labels": endpoint.labels});
    Some(object(WORKLOAD, &metadata, &spec))
}
