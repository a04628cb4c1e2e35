//! Any bytes as the kernel's answers about nftables.

#![no_main]

#[path = "../checks/nftables.rs"]
mod nftables;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nftables::check(bytes));
