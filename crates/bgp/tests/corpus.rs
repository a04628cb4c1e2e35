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

use std::path::Path;

#[test]
#[expect(clippy::disallowed_methods, reason = "a test reads its corpus")]
fn messages_keep_their_promises_on_the_corpus() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/bgp_messages");
    let mut paths: Vec<_> =
        std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 10, "{} has lost its files", dir.display());
    for path in paths {
        eprintln!("{}", path.display());
        bgp_messages::check(&std::fs::read(&path).unwrap());
    }
}
