//! When a node writes what it has to say to the API server.
//!
//! After a change nodes write one after the other, each at its own place in a time that grows
//! with their number: a thousand do not write at once.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use model::id::NodeName;
use model::time::Timestamp;

/// The least time in which all nodes write once.
const LEAST: Duration = Duration::from_secs(2);
/// How much longer that time is for every node: 20 of them write in a second.
const EACH: Duration = Duration::from_millis(50);
/// When to report.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// This node's place among all, in parts of 256.
    place: u8,
    last: Option<Timestamp>,
    due: Option<Timestamp>,
}

impl Schedule {
    /// Makes the schedule of a node, which has said nothing yet.
    pub(crate) fn new(node: &NodeName) -> Self {
        let mut hash = DefaultHasher::new();
        node.as_str().hash(&mut hash);
        let [place, ..] = hash.finish().to_ne_bytes();
        Self { place, last: None, due: None }
    }

    /// Takes note that there is something new to say, in a cluster of so many nodes.
    pub(crate) fn note(&mut self, now: Timestamp, nodes: usize) {
        if self.due.is_some() {
            return;
        }
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
        let round = LEAST.max(EACH.saturating_mul(nodes));
        let turn = now + round.mul_f64(f64::from(self.place) / 256.0);
        self.due = Some(self.last.map_or(turn, |last| turn.max(last + round)));
    }

    /// Returns when to report, if there is something to say.
    pub(crate) const fn due(&self) -> Option<Timestamp> {
        self.due
    }

    /// Takes note that it has been said.
    pub(crate) const fn said(&mut self, now: Timestamp) {
        self.due = None;
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_secs(seconds))
    }

    #[test]
    fn a_thousand_nodes_take_turns() {
        let mut turns: Vec<u64> = (0..1000)
            .map(|number| {
                let mut schedule = Schedule::new(&format!("node-{number}").parse().unwrap());
                schedule.note(at(100), 1000);
                schedule.due().unwrap().since_origin().as_secs()
            })
            .collect();
        turns.sort_unstable();
        assert!(turns[0] >= 100 && turns[999] <= 150);
        let most = turns.chunk_by(|one, other| one == other).map(<[u64]>::len).max();
        assert!(most < Some(100), "{most:?} in one second");
    }

    #[test]
    fn a_node_writes_once_in_a_round() {
        let mut schedule = Schedule::new(&"node-1".parse().unwrap());
        schedule.note(at(0), 3);
        let first = schedule.due().unwrap();
        assert!(first <= at(2));
        schedule.note(at(1), 3);
        assert_eq!(schedule.due(), Some(first));
        schedule.said(first);
        assert_eq!(schedule.due(), None);
        schedule.note(first, 3);
        assert!(schedule.due() >= Some(first + Duration::from_secs(2)));
    }
}
