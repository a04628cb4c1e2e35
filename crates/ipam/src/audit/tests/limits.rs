//! What stops a repair, and what a repair does when the cluster moved on.

use super::*;

fn with_leaks(count: u8) -> Snapshot {
    let mut snapshot = cluster();
    for index in 1..=count {
        take_for_pod(&mut snapshot, &format!("p{index}"), "a", &format!("10.0.0.{index}"));
    }
    snapshot
}

fn refusal(snapshot: &Snapshot, limits: &Limits) -> Option<Refused> {
    plan(snapshot, &check(snapshot), limits).err()
}

#[test]
fn refuses_when_no_node_is_listed() {
    let mut snapshot = cluster();
    snapshot.nodes.clear();
    snapshot.pods.clear();
    let refused = refusal(&snapshot, &Limits::default());
    assert_eq!(refused, Some(Refused::NoNodes { allocations: 1 }));
}

#[test]
fn refuses_when_no_pod_is_listed_but_many_hold_addresses() {
    let mut snapshot = with_leaks(4);
    snapshot.pods.clear();
    let limits = Limits { percent: 100, floor: 4 };
    assert_eq!(refusal(&snapshot, &limits), Some(Refused::NoPods { allocations: 5 }));
    assert_eq!(refusal(&snapshot, &Limits { percent: 100, floor: 5 }), None);
}

#[test]
fn refuses_to_delete_handles_when_no_block_is_listed() {
    let mut snapshot = cluster();
    snapshot.blocks.clear();
    let refused = refusal(&snapshot, &Limits::default());
    assert_eq!(refused, Some(Refused::NoBlocks { in_use: 1 }));
}

#[test]
fn refuses_more_than_a_share_unless_it_is_a_handful() {
    let snapshot = with_leaks(9);
    let refused = Refused::TooMany { releases: 9, allocations: 10, limit: 5 };
    assert_eq!(refusal(&snapshot, &Limits { percent: 50, floor: 3 }), Some(refused));
    assert_eq!(refusal(&snapshot, &Limits { percent: 90, floor: 3 }), None);
    assert_eq!(refusal(&snapshot, &Limits { percent: 50, floor: 9 }), None);
}

#[test]
fn releases_on_a_newer_block_only_what_is_still_the_same() {
    let snapshot = with_leaks(2);
    let repair = plan(&snapshot, &check(&snapshot), &Limits::default()).unwrap();
    let write = &repair.writes[0];
    assert_eq!(write.releases.len(), 2);
    // Meanwhile .1 was given back, and to a pod of the same name again.
    let mut later = snapshot.clone();
    let block = block_mut(&mut later, "10.0.0.0/28");
    *block = slots::release(block, &[1], clock());
    take_for_pod(&mut later, "p1", "a", "10.0.0.1");
    let rebased = rebase(write, later.blocks[0].clone(), clock()).unwrap();
    let Change::Put(Record::Block(after)) = &rebased.change else { panic!("{rebased:?}") };
    assert!(slots::holder(after, 1).is_some());
    assert!(slots::holder(after, 2).is_none());
    assert_eq!(rebase(&rebased, seen(after.clone()), clock()), None);
}
