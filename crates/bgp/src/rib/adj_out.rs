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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Attributes;

    fn path(med: u32) -> Arc<Path> {
        let attributes = Attributes { med: Some(med), ..Attributes::default() };
        Arc::new(Path { next_hop: [192, 0, 2, 1].into(), attributes })
    }

    fn cidrs(count: u8) -> Vec<Cidr> {
        (0..count).map(|n| format!("10.0.{n}.0/24").parse().unwrap()).collect()
    }

    #[test]
    fn destinations_of_one_path_go_together() {
        let (mut out, all, one, two) = (AdjRibOut::default(), cidrs(4), path(1), path(2));
        out.mark_all(all.iter().copied());
        let want = |cidr: &Cidr| Some(if *cidr == all[1] { two.clone() } else { one.clone() });
        let batch = out.take(10, want);
        assert_eq!(batch.announced[&one], [all[0], all[2], all[3]]);
        assert_eq!(batch.announced[&two], [all[1]]);
        assert!(out.is_settled());
    }

    #[test]
    fn only_differences_go_out() {
        let (mut out, all, one, two) = (AdjRibOut::default(), cidrs(3), path(1), path(2));
        out.mark_all(all.iter().copied());
        out.take(10, |_| Some(one.clone()));
        out.mark_all(all.iter().copied());
        let want = |cidr: &Cidr| match all.iter().position(|each| each == cidr) {
            Some(0) => Some(one.clone()),
            Some(1) => Some(two.clone()),
            _ => None,
        };
        let batch = out.take(10, want);
        assert_eq!(batch.withdrawn, [all[2]]);
        assert_eq!(batch.announced.into_iter().collect::<Vec<_>>(), [(two, vec![all[1]])]);
        assert_eq!(out.len(), 2);
    }

    #[test]
    fn what_was_forgotten_is_said_again_or_withdrawn() {
        let (mut out, all, one) = (AdjRibOut::default(), cidrs(2), path(1));
        out.mark_all(all.iter().copied());
        out.take(10, |_| Some(one.clone()));
        out.forget_paths();
        out.mark_all(std::iter::empty());
        let batch = out.take(10, |cidr| (*cidr == all[0]).then(|| one.clone()));
        assert_eq!(batch.withdrawn, [all[1]]);
        assert_eq!(batch.announced[&one], [all[0]]);
    }

    #[test]
    fn a_batch_takes_no_more_than_its_limit() {
        let (mut out, one) = (AdjRibOut::default(), path(1));
        out.mark_all(cidrs(5).into_iter());
        assert_eq!(out.take(2, |_| Some(one.clone())).announced[&one].len(), 2);
        assert!(!out.is_settled());
    }
}
