//! What the fuzzers have found, and what they began with, on every run of the tests.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test stops at the first surprise; the fuzzers use the same checks"
)]

#[path = "../../../fuzz/checks/corpus.rs"]
mod corpus;
#[path = "../../../fuzz/checks/requests.rs"]
mod requests;
#[path = "../../../fuzz/checks/selectors.rs"]
mod selectors;

#[test]
fn selectors_keep_their_promises_on_the_corpus() {
    corpus::replay("selectors", 11, selectors::check);
}

#[test]
fn every_request_of_the_corpus_has_a_well_formed_answer() {
    corpus::replay("requests", 11, requests::check);
}
