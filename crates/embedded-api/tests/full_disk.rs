//! A disk that is full: writes are refused with a reason, reads go on, and room is enough to go on.
//!
//! The disk is a small file system in memory, in a mount namespace of its own.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use embedded_api::store::{self, Key, Options, Scope, Store};
use embedded_api::{Object, Status};
use serde_json::json;

/// Where the small file system is, in the environment of the process that may see it.
const DISK: &str = "CALICO_TEST_DISK";
const TEST: &str = "a_full_disk_refuses_writes_until_there_is_room";

#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    if let Ok(disk) = std::env::var(DISK) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        return runtime.block_on(fill(&PathBuf::from(disk)));
    }
    let directory = tempfile::tempdir().unwrap();
    let script = format!(
        "mount -t tmpfs -o size=2m none \"${DISK}\" && exec \"$0\" --exact {TEST} --nocapture"
    );
    let end = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(DISK, directory.path())
        .status()
        .expect("unshare (util-linux) is needed; install it");
    assert!(end.success(), "{end}");
}

async fn fill(disk: &Path) {
    let ballast = disk.join("ballast");
    std::fs::write(&ballast, vec![0; 300_000]).unwrap();
    let path = disk.join("store.db");
    let store = Store::open(&path, Options::default()).unwrap();
    let mut written = 0;
    let refused = loop {
        match put(&store, written).await {
            Ok(()) => written += 1,
            Err(refused) => break refused,
        }
        assert!(written < 1000, "the disk is never full");
    };
    assert_eq!(refused.code, 503, "{refused}");
    assert!(refused.message.contains("disk"), "{refused}");
    assert_eq!(count(&store).await, written);
    assert!(put(&store, written).await.is_err());
    assert_eq!(store::check(&path).unwrap(), store.revision());
    std::fs::remove_file(&ballast).unwrap();
    put(&store, written).await.unwrap();
    assert_eq!(count(&store).await, written + 1);
    drop(store);
    let store = Store::open(&path, Options::default()).unwrap();
    assert_eq!(count(&store).await, written + 1);
}

async fn put(store: &Store, number: usize) -> Result<(), Status> {
    let key = Key {
        resource: "configmaps".into(),
        namespace: "a".into(),
        name: format!("{number}").into(),
    };
    let object = Object::from_value(json!({ "data": "x".repeat(20_000) })).unwrap();
    store.write(move |t| t.put(key, object)).await.map(drop)
}

async fn count(store: &Store) -> usize {
    let scope = Scope::All { resource: "configmaps".into() };
    store.read(move |s| s.page(&scope, None, None, None)).await.unwrap().entries.len()
}
