//! What routes must know of pods of other nodes: there are many, so no more than that is kept.

use std::net::IpAddr;

use model::endpoint::WorkloadEndpoint;
use model::id::NodeName;

/// A pod of another node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct FarPod {
    /// Where it runs.
    pub(crate) node: NodeName,
    /// Its addresses.
    pub(crate) addrs: Box<[IpAddr]>,
}

impl From<&WorkloadEndpoint> for FarPod {
    fn from(pod: &WorkloadEndpoint) -> Self {
        Self { node: pod.node.clone(), addrs: pod.addrs.as_slice().into() }
    }
}
