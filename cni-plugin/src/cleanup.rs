//! The guard of an ADD: undoes what was done unless it is told to keep it.
//!
//! What is to be undone is noted *before* it is done, so that an ADD that is
//! interrupted in the middle of a step leaves nothing either. Undoing what was
//! never done must therefore be harmless.

use std::cell::RefCell;
use std::collections::BTreeSet;

/// Something to be undone, in the order of undoing: nobody may get the addresses
/// while the link that carries them is still there.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Undo {
    /// The annotations of the pod.
    Annotations,
    /// The veth pair with all that is on it.
    Pair,
    /// The addresses.
    Addresses,
}

/// What an ADD has begun.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Cleanup {
    begun: RefCell<BTreeSet<Undo>>,
}

impl Cleanup {
    /// Notes that a step is about to be taken.
    pub(crate) fn begin(&self, undo: Undo) {
        self.begun.borrow_mut().insert(undo);
    }

    /// Keeps everything.
    pub(crate) fn commit(self) {
        drop(self);
    }

    /// Returns what is to be undone, first one first.
    pub(crate) fn into_steps(self) -> Vec<Undo> {
        self.begun.into_inner().into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_last_whenever_they_came() {
        let cleanup = Cleanup::default();
        cleanup.begin(Undo::Addresses);
        cleanup.begin(Undo::Pair);
        cleanup.begin(Undo::Annotations);
        assert_eq!(cleanup.into_steps(), [Undo::Annotations, Undo::Pair, Undo::Addresses]);
    }
}
