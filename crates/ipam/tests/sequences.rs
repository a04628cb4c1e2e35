//! What exactly is asked of the store, step by step.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use common::store::{Revisions, Store};
use common::{brief, pool};
use ipam::{
    AddressRelease, Assignment, Expected, Failure, Key, Machine, Op, Outcome, Record, Release,
    Request, Scene, Step, View, seed_of,
};
use model::block::{Affinity, AffinityState, Block, Handle, IpamConfig, Owner};
use model::id::HandleId;
use model::net::{Cidr, Family};
use model::time::WallTime;

const NOW: WallTime = WallTime(1_700_000_000_000_000_000);
const MINUTE: i128 = 60_000_000_000;

fn id(text: &str) -> HandleId {
    HandleId(text.to_owned())
}

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn request(node: &str, handle: &str) -> Request {
    let node = node.parse().unwrap();
    Request {
        // Where the search begins is tested elsewhere; here it is the first block.
        seed: 0,
        node,
        handle: id(handle),
        owner: BTreeMap::from([("pod".to_owned(), handle.to_owned())]),
        family: Family::V4,
        addr: None,
        max_blocks: None,
    }
}

fn explicit(node: &str, handle: &str, addr: &str) -> Request {
    Request { addr: Some(addr.parse().unwrap()), ..request(node, handle) }
}

/// A pool of two blocks with two addresses each.
fn scene() -> Scene {
    let pool = pool("default-ipv4-ippool", "10.0.0.0/30", 31);
    Scene {
        config: IpamConfig::default(),
        reserved: Vec::new(),
        selected: vec![pool.cidr],
        pools: vec![pool],
        newest_first: Vec::new(),
        now: NOW,
    }
}

fn strict() -> Scene {
    let config = IpamConfig { is_strict_affinity: true, ..IpamConfig::default() };
    Scene { config, ..scene() }
}

/// Runs a machine and returns the requests of each step, and the end.
fn run<M: Machine>(
    store: &mut Store,
    machine: &mut M,
    revisions: &mut Revisions,
) -> (Vec<String>, Result<M::Output, Failure>) {
    let mut log = Vec::new();
    loop {
        let (line, ops) = match machine.next() {
            Step::Act(ops) => (told(&ops), ops),
            Step::Enter { before, inside } => {
                (format!("{} | lock | {}", told(&before), told(&inside)), [before, inside].concat())
            }
            Step::Done(output) => return (log, Ok(output)),
            Step::Failed(failure) => return (log, Err(failure)),
        };
        log.push(line.trim_start_matches(" | ").to_owned());
        for op in ops {
            let outcome = store.apply(&op, revisions);
            machine.feed(op, outcome);
        }
    }
}

fn told(ops: &[Op]) -> String {
    ops.iter().map(brief).collect::<Vec<_>>().join(", ")
}

fn assign(store: &mut Store, request: Request, scene: Scene) -> (Vec<String>, String) {
    let mut revisions = Revisions::new();
    let mut view = View::default();
    let listed = store.apply(&Op::ListAffinities, &mut revisions);
    view.feed(Op::ListAffinities, listed);
    let scene = Scene { newest_first: newest_first(&view, &revisions), ..scene };
    let mut machine = Assignment::new(request, scene, view);
    let (log, end) = run(store, &mut machine, &mut revisions);
    let end = end.map_or_else(|failure| failure.to_string(), |done| done.addr.to_string());
    (log, end)
}

fn newest_first(view: &View, revisions: &Revisions) -> Vec<Cidr> {
    let mut claims: Vec<Cidr> = view.affinities().map(|claim| claim.cidr).collect();
    let written = |cidr: &Cidr| {
        let claim = view.affinities().find(|claim| claim.cidr == *cidr).unwrap();
        revisions[&Key::Affinity(claim.owner.clone(), *cidr)]
    };
    claims.sort_by_key(|cidr| Reverse(written(cidr)));
    claims
}

fn addr_of(store: &mut Store, node: &str, handle: &str) -> String {
    assign(store, request(node, handle), scene()).1
}

fn release(store: &mut Store, handle: &str) -> Vec<String> {
    let mut machine = Release::new(id(handle), &IpamConfig::default(), NOW);
    let (log, end) = run(store, &mut machine, &mut Revisions::new());
    end.unwrap();
    log
}

#[test]
fn the_first_address_of_a_node_claims_a_block() {
    let (log, addr) = assign(&mut Store::default(), request("a", "h1"), scene());
    assert_eq!(addr, "10.0.0.0");
    assert_eq!(
        log,
        [
            "lock | list affinities",
            "create affinity host:a 10.0.0.0/31 Pending",
            "list blocks, list affinities",
            "create block 10.0.0.0/31 ..",
            "update affinity host:a 10.0.0.0/31 Confirmed",
            "create handle h1 10.0.0.0/31:1",
            "update block 10.0.0.0/31 #.",
        ]
    );
}

#[test]
fn a_further_address_takes_three_requests_in_two_steps() {
    let mut store = Store::default();
    addr_of(&mut store, "a", "h1");
    let (log, addr) = assign(&mut store, request("a", "h2"), scene());
    assert_eq!(addr, "10.0.0.1");
    assert_eq!(
        log,
        [
            "create handle h2 10.0.0.0/31:1 | lock | read block 10.0.0.0/31",
            "update block 10.0.0.0/31 ##"
        ]
    );
}

#[test]
fn with_several_blocks_the_newest_is_tried_alone() {
    let mut store = Store::default();
    for handle in ["h1", "h2", "h3"] {
        addr_of(&mut store, "a", handle);
    }
    let (log, addr) = assign(&mut store, request("a", "h4"), scene());
    assert_eq!(addr, "10.0.0.3");
    assert_eq!(
        log,
        [
            "create handle h4 10.0.0.2/31:1 | lock | read block 10.0.0.2/31",
            "update block 10.0.0.2/31 ##",
        ]
    );
}

#[test]
fn the_older_blocks_are_read_if_the_newest_is_full() {
    let mut store = Store::default();
    for handle in ["h1", "h2", "h3", "h4"] {
        addr_of(&mut store, "a", handle);
    }
    release(&mut store, "h1");
    let (log, addr) = assign(&mut store, request("a", "h5"), scene());
    assert_eq!(addr, "10.0.0.0");
    assert_eq!(
        log,
        [
            "create handle h5 10.0.0.2/31:1 | lock | read block 10.0.0.2/31",
            "read block 10.0.0.0/31",
            "update handle h5 10.0.0.0/31:1",
            "update block 10.0.0.0/31 ##",
        ]
    );
}

/// Many at once have read what the node claims before any of them got the lock.
#[test]
fn those_who_waited_for_the_lock_use_the_block_that_was_just_claimed() {
    let mut wide = scene();
    wide.pools = vec![pool("wide", "10.0.0.0/26", 30)];
    wide.selected = vec![wide.pools[0].cidr];
    let (mut store, mut before) = (Store::default(), Vec::new());
    for blocks in [0, 1, 3] {
        // All of them read first, then each in turn does the rest under the lock.
        let waiting: Vec<_> = (0..8)
            .map(|number| {
                let (mut revisions, mut view) = (Revisions::new(), View::default());
                view.feed(Op::ListAffinities, store.apply(&Op::ListAffinities, &mut revisions));
                let request = request("a", &format!("b{blocks}n{number}"));
                let order = newest_first(&view, &revisions);
                let scene = Scene { newest_first: order, ..wide.clone() };
                (Assignment::new(request, scene, view), revisions)
            })
            .collect();
        for (mut machine, mut revisions) in waiting {
            run(&mut store, &mut machine, &mut revisions).1.unwrap();
        }
        // One more, so that the next ones begin with a block that is half full.
        assign(&mut store, request("a", &format!("b{blocks}")), wide.clone());
        before.push(store.blocks().count());
    }
    // 9, 18 and 27 addresses in blocks of four.
    assert_eq!(before, [3, 5, 7]);
}

#[test]
fn a_wrong_guess_is_corrected_in_the_handle_before_the_block_is_written() {
    let mut store = Store::default();
    addr_of(&mut store, "a", "h1");
    addr_of(&mut store, "a", "h2");
    let (log, addr) = assign(&mut store, request("a", "h3"), scene());
    assert_eq!(addr, "10.0.0.2");
    assert_eq!(log[0], "create handle h3 10.0.0.0/31:1 | lock | read block 10.0.0.0/31");
    assert_eq!(
        log[log.len() - 2..],
        ["update handle h3 10.0.0.2/31:1", "update block 10.0.0.2/31 #."]
    );
}

#[test]
fn asking_again_for_the_same_handle_gives_the_same_address() {
    let mut store = Store::default();
    let first = addr_of(&mut store, "a", "h1");
    let (log, again) = assign(&mut store, request("a", "h1"), scene());
    assert_eq!(again, first);
    assert_eq!(
        log,
        ["create handle h1 10.0.0.0/31:1 | lock | read block 10.0.0.0/31", "read handle h1"]
    );
    assert_eq!(store.blocks().next().unwrap().unallocated, [1]);
}

#[test]
fn both_families_share_a_handle() {
    let mut store = Store::default();
    let mut revisions = Revisions::new();
    let mut first = Assignment::new(request("a", "h1"), scene(), View::default());
    run(&mut store, &mut first, &mut revisions).1.unwrap();
    let six = pool("default-ipv6-ippool", "fd00::/122", 122);
    let six = Scene { selected: vec![six.cidr], pools: vec![six], ..scene() };
    let second = Request { family: Family::V6, ..request("a", "h1") };
    let mut second = Assignment::new(second, six, first.into_view());
    let (log, end) = run(&mut store, &mut second, &mut revisions);
    assert_eq!(end.unwrap().addr.to_string(), "fd00::");
    assert!(log.contains(&"update handle h1 10.0.0.0/31:1 fd00::/122:1".to_owned()), "{log:?}");
}

#[test]
fn a_full_pool_lends_other_nodes_addresses() {
    let mut store = Store::default();
    addr_of(&mut store, "a", "h1");
    addr_of(&mut store, "b", "h2");
    let (log, addr) = assign(&mut store, request("c", "h3"), scene());
    assert_eq!(addr, "10.0.0.1");
    assert_eq!(
        log,
        [
            "lock | list affinities",
            "list blocks, list affinities",
            "create handle h3 10.0.0.0/31:1",
            "update block 10.0.0.0/31 ##"
        ]
    );
}

#[test]
fn an_empty_block_of_another_node_is_taken_over_after_a_minute() {
    let mut store = Store::default();
    addr_of(&mut store, "a", "h1");
    addr_of(&mut store, "b", "h2");
    release(&mut store, "h2");
    let (_, borrowed) = assign(&mut store, request("c", "h3"), strict());
    assert!(borrowed.contains("node c may not borrow"), "{borrowed}");
    let later = Scene { now: WallTime(NOW.0 + MINUTE), ..strict() };
    let (log, addr) = assign(&mut store, request("c", "h3"), later);
    assert_eq!(addr, "10.0.0.2");
    assert_eq!(
        log[2..5],
        [
            "delete block 10.0.0.2/31",
            "delete affinity host:b 10.0.0.2/31",
            "create affinity host:c 10.0.0.2/31 Pending"
        ]
    );
}

#[test]
fn exhaustion_names_pool_limit_and_remedy_and_leaves_no_handle() {
    let limited = |max_blocks_per_host| Scene {
        config: IpamConfig {
            is_strict_affinity: true,
            max_blocks_per_host,
            ..IpamConfig::default()
        },
        ..scene()
    };
    let manual = Scene {
        config: IpamConfig {
            is_strict_affinity: true,
            auto_allocate_blocks: false,
            ..IpamConfig::default()
        },
        ..scene()
    };
    let reserved = Scene { reserved: vec![cidr("10.0.0.0/29")], ..scene() };
    let of_pool = "pool default-ipv4-ippool 10.0.0.0/30:";
    for (scene, text) in [
        (
            limited(1),
            "2 of 4 addresses free; limit of 1 blocks reached, node a has 1 and all are full: raise maxBlocksPerHost in IPAMConfig `default`",
        ),
        (
            manual,
            "2 of 4 addresses free; node a may not claim blocks: set autoAllocateBlocks to true in IPAMConfig `default`",
        ),
        (
            reserved,
            "0 of 4 addresses free; all blocks are full: delete pods or leaked addresses (calicoctl ipam check), shrink IPReservations, or add an IPPool",
        ),
    ] {
        let mut store = Store::default();
        addr_of(&mut store, "a", "h1");
        addr_of(&mut store, "a", "h2");
        let (log, failure) = assign(&mut store, request("a", "h3"), scene);
        assert_eq!(failure, format!("{of_pool} {text}"));
        assert_eq!(log.last().unwrap(), "delete handle h3");
        assert_eq!(store.handle_count(), 2);
    }
}

#[test]
fn a_given_address_is_assigned_once() {
    let mut store = Store::default();
    let (_, addr) = assign(&mut store, explicit("a", "h1", "10.0.0.3"), scene());
    assert_eq!(addr, "10.0.0.3");
    assert_eq!(assign(&mut store, explicit("a", "h1", "10.0.0.3"), scene()).1, addr);
    for (request, scene, error) in [
        (explicit("a", "h2", "10.0.0.3"), scene(), "address 10.0.0.3 is already held by handle h1"),
        (explicit("a", "h2", "10.9.0.1"), scene(), "address 10.9.0.1 is in no enabled IPPool"),
        (
            explicit("b", "h2", "10.0.0.2"),
            strict(),
            "address 10.0.0.2 is in block 10.0.0.2/31 of host:a",
        ),
    ] {
        let (_, failure) = assign(&mut store, request, scene);
        assert!(failure.starts_with(error), "{failure}");
    }
    assert_eq!(assign(&mut store, explicit("b", "h2", "10.0.0.2"), scene()).1, "10.0.0.2");
    assert_eq!(store.handle_count(), 2);
}

#[test]
fn a_block_of_a_new_size_never_overlaps_an_old_one() {
    let mut store = Store::default();
    addr_of(&mut store, "a", "h1");
    let mut wider = scene();
    wider.pools[0].block_len = 30;
    let config = IpamConfig { is_strict_affinity: true, ..IpamConfig::default() };
    let wider = Scene { config, ..wider };
    let (_, failure) = assign(&mut store, request("b", "h2"), wider.clone());
    assert!(failure.contains("node b may not borrow"), "{failure}");
    let (_, failure) = assign(&mut store, explicit("b", "h2", "10.0.0.2"), wider);
    assert!(failure.contains("overlaps a block of another size"), "{failure}");
}

#[test]
fn a_service_gets_its_address_from_blocks_of_no_machine() {
    let mut store = Store::default();
    addr_of(&mut store, "a", "h1");
    let config = IpamConfig { max_blocks_per_host: 0, ..IpamConfig::default() };
    let scene = Scene { config, ..scene() };
    let mut view = View::default();
    let mut revisions = Revisions::new();
    view.feed(Op::ListAffinities, store.apply(&Op::ListAffinities, &mut revisions));
    let mut machine = Assignment::for_service(request("load-balancer", "lb-1"), scene, view);
    let (log, end) = run(&mut store, &mut machine, &mut revisions);
    assert_eq!(end.unwrap().addr.to_string(), "10.0.0.2");
    assert!(log.contains(&"create affinity virtual:load-balancer 10.0.0.2/31 Pending".to_owned()));
}

/// What is left when a block is created for a writer that is dead, and whose claim was
/// withdrawn for one of a block of another size.
fn late_block() -> Store {
    let mut store = Store::default();
    let small = cidr("10.0.0.0/31");
    store.insert(Record::Affinity(affinity("a", small, AffinityState::Confirmed)));
    store.insert(Record::Block(block(small, Some("a"))));
    addr_of(&mut store, "a", "h1");
    store.insert(Record::Block(block(cidr("10.0.0.0/30"), Some("a"))));
    store
}

#[test]
fn a_block_that_was_created_late_lends_nothing_and_is_removed() {
    let mut wider = scene();
    wider.pools[0].block_len = 30;
    let mut store = late_block();
    let (_, failure) = assign(&mut store, request("b", "h2"), wider.clone());
    assert!(failure.contains("10.0.0.0/30: 3 of 4 addresses free"), "{failure}");
    let (log, addr) = assign(&mut store, explicit("b", "h2", "10.0.0.1"), wider);
    assert!(log.iter().any(|line| line == "delete block 10.0.0.0/30"), "{log:?}");
    assert_eq!(addr, "10.0.0.1");
}

#[test]
fn an_empty_block_gives_only_while_it_is_claimed() {
    let mut store = Store::default();
    let small = cidr("10.0.0.0/31");
    store.insert(Record::Affinity(affinity("a", small, AffinityState::Confirmed)));
    store.insert(Record::Block(block(small, Some("a"))));
    let (log, _) = assign(&mut store, request("a", "h1"), scene());
    assert_eq!(log[1], "read affinity host:a 10.0.0.0/31");
    assert_eq!(log[2], "update block 10.0.0.0/31 #.");
}

fn block(cidr: Cidr, owner: Option<&str>) -> Block {
    let owner = owner.map(|node| Owner::Host(node.parse().unwrap()));
    let fresh = ipam::slots::fresh(cidr, Owner::Virtual(String::new()), NOW).unwrap();
    Block { affinity: owner, ..fresh }
}

fn affinity(node: &str, cidr: Cidr, state: AffinityState) -> Affinity {
    Affinity { owner: Owner::Host(node.parse().unwrap()), cidr, state, is_deleted: false }
}

#[test]
fn what_a_crash_left_of_a_claim_is_mended() {
    use AffinityState::{Confirmed, Pending, PendingDeletion};
    let first = cidr("10.0.0.0/31");
    for (claim, found, wanted) in [
        (affinity("a", first, Pending), None, "create block 10.0.0.0/31 .."),
        (affinity("a", first, Confirmed), None, "update affinity host:a 10.0.0.0/31 Pending"),
        (affinity("a", first, Pending), Some("a"), "update affinity host:a 10.0.0.0/31 Confirmed"),
        (
            affinity("a", first, PendingDeletion),
            Some("a"),
            "update affinity host:a 10.0.0.0/31 Confirmed",
        ),
        (affinity("a", first, Confirmed), Some("b"), "delete affinity host:a 10.0.0.0/31"),
        (
            Affinity { is_deleted: true, ..affinity("a", first, Confirmed) },
            None,
            "delete affinity host:a 10.0.0.0/31",
        ),
    ] {
        let mut store = Store::default();
        store.insert(ipam::Record::Affinity(claim.clone()));
        if found.is_some() {
            store.insert(ipam::Record::Block(block(first, found)));
        }
        let (log, addr) = assign(&mut store, request("a", "h1"), scene());
        assert!(log.iter().any(|line| line.ends_with(wanted)), "{claim:?} {found:?}: {log:#?}");
        assert_eq!(addr, if found == Some("b") { "10.0.0.2" } else { "10.0.0.0" });
    }
}

#[test]
fn deletions_that_others_began_are_finished_first() {
    let first = cidr("10.0.0.0/31");
    let mut store = Store::default();
    store.insert(ipam::Record::Affinity(affinity("a", first, AffinityState::Confirmed)));
    store.insert(ipam::Record::Block(Block { is_deleted: true, ..block(first, Some("a")) }));
    let blocks = BTreeMap::from([(first, 1)]);
    store.insert(ipam::Record::Handle(Handle { id: id("h1"), blocks, is_deleted: true }));
    let (log, addr) = assign(&mut store, request("a", "h1"), scene());
    assert_eq!(addr, "10.0.0.0");
    for deletion in ["delete handle h1", "delete block 10.0.0.0/31"] {
        assert!(log.contains(&deletion.to_owned()), "{log:#?}");
    }
    store.insert(ipam::Record::Handle(Handle {
        id: id("h9"),
        blocks: BTreeMap::new(),
        is_deleted: true,
    }));
    assert_eq!(release(&mut store, "h9"), ["read handle h9", "delete handle h9"]);
}

#[test]
fn own_empty_blocks_of_pools_that_no_longer_select_the_node_are_given_up() {
    let mut store = Store::default();
    addr_of(&mut store, "a", "h1");
    release(&mut store, "h1");
    let other = pool("other", "10.1.0.0/30", 31);
    let other = Scene { selected: vec![other.cidr], pools: vec![other], ..scene() };
    let (log, addr) = assign(&mut store, request("a", "h2"), other);
    assert_eq!(addr, "10.1.0.0");
    assert_eq!(log[1..3], ["delete block 10.0.0.0/31", "delete affinity host:a 10.0.0.0/31"]);
}

#[test]
fn a_release_writes_the_block_before_the_handle() {
    let mut store = Store::default();
    addr_of(&mut store, "a", "h1");
    assert_eq!(
        release(&mut store, "h1"),
        [
            "read handle h1",
            "lock | read block 10.0.0.0/31",
            "update block 10.0.0.0/31 ..",
            "delete handle h1"
        ]
    );
    assert_eq!(release(&mut store, "h1"), ["read handle h1"]);
}

#[test]
fn an_emptied_block_that_nobody_owns_is_deleted() {
    let mut store = Store::default();
    store.insert(ipam::Record::Block(block(cidr("10.0.0.0/31"), None)));
    addr_of(&mut store, "a", "h1");
    let (_, addr) = assign(&mut store, explicit("a", "h2", "10.0.0.0"), scene());
    assert_eq!(addr, "10.0.0.0");
    assert!(release(&mut store, "h2").contains(&"delete block 10.0.0.0/31".to_owned()));
}

#[test]
fn an_address_is_released_only_from_whom_it_was_expected() {
    let mut store = Store::default();
    let addr = addr_of(&mut store, "a", "h1").parse().unwrap();
    let mut release = |handle: Option<&str>, sequence_number| {
        let expected = Expected { handle: handle.map(id), sequence_number };
        let mut machine = AddressRelease::new(addr, expected, &IpamConfig::default(), NOW);
        let (log, end) = run(&mut store, &mut machine, &mut Revisions::new());
        (log, end.map_or_else(|failure| failure.to_string(), |done| done.addrs.len().to_string()))
    };
    let since = NOW.as_unsigned_nanos() + 1;
    assert_eq!(
        release(Some("h2"), None).1,
        "address 10.0.0.0 was not released: it is held by handle h1, not h2"
    );
    assert_eq!(
        release(None, Some(7)).1,
        format!(
            "address 10.0.0.0 was not released: it was allocated at sequence number {since}, not 7"
        )
    );
    let (log, count) = release(Some("h1"), Some(since));
    assert_eq!((log.len(), count.as_str()), (4, "1"), "{log:?}");
    assert_eq!(log[1..], ["update block 10.0.0.0/31 ..", "read handle h1", "delete handle h1"]);
    assert_eq!(release(None, None).1, "0");
}

#[test]
fn a_writer_that_always_loses_gives_up_and_says_so() {
    let mut store = Store::default();
    addr_of(&mut store, "a", "h1");
    let mut machine = Assignment::new(request("a", "h2"), scene(), View::default());
    let mut revisions = Revisions::new();
    let failure = loop {
        match machine.next() {
            Step::Act(ops) | Step::Enter { inside: ops, .. } => {
                for op in ops {
                    let is_write = matches!(op, Op::Create(_) | Op::Update(_) | Op::Delete(_));
                    let outcome =
                        if is_write { Outcome::Conflict } else { store.apply(&op, &mut revisions) };
                    machine.feed(op, outcome);
                }
            }
            Step::Done(done) => panic!("{done:?}"),
            Step::Failed(failure) => break failure.to_string(),
        }
    };
    assert_eq!(
        failure,
        "gave up after 101 conflicting writes: too many writers at once, try again"
    );
}

#[test]
fn nodes_begin_in_different_places() {
    let seeds = ["node-1", "node-2", "node-3"].map(|name| seed_of(&name.parse().unwrap()) % 1024);
    assert_ne!(seeds[0], seeds[1]);
    assert_ne!(seeds[1], seeds[2]);
}
