//! Eight bytes for each address of each block: fingerprints of its handle and of its user.
//!
//! A fingerprint is only ever compared with one at the same place, so that four bytes of a hash
//! are enough: if six million addresses were all wrong, one look in seven hundred would pass over
//! one of them, and the hashes of the next look are others.

use std::ops::Range;

/// Nothing to prove: nobody, somebody who needs no proof, or somebody who has been seen.
pub(super) const NOTHING: u32 = 0;
/// Something that cannot be proven.
pub(super) const NO_PROOF: u32 = 1;

/// Where in [`Prints`] the addresses of a block are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    first: usize,
    len: usize,
}

impl Span {
    fn range(self) -> Range<usize> {
        self.first..self.first.saturating_add(self.len)
    }

    fn place(self, ordinal: u32) -> Option<usize> {
        let ordinal = usize::try_from(ordinal).ok().filter(|ordinal| *ordinal < self.len)?;
        self.first.checked_add(ordinal)
    }
}

/// What is to be seen of each address, block after block.
#[derive(Debug, Default)]
pub(super) struct Prints(Vec<u32>);

impl Prints {
    /// Returns the fingerprint of a hash; never [`NOTHING`] nor [`NO_PROOF`].
    pub(super) fn of(hash: u64) -> u32 {
        let [a, b, c, d, ..] = hash.to_le_bytes();
        u32::from_le_bytes([a, b, c, d]).max(NO_PROOF.saturating_add(1))
    }

    /// Makes room for a block of so many addresses, of which nothing is to be proven.
    pub(super) fn add(&mut self, len: usize) -> Span {
        let first = self.0.len();
        self.0.resize(first.saturating_add(len), NOTHING);
        Span { first, len }
    }

    /// Demands that `print` is seen at the address.
    pub(super) fn demand(&mut self, span: Span, ordinal: u32, print: u32) {
        if let Some(place) = span.place(ordinal).and_then(|place| self.0.get_mut(place)) {
            *place = print;
        }
    }

    /// Takes note that `print` was seen at the address; returns whether it was demanded there.
    pub(super) fn see(&mut self, span: Span, ordinal: u32, print: u32) -> bool {
        let place = span.place(ordinal).and_then(|place| self.0.get_mut(place));
        let place = place.filter(|place| **place == print);
        place.map(|place| *place = NOTHING).is_some()
    }

    /// Takes note that `print` was seen at every address of the block that demands it.
    pub(super) fn see_all(&mut self, span: Span, print: u32) {
        let places = self.0.get_mut(span.range()).unwrap_or_default();
        places.iter_mut().filter(|place| **place == print).for_each(|place| *place = NOTHING);
    }

    /// Returns how many addresses of the block demand `print`.
    pub(super) fn count(&self, span: Span, print: u32) -> usize {
        self.block(span).iter().filter(|place| **place == print).count()
    }

    /// Returns how many addresses of the block still demand something.
    pub(super) fn open(&self, span: Span) -> usize {
        self.block(span).iter().filter(|place| **place != NOTHING).count()
    }

    fn block(&self, span: Span) -> &[u32] {
        self.0.get(span.range()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_demanded_is_seen_once_and_only_there() {
        let mut prints = Prints::default();
        let (one, two) = (prints.add(4), prints.add(4));
        prints.demand(one, 3, 7);
        prints.demand(two, 0, 7);
        prints.demand(two, 4, 7);
        assert_eq!([prints.open(one), prints.open(two), prints.count(two, 7)], [1, 1, 1]);
        assert!(!prints.see(one, 0, 7));
        assert!(!prints.see(one, 3, 8));
        assert!(!prints.see(one, 4, 7), "the next block's first address");
        assert!(prints.see(one, 3, 7));
        assert!(!prints.see(one, 3, 7));
        prints.see_all(two, 7);
        assert_eq!([prints.open(one), prints.open(two)], [0, 0]);
    }

    #[test]
    fn no_hash_looks_as_if_nothing_were_to_prove() {
        assert!(Prints::of(0) > NO_PROOF && Prints::of(1) > NO_PROOF);
        assert_eq!(Prints::of(u64::MAX), u32::MAX);
    }
}
