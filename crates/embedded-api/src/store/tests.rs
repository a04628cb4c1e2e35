//! The facts about a store, one by one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::Reason;

pub(super) struct Place {
    directory: TempDir,
}

impl Place {
    pub(super) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join("store.db")
    }

    /// Returns the files of backups.
    fn copies(&self) -> Vec<String> {
        let files = fs::read_dir(self.directory.path()).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("copy")).collect()
    }

    pub(super) fn open(&self) -> Store {
        Store::open(&self.path(), Options::default()).unwrap()
    }
}

pub(super) fn key(name: &str) -> Key {
    let (namespace, name) = name.split_once('/').unwrap();
    Key { resource: "pods".into(), namespace: namespace.into(), name: name.into() }
}

pub(super) fn all() -> Scope {
    Scope::All { resource: "pods".into() }
}

pub(super) fn object(value: u64) -> Object {
    Object::from_value(json!({ "value": value })).unwrap()
}

pub(super) async fn put(store: &Store, name: &str, value: u64) -> Revision {
    let key = key(name);
    store.write(move |t| t.put(key, object(value))).await.unwrap().revision
}

pub(super) async fn delete(store: &Store, name: &str) -> Revision {
    let key = key(name);
    store.write(move |t| t.delete(&key, object(0))).await.unwrap().revision
}

pub(super) async fn page(
    store: &Store,
    at: Option<Revision>,
    after: Option<(&str, &str)>,
    limit: Option<usize>,
) -> Result<Page, Status> {
    let after = after.map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
    let read = move |s: &Snapshot<'_>| {
        s.page(&all(), at, after.as_ref().map(|(a, b)| (a.as_str(), b.as_str())), limit)
    };
    store.read(read).await
}

fn names(page: &Page) -> Vec<String> {
    let name = |entry: &Entry| format!("{}/{}", entry.key.namespace, entry.key.name);
    page.entries.iter().map(name).collect()
}

#[tokio::test]
async fn writes_get_one_revision_each_from_two_on() {
    let place = Place::new();
    let store = place.open();
    assert_eq!(store.revision(), 1);
    assert_eq!(put(&store, "a/x", 1).await, 2);
    assert_eq!(put(&store, "a/y", 1).await, 3);
    assert_eq!(delete(&store, "a/x").await, 4);
    assert_eq!(store.revision(), 4);
    let entry = store.read(|s| s.get(&key("a/y"))).await.unwrap().unwrap();
    assert_eq!(entry.object().unwrap().resource_version(), Some("3"));
    assert_eq!(store.read(|s| s.get(&key("a/x"))).await.unwrap(), None);
}

#[tokio::test]
async fn a_decision_that_fails_leaves_nothing() {
    let place = Place::new();
    let store = place.open();
    let refused = store.write(|t| {
        t.put(key("a/x"), object(1))?;
        Err::<(), _>(Status::new(409, Reason::Conflict, "no"))
    });
    assert_eq!(refused.await.unwrap_err().code, 409);
    assert_eq!(put(&store, "a/y", 1).await, 2);
    assert_eq!(names(&page(&store, None, None, None).await.unwrap()), ["a/y"]);
}

#[tokio::test]
async fn a_page_goes_on_at_its_revision() {
    let place = Place::new();
    let store = place.open();
    for name in ["b/a", "a/z", "a/b", "c/c"] {
        put(&store, name, 1).await;
    }
    let first = page(&store, None, None, Some(2)).await.unwrap();
    assert_eq!((names(&first), first.remaining), (vec!["a/b".into(), "a/z".into()], Some(2)));
    delete(&store, "b/a").await;
    put(&store, "c/c", 2).await;
    put(&store, "d/d", 2).await;
    let at = Some(first.revision);
    let rest = page(&store, at, Some(("a", "z")), Some(2)).await.unwrap();
    assert_eq!((names(&rest), rest.remaining), (vec!["b/a".into(), "c/c".into()], None));
    assert!(rest.entries.iter().all(|entry| entry.revision <= first.revision));
}

#[tokio::test]
async fn a_watch_replays_and_then_follows() {
    let place = Place::new();
    let store = place.open();
    put(&store, "a/x", 1).await;
    put(&store, "b/x", 1).await;
    let scope = Scope::Namespace { resource: "pods".into(), namespace: "a".into() };
    let mut watch = store.watch(scope, 1);
    let event = watch.next().await.unwrap();
    assert_eq!((event.revision, event.kind), (2, EventKind::Created));
    let writer = store.clone();
    let task = tokio::spawn(async move { put(&writer, "a/x", 2).await });
    let event = watch.next().await.unwrap();
    assert_eq!((event.revision, event.kind), (4, EventKind::Updated));
    let previous: Object = decode(event.previous.as_ref().unwrap()).unwrap();
    assert_eq!(previous.resource_version(), Some("2"));
    task.await.unwrap();
}

#[tokio::test]
async fn what_was_compacted_is_expired_and_the_present_stays() {
    let place = Place::new();
    let store = place.open();
    for value in 0..1200 {
        put(&store, "a/x", value).await;
    }
    put(&store, "a/y", 1).await;
    delete(&store, "a/y").await;
    let head = store.revision();
    store.compact(head).await.unwrap();
    assert_eq!(store.compacted(), head);
    assert_eq!(page(&store, Some(head - 1), None, None).await.unwrap_err().reason, Reason::Expired);
    assert_eq!(names(&page(&store, Some(head), None, None).await.unwrap()), ["a/x"]);
    let error = store.watch(all(), head - 1).next().await.unwrap_err();
    assert_eq!(error.message, format!("too old resource version: {} ({head})", head - 1));
    let next = put(&store, "a/y", 2).await;
    assert_eq!(next, head + 1);
    assert_eq!(store.watch(all(), head).next().await.unwrap().revision, next);
}

#[tokio::test]
async fn a_revision_that_is_not_there_yet_is_too_large() {
    let place = Place::new();
    let error = page(&place.open(), Some(9), None, None).await.unwrap_err();
    assert_eq!(error.message, "Too large resource version: 9, current: 1");
}

#[tokio::test]
async fn another_opening_goes_on_where_the_last_one_ended() {
    let place = Place::new();
    let store = place.open();
    put(&store, "a/x", 1).await;
    delete(&store, "a/x").await;
    store.compact(3).await.unwrap();
    let watch = store.watch(all(), 3);
    drop(store);
    let store = place.open();
    assert_eq!((store.revision(), store.compacted()), (3, 3));
    assert_eq!(put(&store, "a/x", 1).await, 4);
    drop(watch);
}

#[tokio::test]
async fn a_watch_ends_with_its_store() {
    let place = Place::new();
    let store = place.open();
    let mut watch = store.watch(all(), 1);
    drop(store);
    assert_eq!(watch.next().await.unwrap_err().code, 503);
}

#[test]
fn a_second_server_is_refused() {
    let place = Place::new();
    let _store = place.open();
    let error = Store::open(&place.path(), Options::default()).err().unwrap();
    assert!(matches!(error, Error::Locked(_)), "{error}");
}

#[test]
fn only_the_owner_may_read() {
    let place = Place::new();
    let _store = place.open();
    for file in fs::read_dir(place.directory.path()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", file.path().display());
    }
}

#[test]
fn foreign_and_newer_files_are_refused() {
    let place = Place::new();
    fs::write(place.path(), "a text that is no database, but long enough to be one").unwrap();
    let refused = || Store::open(&place.path(), Options::default()).err().unwrap();
    assert!(matches!(refused(), Error::Foreign(_)));
    fs::remove_file(place.path()).unwrap();
    let other = Connection::open(place.path()).unwrap();
    other.execute_batch("CREATE TABLE t (a)").unwrap();
    assert!(matches!(refused(), Error::Foreign(_)));
    other.execute_batch("PRAGMA application_id = 1130458217; PRAGMA user_version = 9").unwrap();
    drop(other);
    assert!(matches!(refused(), Error::Newer { found: 9, .. }));
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_breaks_nothing() {
    let place = Place::new();
    let store = place.open();
    put(&store, "a/x", 1).await;
    let limit = |pages: u32| {
        move |t: &mut Transaction<'_>| {
            t.connection
                .pragma_update(None, "max_page_count", pages)
                .map_err(|e| error::failure(&e))
        }
    };
    store.write(limit(1)).await.unwrap();
    let big = "x".repeat(100_000);
    let body = json!({ "big": big });
    let write = |name: &'static str| {
        let object = Object::from_value(body.clone()).unwrap();
        store.write(move |t| t.put(key(name), object))
    };
    let (one, two) = tokio::join!(write("a/y"), write("a/z"));
    for refused in [one, two] {
        assert_eq!(refused.unwrap_err().code, 503);
    }
    assert_eq!(store.revision(), 2);
    store.write(limit(1_000_000)).await.unwrap();
    assert_eq!(put(&store, "a/x", 2).await, 3);
    assert_eq!(names(&page(&store, None, None, None).await.unwrap()), ["a/x"]);
}

#[tokio::test]
async fn clients_that_compare_and_swap_lose_no_step() {
    let place = Place::new();
    let store = place.open();
    let clients: Vec<_> = (0..8).map(|_| tokio::spawn(count_to_ten(store.clone()))).collect();
    for client in clients {
        client.await.unwrap();
    }
    let entry = store.read(|s| s.get(&key("a/n"))).await.unwrap().unwrap();
    assert_eq!(entry.object().unwrap().body.get("value"), Some(&json!(80)));
}

async fn count_to_ten(store: Store) {
    for _ in 0..10 {
        let add = |t: &mut Transaction<'_>| {
            let value = match t.get(&key("a/n"))? {
                Some(entry) => entry.object()?.body["value"].as_u64().unwrap(),
                None => 0,
            };
            t.put(key("a/n"), object(value + 1))
        };
        store.write(add).await.unwrap();
    }
}

#[tokio::test]
async fn automatic_compaction_keeps_the_bound() {
    let place = Place::new();
    let keep = Keep { revisions: 100, age: Duration::from_secs(600), bytes: 1 << 20 };
    let options = Options { keep, recent: 1 << 10 };
    let store = Store::open(&place.path(), options).unwrap();
    for value in 0..500 {
        put(&store, "a/x", value).await;
        let kept = store.revision() - store.compacted();
        assert!(kept <= 100 + 100 / 8, "{kept} at {value}");
    }
    assert!(store.revision() - store.compacted() >= 100);
}

#[tokio::test]
async fn a_backup_is_the_store_at_one_moment() {
    let place = Place::new();
    let store = place.open();
    put(&store, "a/x", 1).await;
    put(&store, "a/y", 1).await;
    delete(&store, "a/y").await;
    let copy = place.directory.path().join("copy.db");
    assert_eq!(backup(&place.path(), &copy).unwrap(), 4);
    put(&store, "a/z", 1).await;
    assert!(matches!(backup(&place.path(), &copy).unwrap_err(), Error::Exists(_)));
    assert_eq!(place.copies(), ["copy.db"]);
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    let copy = Store::open(&copy, Options::default()).unwrap();
    assert_eq!(names(&page(&copy, None, None, None).await.unwrap()), ["a/x"]);
    assert_eq!(names(&page(&copy, Some(3), None, None).await.unwrap()), ["a/x", "a/y"]);
}

#[tokio::test]
async fn a_restored_store_has_everybody_list_again() {
    let place = Place::new();
    let store = place.open();
    put(&store, "a/x", 1).await;
    let copy = place.directory.path().join("copy.db");
    backup(&place.path(), &copy).unwrap();
    let lost = put(&store, "a/x", 2).await;
    assert!(matches!(restore(&copy, &place.path()).unwrap_err(), Error::Locked(_)));
    drop(store);
    assert!(matches!(restore(&copy, &place.path()).unwrap_err(), Error::Exists(_)));
    let other = place.directory.path().join("other.db");
    let revision = restore(&copy, &other).unwrap();
    assert_eq!(check(&other).unwrap(), revision);
    let store = Store::open(&other, Options::default()).unwrap();
    assert_eq!(store.watch(all(), lost).next().await.unwrap_err().reason, Reason::Expired);
    let page = page(&store, None, None, None).await.unwrap();
    assert_eq!((page.revision, page.entries.first().unwrap().revision), (revision, 2));
    assert_eq!(put(&store, "a/x", 3).await, revision + 1);
    assert_eq!(check(&other).unwrap(), revision + 1);
}

#[tokio::test]
async fn damage_is_found() {
    let damages = [
        ("DELETE FROM revisions WHERE revision = 3", "objects without their state: 1"),
        ("DELETE FROM current", "states without an object: 1"),
        ("DELETE FROM revisions WHERE revision = 2", "gaps in the history: 1"),
    ];
    for (damage, finding) in damages {
        let place = Place::new();
        let store = place.open();
        put(&store, "a/x", 1).await;
        put(&store, "a/x", 1).await;
        drop(store);
        Connection::open(place.path()).unwrap().execute_batch(damage).unwrap();
        let error = check(&place.path()).unwrap_err().to_string();
        assert!(error.contains(finding), "{damage}: {error}");
        let copy = place.directory.path().join("copy.db");
        assert!(backup(&place.path(), &copy).is_err());
        assert_eq!(place.copies(), [""; 0]);
    }
}

#[tokio::test]
async fn lists_use_the_order_of_the_table() {
    let place = Place::new();
    drop(place.open());
    let connection = Connection::open(place.path()).unwrap();
    let scopes = [all(), Scope::Namespace { resource: "pods".into(), namespace: "a".into() }];
    for scope in scopes {
        let plan = query::plan(&connection, &scope).unwrap();
        assert!(plan.starts_with("SEARCH t USING PRIMARY KEY"), "{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }
}

#[tokio::test]
async fn a_watch_that_is_far_behind_misses_nothing() {
    let place = Place::new();
    let store = Store::open(&place.path(), Options { recent: 1, ..Options::default() }).unwrap();
    for number in 0..30 {
        let big = Object::from_value(json!({ "data": "x".repeat(10_000) })).unwrap();
        store.write(move |t| t.put(key(&format!("a/{number}")), big)).await.unwrap();
    }
    let mut watch = store.watch(all(), 1);
    for revision in 2..32 {
        assert_eq!(watch.next().await.unwrap().revision, revision);
        assert_eq!(watch.revision(), revision);
    }
}
