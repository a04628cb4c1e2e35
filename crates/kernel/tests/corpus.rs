//! What the fuzzers of the kernel's answers have found, and what they began with.

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
#[path = "../../../fuzz/checks/wireguard.rs"]
mod wireguard;

#[test]
fn answers_of_the_corpus_are_read_to_their_end() {
    corpus::replay("nftables", 5, |bytes| {
        nftables::check(bytes);
        // Cut anywhere, as a socket may.
        (0..bytes.len()).for_each(|len| nftables::check(bytes.get(..len).unwrap()));
    });
}

#[test]
fn descriptions_of_wireguard_devices_are_read_to_their_end() {
    corpus::replay("wireguard", 5, |bytes| {
        (0..=bytes.len()).for_each(|len| wireguard::check(bytes.get(..len).unwrap()));
    });
}
