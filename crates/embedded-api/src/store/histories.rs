//! Random histories: the store against a model that keeps everything in a list.

use std::collections::BTreeMap;

use futures::FutureExt as _;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use super::tests::Place;
use super::*;
use crate::Reason;

#[derive(Clone, Debug)]
enum Step {
    Put {
        key: Key,
        size: usize,
    },
    Delete {
        key: Key,
    },
    /// Several decisions at once; those with an even size fail after they wrote.
    Together {
        writes: Vec<(Key, usize)>,
    },
    /// A part of the history, in percent.
    Compact {
        part: u64,
    },
    Reopen,
    Watch {
        scope: Scope,
        part: u64,
    },
    Follow {
        watch: usize,
        events: usize,
    },
    Page {
        scope: Scope,
        part: u64,
        limit: usize,
    },
}

fn keys() -> impl Strategy<Value = Key> {
    let resources = prop::sample::select(vec!["pods", "leases.coordination.k8s.io"]);
    let namespaces = prop::sample::select(vec!["", "a", "a-b", "b"]);
    (resources, namespaces, prop::sample::select(vec!["x", "x-y", "z"])).prop_map(
        |(resource, namespace, name)| Key {
            resource: resource.into(),
            namespace: namespace.into(),
            name: name.into(),
        },
    )
}

fn scopes() -> impl Strategy<Value = Scope> {
    (keys(), 0..3).prop_map(|(key, width)| match width {
        0 => Scope::All { resource: key.resource },
        1 => Scope::Namespace { resource: key.resource, namespace: key.namespace },
        _ => Scope::Name(key),
    })
}

fn steps() -> impl Strategy<Value = Step> {
    let size = 0..400_usize;
    prop_oneof![
        8 => (keys(), size.clone()).prop_map(|(key, size)| Step::Put { key, size }),
        3 => keys().prop_map(|key| Step::Delete { key }),
        3 => vec((keys(), size), 1..6).prop_map(|writes| Step::Together { writes }),
        1 => (0..=100_u64).prop_map(|part| Step::Compact { part }),
        1 => Just(Step::Reopen),
        2 => (scopes(), 0..=100_u64).prop_map(|(scope, part)| Step::Watch { scope, part }),
        4 => (0..9_usize, 1..9_usize).prop_map(|(watch, events)| Step::Follow { watch, events }),
        2 => (scopes(), 0..=100_u64, 1..5_usize)
            .prop_map(|(scope, part, limit)| Step::Page { scope, part, limit }),
    ]
}

/// Everything that happened, without SQL.
#[derive(Default)]
struct Model {
    events: Vec<Event>,
    compacted: Revision,
}

impl Model {
    fn head(&self) -> Revision {
        self.events.last().map_or(1, |event| event.revision)
    }

    fn at(&self, revision: Revision) -> BTreeMap<Key, Entry> {
        let mut state = BTreeMap::new();
        for event in self.events.iter().filter(|event| event.revision <= revision) {
            match event.kind {
                EventKind::Deleted => state.remove(&event.entry.key),
                EventKind::Created | EventKind::Updated => {
                    state.insert(event.entry.key.clone(), event.entry.clone())
                }
            };
        }
        state
    }

    fn list(&self, scope: &Scope, revision: Revision) -> Vec<Entry> {
        self.at(revision).into_values().filter(|entry| scope.contains(&entry.key)).collect()
    }

    fn next(&self, scope: &Scope, after: Revision) -> Option<&Event> {
        let mut later = self.events.iter().filter(|event| event.revision > after);
        later.find(|event| scope.contains(&event.entry.key))
    }

    fn add(&mut self, entry: Entry, is_deletion: bool) {
        let previous = self.at(self.head()).remove(&entry.key).map(|entry| entry.json);
        let kind = match (&previous, is_deletion) {
            (_, true) => EventKind::Deleted,
            (Some(_), false) => EventKind::Updated,
            (None, false) => EventKind::Created,
        };
        assert_eq!(entry.revision, self.head() + 1);
        self.events.push(Event { revision: entry.revision, kind, entry, previous });
    }

    /// Returns a revision between the first and one after the last.
    fn part(&self, part: u64) -> Revision {
        1 + (self.head() * part) / 100
    }
}

struct Follower {
    scope: Scope,
    seen: Revision,
    watch: Watch,
}

/// The store and the model, side by side.
struct Both {
    place: Place,
    store: Option<Store>,
    model: Model,
    followers: Vec<Follower>,
}

fn object(size: usize) -> Object {
    Object::from_value(json!({ "data": "x".repeat(size) })).unwrap()
}

fn open(place: &Place) -> Store {
    // So little memory that watchers often need the file.
    Store::open(&place.path(), Options { recent: 2000, ..Options::default() }).unwrap()
}

impl Both {
    fn new() -> Self {
        let place = Place::new();
        let store = Some(open(&place));
        let model = Model { events: Vec::new(), compacted: 1 };
        Self { place, store, model, followers: Vec::new() }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Put { key, size } => {
                let put = self.store().write(move |t| t.put(key, object(size)));
                let entry = put.await.unwrap();
                self.model.add(entry, false);
            }
            Step::Delete { key } => self.delete(key).await,
            Step::Together { writes } => self.together(writes).await,
            Step::Compact { part } => {
                let to = self.model.part(part).min(self.model.head());
                self.store().compact(to).await.unwrap();
                self.model.compacted = self.model.compacted.max(to);
                assert_eq!(self.store().compacted(), self.model.compacted);
            }
            Step::Reopen => {
                self.followers.clear();
                self.store = None;
                self.store = Some(open(&self.place));
                assert_eq!(self.store().revision(), self.model.head());
            }
            Step::Watch { scope, part } => {
                let seen = self.model.part(part);
                let watch = self.store().watch(scope.clone(), seen);
                self.followers.push(Follower { scope, seen, watch });
            }
            Step::Follow { watch, events } => self.follow(watch, events).await,
            Step::Page { scope, part, limit } => {
                self.page(&scope, self.model.part(part), limit).await;
            }
        }
    }

    async fn delete(&mut self, key: Key) {
        let exists = self.model.at(self.model.head()).contains_key(&key);
        let deletion = self.store().write(move |t| t.delete(&key, object(0))).await;
        assert_eq!(deletion.is_ok(), exists);
        if let Ok(entry) = deletion {
            self.model.add(entry, true);
        }
    }

    async fn together(&mut self, writes: Vec<(Key, usize)>) {
        let write = |(key, size): (Key, usize)| {
            self.store().write(move |t| {
                let entry = t.put(key, object(size))?;
                if size % 2 == 0 { Err(error::internal("even")) } else { Ok(entry) }
            })
        };
        let answers = futures::future::join_all(writes.into_iter().map(write)).await;
        let mut entries: Vec<Entry> = answers.into_iter().filter_map(Result::ok).collect();
        entries.sort_by_key(|entry| entry.revision);
        for entry in entries {
            self.model.add(entry, false);
        }
    }

    /// Lets a watcher go on, and removes it when it is told that it is too late.
    async fn follow(&mut self, watch: usize, events: usize) {
        let Some(follower) = self.followers.get_mut(watch) else { return };
        for _ in 0..events {
            // It may have looked further than to what it returned.
            follower.seen = follower.watch.revision();
            let is_late = follower.seen < self.model.compacted;
            let Some(next) = self.model.next(&follower.scope, follower.seen) else {
                let nothing = follower.watch.next().now_or_never();
                assert!(nothing.is_none_or(|answer| answer.is_err() && is_late));
                return;
            };
            match follower.watch.next().await {
                Ok(event) => assert_eq!(&*event, next),
                Err(status) if is_late => {
                    assert_eq!(status.reason, Reason::Expired);
                    self.followers.remove(watch);
                    return;
                }
                Err(status) => panic!("{status} instead of {next:?}"),
            }
        }
    }

    async fn page(&self, scope: &Scope, at: Revision, limit: usize) {
        let mut wanted = self.model.list(scope, at).into_iter().peekable();
        let mut after: Option<(String, String)> = None;
        loop {
            let (scope, last) = (scope.clone(), after.clone());
            let page = self.store().read(move |s| {
                let last = last.as_ref().map(|(a, b)| (a.as_str(), b.as_str()));
                s.page(&scope, Some(at), last, Some(limit))
            });
            let page = match page.await {
                Ok(page) => page,
                Err(status) => {
                    let reason = match at {
                        at if at < self.model.compacted => Reason::Expired,
                        at if at > self.model.head() => Reason::Timeout,
                        _ => panic!("{status}"),
                    };
                    return assert_eq!(status.reason, reason);
                }
            };
            assert!(at >= self.model.compacted && at <= self.model.head());
            let expected: Vec<Entry> = wanted.by_ref().take(limit).collect();
            assert_eq!(page.entries, expected);
            let remaining = wanted.len() as u64;
            assert_eq!(page.remaining, Some(remaining).filter(|remaining| *remaining > 0));
            let Some(last) = page.entries.last().filter(|_| remaining > 0) else { return };
            after = Some((last.key.namespace.to_string(), last.key.name.to_string()));
        }
    }

    /// Compares everything: every revision, every object, what every watcher still gets.
    async fn finish(mut self) {
        for revision in 1..=self.model.head() {
            for resource in ["pods", "leases.coordination.k8s.io"] {
                self.page(&Scope::All { resource: resource.into() }, revision, 1000).await;
            }
        }
        // A last event for each watcher: whatever comes before it must be in the model.
        for watch in (0..self.followers.len()).rev() {
            let scope = &self.followers[watch].scope;
            let key = Key {
                resource: scope.resource().clone(),
                namespace: scope.namespace().unwrap_or("end").into(),
                name: scope.name().unwrap_or("end").into(),
            };
            self.step(Step::Put { key, size: 1 }).await;
            self.follow(watch, usize::MAX).await;
        }
        let state = self.model.at(self.model.head());
        for key in state.keys() {
            let key = key.clone();
            let entry = self.store().read(move |s| s.get(&key)).await.unwrap();
            assert_eq!(entry.as_ref(), entry.as_ref().and_then(|entry| state.get(&entry.key)));
            assert!(entry.is_some());
        }
        self.store = None;
        assert_eq!(check(&self.place.path()).unwrap(), self.model.head());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_its_model(steps in vec(steps(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut both = Both::new();
            for step in steps {
                both.step(step).await;
            }
            both.finish().await;
        });
    }
}
