//! What a group of peers has been told, all of them the same, and what it must be told next.
//!
//! This is Adj-RIB-Out (RFC 4271 §3.2) for all peers that are told in the same words. Of
//! what was told only marks are kept, 8 bytes for each destination: the words follow from
//! the path. A peer is not told what it told us itself, so such marks do not count for it.

use std::collections::{BTreeMap, BTreeSet};

use super::{DestId, Path, PeerIndex, Queue, Table};

/// The mark that stays of what was told about a destination.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Told(u64);

impl Told {
    const SOURCE_BITS: u32 = 24;
    /// The greatest number that a source may have.
    pub(super) const MAX_SOURCE: u32 = (1 << Self::SOURCE_BITS) - 1;
    /// Nothing was told, or it was withdrawn.
    pub const NOTHING: Self = Self(0);

    /// Marks `path` of `source`.
    #[must_use]
    pub fn new(path: &Path, source: PeerIndex) -> Self {
        Self(path.serial << Self::SOURCE_BITS | u64::from(source.0))
    }

    /// Returns whose path it was.
    #[must_use]
    pub fn source(self) -> PeerIndex {
        let low = self.0 & u64::from(Self::MAX_SOURCE);
        PeerIndex(u32::try_from(low).unwrap_or(Self::MAX_SOURCE))
    }

    /// Returns what puts marks of the same path of the same source together, the oldest path first.
    #[must_use]
    pub fn order(self) -> u64 {
        self.0
    }

    /// Was nothing told?
    #[must_use]
    pub fn is_nothing(self) -> bool {
        self == Self::NOTHING
    }

    /// Returns the mark without the path, so that it must be told again (RFC 2918).
    fn without_path(self) -> Self {
        Self(self.0 & u64::from(Self::MAX_SOURCE))
    }
}

/// What one group of peers has been told, and what is still to be looked at.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// The peers.
    pub members: BTreeSet<PeerIndex>,
    /// What changed since it was told.
    queue: Queue,
    /// Marks of destinations that are told one path, by number.
    single: Vec<Told>,
    /// Marks of destinations that are told several, by the number of the path (RFC 7911).
    several: BTreeMap<DestId, Vec<(u32, Told)>>,
    /// How many paths are told, by their source.
    counts: BTreeMap<PeerIndex, usize>,
    /// Their sum.
    total: usize,
}

impl Stream {
    /// Notes that a destination must be looked at.
    pub fn mark(&mut self, id: DestId, table: &mut Table) {
        if self.queue.push(id) {
            table.hold(id);
        }
    }

    /// Notes that everything must be looked at that is known or was told.
    pub fn mark_all(&mut self, table: &mut Table) {
        let known: Vec<DestId> = table.reachable().map(|(id, _)| id).collect();
        for id in known.into_iter().chain(self.told_ids()) {
            self.mark(id, table);
        }
    }

    /// Returns the destinations that something was told about.
    fn told_ids(&self) -> Vec<DestId> {
        let numbers = (0..=u32::MAX).map(DestId);
        let single = self.single.iter().zip(numbers).filter(|(told, _)| !told.is_nothing());
        single.map(|(_, id)| id).chain(self.several.keys().copied()).collect()
    }

    /// Takes the next destination to look at. The caller releases it in the table.
    pub fn take(&mut self) -> Option<DestId> {
        self.queue.pop()
    }

    /// Is everything told?
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.queue.is_empty()
    }

    /// Has nothing been told?
    #[must_use]
    pub fn is_untold(&self) -> bool {
        self.counts.is_empty()
    }

    /// Returns how many paths `peer` holds from us.
    #[must_use]
    pub fn advertised(&self, peer: PeerIndex) -> usize {
        self.total.saturating_sub(self.counts.get(&peer).copied().unwrap_or(0))
    }

    /// Returns the mark of the only path of a destination.
    #[must_use]
    pub fn single(&self, id: DestId) -> Told {
        self.single.get(id.as_usize()).copied().unwrap_or_default()
    }

    /// Returns the marks of the several paths of a destination, by their numbers.
    #[must_use]
    pub fn several(&self, id: DestId) -> &[(u32, Told)] {
        self.several.get(&id).map_or(&[], Vec::as_slice)
    }

    /// Sets the mark of the only path.
    pub fn set_single(&mut self, id: DestId, told: Told, table: &mut Table) {
        let place = id.as_usize();
        if place >= self.single.len() {
            if told.is_nothing() {
                return;
            }
            self.single.resize(place.saturating_add(1), Told::NOTHING);
        }
        let Some(slot) = self.single.get_mut(place) else { return };
        let old = std::mem::replace(slot, told);
        self.count(old, told);
        match (old.is_nothing(), told.is_nothing()) {
            (true, false) => table.hold(id),
            (false, true) => table.release(id),
            (true, true) | (false, false) => {}
        }
        if self.counts.is_empty() {
            self.single = Vec::new();
        }
    }

    /// Sets the marks of several paths.
    pub fn set_several(&mut self, id: DestId, told: Vec<(u32, Told)>, table: &mut Table) {
        for (_, new) in &told {
            self.count(Told::NOTHING, *new);
        }
        let is_held = !told.is_empty();
        let old = if is_held { self.several.insert(id, told) } else { self.several.remove(&id) };
        for (_, old) in old.iter().flatten() {
            self.count(*old, Told::NOTHING);
        }
        match (old.is_some(), is_held) {
            (false, true) => table.hold(id),
            (true, false) => table.release(id),
            (true, true) | (false, false) => {}
        }
    }

    fn count(&mut self, old: Told, new: Told) {
        if old.is_nothing() != new.is_nothing() || old.source() != new.source() {
            if !new.is_nothing() {
                let count = self.counts.entry(new.source()).or_default();
                *count = count.saturating_add(1);
                self.total = self.total.saturating_add(1);
            }
            if !old.is_nothing() {
                let count = self.counts.entry(old.source()).or_default();
                *count = count.saturating_sub(1);
                self.total = self.total.saturating_sub(1);
                if *count == 0 {
                    self.counts.remove(&old.source());
                }
            }
        }
    }

    /// Makes a stream for some of the members, who go on from where this one is.
    #[must_use]
    pub fn split(&mut self, members: BTreeSet<PeerIndex>, table: &mut Table) -> Self {
        self.members.retain(|member| !members.contains(member));
        let other = Self { members, ..self.clone() };
        for id in other.told_ids().into_iter().chain(other.queue.iter()) {
            table.hold(id);
        }
        other
    }

    /// Forgets which paths were told, but not for which destinations.
    pub fn forget_paths(&mut self, table: &mut Table) {
        let several = self.several.values_mut().flatten().map(|(_, told)| told);
        for told in self.single.iter_mut().chain(several) {
            *told = told.without_path();
        }
        self.mark_all(table);
    }

    /// Lets go of all destinations, for a stream that ends.
    pub fn release_all(self, table: &mut Table) {
        for id in self.told_ids().into_iter().chain(self.queue.iter()) {
            table.release(id);
        }
    }
}
