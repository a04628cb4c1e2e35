//! Whom an address means, for endpoints of VRFs whose ranges overlap others'.
//!
//! A set for endpoints of a zone holds
//!
//! * pods of that zone;
//! * host endpoints in the default zone only: from a VRF, a node's address may be somebody else;
//! * network sets in every zone: they are numbers, as networks in rules are;
//! * of Services' endpoints the pods of that zone. An address of which no pod of a VRF in the
//!   Service's namespace is known is of the default zone.
//!
//! Nobody is anybody to whoever is [`Zone::Nowhere`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::vrf::Zone;

/// Where a thing that selectors find means something.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Home {
    /// To endpoints of its zone: a pod, a host endpoint.
    In(Zone),
    /// To everybody: a network set.
    Everywhere,
}

/// Does what is at `home` mean something to endpoints of `zone`?
pub(super) fn means(home: Home, zone: Zone) -> bool {
    zone != Zone::Nowhere && (home == Home::Everywhere || home == Home::In(zone))
}

/// In which zones the addresses of a namespace's pods are, as far as these are in VRFs.
///
/// Empty in clusters without VRFs.
#[derive(Clone, Debug, Default)]
pub(super) struct Homes(BTreeMap<String, BTreeMap<IpAddr, BTreeMap<Zone, u32>>>);

impl Homes {
    /// Takes note of a pod of a VRF.
    pub(super) fn add(&mut self, namespace: &str, addr: IpAddr, zone: Zone) {
        let addrs = self.0.entry(namespace.to_owned()).or_default();
        let count = addrs.entry(addr).or_default().entry(zone).or_default();
        *count = count.saturating_add(1);
    }

    /// Takes note that it is gone.
    pub(super) fn remove(&mut self, namespace: &str, addr: IpAddr, zone: Zone) {
        let Some(addrs) = self.0.get_mut(namespace) else { return };
        let Some(zones) = addrs.get_mut(&addr) else { return };
        if let Some(count) = zones.get_mut(&zone) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                zones.remove(&zone);
            }
        }
        if zones.is_empty() {
            addrs.remove(&addr);
        }
        if addrs.is_empty() {
            self.0.remove(namespace);
        }
    }

    /// Does an address of a Service's endpoints mean these to endpoints of `zone`?
    pub(super) fn means(&self, namespace: &str, addr: IpAddr, zone: Zone) -> bool {
        match self.0.get(namespace).and_then(|addrs| addrs.get(&addr)) {
            Some(zones) => zones.keys().any(|home| means(Home::In(*home), zone)),
            None => means(Home::In(Zone::Default), zone),
        }
    }

    /// Returns how much is kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.0.len()
    }
}
