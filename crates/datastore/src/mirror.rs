//! Turns a watch into changes, with the deletions that it missed.

use std::collections::BTreeSet;
use std::marker::PhantomData;

use crate::client::Object;
use crate::item::ObjectKey;
use crate::watch::WatchEvent;

/// What to do to a copy of the server's objects.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change<T> {
    /// Put this object in, or in the place of the one with the same key.
    Upsert(ObjectKey, T),
    /// Take the object with this key out.
    Delete(ObjectKey),
    /// The copy is now as complete as the server's list; said at the end of each list.
    Synced,
}

/// The keys that a consumer of a watch holds, so that it can be told which ones vanished.
///
/// Pure: it takes events and returns changes. Applying the changes in order to an empty map gives
/// what the server has at each [`Change::Synced`], whatever was missed between two lists. An
/// object that cannot be read is absent.
#[derive(Clone, Debug)]
pub struct Mirror<T> {
    held: BTreeSet<ObjectKey>,
    /// Keys of the list that is being received.
    listed: Option<BTreeSet<ObjectKey>>,
    is_synced: bool,
    kind: PhantomData<fn() -> T>,
}

impl<T> Default for Mirror<T> {
    fn default() -> Self {
        Self { held: BTreeSet::new(), listed: None, is_synced: false, kind: PhantomData }
    }
}

impl<T: Object> Mirror<T> {
    /// Returns whether one list has been received as a whole.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.is_synced
    }

    /// Takes the next event of the watch and returns what it changes.
    ///
    /// [`WatchEvent::Failed`] changes nothing: what is held stays until the server is back.
    pub fn apply(&mut self, event: WatchEvent<T>) -> Vec<Change<T>> {
        match event {
            WatchEvent::Init => {
                self.listed = Some(BTreeSet::new());
                Vec::new()
            }
            WatchEvent::InitApply(object) | WatchEvent::Apply(object) => self.upsert(object),
            WatchEvent::InitDone => self.finish_list(),
            WatchEvent::Delete(object) => self.delete(ObjectKey::of(object.metadata())),
            WatchEvent::Invalid { key, .. } => self.delete(key),
            WatchEvent::Failed(_) => Vec::new(),
        }
    }

    fn upsert(&mut self, object: T) -> Vec<Change<T>> {
        let key = ObjectKey::of(object.metadata());
        if let Some(listed) = &mut self.listed {
            listed.insert(key.clone());
        }
        self.held.insert(key.clone());
        vec![Change::Upsert(key, object)]
    }

    fn delete(&mut self, key: ObjectKey) -> Vec<Change<T>> {
        if let Some(listed) = &mut self.listed {
            listed.remove(&key);
        }
        if self.held.remove(&key) { vec![Change::Delete(key)] } else { Vec::new() }
    }

    fn finish_list(&mut self) -> Vec<Change<T>> {
        let Some(listed) = self.listed.take() else { return Vec::new() };
        let gone: Vec<_> = self.held.difference(&listed).cloned().collect();
        self.held = listed;
        self.is_synced = true;
        gone.into_iter().map(Change::Delete).chain([Change::Synced]).collect()
    }
}
