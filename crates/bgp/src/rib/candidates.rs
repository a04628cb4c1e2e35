//! The paths to one destination: mostly one, which needs no list of its own.

use std::slice;
use std::sync::Arc;

use super::{Path, PeerIndex, Source};

/// A path together with whom it came from.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Whom it came from.
    pub source: Arc<Source>,
    /// The way.
    pub path: Arc<Path>,
    /// The number that the peer gave it (RFC 7911), zero if it gives none.
    pub received_id: u32,
    /// The number that we give it, at least 1; it stays while the candidate is replaced.
    pub sent_id: u32,
}

/// Paths to one destination, at most one for each peer and number.
#[derive(Debug, Default)]
pub enum Candidates {
    /// There is none.
    #[default]
    None,
    /// There is one.
    One(Candidate),
    /// There are several; the best comes first once it has been chosen.
    Many(Vec<Candidate>),
}

impl Candidates {
    /// Returns all of them.
    #[must_use]
    pub fn as_slice(&self) -> &[Candidate] {
        match self {
            Self::None => &[],
            Self::One(only) => slice::from_ref(only),
            Self::Many(all) => all,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Candidate] {
        match self {
            Self::None => &mut [],
            Self::One(only) => slice::from_mut(only),
            Self::Many(all) => all,
        }
    }

    /// Puts `new` in the place of what its peer said before under its number; returns
    /// whether it is another path, and whether there was none before.
    pub(super) fn upsert(&mut self, mut new: Candidate) -> (bool, bool) {
        let key = |each: &Candidate| (each.source.peer, each.received_id);
        if let Some(old) = self.as_mut_slice().iter_mut().find(|old| key(old) == key(&new)) {
            let is_other = !Arc::ptr_eq(&old.path, &new.path) || !old.source.is_like(&new.source);
            new.sent_id = old.sent_id;
            *old = new;
            return (is_other, false);
        }
        new.sent_id = self.unused_id();
        *self = match std::mem::take(self) {
            Self::None => Self::One(new),
            Self::One(only) => Self::Many(vec![only, new]),
            Self::Many(mut all) => {
                all.push(new);
                Self::Many(all)
            }
        };
        (true, true)
    }

    /// Returns the smallest number from 1 that no candidate has.
    fn unused_id(&self) -> u32 {
        let is_free = |id: &u32| self.as_slice().iter().all(|each| each.sent_id != *id);
        (1..=u32::MAX).find(is_free).unwrap_or(u32::MAX)
    }

    /// Keeps only what `is_kept` says yes to; returns how many went.
    pub(super) fn retain(&mut self, is_kept: impl Fn(&Candidate) -> bool) -> usize {
        let before = self.as_slice().len();
        if self.as_slice().iter().all(&is_kept) {
            return 0;
        }
        *self = match std::mem::take(self) {
            Self::None | Self::One(_) => Self::None,
            Self::Many(mut all) => {
                all.retain(is_kept);
                match (all.pop(), all.is_empty()) {
                    (None, _) => Self::None,
                    (Some(only), true) => Self::One(only),
                    (Some(last), false) => {
                        all.push(last);
                        Self::Many(all)
                    }
                }
            }
        };
        before.saturating_sub(self.as_slice().len())
    }

    /// Takes out what `peer` said under `received_id`; returns how many went.
    pub(super) fn remove(&mut self, peer: PeerIndex, received_id: u32) -> usize {
        self.retain(|each| each.source.peer != peer || each.received_id != received_id)
    }

    /// Puts the candidate at `position` first.
    pub(super) fn put_first(&mut self, position: usize) {
        let all = self.as_mut_slice();
        if position < all.len() {
            all.swap(0, position);
        }
    }
}
