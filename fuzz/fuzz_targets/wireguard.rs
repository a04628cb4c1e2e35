//! Any bytes as the kernel's description of a WireGuard device.

#![no_main]

#[path = "../checks/wireguard.rs"]
mod wireguard;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wireguard::check(bytes));
