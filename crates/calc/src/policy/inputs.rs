//! All that decides about packets, as plain maps.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use model::Labels;
use model::endpoint::WorkloadEndpoint;
use model::host_endpoint::HostEndpoint;
use model::id::{NamespacedName, NodeName};
use model::net::IfName;
use model::network_set::NetworkSet;
use model::policy::{Policy, PolicyId, Profile};
use model::pool::IpPool;
use model::service::EndpointSlice;
use model::tier::Tier;
use model::vrf::{Vrfs, vrfs};

use super::labels;
use super::{Change, NetworkSetId};

/// All that decides about the packets of one node.
///
/// It holds every object of the cluster as it is, for [`super::oracle`] and
/// [`super::why`]; [`super::Policies`] keeps less.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The node.
    pub this_node: NodeName,
    /// Every pod.
    pub workloads: BTreeMap<NamespacedName, Arc<WorkloadEndpoint>>,
    /// Every host endpoint, by object name.
    pub hosts: BTreeMap<String, Arc<HostEndpoint>>,
    /// Every network set.
    pub network_sets: BTreeMap<NetworkSetId, Arc<NetworkSet>>,
    /// Every policy.
    pub policies: BTreeMap<PolicyId, Arc<Policy>>,
    /// The tiers, apart from those that every cluster has.
    pub tiers: BTreeMap<String, Tier>,
    /// The profiles, apart from the one that allows everything.
    pub profiles: BTreeMap<String, Arc<Profile>>,
    /// Who answers for Services.
    pub slices: BTreeMap<NamespacedName, Arc<EndpointSlice>>,
    /// The pools.
    pub pools: BTreeMap<String, Arc<IpPool>>,
    /// The addresses of this machine's interfaces.
    pub interfaces: BTreeMap<IfName, Vec<IpAddr>>,
}

impl Inputs {
    /// Makes an empty cluster as `this_node` sees it.
    #[must_use]
    pub const fn new(this_node: NodeName) -> Self {
        Self {
            this_node,
            workloads: BTreeMap::new(),
            hosts: BTreeMap::new(),
            network_sets: BTreeMap::new(),
            policies: BTreeMap::new(),
            tiers: BTreeMap::new(),
            profiles: BTreeMap::new(),
            slices: BTreeMap::new(),
            pools: BTreeMap::new(),
            interfaces: BTreeMap::new(),
        }
    }

    /// Takes note of `change`.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Workload(id, value) => put(&mut self.workloads, id, value),
            Change::Host(name, value) => put(&mut self.hosts, name, value),
            Change::NetworkSet(id, value) => put(&mut self.network_sets, id, value),
            Change::Policy(id, value) => put(&mut self.policies, id, value),
            Change::Tier(name, value) => put(&mut self.tiers, name, value),
            Change::Profile(name, value) => put(&mut self.profiles, name, value),
            Change::EndpointSlice(id, value) => put(&mut self.slices, id, value),
            Change::Pool(name, value) => put(&mut self.pools, name, value),
            Change::Interface(name, value) => put(&mut self.interfaces, name, value),
        }
    }

    /// Returns a profile: one of the objects, or that which allows everything.
    #[must_use]
    pub fn profile(&self, name: &str) -> Option<Arc<Profile>> {
        let default = Profile::default_allow();
        match self.profiles.get(name) {
            Some(profile) => Some(Arc::clone(profile)),
            None => (name == default.name).then(|| Arc::new(default)),
        }
    }

    /// Returns the VRFs that the pools make.
    #[must_use]
    pub fn vrfs(&self) -> Vrfs {
        vrfs(self.pools.values().map(AsRef::as_ref))
    }

    /// Returns the labels that a pod has, its profiles' among them.
    #[must_use]
    pub fn workload_labels(&self, endpoint: &WorkloadEndpoint) -> Labels {
        self.with_inherited(labels::own(&endpoint.labels, true), &endpoint.profiles)
    }

    /// Returns the labels that a host endpoint has, its profiles' among them.
    #[must_use]
    pub fn host_labels(&self, endpoint: &HostEndpoint) -> Labels {
        self.with_inherited(labels::own(&endpoint.labels, false), &endpoint.profiles)
    }

    /// Returns the labels that a network set has, its namespace's among them.
    #[must_use]
    pub fn network_set_labels(&self, set: &NetworkSet) -> Labels {
        let is_namespaced = set.namespace.is_some();
        let profiles: Vec<String> = labels::profile_of(set).into_iter().collect();
        self.with_inherited(labels::own(&set.labels, is_namespaced), &profiles)
    }

    fn with_inherited<'a>(
        &self,
        own: impl Iterator<Item = (&'a String, &'a String)>,
        profiles: &[String],
    ) -> Labels {
        let mut labels: Labels = own.map(|(name, value)| (name.clone(), value.clone())).collect();
        for profile in profiles.iter().filter_map(|name| self.profile(name)) {
            for (name, value) in &profile.labels_to_apply {
                labels.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        labels
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}
