//! Adj-RIB-Out: what a peer has been told, and what it must be told next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::net::Cidr;

use super::Path;

/// What one peer has been told.
///
/// Only the difference goes out: a destination that changes and changes back
/// before it could be sent costs nothing, so a slow peer needs no more memory
/// than the table has destinations.
#[derive(Debug, Default)]
pub struct AdjRibOut {
    /// `None` stands for something that must be said again (RFC 2918).
    sent: BTreeMap<Cidr, Option<Arc<Path>>>,
    pending: BTreeSet<Cidr>,
}

/// What goes out next, grouped so that each path is written once.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Batch {
    /// Destinations to withdraw.
    pub withdrawn: Vec<Cidr>,
    /// Destinations to announce, by path.
    pub announced: BTreeMap<Arc<Path>, Vec<Cidr>>,
}

impl AdjRibOut {
    /// Notes that `cidr` must be looked at again.
    pub fn mark(&mut self, cidr: Cidr) {
        self.pending.insert(cidr);
    }

    /// Notes that everything must be looked at again.
    pub fn mark_all(&mut self, cidrs: impl Iterator<Item = Cidr>) {
        self.pending.extend(cidrs);
        self.pending.extend(self.sent.keys().copied());
    }

    /// Forgets which paths were sent, but not for which destinations.
    pub fn forget_paths(&mut self) {
        self.sent.values_mut().for_each(|path| *path = None);
    }

    /// Is there nothing left to say?
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.pending.is_empty()
    }

    /// Returns how many destinations the peer holds from us.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sent.len()
    }

    /// Does the peer hold nothing from us?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// Takes up to `limit` destinations and compares what was sent with what `want` returns.
    pub fn take(
        &mut self,
        limit: usize,
        mut want: impl FnMut(&Cidr) -> Option<Arc<Path>>,
    ) -> Batch {
        let mut batch = Batch::default();
        for _ in 0..limit {
            let Some(cidr) = self.pending.pop_first() else { break };
            match (want(&cidr), self.sent.get(&cidr)) {
                (None, None) => {}
                (None, Some(_)) => {
                    self.sent.remove(&cidr);
                    batch.withdrawn.push(cidr);
                }
                (Some(path), Some(Some(sent))) if Arc::ptr_eq(&path, sent) => {}
                (Some(path), _) => {
                    self.sent.insert(cidr, Some(Arc::clone(&path)));
                    batch.announced.entry(path).or_default().push(cidr);
                }
            }
        }
        batch
    }
}
