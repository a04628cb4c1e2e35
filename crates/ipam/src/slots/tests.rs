//! What a block holds after assignments and releases.

use proptest::prelude::*;

use super::*;

const START: WallTime = WallTime(1_700_000_000_000_000_000);

fn clock(seconds: i128, cooldown: u64) -> Clock {
    Clock {
        now: WallTime(START.0 + seconds * 1_000_000_000),
        cooldown: Duration::from_secs(cooldown),
    }
}

fn block(cidr: &str) -> Block {
    let owner = Owner::Host("node-1".parse().unwrap());
    fresh(cidr.parse().unwrap(), owner, START).unwrap()
}

fn holder(handle: &str) -> Attributes {
    Attributes { handle: Some(HandleId(handle.to_owned())), ..Attributes::default() }
}

fn nothing() -> Ranges {
    Ranges::default()
}

fn take(block: &Block, handle: &str, clock: Clock) -> (Block, u32) {
    let ordinal = next_free(block, &nothing(), clock).unwrap();
    (allocate(block, ordinal, &holder(handle), clock).unwrap(), ordinal)
}

#[test]
fn a_new_block_is_free_and_numbered_by_its_birth() {
    let block = block("10.0.0.0/26");
    assert_eq!(block.allocations, vec![None; 64]);
    assert_eq!(block.unallocated, (0..64).collect::<Vec<_>>());
    assert_eq!(block.sequence_number, 1_700_000_000_000_000_000);
    assert!(is_empty(&block, clock(0, 0)));
}

#[test]
fn refuses_blocks_of_more_than_4096_addresses() {
    let owner = Owner::Host("node-1".parse().unwrap());
    assert!(fresh("10.0.0.0/20".parse().unwrap(), owner.clone(), START).is_some());
    assert!(fresh("10.0.0.0/19".parse().unwrap(), owner.clone(), START).is_none());
    assert!(fresh("fd00::/64".parse().unwrap(), owner, START).is_none());
}

#[test]
fn takes_from_the_front_and_gives_back_to_the_end() {
    let now = clock(0, 0);
    let (block, first) = take(&block("10.0.0.0/30"), "a", now);
    let block = release(&block, &[first], now);
    assert_eq!(block.unallocated, [1, 2, 3, 0]);
    assert_eq!(next_free(&block, &nothing(), now), Some(1));
}

#[test]
fn counts_every_write_and_notes_it_with_the_address() {
    let now = clock(0, 0);
    let (block, _) = take(&block("10.0.0.0/30"), "a", now);
    let (block, ordinal) = take(&block, "b", now);
    assert_eq!(block.sequence_number, 1_700_000_000_000_000_002);
    assert_eq!(block.allocated_at[&ordinal], block.sequence_number);
    let block = release(&block, &[ordinal], now);
    assert_eq!(block.allocated_at.len(), 1);
}

#[test]
fn a_release_of_nothing_is_still_a_write() {
    let block = block("10.0.0.0/30");
    let fenced = release(&block, &[], clock(0, 0));
    assert_eq!(fenced, Block { sequence_number: block.sequence_number + 1, ..block });
}

#[test]
fn holders_are_stored_once_and_dropped_with_their_last_address() {
    let now = clock(0, 0);
    let (block, _) = take(&block("10.0.0.0/30"), "a", now);
    let (block, _) = take(&block, "b", now);
    let (block, _) = take(&block, "b", now);
    assert_eq!(block.attributes, [holder("a"), holder("b")]);
    let block = release(&block, &[0], now);
    assert_eq!(block.attributes, [holder("b")]);
    assert_eq!(block.allocations, [None, Some(0), Some(0), None]);
}

#[test]
fn reserved_addresses_keep_their_place_in_the_queue() {
    let block = block("10.0.0.0/30");
    let reserved = Ranges::of(["10.0.0.0/31".parse().unwrap()], model::net::Family::V4);
    assert_eq!(next_free(&block, &reserved, clock(0, 0)), Some(2));
    assert_eq!(count_free(&block, &reserved, clock(0, 0)), 2);
    assert_eq!(block.unallocated, [0, 1, 2, 3]);
}

#[test]
fn an_address_rests_for_the_cooldown() {
    let (block, ordinal) = take(&block("10.0.0.0/32"), "a", clock(0, 30));
    let block = release(&block, &[ordinal], clock(10, 30));
    assert!(super::holder(&block, ordinal).is_none(), "resting is nobody's");
    assert!(held_by(&block, &HandleId("a".to_owned())).is_empty());
    assert_eq!(next_free(&block, &nothing(), clock(39, 30)), None);
    assert!(!is_empty(&block, clock(39, 30)));
    assert_eq!(next_free(&block, &nothing(), clock(40, 30)), Some(0));
    assert!(is_empty(&block, clock(40, 30)));
    let (block, _) = take(&block, "b", clock(40, 30));
    assert_eq!(block.attributes, [holder("b")]);
}

#[test]
fn a_handle_ends_at_a_carriage_return() {
    let now = clock(0, 0);
    let (block, ordinal) = take(&block("10.0.0.0/32"), "net.1\rold text", now);
    assert_eq!(held_by(&block, &HandleId("net.1".to_owned())), [ordinal]);
}

#[test]
fn a_damaged_queue_gives_no_address_twice() {
    let now = clock(0, 0);
    let (mut block, ordinal) = take(&block("10.0.0.0/31"), "a", now);
    block.unallocated.insert(0, ordinal);
    block.unallocated.insert(0, 99);
    assert_eq!(next_free(&block, &nothing(), now), Some(1));
    assert_eq!(allocate(&block, ordinal, &holder("b"), now), None);
    assert_eq!(allocate(&block, 99, &holder("b"), now), None);
}

/// A block after any sequence of takes and releases.
fn used_block() -> impl Strategy<Value = (Block, Clock)> {
    let step = (0_u8..4, 0_u32..8, 0_i128..20);
    (prop::collection::vec(step, 0..40), prop::sample::select(vec![0_u64, 10])).prop_map(
        |(steps, cooldown)| {
            let mut block = block("10.0.0.0/29");
            let mut now = clock(0, cooldown);
            for (holder_number, ordinal, seconds) in steps {
                now.now.0 += seconds * 1_000_000_000;
                if holder_number == 3 {
                    block = release(&block, &[ordinal], now);
                } else if let Some(free) = next_free(&block, &nothing(), now) {
                    let holder = holder(&format!("h{holder_number}"));
                    block = allocate(&block, free, &holder, now).unwrap();
                }
            }
            (block, now)
        },
    )
}

proptest! {
    #[test]
    fn what_is_free_is_queued_once((block, now) in used_block()) {
        let block = release(&block, &[], now);
        let mut queued = block.unallocated.clone();
        queued.sort_unstable();
        let free = (0..8).filter(|at| block.allocations[usize::try_from(*at).unwrap()].is_none());
        prop_assert_eq!(queued, free.collect::<Vec<u32>>());
    }

    #[test]
    fn attributes_are_distinct_and_all_in_use((block, now) in used_block()) {
        let block = release(&block, &[], now);
        for (index, attributes) in block.attributes.iter().enumerate() {
            prop_assert!(block.allocations.contains(&Some(index)));
            prop_assert!(!block.attributes[..index].contains(attributes));
        }
        for slot in block.allocations.iter().flatten() {
            prop_assert!(*slot < block.attributes.len());
        }
    }

    #[test]
    fn taking_changes_one_address_only((block, now) in used_block()) {
        let Some(ordinal) = next_free(&block, &nothing(), now) else { return Ok(()) };
        let after = allocate(&block, ordinal, &holder("new"), now).unwrap();
        prop_assert!(super::holder(&block, ordinal).is_none());
        for at in 0..8 {
            let expected = if at == ordinal { Some(&holder("new")) } else { super::holder(&block, at) };
            prop_assert_eq!(super::holder(&after, at), expected);
        }
    }

    #[test]
    fn releasing_what_a_handle_holds_leaves_nothing_of_it((block, now) in used_block()) {
        let id = HandleId("h1".to_owned());
        let after = release(&block, &held_by(&block, &id), now);
        prop_assert!(held_by(&after, &id).is_empty());
        for other in ["h0", "h2"] {
            let other = HandleId(other.to_owned());
            prop_assert_eq!(held_by(&after, &other), held_by(&block, &other));
        }
    }
}
