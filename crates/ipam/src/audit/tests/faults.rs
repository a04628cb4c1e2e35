//! One planted fault of each kind: found, repaired, and nobody alive harmed.

use super::*;

#[test]
fn finds_nothing_wrong_with_a_sound_cluster() {
    assert_eq!(check(&cluster()), Vec::new());
}

#[test]
fn releases_the_address_of_a_pod_that_is_gone() {
    let mut snapshot = cluster();
    take_for_pod(&mut snapshot, "old", "a", "10.0.0.5");
    let findings = check(&snapshot);
    assert_eq!(findings[0].evidence, ["pod default/old does not exist"]);
    assert_eq!(findings[0].confidence, Confidence::Likely);
    // 2026-11-22 10:00:00 UTC.
    assert_eq!(findings[0].since, Some(WallTime(1_795_341_600_000_000_000)));
    let after = found_and_repaired(snapshot, &["leak: 10.0.0.5 of pod default/old"]);
    assert_eq!(after.handles.len(), 1);
}

#[test]
fn releases_the_address_of_a_pod_that_ended_or_has_another() {
    let mut snapshot = cluster();
    run(&mut snapshot, "job", "a", "10.0.0.5");
    snapshot.pods[1].is_terminated = true;
    take(
        &mut snapshot,
        "10.0.0.6",
        "net.former",
        &[("namespace", "default"), ("pod", "web"), ("node", "a")],
    );
    found_and_repaired(
        snapshot,
        &["leak: 10.0.0.5 of pod default/job", "leak: 10.0.0.6 of pod default/web"],
    );
}

#[test]
fn clears_up_after_a_node_that_is_gone() {
    let mut snapshot = cluster();
    claim(&mut snapshot, "gone", "10.0.0.16/28");
    take_for_pod(&mut snapshot, "lost", "gone", "10.0.0.20");
    let facts = [("type", "ipipTunnelAddress"), ("node", "gone")];
    take(&mut snapshot, "10.0.0.16", "ipip-tunnel-addr-gone", &facts);
    assert!(check(&snapshot).iter().all(|finding| finding.confidence == Confidence::Certain));
    let after = found_and_repaired(
        snapshot,
        &[
            "leak: 10.0.0.16 of ipipTunnelAddress of node gone",
            "leak: 10.0.0.20 of pod default/lost",
            "stale affinity: host:gone on block 10.0.0.16/28",
        ],
    );
    assert_eq!((after.blocks.len(), after.affinities.len(), after.handles.len()), (1, 1, 1));
}

#[test]
fn keeps_everything_of_a_node_whose_pods_still_exist() {
    let mut snapshot = cluster();
    snapshot.nodes.remove(&node("a"));
    let facts = [("type", "ipipTunnelAddress"), ("node", "a")];
    take(&mut snapshot, "10.0.0.1", "ipip-tunnel-addr-a", &facts);
    found_and_left(&snapshot, &[]);
}

#[test]
fn takes_the_owner_from_a_block_of_a_gone_node_that_others_use() {
    let mut snapshot = cluster();
    claim(&mut snapshot, "gone", "10.0.0.16/28");
    run(&mut snapshot, "guest", "b", "10.0.0.17");
    let after = found_and_repaired(snapshot, &["stale affinity: host:gone on block 10.0.0.16/28"]);
    assert_eq!(after.blocks[1].value.affinity, None);
}

#[test]
fn deletes_orphan_handles_and_corrects_the_others() {
    let mut snapshot = cluster();
    let orphan = |id: &str, blocks: &[(&str, u32)]| {
        let blocks = blocks.iter().map(|(of, count)| (cidr(of), *count)).collect();
        seen(Handle { id: HandleId(id.to_owned()), blocks, is_deleted: false })
    };
    snapshot.handles.push(orphan("net.never", &[("10.0.0.0/28", 1)]));
    snapshot.handles.push(orphan("net.nowhere", &[("10.0.0.32/28", 1)]));
    snapshot.handles[0].value.blocks.insert(cidr("10.0.0.0/28"), 3);
    let sequence_number = snapshot.blocks[0].value.sequence_number;
    let after = found_and_repaired(
        snapshot,
        &["orphan handle: net.never", "orphan handle: net.nowhere", "handle mismatch: net.web"],
    );
    // A write that is still under way to the block that they count is refused from now on.
    assert!(after.blocks[0].value.sequence_number > sequence_number);
}

#[test]
fn restores_a_handle_and_a_claim() {
    let mut snapshot = cluster();
    snapshot.handles.clear();
    snapshot.affinities.clear();
    found_and_repaired(
        snapshot,
        &["missing handle: net.web", "missing affinity: host:a on block 10.0.0.0/28"],
    );
}

#[test]
fn deletes_claims_without_a_block_or_on_somebody_elses() {
    let mut snapshot = cluster();
    affine(&mut snapshot, "b", "10.0.0.0/28");
    affine(&mut snapshot, "b", "10.0.0.32/28");
    found_and_repaired(
        snapshot,
        &[
            "stale affinity: host:b on block 10.0.0.0/28",
            "stale affinity: host:b on block 10.0.0.32/28",
        ],
    );
}

#[test]
fn deletes_empty_blocks_but_never_the_last_of_a_node() {
    let mut snapshot = cluster();
    claim(&mut snapshot, "a", "10.0.0.16/28");
    claim(&mut snapshot, "b", "10.0.0.32/28");
    let after = found_and_repaired(snapshot, &["empty block: block 10.0.0.16/28"]);
    assert_eq!(after.affinities.len(), 2);
}

#[test]
fn deletes_the_empty_one_of_overlapping_blocks() {
    let mut snapshot = cluster();
    claim(&mut snapshot, "b", "10.0.0.0/29");
    let after = found_and_repaired(snapshot, &["overlap: blocks 10.0.0.0/28 and 10.0.0.0/29"]);
    assert_eq!(after.blocks.len(), 1);
}

#[test]
fn never_frees_one_half_of_a_duplicate_that_is_in_use() {
    let mut snapshot = cluster();
    claim(&mut snapshot, "b", "10.0.0.0/29");
    take_for_pod(&mut snapshot, "dead", "b", "10.0.0.0");
    found_and_left(
        &snapshot,
        &[
            "overlap: blocks 10.0.0.0/28 and 10.0.0.0/29",
            "duplicate: 10.0.0.0",
            "wrong holder: 10.0.0.0 of pod default/dead",
        ],
    );
}

#[test]
fn tells_two_pods_with_one_address() {
    let mut snapshot = cluster();
    start(&mut snapshot, "twin", "b", &["10.0.0.0"]);
    found_and_left(&snapshot, &["duplicate: 10.0.0.0"]);
}

#[test]
fn tells_addresses_that_no_block_gave_away() {
    let mut snapshot = cluster();
    start(&mut snapshot, "wild", "b", &["10.0.0.9", "192.0.2.1"]);
    found_and_left(&snapshot, &["in use but not allocated: 10.0.0.9"]);
}

#[test]
fn says_where_a_borrowed_address_is() {
    let mut snapshot = cluster();
    let facts = [("namespace", "default"), ("pod", "guest")];
    take(&mut snapshot, "10.0.0.7", "net.guest", &facts);
    start(&mut snapshot, "guest", "b", &["10.0.0.7"]);
    let after =
        found_and_repaired(snapshot, &["unreachable borrow: 10.0.0.7 of pod default/guest"]);
    let holder = slots::holder(&after.blocks[0].value, 7).unwrap();
    assert_eq!(holder.owner.get("node").map(String::as_str), Some("b"));
}

#[test]
fn mends_a_block_that_contradicts_itself() {
    let mut snapshot = cluster();
    block_mut(&mut snapshot, "10.0.0.0/28").unallocated = vec![3, 3, 0, 99];
    let after = found_and_repaired(snapshot, &["damaged block: block 10.0.0.0/28"]);
    assert_eq!(after.blocks[0].value.unallocated[..4], [3, 1, 2, 4]);
}

#[test]
fn deletes_empty_blocks_outside_of_every_pool() {
    let mut snapshot = cluster();
    claim(&mut snapshot, "b", "10.9.0.0/28");
    found_and_repaired(snapshot.clone(), &["outside every pool: block 10.9.0.0/28"]);
    run(&mut snapshot, "old", "b", "10.9.0.1");
    found_and_left(&snapshot, &["outside every pool: block 10.9.0.0/28"]);
}

#[test]
fn respects_windows_machines_and_what_it_knows_nothing_of() {
    let mut snapshot = cluster();
    take(&mut snapshot, "10.0.0.1", WINDOWS_HANDLE, &[("note", "windows host rsvd")]);
    take(
        &mut snapshot,
        "10.0.0.2",
        "net.vmi.default.vm",
        &[("namespace", "default"), ("pod", "v")],
    );
    take(&mut snapshot, "10.0.0.3", "docker.0815", &[]);
    found_and_left(&snapshot, &[]);
}

#[test]
fn keeps_a_handle_whole_of_which_a_part_is_alive() {
    let mut snapshot = cluster();
    let facts = [("namespace", "default"), ("pod", "web"), ("node", "a")];
    take(&mut snapshot, "10.0.0.4", "net.web", &facts);
    found_and_left(&snapshot, &["leak: 10.0.0.4 of pod default/web"]);
}

#[test]
fn keeps_the_address_of_a_pod_that_starts() {
    let mut snapshot = cluster();
    take_for_pod(&mut snapshot, "new", "a", "10.0.0.5");
    start(&mut snapshot, "new", "a", &[]);
    found_and_left(&snapshot, &[]);
}

#[test]
fn releases_the_address_of_a_service_that_is_gone() {
    let mut snapshot = cluster();
    let facts = |name| [("namespace", "default"), ("service", name), ("type", "LoadBalancer")];
    take(&mut snapshot, "10.0.0.8", "lb-alive", &facts("alive"));
    take(&mut snapshot, "10.0.0.9", "lb-gone", &facts("gone"));
    snapshot.services.push(ServiceUse {
        service: NamespacedName { namespace: "default".to_owned(), name: "alive".to_owned() },
        handle: HandleId("lb-alive".to_owned()),
        addrs: Vec::new(),
    });
    found_and_repaired(snapshot, &["leak: 10.0.0.9 of service default/gone"]);
}
