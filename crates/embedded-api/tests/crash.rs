//! A thousand times `kill -9`: no write that was answered is lost, and the file stays whole.
//!
//! A process of its own writes with several clients and says on standard output
//! what was answered; it is killed at a random moment, from its start on. Then the
//! store must have the last answered state of every client, or the one that the
//! client was about to write, and the next process goes on with the same file.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]

#[path = "crash/life.rs"]
mod life;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use embedded_api::store::{self, Entry, Options, Revision, Scope, Store};

use crate::life::{Answer, CLIENTS, Life, Random};

const KILLS: u64 = 1000;
/// Files that are written and killed at the same time.
const LANES: u64 = 4;
/// Numbers that one process may write for each of its clients; the first one is no deletion.
const NUMBERS: u64 = 70_000;

#[test]
fn no_answered_write_is_lost_by_a_thousand_kills() {
    if let Some(life) = Life::from_environment() {
        return life.live();
    }
    let lanes: Vec<_> =
        (0..LANES).map(|seed| thread::spawn(move || Lane::new(seed).run())).collect();
    let answers: u64 = lanes.into_iter().map(|lane| lane.join().unwrap()).sum();
    assert!(answers > KILLS, "{answers} writes were answered: nothing was tested");
}

/// One file through all its crashes.
struct Lane {
    directory: tempfile::TempDir,
    random: Random,
    head: Revision,
    clients: Vec<Known>,
}

/// What is known of a client's object.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// The last number that the client wrote for certain.
    number: u64,
    /// Its revision, if it was told.
    revision: Option<Revision>,
}

impl Lane {
    fn new(seed: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clients = vec![Known::default(); CLIENTS];
        Self { directory, random: Random(seed), head: 1, clients }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("store.db")
    }

    /// Returns how many writes were answered.
    fn run(mut self) -> u64 {
        let mut answers = 0;
        for round in 0..KILLS / LANES {
            let life = Life { path: self.path(), from: round * NUMBERS + 1 };
            let delay = Duration::from_micros(self.random.below(100_000));
            let answered = life.start_and_kill(delay);
            answers += answered.len() as u64;
            self.learn(&answered);
            // Sometimes the next process finds the file as the last one left it.
            if self.random.below(4) > 0 {
                self.check(life.from);
            }
        }
        self.check((KILLS / LANES) * NUMBERS);
        answers
    }

    /// Takes note of what was answered.
    fn learn(&mut self, answered: &[Answer]) {
        let revisions: BTreeSet<Revision> = answered.iter().map(|answer| answer.revision).collect();
        assert_eq!(revisions.len(), answered.len(), "two writes have one revision");
        assert!(revisions.first().is_none_or(|first| *first > self.head), "a revision came again");
        self.head = revisions.last().copied().unwrap_or(self.head);
        for answer in answered {
            let known = &mut self.clients[answer.client];
            assert!(known.number < answer.number);
            *known = Known { number: answer.number, revision: Some(answer.revision) };
        }
    }

    /// Compares the store with what is known.
    fn check(&mut self, from: u64) {
        let entries = entries(&self.path());
        let head = store::check(&self.path()).unwrap();
        assert!(head >= self.head, "revision {head} after {} was answered", self.head);
        for (client, known) in self.clients.iter_mut().enumerate() {
            let entry = entries.iter().find(|entry| *entry.key.name == *life::name(client));
            *known = known.confirm(entry, from);
        }
        self.head = head;
    }
}

impl Known {
    /// Returns what is known now. The client may have written one number more than
    /// it said: the next one, or the first one of a process since.
    fn confirm(self, entry: Option<&Entry>, from: u64) -> Self {
        let Some(entry) = entry else {
            let number = self.number + u64::from(!life::is_deletion(self.number));
            assert!(life::is_deletion(number), "{self:?} is lost");
            return Self { number, revision: None };
        };
        let number = life::number(entry);
        if number == self.number {
            assert_eq!(Some(entry.revision), self.revision.or(Some(entry.revision)));
        } else {
            let is_next = number == self.number + 1;
            let is_first = number % NUMBERS == 1 && number > self.number && number <= from;
            assert!(is_next || is_first, "{number} instead of {self:?}");
            assert!(self.revision.is_none_or(|revision| entry.revision > revision));
        }
        Self { number, revision: Some(entry.revision) }
    }
}

fn entries(path: &Path) -> Vec<Entry> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(path, Options::default()).unwrap();
        let scope = Scope::All { resource: life::RESOURCE.into() };
        store.read(move |s| s.page(&scope, None, None, None)).await.unwrap().entries
    })
}
