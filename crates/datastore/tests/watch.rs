//! Watches of a server that forgets, drops and repeats.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a failing test should stop at once"
)]

mod common;

use std::time::{Duration, Instant};

use common::{Reply, Server, broken_map, config_map, event, list, status};
use datastore::{Error, Filter, WatchEvent};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

/// Says an event in a word.
fn word(event: &WatchEvent<ConfigMap>) -> String {
    let name = |map: &ConfigMap| map.metadata.name.clone().unwrap();
    match event {
        WatchEvent::Init => "init".to_owned(),
        WatchEvent::InitApply(map) => format!("list {}", name(map)),
        WatchEvent::InitDone => "done".to_owned(),
        WatchEvent::Apply(map) => format!("apply {}", name(map)),
        WatchEvent::Delete(key) => format!("delete {}", key.name),
        WatchEvent::Invalid { key, error } => {
            assert!(matches!(error, Error::Invalid { .. }), "{error}");
            format!("invalid {key}")
        }
        WatchEvent::Failed(error) => {
            assert!(error.to_string().contains("cannot watch ConfigMap"), "{error}");
            "failed".to_owned()
        }
    }
}

/// Returns the first events of a watch.
async fn events(server: &Server, count: usize) -> Vec<String> {
    let watch = server.client().watch::<ConfigMap>(&Filter::default());
    let first = watch.take(count).map(|event| word(&event)).collect::<Vec<_>>();
    tokio::time::timeout(Duration::from_secs(20), first).await.unwrap()
}

fn bookmark(version: u32) -> Value {
    let metadata = json!({"resourceVersion": version.to_string()});
    event("BOOKMARK", &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}))
}

/// Returns the versions from which watches were started.
fn starts(server: &Server) -> Vec<String> {
    let asked = server.asked();
    let watches = asked.iter().filter(|asked| asked.is_watch());
    watches.map(|asked| asked.parameter("resourceVersion").unwrap().to_owned()).collect()
}

#[tokio::test]
async fn begins_with_a_list_and_goes_on_with_changes() {
    let server = Server::start(|_, asked| {
        if asked.is_watch() {
            return Reply::EventsAndWait(vec![
                event("ADDED", &config_map("b", 6)),
                event("MODIFIED", &config_map("b", 7)),
                event("DELETED", &config_map("a", 8)),
            ]);
        }
        list(5, &[config_map("a", 3)])
    })
    .await;
    assert_eq!(
        events(&server, 6).await,
        ["init", "list a", "done", "apply b", "apply b", "delete a"]
    );
    assert_eq!(starts(&server), ["5"]);
    assert!(server.asked()[1].target.contains("allowWatchBookmarks=true"));
}

#[tokio::test]
async fn resumes_from_the_last_bookmark_without_a_list() {
    let server = Server::start(|number, asked| match (asked.is_watch(), number) {
        (false, _) => list(5, &[]),
        (true, 1) => Reply::Events(vec![bookmark(40)]),
        (true, _) => Reply::EventsAndWait(vec![event("ADDED", &config_map("a", 41))]),
    })
    .await;
    assert_eq!(events(&server, 3).await, ["init", "done", "apply a"]);
    assert_eq!(starts(&server), ["5", "40"]);
}

#[tokio::test]
async fn resumes_after_a_cut_from_the_last_change() {
    let server = Server::start(|number, asked| match (asked.is_watch(), number) {
        (false, _) => list(5, &[]),
        (true, 1) => Reply::EventsAndCut(vec![event("ADDED", &config_map("a", 6))]),
        (true, _) => Reply::EventsAndWait(vec![event("ADDED", &config_map("b", 7))]),
    })
    .await;
    assert_eq!(events(&server, 4).await, ["init", "done", "apply a", "apply b"]);
    assert_eq!(starts(&server), ["5", "6"]);
}

#[tokio::test]
async fn lists_again_when_the_history_is_gone_however_the_server_says_it() {
    let event_410 = || Reply::Events(vec![event("ERROR", &status(410, "Expired"))]);
    let http_410 = || Reply::Answer(410, "", status(410, "Expired"));
    for gone in [event_410, http_410] {
        let server = Server::start(move |number, asked| match (asked.is_watch(), number) {
            (false, 0) => list(5, &[config_map("a", 3), config_map("b", 4)]),
            (false, _) => list(90, &[config_map("b", 4)]),
            (true, 1) => gone(),
            (true, _) => Reply::EventsAndWait(vec![event("ADDED", &config_map("c", 91))]),
        })
        .await;
        assert_eq!(
            events(&server, 8).await,
            ["init", "list a", "list b", "done", "init", "list b", "done", "apply c"]
        );
        assert_eq!(starts(&server), ["5", "90"]);
    }
}

#[tokio::test]
async fn reports_what_cannot_be_read_and_goes_on() {
    let server = Server::start(|_, asked| {
        if asked.is_watch() {
            return Reply::EventsAndWait(vec![
                event("MODIFIED", &broken_map("a", 6)),
                event("MODIFIED", &config_map("b", 7)),
            ]);
        }
        list(5, &[config_map("a", 3), broken_map("b", 4)])
    })
    .await;
    assert_eq!(
        events(&server, 6).await,
        ["init", "list a", "invalid a/b", "done", "invalid a/a", "apply b"]
    );
}

#[tokio::test]
async fn retries_a_list_that_fails_and_says_why() {
    let server = Server::start(|number, asked| match (asked.is_watch(), number) {
        (true, _) => Reply::EventsAndWait(Vec::new()),
        (false, 0) => Reply::Answer(403, "", status(403, "Forbidden")),
        (false, 1) => Reply::Cut,
        (false, _) => list(5, &[config_map("a", 3)]),
    })
    .await;
    assert_eq!(
        events(&server, 7).await,
        ["init", "failed", "init", "failed", "init", "list a", "done"]
    );
}

#[tokio::test]
async fn lists_again_after_five_refused_resumptions() {
    let server = Server::start(|number, asked| match (asked.is_watch(), number) {
        (false, 0) => list(500, &[config_map("a", 3)]),
        (false, _) => list(5, &[config_map("b", 4)]),
        (true, _) if asked.parameter("resourceVersion") == Some("500") => {
            Reply::Answer(504, "", status(504, "Timeout"))
        }
        (true, _) => Reply::EventsAndWait(Vec::new()),
    })
    .await;
    let mut seen = events(&server, 11).await;
    seen.retain(|word| word != "failed");
    assert_eq!(seen, ["init", "list a", "done", "init", "list b", "done"]);
}

#[tokio::test]
async fn a_watch_that_ends_at_once_is_not_started_in_a_tight_loop() {
    let server = Server::start(|number, asked| match (asked.is_watch(), number) {
        (false, _) => list(5, &[]),
        (true, 1 | 2) => Reply::Events(Vec::new()),
        (true, _) => Reply::EventsAndWait(vec![event("ADDED", &config_map("a", 6))]),
    })
    .await;
    let start = Instant::now();
    assert_eq!(events(&server, 3).await, ["init", "done", "apply a"]);
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(starts(&server).len(), 3);
}
