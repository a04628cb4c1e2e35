//! Addresses on workloads' interfaces that those workloads, which speak BGP, peer with.
//!
//! What nobody wants goes if it is marked as ours. Kernels that keep no mark show the address all the
//! same, so that it is not written again and again; there it goes with its interface.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::net::IfName;
use model::time::Timestamp;
use reconcile::{Backoff, Table};

use crate::felix::event::{PeeringAddrApplied, PeeringAddrChange};

/// What the engine knows of these addresses.
#[derive(Debug)]
pub(super) struct Peering {
    table: Table<(IfName, IpAddr), ()>,
    /// What there is, and whether each is ours.
    found: BTreeMap<(IfName, IpAddr), bool>,
    /// When that is looked at again.
    next: Timestamp,
}

impl Peering {
    pub(super) const fn new() -> Self {
        Self { table: Table::new(Backoff::KERNEL), found: BTreeMap::new(), next: Timestamp::ZERO }
    }

    /// Takes what there is; `next` is when that is looked at again.
    pub(super) fn listed(&mut self, found: BTreeMap<(IfName, IpAddr), bool>, next: Timestamp) {
        self.found = found;
        self.next = next;
    }

    /// Returns what to change so that there is what is `wanted`, on interfaces that are there.
    pub(super) fn due(
        &mut self,
        wanted: &BTreeSet<(IfName, IpAddr)>,
        links: &BTreeSet<IfName>,
        now: Timestamp,
    ) -> Vec<PeeringAddrChange> {
        let wanted = wanted.iter().filter(|(name, _)| links.contains(name));
        let wanted: BTreeSet<_> = wanted.cloned().collect();
        let found = self.found.iter();
        let actual = found.filter(|(key, is_ours)| **is_ours || wanted.contains(*key));
        let actual = actual.map(|(key, _)| (key.clone(), ())).collect();
        self.table.want_all(wanted.into_iter().map(|key| (key, ())).collect());
        self.table.listed(actual, self.next);
        self.table.due(now)
    }

    /// Returns when something that failed is tried again.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.table.failing().next().and_then(|_| self.table.next_deadline())
    }

    /// Takes note of how changes went.
    pub(super) fn note_applied(&mut self, results: Vec<PeeringAddrApplied>, now: Timestamp) {
        for (change, result) in results {
            if result.is_err() {
                self.table.failed(change.key().clone(), now);
                continue;
            }
            match &change {
                PeeringAddrChange::Upsert(key, ()) => drop(self.found.insert(key.clone(), true)),
                PeeringAddrChange::Delete(key, ()) => drop(self.found.remove(key)),
            }
            self.table.succeeded(change);
        }
    }

    /// Returns how many changes have failed and will be tried again.
    pub(super) fn failing(&self) -> usize {
        self.table.failing().count()
    }
}
