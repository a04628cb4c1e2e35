//! The incremental calculation: changes in, changes out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use model::desired::policy::{
    EndpointPath, HostInterface, HostPolicy, PolicyChange, PolicyState, WorkloadPolicy,
};
use model::id::{NamespacedName, NodeName};
use model::net::{Cidr, IfName};
use model::policy::{Policy, PolicyId, Profile, Stage};
use model::pool::IpPool;
use model::vrf::{Vrfs, Zone, vrfs};

use super::Change;
use super::index::ItemKey;
use super::labels::{Pairs, Texts};
use super::oracle::{self, Use};
use super::placement::Placement;
use super::rulebook::{self, Owner, RuleChanges, Rulebook};
use super::services::Services;
use super::sets::Sets;
use super::things::{self, Local, Placed, Thing, ThingName, Things};

/// What one node's kernel should enforce, kept up to date.
///
/// [`apply`](Self::apply) takes note of changes; [`take_changes`](Self::take_changes)
/// works them in, all that came since the last time together.
#[derive(Debug)]
pub struct Policies {
    this_node: NodeName,
    texts: Texts,
    things: Things,
    /// Things that have changed, or whose inherited labels have.
    pending: BTreeMap<ThingName, Option<Thing>>,
    labels_of_profiles: BTreeMap<Arc<str>, Pairs>,
    /// Who names a profile.
    heirs: BTreeMap<Arc<str>, BTreeSet<ItemKey>>,
    pub(super) placement: Placement,
    pub(super) rulebook: Rulebook,
    sets: Sets,
    services: Services,
    pools: BTreeMap<String, Arc<IpPool>>,
    /// What the pools say of VRFs.
    vrfs: Vrfs,
    are_pools_changed: bool,
    interfaces: BTreeMap<IfName, Vec<IpAddr>>,
    /// This node's pods by interface; the first by name has it.
    pub(super) pods: BTreeMap<IfName, BTreeMap<NamespacedName, ItemKey>>,
    /// This node's host endpoints.
    hosts: BTreeMap<String, ItemKey>,
    /// Endpoints whose paths may have changed.
    dirty: BTreeSet<ItemKey>,
    /// Interfaces whose pods may have changed.
    dirty_interfaces: BTreeSet<IfName>,
    are_hosts_dirty: bool,
    paths: BTreeMap<Arc<EndpointPath>, u32>,
    state: PolicyState,
}

/// How much there is, for metrics and tests.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Pods, host endpoints and network sets of the whole cluster.
    pub things: usize,
    /// Policies of the whole cluster, staged ones among them.
    pub policies: usize,
    /// Staged policies, which are never enforced.
    pub staged_policies: usize,
    /// Selectors of active rules.
    pub selectors: usize,
    /// How often a selector of a rule was held against labels so far.
    pub tries: u64,
}

impl Policies {
    /// Starts with an empty cluster as `this_node` sees it.
    #[must_use]
    pub fn new(this_node: NodeName) -> Self {
        let mut policies = Self {
            this_node,
            texts: Texts::default(),
            things: Things::default(),
            pending: BTreeMap::new(),
            labels_of_profiles: BTreeMap::new(),
            heirs: BTreeMap::new(),
            placement: Placement::default(),
            rulebook: Rulebook::default(),
            sets: Sets::default(),
            services: Services::default(),
            pools: BTreeMap::new(),
            vrfs: Vrfs::default(),
            are_pools_changed: false,
            interfaces: BTreeMap::new(),
            pods: BTreeMap::new(),
            hosts: BTreeMap::new(),
            dirty: BTreeSet::new(),
            dirty_interfaces: BTreeSet::new(),
            are_hosts_dirty: false,
            paths: BTreeMap::new(),
            state: PolicyState::default(),
        };
        policies.profile(Profile::default_allow().name, None);
        policies
    }

    /// Returns the state as of the last [`take_changes`](Self::take_changes).
    #[must_use]
    pub const fn state(&self) -> &PolicyState {
        &self.state
    }

    /// Returns how much there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let (policies, staged_policies) = self.placement.count();
        let (selectors, tries) = self.sets.work();
        Counts { things: self.things.len(), policies, staged_policies, selectors, tries }
    }

    /// Is it an address of a pod without a VRF, of any node? Takes time, as all are looked at.
    #[must_use]
    pub fn is_of_pod(&self, addr: IpAddr) -> bool {
        let net = Cidr::host(addr);
        let has = |thing: &Thing| thing.vrf.is_none() && thing.nets.binary_search(&net).is_ok();
        let is_pod = |name: &ThingName| matches!(name, ThingName::Workload(_));
        let mut pending = self.pending.iter();
        let mut placed = self.things.iter();
        pending.any(|(name, thing)| is_pod(name) && thing.as_ref().is_some_and(has))
            || placed.any(|placed| {
                let name = &*placed.name;
                is_pod(name) && !self.pending.contains_key(name) && has(&placed.thing)
            })
    }

    /// Takes note of `change`.
    pub fn apply(&mut self, change: Change) {
        let (this_node, texts) = (&self.this_node, &mut self.texts);
        match change {
            Change::Workload(id, value) => {
                let thing = value.map(|value| Thing::workload(&value, this_node, texts));
                self.pending.insert(ThingName::Workload(id), thing);
            }
            Change::Host(name, value) => {
                let thing = value.map(|value| Thing::host(&value, this_node, texts));
                self.pending.insert(ThingName::Host(name), thing);
            }
            Change::NetworkSet(id, value) => {
                let thing = value.map(|value| Thing::network_set(&value, texts));
                self.pending.insert(ThingName::NetworkSet(id), thing);
            }
            Change::Policy(id, value) => self.policy(id, value.as_deref()),
            Change::Tier(name, value) => {
                self.dirty.extend(self.placement.put_tier(name, value));
            }
            Change::Profile(name, value) => self.profile(name, value),
            Change::EndpointSlice(id, value) => self.services.apply(id, value),
            Change::Pool(name, value) => {
                match value {
                    Some(pool) => self.pools.insert(name, pool),
                    None => self.pools.remove(&name),
                };
                self.are_pools_changed = true;
            }
            Change::Interface(name, value) => {
                match value {
                    Some(addrs) => self.interfaces.insert(name, addrs),
                    None => self.interfaces.remove(&name),
                };
                self.are_hosts_dirty = true;
            }
        }
    }

    /// Returns how much is kept of anything.
    #[cfg(test)]
    pub(super) fn kept(&self) -> Vec<usize> {
        let own = [self.things.len(), self.pending.len(), self.heirs.len(), self.interfaces.len()];
        let pools = [self.pools.len(), self.vrfs.by_name.len()];
        let of_endpoints = [self.pods.len(), self.hosts.len(), self.dirty.len(), self.paths.len()];
        let parts =
            [self.placement.kept(), self.rulebook.kept(), self.sets.kept(), self.services.kept()];
        own.into_iter().chain(pools).chain(of_endpoints).chain(parts.concat()).collect()
    }

    fn policy(&mut self, id: PolicyId, policy: Option<&Policy>) {
        let owner = Owner::Policy(id);
        let Owner::Policy(id) = &owner else { return };
        let was_everywhere = self.placement.is_needed_everywhere(id);
        let endpoints = match policy {
            Some(policy) => {
                let tier = self.texts.intern(&policy.tier);
                self.placement.put(policy, tier, &self.things)
            }
            None => self.placement.remove(id),
        };
        self.dirty.extend(endpoints);
        let is_everywhere = self.placement.is_needed_everywhere(id);
        let here = (owner.clone(), Zone::Default);
        if is_everywhere {
            self.rulebook.start_use(&here);
        }
        if was_everywhere {
            self.rulebook.end_use(&here);
        }
        let enforced = policy.filter(|policy| self.placement.is_enforced(&policy.id));
        match enforced {
            Some(policy) => {
                let rules = [&policy.ingress, &policy.egress];
                let [ingress, egress] = rules.map(|rules| rules.as_deref().unwrap_or_default());
                self.rulebook.put(owner, (ingress, egress), policy.stage, &mut self.sets);
            }
            None => self.rulebook.remove(owner, &mut self.sets),
        }
    }

    fn profile(&mut self, name: String, profile: Option<Arc<Profile>>) {
        let default = Profile::default_allow();
        let profile = profile.or_else(|| (name == default.name).then(|| Arc::new(default)));
        let key = self.texts.intern(&name);
        let labels = profile
            .as_ref()
            .map(|profile| self.texts.pairs(profile.labels_to_apply.iter()))
            .filter(|labels| !labels.is_empty());
        let heirs = self.heirs.get(&key).into_iter().flatten().copied();
        // Which profiles have rules for a direction is part of a path.
        self.dirty.extend(heirs.clone());
        if self.labels_of_profiles.get(&key) != labels.as_ref() {
            for placed in heirs.filter_map(|heir| self.things.get(heir)) {
                let thing = || Some(placed.thing.clone());
                self.pending.entry(placed.name.as_ref().clone()).or_insert_with(thing);
            }
            match labels {
                Some(labels) => self.labels_of_profiles.insert(key, labels),
                None => self.labels_of_profiles.remove(&key),
            };
        }
        let owner = Owner::Profile(name);
        match profile {
            Some(profile) => {
                let rules = (profile.ingress.as_slice(), profile.egress.as_slice());
                self.rulebook.put(owner, rules, Stage::Normal, &mut self.sets);
            }
            None => self.rulebook.remove(owner, &mut self.sets),
        }
    }

    /// Works in what was noted, and returns what that changes in the state, in
    /// an order in which nothing is named that is not there.
    pub fn take_changes(&mut self) -> Vec<PolicyChange> {
        if std::mem::take(&mut self.are_pools_changed) {
            self.find_vrfs();
        }
        for (name, thing) in std::mem::take(&mut self.pending) {
            self.place(name, thing);
        }
        for service in self.services.take_changed() {
            self.sets.update_service(&mut self.state.sets, &service, &self.services);
        }
        for key in std::mem::take(&mut self.dirty) {
            match self.things.get(key).and_then(|placed| placed.thing.local.as_deref()) {
                Some(Local::Workload { if_name, .. }) => {
                    self.dirty_interfaces.insert(if_name.clone());
                }
                Some(Local::Host { .. }) => self.are_hosts_dirty = true,
                None => {}
            }
        }
        let mut endpoints = Endpoints::default();
        for if_name in std::mem::take(&mut self.dirty_interfaces) {
            self.workload(if_name, &mut endpoints);
        }
        if std::mem::take(&mut self.are_hosts_dirty) {
            self.all_hosts(&mut endpoints);
        }
        let rules = self.rulebook.settle(&mut self.state, &mut self.sets);
        let sets = self.sets.settle(&mut self.state.sets, &self.things, &self.services);
        let RuleChanges { first, last } = rules;
        let parts = [sets.first, first, endpoints.first, endpoints.last, last, sets.last];
        parts.concat()
    }

    /// Finds the VRFs anew, and who is in another zone by that.
    fn find_vrfs(&mut self) {
        let found = vrfs(self.pools.values().map(AsRef::as_ref));
        for placed in self.things.iter().filter(|placed| placed.thing.vrf.is_some()) {
            if things::home(&placed.name, &placed.thing, &found) != placed.home {
                let thing = || Some(placed.thing.clone());
                self.pending.entry(placed.name.as_ref().clone()).or_insert_with(thing);
            }
        }
        self.vrfs = found;
    }

    /// Puts a thing where it belongs, or takes it away.
    fn place(&mut self, name: ThingName, thing: Option<Thing>) {
        let Some(thing) = thing else {
            let Some((key, old)) = self.things.remove(&name) else { return };
            self.unlink(key, &old);
            self.sets.update(&mut self.state.sets, key, Some(&old), None);
            self.placement.index.update(key, Some(&old.labels), None);
            return;
        };
        let key = self.things.key(&name);
        let labels = thing.profiles.iter().filter_map(|name| self.labels_of_profiles.get(name));
        let inherited = labels.cloned().collect();
        let home = things::home(&name, &thing, &self.vrfs);
        let old = self.things.put(key, name, (thing, home), inherited);
        if let Some(old) = &old {
            self.unlink(key, old);
        }
        let Some(new) = self.things.get(key) else { return };
        if let Some((namespace, addrs)) = in_vrf(new) {
            self.services.arrive((namespace, new.zone()), &addrs);
        }
        for profile in &new.thing.profiles {
            self.heirs.entry(Arc::clone(profile)).or_default().insert(key);
        }
        self.sets.update(&mut self.state.sets, key, old.as_ref(), Some(new));
        let is_local = |placed: &&Placed| placed.thing.local.is_some();
        let labels = [old.as_ref(), Some(new)].map(|placed| placed.filter(is_local));
        let [before, after] = labels.map(|placed| placed.map(|placed| &placed.labels));
        self.placement.index.update(key, before, after);
        if let (Some(local), ThingName::Workload(pod)) = (&new.thing.local, new.name.as_ref())
            && let Local::Workload { if_name, .. } = local.as_ref()
        {
            self.pods.entry(if_name.clone()).or_default().insert(pod.clone(), key);
            self.dirty_interfaces.insert(if_name.clone());
        }
        if let (Some(_), ThingName::Host(host)) = (&new.thing.local, new.name.as_ref()) {
            self.hosts.insert(host.clone(), key);
            self.are_hosts_dirty = true;
        }
    }

    /// Forgets where a thing was.
    fn unlink(&mut self, key: ItemKey, old: &Placed) {
        if let Some((namespace, addrs)) = in_vrf(old) {
            self.services.leave((namespace, old.zone()), &addrs);
        }
        for profile in &old.thing.profiles {
            if let Some(heirs) = self.heirs.get_mut(profile) {
                heirs.remove(&key);
                if heirs.is_empty() {
                    self.heirs.remove(profile);
                }
            }
        }
        match (old.thing.local.as_deref(), old.name.as_ref()) {
            (Some(Local::Workload { if_name, .. }), ThingName::Workload(pod)) => {
                if let Some(pods) = self.pods.get_mut(if_name) {
                    pods.remove(pod);
                    if pods.is_empty() {
                        self.pods.remove(if_name);
                    }
                }
                self.dirty_interfaces.insert(if_name.clone());
            }
            (Some(Local::Host { .. }), ThingName::Host(host)) => {
                self.hosts.remove(host);
                self.are_hosts_dirty = true;
            }
            _ => {}
        }
    }

    /// Recalculates the pod of an interface.
    fn workload(&mut self, if_name: IfName, changes: &mut Endpoints) {
        let pods = self.pods.get(&if_name).into_iter();
        let placed = pods
            .filter_map(|pods| pods.iter().next())
            .find_map(|(pod, key)| Some((pod, *key, self.things.get(*key)?)));
        let policy = placed.and_then(|(pod, key, placed)| {
            let Some(Local::Workload { addrs, mac, allowed, controls, .. }) =
                placed.thing.local.as_deref()
            else {
                return None;
            };
            let known = (&*placed.thing.profiles, placed.zone());
            let path = self.placement.path(key, known, Use::Normal, &self.rulebook);
            let path = match self.paths.get_key_value(&path) {
                Some((path, _)) => Arc::clone(path),
                None => Arc::new(path),
            };
            let (endpoint, addrs) = (pod.clone(), addrs.clone());
            let allowed_sources = allowed.to_vec();
            let (mac, controls) = (*mac, *controls);
            Some(WorkloadPolicy { endpoint, addrs, mac, allowed_sources, controls, path })
        });
        if self.state.workloads.get(&if_name) == policy.as_ref() {
            return;
        }
        if let Some(new) = &policy {
            self.start_path(&new.path);
        }
        let old = self.state.workloads.get(&if_name).map(|old| Arc::clone(&old.path));
        if let Some(old) = old {
            self.end_path(&old);
        }
        let list = if policy.is_some() { &mut changes.first } else { &mut changes.last };
        let change = PolicyChange::Workload(if_name, policy);
        self.state.apply(&change);
        list.push(change);
    }

    fn start_path(&mut self, path: &Arc<EndpointPath>) {
        let count = self.paths.entry(Arc::clone(path)).or_default();
        *count = count.saturating_add(1);
        if *count == 1 {
            for owner in rulebook::owners_of_path(path) {
                self.rulebook.start_use(&owner);
            }
        }
    }

    fn end_path(&mut self, path: &Arc<EndpointPath>) {
        let Some(count) = self.paths.get_mut(path) else { return };
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.paths.remove(path);
            for owner in rulebook::owners_of_path(path) {
                self.rulebook.end_use(&owner);
            }
        }
    }

    /// Recalculates all host endpoints of this node; there are few.
    fn all_hosts(&mut self, changes: &mut Endpoints) {
        let mut wanted: BTreeMap<HostInterface, Arc<HostPolicy>> = BTreeMap::new();
        for (name, key) in &self.hosts {
            let Some(placed) = self.things.get(*key) else { continue };
            let Some(Local::Host { interface, addrs }) = placed.thing.local.as_deref() else {
                continue;
            };
            let known = (&*placed.thing.profiles, placed.zone());
            let path = |wanted| self.placement.path(*key, known, wanted, &self.rulebook);
            let policy = Arc::new(HostPolicy {
                endpoint: name.clone(),
                addrs: addrs.clone(),
                normal: path(Use::Normal),
                forward: path(Use::Forward),
                pre_dnat: path(Use::PreDnat).ingress,
                untracked: path(Use::Untracked),
            });
            for interface in oracle::interfaces_of(interface, addrs, &self.interfaces) {
                wanted.entry(interface).or_insert_with(|| Arc::clone(&policy));
            }
        }
        let old = self.state.hosts.clone();
        for owner in wanted.values().flat_map(|host| rulebook::owners_of_host(host)) {
            self.rulebook.start_use(&owner);
        }
        for owner in old.values().flat_map(|host| rulebook::owners_of_host(host)) {
            self.rulebook.end_use(&owner);
        }
        for (interface, policy) in &wanted {
            if old.get(interface) != Some(policy) {
                let change = PolicyChange::Host(interface.clone(), Some(Arc::clone(policy)));
                changes.first.push(change);
            }
        }
        for interface in old.keys().filter(|interface| !wanted.contains_key(*interface)) {
            changes.last.push(PolicyChange::Host(interface.clone(), None));
        }
        self.state.hosts = wanted;
    }
}

/// Returns the namespace and the addresses of a pod of a VRF.
fn in_vrf(placed: &Placed) -> Option<(&str, Vec<IpAddr>)> {
    placed.thing.vrf.as_ref()?;
    let ThingName::Workload(pod) = &*placed.name else { return None };
    Some((&pod.namespace, placed.thing.nets.iter().map(Cidr::addr).collect()))
}

/// Changes of endpoints: those that come before what goes, and those that go.
#[derive(Debug, Default)]
struct Endpoints {
    first: Vec<PolicyChange>,
    last: Vec<PolicyChange>,
}
