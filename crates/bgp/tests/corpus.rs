//! What the fuzzers have found in messages, and what they began with, on every run of the tests.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test stops at the first surprise; the fuzzers use the same checks"
)]

#[path = "../../../fuzz/checks/bgp_messages.rs"]
mod bgp_messages;
#[path = "../../../fuzz/checks/bgp_sessions.rs"]
mod bgp_sessions;

use std::path::Path;

/// Checks every file of a corpus; the last words before a failure name the file.
#[expect(clippy::disallowed_methods, reason = "a test reads its corpus")]
fn replay(corpus: &str, check: impl Fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(corpus);
    let mut paths: Vec<_> =
        std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 10, "{} has lost its files", dir.display());
    for path in paths {
        eprintln!("{}", path.display());
        check(&std::fs::read(&path).unwrap());
    }
}

#[test]
fn messages_keep_their_promises_on_the_corpus() {
    replay("bgp_messages", bgp_messages::check);
}

#[test]
fn speakers_keep_their_promises_on_the_corpus() {
    replay("bgp_sessions", bgp_sessions::check);
}
