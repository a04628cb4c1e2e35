//! Workload endpoints: the attachments of pods, and of containers without Kubernetes.

use std::net::IpAddr;

use crate::Labels;
use crate::id::{NamespacedName, NodeName};
use crate::net::{Cidr, IfName, MacAddr};

/// A pod's attachment to the network, from the Kubernetes Pod; or that of a container which is
/// no pod's, from an object of its own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WorkloadEndpoint {
    /// The pod; of what is no pod, the object, with a name that no pod can have.
    pub pod: NamespacedName,
    /// Where it runs.
    pub node: NodeName,
    /// The host's side of its veth.
    pub if_name: IfName,
    /// Its addresses: at most one of each family.
    pub addrs: Vec<IpAddr>,
    /// Its own Ethernet address, if it is known.
    pub mac: Option<MacAddr>,
    /// Networks that it may send from beside its addresses, if administrators let workloads do that.
    pub allowed_sources: Vec<Cidr>,
    /// The container that holds the addresses; `None` until the plugin has written it.
    pub container_id: Option<String>,
    /// Its labels, with those that Calico adds.
    pub labels: Labels,
    /// The profiles that apply to it, first one first: `kns.<namespace>`,
    /// `ksa.<namespace>.<account>`; of a container, that of its network.
    pub profiles: Vec<String>,
    /// Its named ports.
    pub ports: Vec<NamedPort>,
}

impl WorkloadEndpoint {
    /// Makes an endpoint of which no more is known.
    #[must_use]
    pub const fn new(
        pod: NamespacedName,
        node: NodeName,
        if_name: IfName,
        addrs: Vec<IpAddr>,
    ) -> Self {
        Self {
            pod,
            node,
            if_name,
            addrs,
            mac: None,
            allowed_sources: Vec::new(),
            container_id: None,
            labels: Labels::new(),
            profiles: Vec::new(),
            ports: Vec::new(),
        }
    }
}

/// A port that policies may call by name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NamedPort {
    /// The name.
    pub name: String,
    /// The IP protocol number: 6 TCP, 17 UDP, 132 SCTP.
    pub protocol: u8,
    /// The port.
    pub port: u16,
}
