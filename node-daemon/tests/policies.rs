//! What the fuzzer of policies has found, and what it began with, on every run of the tests.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test stops at the first surprise; the fuzzer uses the same checks"
)]

#[path = "../../fuzz/checks/corpus.rs"]
mod corpus;
#[path = "../../fuzz/checks/policies.rs"]
mod policies;

use proptest::prelude::*;

#[test]
fn policies_keep_their_promises_on_the_corpus() {
    corpus::replay("policies", 11, policies::check);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Half of one file and half of another, with a few characters replaced, as a fuzzer does.
    #[test]
    fn policies_keep_their_promises_when_words_change_places(
        picks in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..6),
        file in any::<prop::sample::Index>(),
    ) {
        let corpus = corpus::files("policies", 11);
        // What fuzzers found need not be text, and says little if it is no JSON.
        let is_json = |text: &&str| serde_json::from_str::<serde_json::Value>(text).is_ok();
        let texts = corpus.iter().filter_map(|(_, bytes)| std::str::from_utf8(bytes).ok());
        let texts: Vec<&str> = texts.filter(is_json).collect();
        let words: Vec<&str> = texts.iter().flat_map(|text| text.split('"')).collect();
        let text = *file.get(texts.as_slice());
        let mut parts: Vec<&str> = text.split('"').collect();
        for (place, word) in &picks {
            // Odd parts are what stands between quotes.
            let place = place.index(parts.len().max(2) / 2) * 2 + 1;
            if let Some(part) = parts.get_mut(place) {
                *part = *word.get(words.as_slice());
            }
        }
        policies::check(parts.join("\"").as_bytes());
    }
}
