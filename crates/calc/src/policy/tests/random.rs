//! Random numbers that a seed repeats.

/// A generator (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub(in crate::policy) struct Random(u64);

impl Random {
    pub(in crate::policy) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `end`.
    pub(in crate::policy) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    /// Is it one of `cases`?
    pub(in crate::policy) fn one_in(&mut self, cases: usize) -> bool {
        self.below(cases) == 0
    }

    pub(in crate::policy) fn pick<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }

    /// Returns something in one of `cases`.
    pub(in crate::policy) fn maybe<T>(
        &mut self,
        cases: usize,
        make: impl FnOnce(&mut Self) -> T,
    ) -> Option<T> {
        self.one_in(cases).then(|| make(self))
    }

    /// Returns none to `most` of something.
    pub(in crate::policy) fn few<T>(
        &mut self,
        most: usize,
        mut make: impl FnMut(&mut Self) -> T,
    ) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| make(self)).collect()
    }
}
