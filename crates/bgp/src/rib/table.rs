//! Adj-RIBs-In and Loc-RIB in one table by destination, as BIRD keeps them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashTable;
use model::net::{Cidr, Family};

use super::best_path::select;
use super::{
    Candidate, Candidates, DEFAULT_LOCAL_PREF, GatewaySet, Gateways, Interner, Path, PeerIndex,
    Seed, metric_of,
};

/// A destination's number; it is given to another one only when nobody holds it any more.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct DestId(pub u32);

impl DestId {
    /// Returns the number as an index.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// All that is known of a destination.
#[derive(Debug)]
pub struct Destination {
    cidr: Cidr,
    is_dirty: bool,
    is_own: bool,
    /// How many streams have told of it or are about to.
    holders: u32,
    candidates: Candidates,
    gateways: Option<Gateways>,
}

impl Destination {
    /// Returns the prefix.
    #[must_use]
    pub fn cidr(&self) -> &Cidr {
        &self.cidr
    }

    /// Returns all learned paths, the best first.
    #[must_use]
    pub fn candidates(&self) -> &[Candidate] {
        self.candidates.as_slice()
    }

    /// Do we originate it?
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.is_own
    }

    /// Returns the gateways that the kernel should have; `None` if it should have no route.
    #[must_use]
    pub fn gateways(&self) -> Option<&Gateways> {
        self.gateways.as_ref()
    }

    fn is_unused(&self) -> bool {
        let has_nothing = self.candidates().is_empty() && !self.is_own;
        has_nothing && self.holders == 0 && !self.is_dirty && self.gateways.is_none()
    }
}

/// All paths by destination, with what was chosen.
#[derive(Debug, Default)]
pub struct Table {
    slots: Vec<Option<Destination>>,
    free: Vec<DestId>,
    index: HashTable<DestId>,
    dirty: Vec<DestId>,
    /// The paths that we originate.
    own: BTreeMap<DestId, Arc<Path>>,
    received: BTreeMap<(PeerIndex, Family), usize>,
    seed: Seed,
}

impl Table {
    /// Makes a table whose hashes begin with `seed`.
    #[must_use]
    pub fn new(seed: Seed) -> Self {
        Self { seed, ..Self::default() }
    }

    fn hash(seed: Seed, cidr: &Cidr) -> u64 {
        match cidr.addr() {
            IpAddr::V4(addr) => {
                seed.hash(&(u64::from(addr.to_bits()) << 8 | u64::from(cidr.prefix_len())))
            }
            IpAddr::V6(addr) => seed.hash(&(addr.to_bits(), cidr.prefix_len())),
        }
    }

    /// Returns the path that we originate to a destination, if we do.
    #[must_use]
    pub fn own(&self, id: DestId) -> Option<&Arc<Path>> {
        self.own.get(&id)
    }

    /// Returns the destination's number, if it is known.
    #[must_use]
    pub fn find(&self, cidr: &Cidr) -> Option<DestId> {
        let is_it = |id: &DestId| self.get(*id).is_some_and(|each| each.cidr == *cidr);
        self.index.find(Self::hash(self.seed, cidr), is_it).copied()
    }

    /// Returns the destination with this number.
    #[must_use]
    pub fn get(&self, id: DestId) -> Option<&Destination> {
        self.slots.get(id.as_usize())?.as_ref()
    }

    fn get_mut(&mut self, id: DestId) -> Option<&mut Destination> {
        self.slots.get_mut(id.as_usize())?.as_mut()
    }

    /// Returns the destination's number, a new one if it is not known.
    fn entry(&mut self, cidr: Cidr) -> DestId {
        if let Some(id) = self.find(&cidr) {
            return id;
        }
        let new = Destination {
            cidr,
            is_dirty: false,
            is_own: false,
            holders: 0,
            candidates: Candidates::None,
            gateways: None,
        };
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            DestId(u32::try_from(self.slots.len().saturating_sub(1)).unwrap_or(u32::MAX))
        });
        if let Some(slot) = self.slots.get_mut(id.as_usize()) {
            *slot = Some(new);
        }
        let (slots, seed) = (&self.slots, self.seed);
        let rehash = |id: &DestId| {
            let destination = slots.get(id.as_usize()).and_then(Option::as_ref);
            destination.map_or(0, |each| Self::hash(seed, &each.cidr))
        };
        self.index.insert_unique(Self::hash(seed, &cidr), id, rehash);
        id
    }

    /// Notes that a destination must be looked at again.
    pub fn mark(&mut self, id: DestId) {
        if let Some(destination) = self.get_mut(id)
            && !destination.is_dirty
        {
            destination.is_dirty = true;
            self.dirty.push(id);
        }
    }

    /// Takes the destinations that were marked, in the order of their marks.
    pub fn take_marked(&mut self) -> Vec<DestId> {
        std::mem::take(&mut self.dirty)
    }

    /// Puts in what a peer says about `cidr`.
    pub fn upsert(&mut self, cidr: Cidr, candidate: Candidate) {
        let (id, peer) = (self.entry(cidr), candidate.source.peer);
        let Some(destination) = self.get_mut(id) else { return };
        let (is_other, is_new) = destination.candidates.upsert(candidate);
        if is_new {
            let count = self.received.entry((peer, cidr.family())).or_default();
            *count = count.saturating_add(1);
        }
        if is_other {
            self.mark(id);
        }
    }

    /// Takes out what `peer` says about `cidr` under `received_id`.
    pub fn remove(&mut self, cidr: &Cidr, peer: PeerIndex, received_id: u32) {
        let Some(id) = self.find(cidr) else { return };
        let Some(destination) = self.slots.get_mut(id.as_usize()).and_then(Option::as_mut) else {
            return;
        };
        let count = destination.candidates.remove(peer, received_id);
        if count == 0 {
            return;
        }
        // In place, and not by `mark`: peers withdraw by the hundred thousand.
        if !destination.is_dirty {
            destination.is_dirty = true;
            self.dirty.push(id);
        }
        self.count_removed(peer, cidr.family(), count);
    }

    fn removed(&mut self, id: DestId, peer: PeerIndex, count: usize) {
        if count == 0 {
            return;
        }
        let Some(family) = self.get(id).map(|each| each.cidr().family()) else { return };
        self.count_removed(peer, family, count);
        self.mark(id);
    }

    fn count_removed(&mut self, peer: PeerIndex, family: Family, count: usize) {
        if let Some(received) = self.received.get_mut(&(peer, family)) {
            *received = received.saturating_sub(count);
            if *received == 0 {
                self.received.remove(&(peer, family));
            }
        }
    }

    /// Takes out all that `peer` said of `family` before `epoch`.
    pub fn remove_before(&mut self, peer: PeerIndex, family: Family, epoch: u32) {
        if self.received_of(peer, family) == 0 {
            return;
        }
        let is_old = |each: &Candidate| each.source.peer == peer && each.source.epoch < epoch;
        for id in self.ids() {
            let is_meant = |each: &&mut Destination| each.cidr.family() == family;
            let Some(destination) = self.get_mut(id).filter(is_meant) else { continue };
            let count = destination.candidates.retain(|each| !is_old(each));
            self.removed(id, peer, count);
        }
    }

    /// Takes out all that `peer` said.
    pub fn remove_peer(&mut self, peer: PeerIndex) {
        for family in Family::ALL {
            self.remove_before(peer, family, u32::MAX);
        }
    }

    /// Sets the path that we originate to `cidr`, or that we originate none.
    pub fn set_own(&mut self, cidr: Cidr, own: Option<Arc<Path>>) {
        let id = self.entry(cidr);
        if let Some(destination) = self.get_mut(id) {
            destination.is_own = own.is_some();
        }
        match own {
            Some(path) => drop(self.own.insert(id, path)),
            None => drop(self.own.remove(&id)),
        }
        self.mark(id);
    }

    /// Chooses again for a marked destination; returns its prefix and gateways if these are
    /// not what they were.
    pub fn reselect(&mut self, id: DestId, interner: &mut Interner) -> Option<(Cidr, Gateways)> {
        let destination = self.get_mut(id)?;
        destination.is_dirty = false;
        let mut gateways = None;
        if let [only] = destination.candidates.as_slice() {
            // Mostly so: nothing is to be compared, and no set to be made.
            gateways = Some(interner.gateway(only.path.next_hop, metric(only)));
        } else if let Some(selection) = select(destination.candidates.as_slice()) {
            let best = destination.candidates.as_slice().get(selection.best);
            let metric = best.map_or(u32::MAX, metric);
            gateways = Some(match selection.only_gateway() {
                Some(addr) => interner.gateway(addr, metric),
                None => Arc::new(GatewaySet { addrs: selection.gateways, metric }),
            });
            destination.candidates.put_first(selection.best);
        }
        if destination.is_own {
            // Our own prefixes never lead elsewhere, whoever else announces them.
            gateways = None;
        }
        if destination.gateways == gateways {
            return None;
        }
        destination.gateways.clone_from(&gateways);
        Some((destination.cidr, gateways.unwrap_or_else(|| interner.no_gateways())))
    }

    /// Notes that a stream has told of a destination or is about to.
    pub fn hold(&mut self, id: DestId) {
        if let Some(destination) = self.get_mut(id) {
            destination.holders = destination.holders.saturating_add(1);
        }
    }

    /// Takes back one [`Self::hold`].
    pub fn release(&mut self, id: DestId) {
        if let Some(destination) = self.get_mut(id) {
            destination.holders = destination.holders.saturating_sub(1);
        }
        self.forget_unused(id);
    }

    /// Forgets a destination if nobody has a use for it.
    pub fn forget_unused(&mut self, id: DestId) {
        let Some(slot) = self.slots.get_mut(id.as_usize()) else { return };
        let Some(destination) = slot.take_if(|each| each.is_unused()) else { return };
        let hash = Self::hash(self.seed, &destination.cidr);
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == id) {
            entry.remove();
        }
        self.free.push(id);
    }

    /// Returns the numbers that destinations have or had.
    pub fn ids(&self) -> impl Iterator<Item = DestId> + use<> {
        (0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX)).map(DestId)
    }

    /// Returns all destinations that a path leads to, in the order of their numbers.
    pub fn reachable(&self) -> impl Iterator<Item = (DestId, &Destination)> {
        let known = self.ids().filter_map(|id| Some((id, self.get(id)?)));
        known.filter(|(_, each)| !each.candidates().is_empty() || each.is_own)
    }

    /// Returns how many paths `peer` told of.
    #[must_use]
    pub fn received(&self, peer: PeerIndex) -> usize {
        let counts = Family::ALL.map(|family| self.received_of(peer, family));
        counts.into_iter().fold(0, usize::saturating_add)
    }

    /// Returns how many paths of `family` `peer` told of.
    #[must_use]
    pub fn received_of(&self, peer: PeerIndex, family: Family) -> usize {
        self.received.get(&(peer, family)).copied().unwrap_or(0)
    }

    /// Returns how many destinations there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Is there no destination?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }
}

/// Returns the kernel metric of a path.
fn metric(candidate: &Candidate) -> u32 {
    metric_of(candidate.path.attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF))
}
