//! Model checking: many clients, one store, and everything that can go wrong between two writes.
//!
//! A history is a number. From it follow the pools, the configuration, what
//! each client asks for, whose request the store answers next, which requests
//! conflict, whose answers are lost (with the write done, not done, or done
//! later) and who dies when. After every write no address may be taken twice;
//! when all is over, the audit must find and repair what the dead left, without freeing what
//! is live, and then releasing every handle must leave nothing behind.
//!
//! To replay one: `IPAM_HISTORY=1234 cargo test -p ipam --test histories`. To play more
//! of each kind than the default: `IPAM_HISTORIES=100000`.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]

#[path = "histories/collector.rs"]
mod collector;
#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;
#[path = "histories/world.rs"]
mod world;

use world::World;

const HISTORIES: u64 = 2_500;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn run(family: &str, first: u64, faults: world::Faults) {
    if let Some(seed) = number("IPAM_HISTORY") {
        World::new(seed, faults).run();
        return;
    }
    for seed in first..first + number("IPAM_HISTORIES").unwrap_or(HISTORIES) {
        let result = std::panic::catch_unwind(|| World::new(seed, faults).run());
        assert!(result.is_ok(), "{family}: replay with IPAM_HISTORY={seed}");
    }
}

#[test]
fn nothing_is_doubled_or_lost_when_clients_race() {
    run("race", 0, world::Faults { lost: 0, crash: 0, is_block_len_mixed: false });
}

#[test]
fn nothing_is_doubled_or_lost_when_answers_are_lost() {
    run("lost", 1_000_000, world::Faults { lost: 10, crash: 0, is_block_len_mixed: false });
}

#[test]
fn nothing_is_doubled_or_lost_when_clients_die() {
    run("crash", 2_000_000, world::Faults { lost: 3, crash: 5, is_block_len_mixed: false });
}

#[test]
fn nothing_is_doubled_or_lost_when_the_block_size_changes() {
    run("block size", 3_000_000, world::Faults { lost: 3, crash: 3, is_block_len_mixed: true });
}
