//! Workload endpoints: the attachments of pods, and of containers without Kubernetes.

use std::net::IpAddr;

use crate::Labels;
use crate::id::{NamespacedName, NodeName};
use crate::net::{Cidr, IfName, MacAddr};
use crate::vrf::VrfName;

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
    /// How many packets and connections it may have, and how its packets are marked.
    pub controls: Controls,
    /// Further addresses that lead to it, if administrators let workloads have some.
    pub floating: Vec<Floating>,
    /// The container that holds the addresses; `None` until the plugin has written it.
    pub container_id: Option<String>,
    /// Its labels, with those that Calico adds.
    pub labels: Labels,
    /// The profiles that apply to it, first one first: `kns.<namespace>`,
    /// `ksa.<namespace>.<account>`; of a container, that of its network.
    pub profiles: Vec<String>,
    /// Its named ports.
    pub ports: Vec<NamedPort>,
    /// The VRF that it is in; `None` is everybody's.
    pub vrf: Option<VrfName>,
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
            controls: Controls::NONE,
            floating: Vec::new(),
            container_id: None,
            labels: Labels::new(),
            profiles: Vec::new(),
            ports: Vec::new(),
            vrf: None,
        }
    }
}

/// A further address that leads to a workload, and is translated to one of the workload's own.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Floating {
    /// The address that others call.
    pub addr: IpAddr,
    /// The workload's own address of that family.
    pub to: IpAddr,
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

/// How many packets and connections a workload may have, and how its packets are marked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Controls {
    /// What comes to it.
    pub ingress: Control,
    /// What comes from it.
    pub egress: Control,
    /// How its packets are marked that leave the cluster.
    pub dscp: Option<Dscp>,
}

impl Controls {
    /// No limit, and no mark; the default.
    pub const NONE: Self = Self {
        ingress: Control { packets: None, connections: None },
        egress: Control { packets: None, connections: None },
        dscp: None,
    };
}

/// How much may come in one direction; what is absent has no limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Control {
    /// Packets.
    pub packets: Option<PacketRate>,
    /// Connections at a time.
    pub connections: Option<u32>,
}

/// How many packets may pass.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PacketRate {
    /// In a second; not zero.
    pub per_second: u32,
    /// At once; not zero.
    pub burst: u32,
}

/// A codepoint of differentiated services (RFC 2474 §3): 0 to 63.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Dscp(u8);

impl Dscp {
    /// Makes one of its number; `None` for numbers beyond 63.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number < 64 { Some(Self(number)) } else { None }
    }

    /// Returns its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}
