//! What selectors find: pods, host endpoints and network sets, kept small.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use model::endpoint::{Controls, NamedPort, WorkloadEndpoint};
use model::host_endpoint::{HostEndpoint, HostInterface};
use model::id::{NamespacedName, NodeName};
use model::net::{Cidr, IfName, MacAddr};
use model::network_set::NetworkSet;
use model::policy::Protocol;
use model::vrf::{VrfName, Vrfs, Zone};

use super::NetworkSetId;
use super::index::ItemKey;
use super::labels::{self, LabelSet, Pairs, Texts};
use super::zones::Home;

/// Which thing.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum ThingName {
    Workload(NamespacedName),
    Host(String),
    NetworkSet(NetworkSetId),
}

/// What policy must know of a thing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Thing {
    own_labels: Pairs,
    /// The profiles that it inherits labels from, first one first.
    pub(super) profiles: Box<[Arc<str>]>,
    /// Its networks, sorted.
    pub(super) nets: Box<[Cidr]>,
    pub(super) ports: Box<[Port]>,
    /// The VRF that a pod is in.
    pub(super) vrf: Option<Box<VrfName>>,
    pub(super) local: Option<Box<Local>>,
}

/// A named port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Port {
    pub(super) name: Arc<str>,
    pub(super) protocol: Protocol,
    pub(super) number: u16,
}

/// What matters only of this node's endpoints.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Local {
    Workload {
        if_name: IfName,
        addrs: Vec<IpAddr>,
        mac: Option<MacAddr>,
        allowed: Box<[Cidr]>,
        controls: Controls,
    },
    Host {
        interface: HostInterface,
        addrs: Vec<IpAddr>,
    },
}

impl Thing {
    pub(super) fn workload(
        endpoint: &WorkloadEndpoint,
        this_node: &NodeName,
        texts: &mut Texts,
    ) -> Self {
        let local = (endpoint.node == *this_node).then(|| {
            let (if_name, addrs) = (endpoint.if_name.clone(), endpoint.addrs.clone());
            let allowed = endpoint.allowed_sources.clone().into();
            let (mac, controls) = (endpoint.mac, endpoint.controls);
            Box::new(Local::Workload { if_name, addrs, mac, allowed, controls })
        });
        Self {
            own_labels: texts.pairs(labels::own(&endpoint.labels, true)),
            profiles: endpoint.profiles.iter().map(|name| texts.intern(name)).collect(),
            nets: hosts(&endpoint.addrs),
            ports: ports(&endpoint.ports, texts),
            vrf: endpoint.vrf.clone().map(Box::new),
            local,
        }
    }

    pub(super) fn host(endpoint: &HostEndpoint, this_node: &NodeName, texts: &mut Texts) -> Self {
        let local = (endpoint.node == *this_node).then(|| {
            let (interface, addrs) = (endpoint.interface.clone(), endpoint.expected_addrs.clone());
            Box::new(Local::Host { interface, addrs })
        });
        Self {
            own_labels: texts.pairs(labels::own(&endpoint.labels, false)),
            profiles: endpoint.profiles.iter().map(|name| texts.intern(name)).collect(),
            nets: hosts(&endpoint.expected_addrs),
            ports: ports(&endpoint.ports, texts),
            vrf: None,
            local,
        }
    }

    pub(super) fn network_set(set: &NetworkSet, texts: &mut Texts) -> Self {
        let nets: BTreeSet<Cidr> = set.nets.iter().copied().collect();
        Self {
            own_labels: texts.pairs(labels::own(&set.labels, set.namespace.is_some())),
            profiles: labels::profile_of(set).iter().map(|name| texts.intern(name)).collect(),
            nets: nets.into_iter().collect(),
            ports: Box::default(),
            vrf: None,
            local: None,
        }
    }

    fn has_same_members(&self, other: &Self) -> bool {
        let is_as_near = self.local.is_some() == other.local.is_some();
        is_as_near && self.nets == other.nets && self.ports == other.ports
    }
}

fn hosts(addrs: &[IpAddr]) -> Box<[Cidr]> {
    let nets: BTreeSet<Cidr> = addrs.iter().copied().map(Cidr::host).collect();
    nets.into_iter().collect()
}

fn ports(ports: &[NamedPort], texts: &mut Texts) -> Box<[Port]> {
    let read = |port: &NamedPort| Port {
        name: texts.intern(&port.name),
        protocol: Protocol(port.protocol),
        number: port.port,
    };
    ports.iter().map(read).collect()
}

/// A thing and the labels that it has at present.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) name: Arc<ThingName>,
    pub(super) thing: Thing,
    pub(super) labels: LabelSet,
    /// To whom it means something.
    pub(super) home: Home,
}

impl Placed {
    /// Returns the zone that an endpoint is in.
    pub(super) const fn zone(&self) -> Zone {
        match self.home {
            Home::In(zone) => zone,
            Home::Everywhere => Zone::Default,
        }
    }

    /// Does it give the same members to every set that it is in?
    pub(super) fn has_same_members(&self, other: &Self) -> bool {
        self.home == other.home && self.thing.has_same_members(&other.thing)
    }
}

/// Returns to whom a thing means something.
pub(super) fn home(name: &ThingName, thing: &Thing, vrfs: &Vrfs) -> Home {
    match name {
        ThingName::Workload(_) | ThingName::Host(_) => Home::In(vrfs.zone(thing.vrf.as_deref())),
        ThingName::NetworkSet(_) => Home::Everywhere,
    }
}

/// All things, by number.
#[derive(Debug, Default)]
pub(super) struct Things {
    placed: BTreeMap<ItemKey, Placed>,
    keys: BTreeMap<Arc<ThingName>, ItemKey>,
    /// Numbers of things that are gone.
    free: Vec<ItemKey>,
}

impl Things {
    pub(super) fn get(&self, key: ItemKey) -> Option<&Placed> {
        self.placed.get(&key)
    }

    pub(super) fn labels(&self, key: ItemKey) -> Option<&LabelSet> {
        self.placed.get(&key).map(|placed| &placed.labels)
    }

    /// Returns a thing's number, a new one if it is new.
    pub(super) fn key(&mut self, name: &ThingName) -> ItemKey {
        if let Some(key) = self.keys.get(name) {
            return *key;
        }
        let next = || ItemKey(u32::try_from(self.placed.len()).unwrap_or(u32::MAX));
        self.free.pop().unwrap_or_else(next)
    }

    /// Puts a thing in its place, and returns what was there.
    pub(super) fn put(
        &mut self,
        key: ItemKey,
        name: ThingName,
        (thing, home): (Thing, Home),
        inherited: Box<[Pairs]>,
    ) -> Option<Placed> {
        let name = match self.keys.get_key_value(&name) {
            Some((name, _)) => Arc::clone(name),
            None => Arc::new(name),
        };
        self.keys.insert(Arc::clone(&name), key);
        let labels = LabelSet { own: Arc::clone(&thing.own_labels), inherited };
        self.placed.insert(key, Placed { name, thing, labels, home })
    }

    /// Removes a thing, if it is there; its number may be another's afterwards.
    pub(super) fn remove(&mut self, name: &ThingName) -> Option<(ItemKey, Placed)> {
        let key = self.keys.remove(name)?;
        let placed = self.placed.remove(&key)?;
        self.free.push(key);
        Some((key, placed))
    }

    /// Returns all of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Placed> {
        self.placed.values()
    }

    /// Returns how many there are.
    pub(super) fn len(&self) -> usize {
        self.placed.len()
    }
}
