//! One table over time: what is wanted, what is there, what failed, what is held.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::time::Timestamp;

use crate::{Backoff, Plan};

/// A change of one entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change<K, V> {
    /// The entry is to be this, whatever is there.
    Upsert(K, V),
    /// The entry, which is this now, is to go.
    Delete(K, V),
}

/// A table that is to become what is wanted.
#[derive(Clone, Debug)]
pub struct Table<K, V> {
    backoff: Backoff,
    desired: BTreeMap<K, V>,
    /// What is there; `None` until it was listed.
    actual: Option<BTreeMap<K, V>>,
    /// What must not be deleted yet.
    held: BTreeSet<K>,
    failures: BTreeMap<K, Failure>,
    /// When to list again though nothing happened.
    resync_due: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
struct Failure {
    wait: Duration,
    due: Timestamp,
}

impl<K: Ord + Clone, V: PartialEq + Clone> Table<K, V> {
    /// Starts with nothing wanted and the table unknown.
    #[must_use]
    pub const fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            desired: BTreeMap::new(),
            actual: None,
            held: BTreeSet::new(),
            failures: BTreeMap::new(),
            resync_due: None,
        }
    }

    /// Returns the changes to make now, in the order of their keys, deletes first.
    ///
    /// None before the table was listed; none of keys whose last change failed
    /// until they are due again.
    #[must_use]
    pub fn due(&self, now: Timestamp) -> Vec<Change<K, V>> {
        let Some(actual) = &self.actual else { return Vec::new() };
        let plan = Plan::between(&self.desired, actual);
        let is_due = |key: &K| self.failures.get(key).is_none_or(|failure| failure.due <= now);
        let deletes = plan.deletes.into_iter().filter(|key| !self.held.contains(key));
        let deletes = deletes.filter(is_due).filter_map(|key| {
            let value = actual.get(&key)?.clone();
            Some(Change::Delete(key, value))
        });
        let upserts = plan.upserts.into_iter().filter(|(key, _)| is_due(key));
        deletes.chain(upserts.map(|(key, value)| Change::Upsert(key, value))).collect()
    }

    /// Returns when [`Table::due`] or [`Table::needs_list`] may next say something
    /// new, if nothing happens until then.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let failures = self.failures.values().map(|failure| failure.due);
        failures.chain(self.resync_due).min()
    }

    /// Should the table be listed (again)?
    #[must_use]
    pub fn needs_list(&self, now: Timestamp) -> bool {
        self.actual.is_none() || self.resync_due.is_some_and(|due| due <= now)
    }

    /// Replaces all that is wanted.
    ///
    /// A key whose value is another than before is tried at once, even if it failed.
    pub fn want_all(&mut self, desired: BTreeMap<K, V>) {
        let old = std::mem::replace(&mut self.desired, desired);
        self.failures.retain(|key, _| old.get(key) == self.desired.get(key));
    }

    /// Wants an entry; `None` wants it gone.
    pub fn want(&mut self, key: K, value: Option<V>) {
        if self.desired.get(&key) != value.as_ref() {
            self.failures.remove(&key);
        }
        set(&mut self.desired, key, value);
    }

    /// Takes what is there, as far as it is ours; `next` is when to list again.
    ///
    /// Keys that are as they should be have nothing left to retry.
    pub fn listed(&mut self, actual: BTreeMap<K, V>, next: Timestamp) {
        self.failures.retain(|key, _| self.desired.get(key) != actual.get(key));
        self.held.retain(|key| actual.contains_key(key));
        self.actual = Some(actual);
        self.resync_due = Some(next);
    }

    /// Takes what somebody, perhaps we, made of an entry; `None` is that it is gone.
    ///
    /// If that undoes a change of ours, the key is tried again at once.
    pub fn seen(&mut self, key: K, value: Option<V>) {
        let Some(actual) = &mut self.actual else { return };
        if actual.get(&key) != value.as_ref() {
            self.failures.remove(&key);
        }
        set(actual, key, value);
    }

    /// Forgets what is there, since it is unknown what became of a change or since
    /// events were lost. Nothing is changed until the table was listed again.
    pub fn lose(&mut self) {
        self.actual = None;
    }

    /// Keeps what is there and not wanted until [`Table::release`]: what an earlier
    /// life of this program wrote may be right, though we do not know it yet.
    ///
    /// Returns how many entries are held.
    pub fn hold_unwanted(&mut self) -> usize {
        let unwanted = self.actual.iter().flatten().map(|(key, _)| key);
        self.held = unwanted.filter(|key| !self.desired.contains_key(*key)).cloned().collect();
        self.held.len()
    }

    /// Lets all held entries that are still not wanted go.
    pub fn release(&mut self) {
        self.held.clear();
    }

    /// Takes note that a change was made.
    pub fn succeeded(&mut self, change: Change<K, V>) {
        let Some(actual) = &mut self.actual else { return };
        let (key, value) = match change {
            Change::Upsert(key, value) => (key, Some(value)),
            Change::Delete(key, _) => (key, None),
        };
        self.failures.remove(&key);
        if value.is_none() {
            self.held.remove(&key);
        }
        set(actual, key, value);
    }

    /// Takes note that a change of `key` was refused; returns when it is due again.
    pub fn failed(&mut self, key: K, now: Timestamp) -> Timestamp {
        let last = self.failures.get(&key).map(|failure| failure.wait);
        let wait = self.backoff.after(last);
        let due = now + wait;
        self.failures.insert(key, Failure { wait, due });
        due
    }

    /// Is the table known to hold exactly what is wanted, and nothing besides?
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.actual.as_ref() == Some(&self.desired)
    }

    /// Returns the keys whose last change failed.
    pub fn failing(&self) -> impl Iterator<Item = &K> {
        self.failures.keys()
    }

    /// Returns what is there, if that is known.
    #[must_use]
    pub const fn actual(&self) -> Option<&BTreeMap<K, V>> {
        self.actual.as_ref()
    }
}

impl<K, V> Change<K, V> {
    /// Returns the entry's key.
    #[must_use]
    pub const fn key(&self) -> &K {
        match self {
            Self::Upsert(key, _) | Self::Delete(key, _) => key,
        }
    }
}

fn set<K: Ord, V>(table: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => table.insert(key, value),
        None => table.remove(&key),
    };
}

#[cfg(test)]
mod tests;
