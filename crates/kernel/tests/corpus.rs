//! What the fuzzer of nftables' answers has found, and what it began with.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test stops at the first surprise"
)]

#[path = "../../../fuzz/checks/nftables.rs"]
mod nftables;

use std::path::Path;

#[test]
fn answers_of_the_corpus_are_read_to_their_end() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/nftables");
    let mut paths: Vec<_> =
        std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 4, "{} has lost its files", dir.display());
    for path in paths {
        let bytes = std::fs::read(&path).unwrap();
        nftables::check(&bytes);
        // Cut anywhere, as a socket may.
        (0..bytes.len()).for_each(|len| nftables::check(bytes.get(..len).unwrap()));
    }
}
