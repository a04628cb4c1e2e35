//! Adj-RIBs-In and Loc-RIB in one table by destination, as BIRD keeps them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use model::net::Cidr;

use super::best_path::{Selection, select};
use super::{Path, PeerIndex, Source};

/// A path together with whom it came from.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Whom it came from.
    pub source: Arc<Source>,
    /// The way.
    pub path: Arc<Path>,
    /// The peer's count of restarts when the path came; a smaller one than now is stale.
    pub epoch: u32,
}

/// All paths by destination, with what was chosen.
#[derive(Debug, Default)]
pub struct Table(BTreeMap<Cidr, Destination>);

#[derive(Debug, Default)]
struct Destination {
    candidates: Vec<Candidate>,
    best: Option<Candidate>,
}

impl Table {
    /// Puts in what a peer says about `cidr`; returns whether it says something new.
    pub fn upsert(&mut self, cidr: Cidr, candidate: Candidate) -> bool {
        let destination = self.0.entry(cidr).or_default();
        let peer = candidate.source.peer;
        let old = destination.candidates.iter_mut().find(|old| old.source.peer == peer);
        let Some(old) = old else {
            destination.candidates.push(candidate);
            return true;
        };
        let is_new = !Arc::ptr_eq(&old.path, &candidate.path) || old.source != candidate.source;
        *old = candidate;
        is_new
    }

    /// Takes out what `peer` says about `cidr`; returns whether it said anything.
    pub fn remove(&mut self, cidr: &Cidr, peer: PeerIndex) -> bool {
        let Some(destination) = self.0.get_mut(cidr) else { return false };
        let before = destination.candidates.len();
        destination.candidates.retain(|candidate| candidate.source.peer != peer);
        destination.candidates.len() != before
    }

    /// Takes out all that `peer` said before `epoch`; returns the destinations.
    pub fn remove_before(&mut self, peer: PeerIndex, epoch: u32) -> BTreeSet<Cidr> {
        let mut removed = BTreeSet::new();
        for (cidr, destination) in &mut self.0 {
            let before = destination.candidates.len();
            let is_old = |each: &Candidate| each.source.peer == peer && each.epoch < epoch;
            destination.candidates.retain(|candidate| !is_old(candidate));
            if destination.candidates.len() != before {
                removed.insert(*cidr);
            }
        }
        removed
    }

    /// Takes out all that `peer` said; returns the destinations.
    pub fn remove_peer(&mut self, peer: PeerIndex) -> BTreeSet<Cidr> {
        self.remove_before(peer, u32::MAX)
    }

    /// Chooses again for `cidr`; returns the gateways, none if it is not reachable.
    pub fn reselect(&mut self, cidr: &Cidr) -> BTreeSet<IpAddr> {
        let Some(destination) = self.0.get_mut(cidr) else { return BTreeSet::new() };
        let (best, gateways) = match select(&destination.candidates) {
            Some(Selection { best, gateways }) => (Some(best), gateways),
            None => (None, BTreeSet::new()),
        };
        destination.best = best;
        if destination.candidates.is_empty() {
            self.0.remove(cidr);
        }
        gateways
    }

    /// Returns the best path to `cidr`.
    #[must_use]
    pub fn best(&self, cidr: &Cidr) -> Option<&Candidate> {
        self.0.get(cidr)?.best.as_ref()
    }

    /// Returns all destinations that have a best path, in order.
    pub fn destinations(&self) -> impl Iterator<Item = &Cidr> {
        self.0.iter().filter(|(_, each)| each.best.is_some()).map(|(cidr, _)| cidr)
    }

    /// Counts the destinations that each peer told of.
    #[must_use]
    pub fn count_by_peer(&self) -> BTreeMap<PeerIndex, usize> {
        let mut counts = BTreeMap::new();
        for candidate in self.0.values().flat_map(|destination| &destination.candidates) {
            let count: &mut usize = counts.entry(candidate.source.peer).or_default();
            *count = count.saturating_add(1);
        }
        counts
    }

    /// Returns how many destinations there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Is there no destination?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
