//! What the cluster as a whole says of itself, and what it wants to be told.

use std::collections::BTreeMap;
use std::time::Duration;

use selector::Selector;

use crate::Labels;
use crate::id::NodeName;
use crate::net::Cidr;

/// What the cluster is (`ClusterInformation`).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClusterInformation {
    /// 32 hexadecimal digits that no other cluster has; empty until a node has written them.
    pub guid: String,
    /// What is known of the cluster: `k8s`, `bgp`, `kubeadm`, `kdd`.
    pub types: Vec<String>,
    /// The version of Calico that the cluster has.
    pub calico_version: String,
    /// May the datastore be used? Not while it is migrated, nor before a node has said so.
    pub is_datastore_ready: bool,
}

/// A wish to be told how a node is (`CalicoNodeStatus`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeStatusRequest {
    /// The object's name.
    pub name: String,
    /// The node.
    pub node: NodeName,
    /// What of it.
    pub classes: Vec<StatusClass>,
    /// How often; `None` is never.
    pub period: Option<Duration>,
}

/// A part of a node's status.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StatusClass {
    /// How the BGP speaker is.
    Agent,
    /// How its sessions are.
    Bgp,
    /// The routes that it knows.
    Routes,
}

/// What the controllers do (`KubeControllersConfiguration`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ControllersConfiguration {
    /// Whether they answer questions for their health.
    pub has_health_checks: bool,
    /// The port of their metrics; `None` serves none.
    pub metrics_port: Option<u16>,
    /// The node controller; `None` if it is off.
    pub node: Option<NodeController>,
    /// The load balancer controller; `None` if it is off.
    pub load_balancer: Option<LoadBalancerController>,
    /// Whether policies get new names that releases before 3.32 wrote.
    pub migrates_policy_names: bool,
}

/// What the node controller does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeController {
    /// How often it looks at everything again; `None` is never.
    pub reconciler_period: Option<Duration>,
    /// Whether labels of Kubernetes nodes are copied to Calico's. Here both are the same objects,
    /// so that there is nothing to copy.
    pub sync_labels: bool,
    /// The host endpoints that it makes for nodes; `None` makes none.
    pub host_endpoints: Option<HostEndpoints>,
    /// How long an address may look lost before it is released; `None` never releases.
    pub leak_grace_period: Option<Duration>,
}

/// The host endpoints that a controller makes for nodes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostEndpoints {
    /// Whether every node has one for all of its interfaces.
    pub has_default: bool,
    /// Further ones.
    pub templates: Vec<HostEndpointTemplate>,
}

/// Host endpoints of one sort.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostEndpointTemplate {
    /// A part of their names.
    pub name: String,
    /// Networks that the node's address of such an interface lies in; none are all.
    pub networks: Vec<Cidr>,
    /// An expression for the names of such interfaces, which nodes do not tell: it makes none.
    pub pattern: Option<String>,
    /// The nodes that have them.
    pub nodes: Selector,
    /// Their labels, beside those of their nodes.
    pub labels: Labels,
    /// Their annotations.
    pub annotations: BTreeMap<String, String>,
}

/// What the load balancer controller does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LoadBalancerController {
    /// Whether Services get addresses that do not ask for one.
    pub assigns_to_all: bool,
}
