//! A small cluster, what is planted in it, and a server that carries out plans.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::block::{Affinity, AffinityState, Attributes, Block, Handle, Owner};
use model::id::{HandleId, NamespacedName, NodeName};
use model::net::Cidr;
use model::pool::IpPool;
use model::time::WallTime;
use proptest::prelude::*;

use super::*;
use crate::machine::{Key, Record};
use crate::slots::{self, Clock};

/// 2026-11-23, in nanoseconds.
const NOW: WallTime = WallTime(1_795_392_000_000_000_000);

fn clock() -> Clock {
    Clock { now: NOW, cooldown: std::time::Duration::ZERO }
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn host(name: &str) -> Owner {
    Owner::Host(node(name))
}

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn seen<T>(value: T) -> Revisioned<T> {
    Revisioned { value, revision: "1".to_owned(), created: None }
}

/// Nodes a and b, a pool of /24 with blocks of /28; a owns .0 with pod `web` on .0.
fn cluster() -> Snapshot {
    let pool = IpPool { block_len: 28, ..IpPool::plain("pool", cidr("10.0.0.0/24")) };
    let mut snapshot = Snapshot {
        now: NOW,
        pools: vec![pool],
        nodes: BTreeSet::from([node("a"), node("b")]),
        ..Snapshot::default()
    };
    claim(&mut snapshot, "a", "10.0.0.0/28");
    run(&mut snapshot, "web", "a", "10.0.0.0");
    snapshot
}

fn claim(snapshot: &mut Snapshot, owner: &str, block: &str) {
    let fresh = slots::fresh(cidr(block), host(owner), NOW).unwrap();
    snapshot.blocks.push(seen(fresh));
    affine(snapshot, owner, block);
}

fn affine(snapshot: &mut Snapshot, owner: &str, block: &str) {
    snapshot.affinities.push(seen(Affinity {
        owner: host(owner),
        cidr: cidr(block),
        state: AffinityState::Confirmed,
        is_deleted: false,
    }));
}

fn block_mut<'a>(snapshot: &'a mut Snapshot, of: &str) -> &'a mut Block {
    let is_it = |block: &&mut Revisioned<Block>| block.value.cidr == cidr(of);
    &mut snapshot.blocks.iter_mut().find(is_it).unwrap().value
}

fn owner(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Takes the address out of the last block that contains it, and counts it.
fn take(snapshot: &mut Snapshot, at: &str, handle: &str, facts: &[(&str, &str)]) {
    let at = addr(at);
    let block = snapshot.blocks.iter_mut().rev().find(|block| block.value.cidr.contains(at));
    let block = &mut block.unwrap().value;
    let holder = Attributes {
        handle: Some(HandleId(handle.to_owned())),
        owner: owner(facts),
        ..Attributes::default()
    };
    let ordinal = u32::try_from(block.cidr.ordinal_of(at).unwrap()).unwrap();
    *block = slots::allocate(block, ordinal, &holder, clock()).unwrap();
    let of = block.cidr;
    let known = snapshot.handles.iter().position(|known| known.value.id.0 == handle);
    let index = known.unwrap_or_else(|| {
        let id = HandleId(handle.to_owned());
        let handle = Handle { id, blocks: BTreeMap::new(), is_deleted: false };
        snapshot.handles.push(seen(handle));
        snapshot.handles.len() - 1
    });
    *snapshot.handles[index].value.blocks.entry(of).or_default() += 1;
}

fn take_for_pod(snapshot: &mut Snapshot, name: &str, on: &str, at: &str) {
    let facts = [
        ("namespace", "default"),
        ("pod", name),
        ("node", on),
        ("timestamp", "2026-11-22 10:00:00.5 +0000 UTC"),
    ];
    take(snapshot, at, &format!("net.{name}"), &facts);
}

fn start(snapshot: &mut Snapshot, name: &str, on: &str, addrs: &[&str]) {
    snapshot.pods.push(PodUse {
        pod: NamespacedName { namespace: "default".to_owned(), name: name.to_owned() },
        uid: name.to_owned(),
        node: Some(node(on)),
        addrs: addrs.iter().map(|text| addr(text)).collect(),
        is_terminated: false,
    });
}

fn run(snapshot: &mut Snapshot, name: &str, on: &str, at: &str) {
    take_for_pod(snapshot, name, on, at);
    start(snapshot, name, on, &[at]);
}

/// Carries out a plan as a server would that nobody else talks to.
fn apply(snapshot: &mut Snapshot, plan: &Plan) {
    let mut done = BTreeSet::new();
    for write in &plan.writes {
        let key = match &write.change {
            Change::Put(record) => record.key(),
            Change::Delete(key) => key.clone(),
        };
        let written =
            |it: &Key| !plan.writes.iter().any(|other| is_of(other, it)) || done.contains(it);
        assert!(write.after.iter().all(written), "{key:?} is written too early");
        snapshot.blocks.retain(|it| Record::Block(it.value.clone()).key() != key);
        snapshot.affinities.retain(|it| Record::Affinity(it.value.clone()).key() != key);
        snapshot.handles.retain(|it| Record::Handle(it.value.clone()).key() != key);
        match &write.change {
            Change::Put(Record::Block(block)) => snapshot.blocks.push(seen(block.clone())),
            Change::Put(Record::Affinity(it)) => snapshot.affinities.push(seen(it.clone())),
            Change::Put(Record::Handle(it)) => snapshot.handles.push(seen(it.clone())),
            Change::Delete(_) => {}
        }
        done.insert(key);
    }
}

fn is_of(write: &Write, key: &Key) -> bool {
    match &write.change {
        Change::Put(record) => record.key() == *key,
        Change::Delete(deleted) => deleted == key,
    }
}

/// Returns the addresses that alive pods use and a block gave to them, with the handle.
fn live(snapshot: &Snapshot) -> BTreeSet<(IpAddr, Option<HandleId>)> {
    let uses = uses::Uses::of(snapshot);
    let all = snapshot.blocks.iter().flat_map(|block| uses::allocations(&block.value));
    let live = all.filter(|(held, _)| !uses.users(held.addr).is_empty());
    live.map(|(held, _)| (held.addr, held.handle)).collect()
}

fn names(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|finding| finding.problem.to_string()).collect()
}

/// Asserts that exactly `expected` is found, that the repair leaves nothing, and that no
/// address in use is freed.
#[track_caller]
fn found_and_repaired(mut snapshot: Snapshot, expected: &[&str]) -> Snapshot {
    let before = live(&snapshot);
    let findings = check(&snapshot);
    assert_eq!(names(&findings), expected);
    let repair = plan(&snapshot, &findings, &Limits::default()).unwrap();
    assert_eq!(repair.left, Vec::<usize>::new());
    apply(&mut snapshot, &repair);
    assert_eq!(names(&check(&snapshot)), Vec::<String>::new());
    assert_eq!(live(&snapshot), before);
    snapshot
}

/// Asserts that exactly `expected` is found, and that nothing is written because of it.
#[track_caller]
fn found_and_left(snapshot: &Snapshot, expected: &[&str]) {
    let findings = check(snapshot);
    assert_eq!(names(&findings), expected);
    let repair = plan(snapshot, &findings, &Limits::default()).unwrap();
    assert_eq!(repair.writes, Vec::new());
    assert_eq!(repair.left.len(), expected.len());
}

mod faults;
mod limits;
mod random;
