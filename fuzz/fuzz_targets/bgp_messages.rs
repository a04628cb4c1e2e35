//! Any bytes as messages of a BGP peer.

#![no_main]

#[path = "../checks/bgp_messages.rs"]
mod bgp_messages;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bgp_messages::check(bytes));
