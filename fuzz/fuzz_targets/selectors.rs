//! Any bytes as a selector, in each of the three grammars.

#![no_main]

#[path = "../checks/selectors.rs"]
mod selectors;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| selectors::check(bytes));
