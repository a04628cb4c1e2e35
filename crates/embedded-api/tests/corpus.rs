//! What the fuzzers have found, and what they began with, on every run of the tests.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test stops at the first surprise; the fuzzers use the same checks"
)]

#[path = "../../../fuzz/checks/requests.rs"]
mod requests;
#[path = "../../../fuzz/checks/selectors.rs"]
mod selectors;

use std::path::Path;

/// Checks every file of a corpus; the last words before a failure name the file.
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
fn selectors_keep_their_promises_on_the_corpus() {
    replay("selectors", selectors::check);
}

#[test]
fn every_request_of_the_corpus_has_a_well_formed_answer() {
    replay("requests", requests::check);
}
