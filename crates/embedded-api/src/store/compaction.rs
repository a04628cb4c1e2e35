//! Forgetting: how much of the history stays, and how the rest goes.
//!
//! A revision is a change, and the state that it made. Compacting up to a revision
//! removes the changes until there, and those of their states that do not hold
//! there; so every later revision can still be listed and watched.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use super::{Revision, Transaction, error};
use crate::Status;

/// How many changes are forgotten in one commit, so that no write waits for long.
const STEP: u64 = 500;

/// How much of the history stays for lists of the past and for watchers that come
/// back: what exceeds one of the bounds goes when something is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Keep {
    /// Changes.
    pub revisions: u64,
    /// How old they are.
    pub age: Duration,
    /// Bytes of JSON.
    pub bytes: u64,
}

impl Default for Keep {
    /// A Kubernetes API server keeps 5 to 10 minutes.
    fn default() -> Self {
        Self { revisions: 20_000, age: Duration::from_secs(600), bytes: 64 << 20 }
    }
}

/// The amount of history at some moment.
#[derive(Clone, Copy, Debug)]
struct Mark {
    revision: Revision,
    at: Instant,
    bytes: u64,
}

/// Decides what to forget: it remembers when revisions were written, by a few marks.
#[derive(Debug)]
pub(super) struct Schedule {
    keep: Keep,
    marks: VecDeque<Mark>,
    now: Mark,
}

impl Schedule {
    /// Takes all that was written before as written now.
    pub(super) fn new(keep: Keep, head: Revision, now: Instant) -> Self {
        let now = Mark { revision: head, at: now, bytes: 0 };
        Self { keep, marks: VecDeque::from([now]), now }
    }

    /// Notes a commit, and returns the revision to compact to.
    pub(super) fn committed(&mut self, head: Revision, bytes: u64, now: Instant) -> Revision {
        let bytes = self.now.bytes.saturating_add(bytes);
        self.now = Mark { revision: head, at: now, bytes };
        if self.marks.back().is_none_or(|last| self.distance(*last) >= 1) {
            self.marks.push_back(self.now);
        }
        // The first mark is the last one that is too far away.
        while self.marks.get(1).is_some_and(|next| self.distance(*next) >= PARTS) {
            self.marks.pop_front();
        }
        let first = self.marks.front().filter(|first| self.distance(**first) >= PARTS);
        first.map_or(0, |first| first.revision)
    }

    /// Returns how far away a mark is, in parts of what stays.
    fn distance(&self, mark: Mark) -> u64 {
        let part =
            |much: u64, all: u64| much.saturating_mul(PARTS).checked_div(all).unwrap_or(u64::MAX);
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let age = self.now.at.saturating_duration_since(mark.at);
        part(self.now.revision.saturating_sub(mark.revision), self.keep.revisions)
            .max(part(milliseconds(age), milliseconds(self.keep.age)))
            .max(part(self.now.bytes.saturating_sub(mark.bytes), self.keep.bytes))
    }
}

/// How many marks there are in what stays.
const PARTS: u64 = 16;

impl Transaction<'_> {
    /// Forgets a step of the history up to a revision, and returns whether that is all.
    pub(super) fn compact(&mut self, to: Revision) -> Result<bool, Status> {
        let from = self.position.compacted;
        let goal = to.min(self.position.head);
        let to = goal.min(from.saturating_add(STEP));
        if to > from {
            forget(self.connection, from, to).map_err(|e| error::failure(&e))?;
            self.position.compacted = to;
        }
        Ok(to >= goal)
    }
}

/// Removes the states that changes ended, the changes that left none, and moves the beginning.
fn forget(connection: &Connection, from: Revision, to: Revision) -> rusqlite::Result<()> {
    let ended = "DELETE FROM revisions WHERE revision IN \
                 (SELECT previous FROM revisions WHERE revision > ?1 AND revision <= ?2)";
    connection.prepare_cached(ended)?.execute(params![from, to])?;
    let deletions = "DELETE FROM revisions WHERE revision > ?1 AND revision <= ?2 AND change = 2";
    connection.prepare_cached(deletions)?.execute(params![from, to])?;
    let beginning = "UPDATE settings SET value = ?1 WHERE name = 'compacted'";
    connection.prepare_cached(beginning)?.execute([to])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Keep = Keep { revisions: 1600, age: Duration::from_secs(1600), bytes: 1 << 20 };

    /// Plays commits, each after some seconds and of some bytes; returns what is kept at the end.
    fn kept(commits: u64, seconds: u64, bytes: u64) -> u64 {
        let start = Instant::now();
        let mut schedule = Schedule::new(KEEP, 1, start);
        let mut compacted = 1;
        for commit in 1..=commits {
            let now = start + Duration::from_secs(commit * seconds);
            compacted = schedule.committed(1 + commit, bytes, now).max(compacted);
            assert!(schedule.marks.len() <= 40, "{}", schedule.marks.len());
        }
        1 + commits - compacted
    }

    #[test]
    fn what_is_within_the_bounds_stays() {
        assert_eq!(kept(1500, 1, 1), 1500);
    }

    #[test]
    fn each_bound_has_the_rest_forgotten() {
        assert!((1600..=1700).contains(&kept(10_000, 0, 0)), "by number");
        assert!((160..=170).contains(&kept(10_000, 10, 0)), "by age");
        assert!((1024..=1090).contains(&kept(10_000, 0, 1024)), "by size");
    }

    #[test]
    fn a_commit_beyond_a_bound_still_leaves_itself() {
        assert!(kept(100, 10_000, 0) <= 1);
        assert!(kept(100, 0, 4 << 20) <= 1);
    }
}
