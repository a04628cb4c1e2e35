//! Destinations that wait for something, each at most once.

use std::collections::VecDeque;

use super::DestId;

/// A queue in which no destination stands twice.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    order: VecDeque<DestId>,
    /// One bit for each destination: does it stand in the queue?
    waiting: Vec<u64>,
}

impl Queue {
    /// Appends `id`; returns false if it is there already.
    pub fn push(&mut self, id: DestId) -> bool {
        let (word, bit) = Self::place(id);
        if word >= self.waiting.len() {
            self.waiting.resize(word.saturating_add(1), 0);
        }
        let Some(word) = self.waiting.get_mut(word) else { return false };
        let is_new = *word & bit == 0;
        if is_new {
            *word |= bit;
            self.order.push_back(id);
        }
        is_new
    }

    /// Takes the first.
    pub fn pop(&mut self) -> Option<DestId> {
        let id = self.order.pop_front()?;
        let (word, bit) = Self::place(id);
        if let Some(word) = self.waiting.get_mut(word) {
            *word &= !bit;
        }
        if self.order.is_empty() {
            // A burst is over: its memory goes back.
            *self = Self::default();
        }
        Some(id)
    }

    /// Does nothing wait?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Returns what waits, in order.
    pub fn iter(&self) -> impl Iterator<Item = DestId> {
        self.order.iter().copied()
    }

    fn place(id: DestId) -> (usize, u64) {
        let number = id.as_usize();
        (number >> 6, 1_u64.rotate_left(id.0 & 63))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_not_queued_again() {
        let mut queue = Queue::default();
        let pushed = [3, 64, 3, 1000].map(|number| queue.push(DestId(number)));
        assert_eq!(pushed, [true, true, false, true]);
        assert_eq!(queue.pop(), Some(DestId(3)));
        assert!(queue.push(DestId(3)));
        assert_eq!(queue.iter().map(|id| id.0).collect::<Vec<_>>(), [64, 1000, 3]);
        while queue.pop().is_some() {}
        assert!(queue.is_empty());
    }
}
