//! Scripts in testdata/reconcile, and every small history.

use super::*;

type Entries = BTreeMap<String, String>;

/// A table under test, as a script drives it.
struct Script {
    table: Table<String, String>,
    now: Timestamp,
    /// What the last `expect` said, until the script says what came of it.
    pending: Vec<Change<String, String>>,
}

const RESYNC: Duration = Duration::from_secs(90);

impl Script {
    fn new() -> Self {
        let table = Table::new(Backoff::KERNEL);
        Self { table, now: Timestamp::ZERO, pending: Vec::new() }
    }

    fn step(&mut self, line: &str) {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "want" => self.table.want_all(entries(rest)),
            "listed" => self.table.listed(entries(rest), self.now + RESYNC),
            "seen" => {
                for word in rest.split(' ') {
                    let (key, value) = entry(word);
                    self.table.seen(key, value);
                }
            }
            "lost" => self.table.lose(),
            "hold" => assert_eq!(self.table.hold_unwanted().to_string(), rest, "{line}"),
            "release" => self.table.release(),
            "wait" => self.now = self.now + millis(rest),
            "expect" => {
                self.pending = self.table.due(self.now);
                assert_eq!(words(&self.pending), rest, "{line}");
            }
            "succeeded" => self.outcome(rest, |script, change| script.table.succeeded(change)),
            "failed" => self.outcome(rest, |script, change| {
                script.table.failed(change.key().clone(), script.now);
            }),
            "deadline" => {
                let deadline = self.table.next_deadline();
                let left = deadline.map(|due| format!("{} ms", self.now.until(due).as_millis()));
                assert_eq!(left.unwrap_or("none".to_owned()), rest, "{line}");
            }
            "list" => {
                let said = if self.table.needs_list(self.now) { "needed" } else { "not needed" };
                assert_eq!(said, rest, "{line}");
            }
            "settled" => assert!(self.table.is_settled(), "{line}"),
            "unsettled" => assert!(!self.table.is_settled(), "{line}"),
            "failing" => {
                let failing: Vec<&str> = self.table.failing().map(String::as_str).collect();
                assert_eq!(failing.join(" "), rest, "{line}");
            }
            _ => panic!("no such step: {line}"),
        }
    }

    /// Tells what came of the pending changes of these keys; no keys means all.
    fn outcome(&mut self, keys: &str, tell: impl Fn(&mut Self, Change<String, String>)) {
        let is_meant = |change: &Change<String, String>| {
            keys.is_empty() || keys.split(' ').any(|key| key == change.key())
        };
        let (meant, rest) = std::mem::take(&mut self.pending).into_iter().partition(is_meant);
        self.pending = rest;
        Vec::into_iter(meant).for_each(|change| tell(self, change));
    }
}

fn entries(text: &str) -> Entries {
    let words = text.split(' ').filter(|word| *word != "nothing");
    words.map(entry).map(|(key, value)| (key, value.unwrap())).collect()
}

/// Reads `key=value`, or `key` for its absence.
fn entry(word: &str) -> (String, Option<String>) {
    match word.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (word.to_owned(), None),
    }
}

fn millis(text: &str) -> Duration {
    Duration::from_millis(text.strip_suffix(" ms").unwrap().parse().unwrap())
}

fn words(changes: &[Change<String, String>]) -> String {
    let word = |change: &Change<String, String>| match change {
        Change::Upsert(key, value) => format!("upsert {key}={value}"),
        Change::Delete(key, value) => format!("delete {key}={value}"),
    };
    let words: Vec<String> = changes.iter().map(word).collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}

fn run(text: &str) {
    let mut script = Script::new();
    let lines = text.lines().map(str::trim);
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        script.step(line);
    }
}

macro_rules! scripts {
    ($($name:ident)+) => {
        $(#[test] fn $name() {
            run(include_str!(concat!("../../../../testdata/reconcile/", stringify!($name), ".txt")));
        })+
    };
}

scripts! {
    drift_is_corrected
    failures_delay_their_own_key
    held_entries_wait_for_their_release
    new_wishes_do_not_wait
    nothing_before_the_first_list
    unknown_outcomes_are_listed_again
}

/// Every table with up to three keys and two values.
fn tables() -> Vec<BTreeMap<u8, char>> {
    let mut tables = vec![BTreeMap::new()];
    for key in 0..3 {
        for value in ['a', 'b'] {
            let with = |table: &BTreeMap<u8, char>| {
                let mut table = table.clone();
                table.insert(key, value);
                table
            };
            let without = tables.iter().filter(|table| !table.contains_key(&key));
            tables.extend(without.map(with).collect::<Vec<_>>());
        }
    }
    tables
}

/// Applies what is due, except that keys in `refused` fail.
fn pass(table: &mut Table<u8, char>, refused: &[u8], now: Timestamp) {
    for change in table.due(now) {
        if refused.contains(change.key()) {
            table.failed(*change.key(), now);
        } else {
            table.succeeded(change);
        }
    }
}

#[test]
fn every_table_becomes_what_is_wanted_once_failures_stop() {
    let tables = tables();
    assert_eq!(tables.len(), 27);
    for desired in &tables {
        for actual in &tables {
            for refused in [&[][..], &[0], &[1, 2], &[0, 1, 2]] {
                let mut table = Table::new(Backoff::KERNEL);
                let mut now = Timestamp::ZERO;
                table.want_all(desired.clone());
                table.listed(actual.clone(), now + RESYNC);
                pass(&mut table, refused, now);
                assert!(table.failing().all(|key| refused.contains(key)));
                now = now + Backoff::KERNEL.longest;
                pass(&mut table, &[], now);
                assert!(table.is_settled(), "{actual:?} to {desired:?} without {refused:?}");
                assert_eq!(table.due(now), []);
                assert_eq!(table.next_deadline(), Some(Timestamp::ZERO + RESYNC));
            }
        }
    }
}

#[test]
fn held_entries_never_go_and_all_others_do() {
    for desired in tables() {
        for actual in tables() {
            let mut table = Table::new(Backoff::KERNEL);
            let now = Timestamp::ZERO;
            table.listed(actual.clone(), now + RESYNC);
            assert_eq!(table.hold_unwanted(), actual.len());
            table.want_all(desired.clone());
            pass(&mut table, &[], now);
            let mut both = actual.clone();
            both.extend(desired.clone());
            assert_eq!(table.actual(), Some(&both));
            table.release();
            pass(&mut table, &[], now);
            assert!(table.is_settled());
        }
    }
}
