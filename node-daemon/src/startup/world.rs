//! Reads what the decisions need: the datastore's objects and answers from outside.

use std::net::IpAddr;

use api::kubernetes;
use config::startup::NodeSettings;
use config::value::{AddressMethod, AddressSource};
use datastore::{Client, Filter};
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use model::net::{Cidr, Family};
use serde_json::{Map, Value};
use tokio::net::{UdpSocket, lookup_host};
use tracing::{info, warn};

use super::autodetect::Answers;
use super::cluster;

/// What the datastore holds before the start.
#[derive(Debug)]
pub(crate) struct Stored {
    /// This node, if Kubernetes knows it.
    pub(crate) node: Option<Node>,
    /// The other nodes that can be read.
    pub(crate) nodes: Vec<model::node::Node>,
    /// All pools.
    pub(crate) pools: Vec<api::IpPool>,
    /// The cluster.
    pub(crate) information: Option<api::ClusterInformation>,
    /// Fields of `FelixConfiguration` `default`; `None` if there is none.
    pub(crate) felix_default: Option<Map<String, Value>>,
    /// Fields of `FelixConfiguration` `node.<name>`.
    pub(crate) felix_node: Map<String, Value>,
    /// kubeadm's `podSubnet`; `None` if the cluster is not kubeadm's.
    pub(crate) kubeadm: Option<Vec<Cidr>>,
}

impl Stored {
    /// Reads everything, all at once.
    pub(crate) async fn read(client: &Client, node_name: &str) -> Result<Self, datastore::Error> {
        let everything = Filter::default();
        let felix_name = format!("node.{node_name}");
        let (node, nodes, pools, information, felix_default, felix_node, kubeadm) = tokio::try_join!(
            client.get::<Node>(node_name),
            client.list::<Node>(&everything),
            client.list::<api::IpPool>(&everything),
            client.get::<api::ClusterInformation>("default"),
            client.get::<api::FelixConfiguration>("default"),
            client.get::<api::FelixConfiguration>(&felix_name),
            kubeadm(client),
        )?;
        Ok(Self {
            node,
            nodes: nodes.iter().filter_map(readable).collect(),
            pools,
            information,
            felix_default: felix_default.map(|object| object.spec.fields),
            felix_node: felix_node.map(|object| object.spec.fields).unwrap_or_default(),
            kubeadm,
        })
    }
}

/// Another node's mistakes must not keep this one from starting.
fn readable(node: &Node) -> Option<model::node::Node> {
    kubernetes::node(node).inspect_err(|problem| warn!(%problem, "leaving out a node")).ok()
}

/// Reads kubeadm's ranges; a cluster that is not kubeadm's, or forbids the look, has none.
async fn kubeadm(client: &Client) -> Result<Option<Vec<Cidr>>, datastore::Error> {
    let found = match client.get_in::<ConfigMap>("kube-system", "kubeadm-config").await {
        Err(datastore::Error::Forbidden { .. }) => {
            info!("may not read ConfigMap kube-system/kubeadm-config, so podSubnet is not known");
            None
        }
        found => found?,
    };
    let Some(map) = found else { return Ok(None) };
    let data = map.data.unwrap_or_default();
    let text = data.get("ClusterConfiguration").map(String::as_str).unwrap_or_default();
    let subnets = cluster::pod_subnets(text).unwrap_or_else(|problem| {
        warn!(%problem, "ConfigMap kube-system/kubeadm-config names no podSubnet that can be used");
        Vec::new()
    });
    Ok(Some(subnets))
}

/// Asks the outside what the methods of `settings` need to know, for both families.
pub(crate) async fn answers(settings: &NodeSettings, node: &Node) -> [Answers; 2] {
    let internal = internal_addrs(node);
    let mut answers =
        Family::ALL.map(|_| Answers { internal: internal.clone(), ..Answers::default() });
    let wishes = [
        (Family::V4, settings.ipv4, &settings.ipv4_method),
        (Family::V6, settings.ipv6, &settings.ipv6_method),
    ];
    for (answer, (family, source, method)) in answers.iter_mut().zip(wishes) {
        let is_asked = source.is_none() || source == Some(AddressSource::Autodetect);
        if let (true, AddressMethod::CanReach(target)) = (is_asked, method) {
            answer.reaching_from = reaching_from(target, family).await;
        }
    }
    answers
}

/// Returns the addresses of type `InternalIP` in a Node's status.
fn internal_addrs(node: &Node) -> Vec<IpAddr> {
    let addrs = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let internal = addrs.filter(|addr| addr.type_ == "InternalIP");
    internal.filter_map(|addr| addr.address.parse().ok()).collect()
}

/// Asks the kernel from which address packets to `target` would leave; none is sent.
async fn reaching_from(target: &str, family: Family) -> Option<IpAddr> {
    /// Any port does, since nothing is sent to it.
    const PORT: u16 = 53;
    let found = lookup_host((target, PORT)).await;
    let mut targets = found
        .inspect_err(|problem| warn!(target, %problem, "cannot look up the target of can-reach"))
        .ok()?;
    let target = targets.find(|found| Family::of(found.ip()) == family)?;
    let unspecified: IpAddr = match family {
        Family::V4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((unspecified, 0)).await.ok()?;
    socket.connect(target).await.ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn internal_addresses_are_those_of_the_type() {
        let node: Node = serde_json::from_value(json!({"status": {"addresses": [
            {"type": "Hostname", "address": "a"},
            {"type": "ExternalIP", "address": "1.2.3.4"},
            {"type": "InternalIP", "address": "10.0.0.1"},
            {"type": "InternalIP", "address": "fd00::1"},
        ]}}))
        .unwrap();
        let expected: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_eq!(internal_addrs(&node), expected);
    }

    #[tokio::test]
    async fn the_way_to_loopback_leaves_from_loopback() {
        let from = reaching_from("127.0.0.1", Family::V4).await;
        assert_eq!(from, Some([127, 0, 0, 1].into()));
        assert_eq!(reaching_from("127.0.0.1", Family::V6).await, None);
    }
}
