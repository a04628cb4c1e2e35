//! What the fuzzers have found in messages, and what they began with, on every run of the tests.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test stops at the first surprise; the fuzzers use the same checks, and a test reads its corpus"
)]

#[path = "../../../fuzz/checks/bgp_messages.rs"]
mod bgp_messages;
#[path = "../../../fuzz/checks/bgp_sessions.rs"]
mod bgp_sessions;
#[path = "../../../fuzz/checks/corpus.rs"]
mod corpus;

#[test]
fn messages_keep_their_promises_on_the_corpus() {
    corpus::replay("bgp_messages", 11, bgp_messages::check);
}

#[test]
fn speakers_keep_their_promises_on_the_corpus() {
    corpus::replay("bgp_sessions", 11, bgp_sessions::check);
}
