//! What the fuzzer of nftables' answers has found, and what it began with.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test stops at the first surprise"
)]

#[path = "../../../fuzz/checks/corpus.rs"]
mod corpus;
#[path = "../../../fuzz/checks/nftables.rs"]
mod nftables;

#[test]
fn answers_of_the_corpus_are_read_to_their_end() {
    corpus::replay("nftables", 5, |bytes| {
        nftables::check(bytes);
        // Cut anywhere, as a socket may.
        (0..bytes.len()).for_each(|len| nftables::check(bytes.get(..len).unwrap()));
    });
}
