//! Walking the blocks of a pool.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn pool(cidr: &str, block_len: u8) -> IpPool {
    IpPool { block_len, ..IpPool::plain("pool", cidr.parse().unwrap()) }
}

fn set(cidrs: &[&str], family: Family) -> Ranges {
    Ranges::of(cidrs.iter().map(|cidr| cidr.parse().unwrap()), family)
}

fn gap(pool: &IpPool, taken: &[&str], reserved: &[&str], seed: u64) -> Option<String> {
    let family = pool.family();
    let found = first_gap(pool, &set(taken, family), &set(reserved, family), seed);
    found.map(|cidr| cidr.to_string())
}

#[test]
fn a_seed_is_the_fnv_1_hash_of_the_name() {
    assert_eq!(seed_of(&"a".parse().unwrap()), 0x050c_5d7e);
}

#[test]
fn adjacent_ranges_merge() {
    let merged = set(&["10.0.0.0/25", "10.0.0.128/25", "10.0.2.0/24", "fd00::/64"], Family::V4);
    assert_eq!(merged.0.len(), 2);
    assert_eq!(merged.count_in(&"10.0.0.0/22".parse().unwrap()), 512);
    assert_eq!(merged.count_in(&"10.0.0.64/26".parse().unwrap()), 64);
}

#[test]
fn the_search_wraps_around_the_pool() {
    let pool = pool("10.0.0.0/28", 30);
    assert_eq!(gap(&pool, &[], &[], 3).unwrap(), "10.0.0.12/30");
    assert_eq!(gap(&pool, &["10.0.0.12/30"], &[], 3).unwrap(), "10.0.0.0/30");
    assert_eq!(gap(&pool, &["10.0.0.0/29", "10.0.0.8/29"], &[], 3), None);
}

#[test]
fn a_block_never_overlaps_one_of_another_size() {
    let pool = pool("10.0.0.0/28", 29);
    assert_eq!(gap(&pool, &["10.0.0.1/32"], &[], 0).unwrap(), "10.0.0.8/29");
    assert_eq!(gap(&pool, &["10.0.0.0/24"], &[], 0), None);
}

#[test]
fn a_block_is_skipped_only_if_all_of_it_is_reserved() {
    let pool = pool("10.0.0.0/28", 30);
    assert_eq!(gap(&pool, &[], &["10.0.0.0/31"], 0).unwrap(), "10.0.0.0/30");
    assert_eq!(gap(&pool, &[], &["10.0.0.0/31", "10.0.0.2/31"], 0).unwrap(), "10.0.0.4/30");
}

#[test]
fn large_reservations_are_stepped_over_at_once() {
    let pool = pool("fd00::/48", 122);
    let reserved = ["fd00::/49", "fd00:0:0:8000::/64"];
    assert_eq!(gap(&pool, &[], &reserved, 0).unwrap(), "fd00:0:0:8001::/122");
}

#[test]
fn every_pool_size_is_searched() {
    assert_eq!(gap(&pool("0.0.0.0/0", 26), &[], &[], 1).unwrap(), "0.0.0.64/26");
    assert_eq!(gap(&pool("::/0", 128), &[], &[], 1).unwrap(), "::1/128");
    assert_eq!(gap(&pool("10.0.0.0/32", 32), &[], &[], 7).unwrap(), "10.0.0.0/32");
}

proptest! {
    #[test]
    fn turns_follow_the_order_of_the_search(seed: u64) {
        let pool = pool("10.0.0.0/28", 30);
        let mut taken: Vec<Cidr> = Vec::new();
        while let Some(next) =
            first_gap(&pool, &Ranges::of(taken.clone(), Family::V4), &Ranges::default(), seed)
        {
            prop_assert_eq!(turn(&pool, &next, seed), Some(taken.len() as u128));
            taken.push(next);
        }
        prop_assert_eq!(taken.into_iter().collect::<BTreeSet<_>>().len(), 4);
    }

    #[test]
    fn a_set_holds_what_went_in(addrs in prop::collection::vec(any::<u8>(), 0..20), probe: u8) {
        let cidr = |last: &u8| Cidr::host([10, 0, 0, *last].into());
        let set = Ranges::of(addrs.iter().map(cidr), Family::V4);
        prop_assert_eq!(set.contains([10, 0, 0, probe].into()), addrs.contains(&probe));
    }
}
