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
    /// There is an object with this key that cannot be read, and this is why: what was held of
    /// it is no longer true.
    Unreadable(ObjectKey, String),
    /// Take the object with this key out.
    Delete(ObjectKey),
    /// The copy is now as complete as the server's list; said at the end of each list.
    Synced,
}

/// The keys that a consumer of a watch holds, so that it can be told which ones vanished.
///
/// Pure: it takes events and returns changes. Applying the changes in order to an empty map gives
/// what the server has at each [`Change::Synced`], whatever was missed between two lists.
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

    /// Returns whether the server has none of these objects, as far as is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
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
            WatchEvent::InitApply(object) | WatchEvent::Apply(object) => {
                let key = ObjectKey::of(object.metadata());
                self.hold(&key);
                vec![Change::Upsert(key, object)]
            }
            WatchEvent::Invalid { key, error } => {
                self.hold(&key);
                vec![Change::Unreadable(key, error.to_string())]
            }
            WatchEvent::InitDone => self.finish_list(),
            WatchEvent::Delete(key) => self.delete(key),
            WatchEvent::Failed(_) => Vec::new(),
        }
    }

    fn hold(&mut self, key: &ObjectKey) {
        if let Some(listed) = &mut self.listed {
            listed.insert(key.clone());
        }
        self.held.insert(key.clone());
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::api::core::v1::ConfigMap;
    use proptest::prelude::*;

    use super::*;
    use crate::error::Error;

    /// What happens at the server, or between it and us.
    #[derive(Clone, Debug)]
    enum Step {
        Write(u8, u32),
        Break(u8),
        Remove(u8),
        /// The watch misses what follows until it lists again; a list may end early.
        Disconnect,
        List {
            is_cut_after: Option<usize>,
        },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let name = 0..6_u8;
        let step = prop_oneof![
            6 => (name.clone(), any::<u32>()).prop_map(|(name, value)| Step::Write(name, value)),
            1 => name.clone().prop_map(Step::Break),
            3 => name.prop_map(Step::Remove),
            2 => Just(Step::Disconnect),
            2 => proptest::option::of(0..4_usize)
                .prop_map(|is_cut_after| Step::List { is_cut_after }),
        ];
        proptest::collection::vec(step, 0..40)
    }

    fn map(name: u8, value: u32) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_string());
        map.metadata.resource_version = Some(value.to_string());
        map
    }

    fn key(name: u8) -> ObjectKey {
        ObjectKey { namespace: None, name: name.to_string() }
    }

    fn invalid(name: u8) -> WatchEvent<ConfigMap> {
        let error = Error::Config { path: "x".into(), problem: "y".to_owned() };
        WatchEvent::Invalid { key: key(name), error }
    }

    fn listed(name: u8, value: Option<u32>) -> WatchEvent<ConfigMap> {
        value.map_or_else(|| invalid(name), |value| WatchEvent::InitApply(map(name, value)))
    }

    /// The server, where `None` is an object that cannot be read, and our copy of it.
    #[derive(Default)]
    struct World {
        server: BTreeMap<u8, Option<u32>>,
        copy: BTreeMap<ObjectKey, Option<ConfigMap>>,
        mirror: Mirror<ConfigMap>,
        is_watching: bool,
    }

    impl World {
        fn tell(&mut self, event: WatchEvent<ConfigMap>) {
            for change in self.mirror.apply(event) {
                match change {
                    Change::Upsert(key, map) => drop(self.copy.insert(key, Some(map))),
                    Change::Unreadable(key, _) => drop(self.copy.insert(key, None)),
                    Change::Delete(key) => {
                        assert!(self.copy.remove(&key).is_some(), "{key} was never there");
                    }
                    Change::Synced => self.check(),
                }
            }
        }

        fn change(&mut self, event: WatchEvent<ConfigMap>) {
            if self.is_watching {
                self.tell(event);
                self.check();
            }
        }

        fn list(&mut self, is_cut_after: Option<usize>) {
            self.tell(WatchEvent::Init);
            let items: Vec<_> = self.server.clone().into_iter().collect();
            let is_cut = is_cut_after.is_some_and(|count| count < items.len());
            let count = if is_cut { is_cut_after.unwrap() } else { items.len() };
            items.into_iter().take(count).for_each(|(name, value)| self.tell(listed(name, value)));
            if !is_cut {
                self.tell(WatchEvent::InitDone);
            }
            self.is_watching = !is_cut;
        }

        fn step(&mut self, step: &Step) {
            match *step {
                Step::Write(name, value) => {
                    self.server.insert(name, Some(value));
                    self.change(WatchEvent::Apply(map(name, value)));
                }
                Step::Break(name) => {
                    self.server.insert(name, None);
                    self.change(invalid(name));
                }
                Step::Remove(name) => {
                    if self.server.remove(&name).is_some() {
                        self.change(WatchEvent::Delete(key(name)));
                    }
                }
                Step::Disconnect => self.is_watching = false,
                Step::List { is_cut_after } => self.list(is_cut_after),
            }
        }

        fn check(&self) {
            let objects = self.server.iter();
            let object = |(name, value): (&u8, &Option<u32>)| {
                (key(*name), value.map(|value| map(*name, value)))
            };
            let expected: BTreeMap<_, _> = objects.map(object).collect();
            assert_eq!(self.copy, expected);
        }
    }

    proptest! {
        #[test]
        fn the_copy_equals_the_server_whenever_the_watch_is_current(steps in steps()) {
            let mut world = World::default();
            for step in &steps {
                world.step(step);
            }
            world.list(None);
            world.check();
            prop_assert!(world.mirror.is_synced());
        }
    }

    #[test]
    fn a_failure_takes_nothing_away() {
        let mut world = World::default();
        world.server.insert(1, Some(1));
        world.list(None);
        let error = Error::Config { path: "x".into(), problem: "y".to_owned() };
        world.tell(WatchEvent::Failed(error));
        world.check();
    }

    #[test]
    fn a_deletion_that_was_missed_is_said_at_the_end_of_the_next_list() {
        let mut mirror = Mirror::default();
        for event in [
            WatchEvent::Init,
            WatchEvent::InitApply(map(1, 1)),
            WatchEvent::InitApply(map(2, 1)),
            WatchEvent::InitDone,
            WatchEvent::Init,
        ] {
            mirror.apply(event);
        }
        let upsert = Change::Upsert(key(2), map(2, 1));
        assert_eq!(mirror.apply(WatchEvent::InitApply(map(2, 1))), [upsert]);
        assert_eq!(mirror.apply(WatchEvent::InitDone), [Change::Delete(key(1)), Change::Synced]);
    }
}
