//! Random clusters: whatever is wrong, repairs end, and nobody alive loses an address.

use super::*;

/// What happens to one address: its block, its holder's fate, and what its handle suffers.
#[derive(Clone, Debug)]
struct Fate {
    at: u8,
    holder: u8,
    handle: u8,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = (0_u8..96, 0_u8..7, 0_u8..6);
    proptest::collection::vec(
        fate.prop_map(|(at, holder, handle)| Fate { at, holder, handle }),
        0..40,
    )
}

fn random_cluster(fates: &[Fate], owners: &[u8], damage: u8) -> Snapshot {
    let mut snapshot = cluster();
    for (index, who) in owners.iter().enumerate() {
        let block = format!("10.0.0.{}/28", 16 * (index + 1));
        match who {
            0 => claim(&mut snapshot, "a", &block),
            1 => claim(&mut snapshot, "b", &block),
            2 => claim(&mut snapshot, "gone", &block),
            3 => affine(&mut snapshot, "b", &block),
            _ => {
                claim(&mut snapshot, "a", &block);
                snapshot.affinities.pop();
            }
        }
    }
    let mut taken = BTreeSet::from([0]);
    for fate in fates {
        let at = format!("10.0.0.{}", fate.at);
        let has_block = snapshot.blocks.iter().any(|block| block.value.cidr.contains(addr(&at)));
        if !has_block || !taken.insert(fate.at) {
            continue;
        }
        suffer(&mut snapshot, fate, &at);
    }
    if damage < 16 {
        block_mut(&mut snapshot, "10.0.0.0/28").unallocated.retain(|free| *free != damage.into());
    }
    snapshot
}

fn suffer(snapshot: &mut Snapshot, fate: &Fate, at: &str) {
    let name = format!("p{}", fate.at);
    match fate.holder {
        0 => run(snapshot, &name, "a", at),
        1 => run(snapshot, &name, "b", at),
        2 => take_for_pod(snapshot, &name, "a", at),
        3 => take_for_pod(snapshot, &name, "gone", at),
        4 => {
            take_for_pod(snapshot, &name, "a", at);
            start(snapshot, &name, "b", &["10.0.0.250"]);
        }
        5 => {
            take_for_pod(snapshot, &name, "b", at);
            start(snapshot, &format!("other{}", fate.at), "a", &[at]);
        }
        _ => take(snapshot, at, WINDOWS_HANDLE, &[]),
    }
    match fate.handle {
        0 => drop(snapshot.handles.pop()),
        1 => {
            let last = snapshot.handles.last_mut().unwrap();
            last.value.blocks.insert(cidr("10.0.0.128/28"), 2);
        }
        _ => {}
    }
}

/// Reads again what a first look over the cluster finds suspicious, as `ledger` does.
fn part(snapshot: &Snapshot) -> Snapshot {
    let hasher = std::hash::RandomState::new();
    let mut blocks = screen::Blocks::new(snapshot.pools.clone(), clock(), hasher);
    snapshot.blocks.iter().for_each(|block| blocks.block(&block.value));
    let mut handles = blocks.done();
    snapshot.handles.iter().for_each(|handle| handles.handle(&handle.value));
    let mut users = handles.done();
    snapshot.tunnels.iter().for_each(|tunnel| users.tunnel(tunnel));
    snapshot.services.iter().for_each(|service| users.service(service));
    snapshot.pods.iter().for_each(|pod| users.pod(pod));
    let claims = snapshot.affinities.iter().map(|claim| &claim.value);
    let suspects = users.done(claims, &snapshot.nodes);
    let mut part = Snapshot {
        blocks: Vec::new(),
        affinities: Vec::new(),
        handles: Vec::new(),
        pods: suspects.pods.clone(),
        ..snapshot.clone()
    };
    let mut wanted: BTreeSet<Cidr> = suspects.blocks.keys().copied().collect();
    let mut known: BTreeSet<String> = suspects.handles.iter().map(uses::handle_name).collect();
    loop {
        let found = snapshot.blocks.iter().filter(|block| wanted.contains(&block.value.cidr));
        part.blocks = found.cloned().collect();
        let held = part.blocks.iter().flat_map(|block| uses::allocations(&block.value));
        known.extend(held.filter_map(|(held, _)| held.handle.as_ref().map(uses::handle_name)));
        let found = snapshot
            .handles
            .iter()
            .filter(|handle| known.contains(&uses::handle_name(&handle.value.id)));
        part.handles = found.cloned().collect();
        let before = wanted.len();
        wanted.extend(part.handles.iter().flat_map(|handle| handle.value.blocks.keys()));
        if wanted.len() == before {
            break;
        }
    }
    part.affinities = snapshot
        .affinities
        .iter()
        .filter(|claim| {
            let Affinity { owner, cidr, .. } = &claim.value;
            wanted.contains(cidr) || suspects.claims.contains(&(owner.clone(), *cidr))
        })
        .cloned()
        .collect();
    add_pods(&mut part, snapshot, &suspects.pods);
    part.elsewhere = suspects.beside(&part);
    part
}

/// Adds the pods that the allocations of a part name, unless they are there as strays.
fn add_pods(part: &mut Snapshot, snapshot: &Snapshot, strays: &[PodUse]) {
    let named: BTreeSet<(String, String)> = part
        .blocks
        .iter()
        .flat_map(|block| uses::allocations(&block.value))
        .filter_map(|(held, _)| {
            Some((held.owner.get("namespace")?.clone(), held.owner.get("pod")?.clone()))
        })
        .collect();
    let known: BTreeSet<String> = strays.iter().map(|pod| pod.uid.clone()).collect();
    part.pods.extend(
        snapshot
            .pods
            .iter()
            .filter(|pod| {
                named.contains(&(pod.pod.namespace.clone(), pod.pod.name.clone()))
                    && !known.contains(&pod.uid)
            })
            .cloned(),
    );
}

proptest! {
    #[test]
    fn a_part_of_a_cluster_has_the_problems_of_the_whole(
        fates in fates(),
        owners in proptest::collection::vec(0_u8..5, 5),
        damage in 0_u8..32,
    ) {
        let snapshot = random_cluster(&fates, &owners, damage);
        let part = part(&snapshot);
        prop_assert_eq!(check(&part), check(&snapshot));
        prop_assert_eq!(part.elsewhere.unused, 0);
    }

    #[test]
    fn what_is_in_order_is_not_read_again(count in 1_u8..16) {
        let mut snapshot = cluster();
        for number in 1..count {
            run(&mut snapshot, &format!("p{number}"), "a", &format!("10.0.0.{number}"));
        }
        let part = part(&snapshot);
        prop_assert_eq!((part.blocks.len(), part.handles.len(), part.pods.len()), (0, 0, 0));
        prop_assert_eq!(part.elsewhere.allocations, usize::from(count));
    }

    #[test]
    fn repairs_end_and_free_nothing_that_is_in_use(
        fates in fates(),
        owners in proptest::collection::vec(0_u8..5, 5),
        damage in 0_u8..32,
    ) {
        let mut snapshot = random_cluster(&fates, &owners, damage);
        let before = live(&snapshot);
        for _ in 0..4 {
            let findings = check(&snapshot);
            let repair = plan(&snapshot, &findings, &Limits::default()).unwrap();
            apply(&mut snapshot, &repair);
            prop_assert_eq!(&live(&snapshot), &before);
        }
        let findings = check(&snapshot);
        let repair = plan(&snapshot, &findings, &Limits::default()).unwrap();
        prop_assert_eq!(repair.writes, Vec::new());
        // What is left is what only people can judge, or a part of a handle that lives on.
        let left = findings.iter().filter(|finding| finding.confidence > Confidence::Possible);
        let left: Vec<&Finding> =
            left.filter(|it| !matches!(it.problem, Problem::Duplicate(_))).collect();
        prop_assert_eq!(left, Vec::<&Finding>::new());
    }

    #[test]
    fn the_order_of_lists_does_not_matter(
        fates in fates(),
        owners in proptest::collection::vec(0_u8..5, 5),
    ) {
        let snapshot = random_cluster(&fates, &owners, 32);
        let mut turned = snapshot.clone();
        turned.blocks.reverse();
        turned.affinities.reverse();
        turned.handles.reverse();
        let problems = |snapshot: &Snapshot| names(&check(snapshot));
        prop_assert_eq!(problems(&snapshot), problems(&turned));
    }
}
