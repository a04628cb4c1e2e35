//! One change of the datastore or of this machine, as far as policy is concerned.

use std::net::IpAddr;
use std::sync::Arc;

use model::endpoint::WorkloadEndpoint;
use model::host_endpoint::HostEndpoint;
use model::id::NamespacedName;
use model::net::IfName;
use model::network_set::NetworkSet;
use model::policy::{Policy, PolicyId, Profile};
use model::pool::IpPool;
use model::service::EndpointSlice;
use model::tier::Tier;

/// An object's new value, or `None` if it is gone or was refused at the border.
///
/// Objects of the whole cluster, not only of this node.
#[derive(Clone, Debug)]
pub enum Change {
    /// A pod.
    Workload(NamespacedName, Option<Arc<WorkloadEndpoint>>),
    /// A host endpoint, by its object's name.
    Host(String, Option<Arc<HostEndpoint>>),
    /// A network set.
    NetworkSet(NetworkSetId, Option<Arc<NetworkSet>>),
    /// A policy of any kind, also a staged one.
    Policy(PolicyId, Option<Arc<Policy>>),
    /// A tier. Those that every cluster has are there without, and stay as they are.
    Tier(String, Option<Tier>),
    /// A profile: of a namespace, of a service account.
    Profile(String, Option<Arc<Profile>>),
    /// Some of a Service's endpoints.
    EndpointSlice(NamespacedName, Option<Arc<EndpointSlice>>),
    /// A pool, which may say of a VRF.
    Pool(String, Option<Arc<IpPool>>),
    /// The addresses of one of this machine's own interfaces.
    Interface(IfName, Option<Vec<IpAddr>>),
}

/// Which network set.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct NetworkSetId {
    /// The namespace; `None` for a global one.
    pub namespace: Option<String>,
    /// The object's name.
    pub name: String,
}
