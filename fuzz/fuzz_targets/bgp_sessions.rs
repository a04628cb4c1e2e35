//! Any bytes and other mishaps for a BGP speaker.

#![no_main]

#[path = "../checks/bgp_sessions.rs"]
mod bgp_sessions;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bgp_sessions::check(bytes));
