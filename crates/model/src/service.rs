//! Services of Kubernetes, and who answers for them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::id::{NamespacedName, NodeName};
use crate::net::Family;
use crate::policy::Protocol;

/// A Service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Service {
    /// The object.
    pub id: NamespacedName,
    /// How it is reached.
    pub kind: ServiceKind,
    /// Its addresses within the cluster; none for a headless one.
    pub cluster_addrs: Vec<IpAddr>,
    /// Addresses that others route to the nodes.
    pub external_addrs: Vec<IpAddr>,
    /// Addresses that a load balancer gave it.
    pub load_balancer_addrs: Vec<IpAddr>,
    /// Whether packets from outside go only to endpoints on the node that they reach.
    pub is_external_traffic_local: bool,
    /// Who is to give it a load balancer address; `None` is the cluster's default.
    pub load_balancer_class: Option<String>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
}

/// What a Service wants of whoever gives addresses to load balancers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BalancerRequest {
    /// The object.
    pub id: NamespacedName,
    /// Its uid.
    pub uid: String,
    /// Whether it is of type `LoadBalancer`.
    pub is_balanced: bool,
    /// Who is to give it an address; `None` is the cluster's default.
    pub class: Option<String>,
    /// The families that it has addresses of.
    pub families: Vec<Family>,
    /// The very addresses that it asks for, at most one of each family.
    pub addrs: Vec<IpAddr>,
    /// The pools that it asks for, by name or range; those of a family that is absent are free.
    pub pools: BTreeMap<Family, Vec<String>>,
    /// The addresses that its status names.
    pub published: Vec<IpAddr>,
}

impl BalancerRequest {
    /// Does it ask for an address or for pools?
    #[must_use]
    pub fn is_particular(&self) -> bool {
        !self.addrs.is_empty() || !self.pools.is_empty()
    }
}

/// How a Service is reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ServiceKind {
    /// By addresses within the cluster.
    ClusterIp,
    /// Also by a port of every node.
    NodePort,
    /// Also by an address of a load balancer.
    LoadBalancer,
    /// Not at all: it is another name for something.
    ExternalName,
}

/// A port of a Service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServicePort {
    /// Its name; empty for an only port.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The port of the Service's addresses.
    pub port: u16,
    /// The port of every node.
    pub node_port: Option<u16>,
}

/// Some of those who answer for a Service (`EndpointSlice`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EndpointSlice {
    /// The object.
    pub id: NamespacedName,
    /// The Service's name, in the same namespace; `None` if it belongs to none.
    pub service: Option<String>,
    /// Those who answer.
    pub endpoints: Vec<ServiceEndpoint>,
    /// The ports that they answer on.
    pub ports: Vec<EndpointPort>,
}

/// One who answers for a Service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceEndpoint {
    /// Its addresses, which are alike.
    pub addrs: Vec<IpAddr>,
    /// Where it runs, if that is known.
    pub node: Option<NodeName>,
    /// Does it answer?
    pub is_ready: bool,
    /// Is it ending?
    pub is_terminating: bool,
}

/// A port that a Service's endpoints answer on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EndpointPort {
    /// The Service's name for it.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The port; `None` is any.
    pub port: Option<u16>,
}
