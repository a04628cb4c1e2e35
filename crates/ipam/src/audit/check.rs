//! What is wrong: one pass over the blocks, then one over each other kind of object.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::block::{Affinity, Block, Owner};
use model::net::Cidr;
use model::time::WallTime;

use super::uses::{self, User, Uses, Verdict};
use super::{Confidence, Finding, Problem, Snapshot};
use crate::slots::{self, Clock};

/// Returns what is wrong with the allocations, in the order of [`Problem`].
///
/// The same snapshot, in whatever order its lists are, gives the same findings. The work
/// grows with the number of objects times its logarithm.
#[must_use]
pub fn check(snapshot: &Snapshot) -> Vec<Finding> {
    let uses = Uses::of(snapshot);
    let mut findings = Vec::new();
    overlaps(snapshot, &mut findings);
    duplicates(snapshot, &uses, &mut findings);
    for block in &snapshot.blocks {
        of_block(snapshot, &block.value, &uses, &mut findings);
    }
    unallocated(snapshot, &uses, &mut findings);
    handles(snapshot, &mut findings);
    affinities(snapshot, &uses, &mut findings);
    empty_blocks(snapshot, &mut findings);
    findings.sort_by(|one, other| one.problem.cmp(&other.problem));
    findings.dedup_by(|one, other| one.problem == other.problem);
    findings
}

fn finding(problem: Problem, confidence: Confidence, evidence: String) -> Finding {
    Finding { problem, evidence: vec![evidence], since: None, confidence }
}

/// Finds blocks that lie in one another: sorted, a block's container is the last before it
/// that is not over yet.
fn overlaps(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    for (outer, inner) in nested(cidrs(snapshot)) {
        let text = format!("every address of {inner} is in {outer} too");
        findings.push(finding(Problem::Overlap(outer, inner), Confidence::Likely, text));
    }
}

pub(super) fn cidrs(snapshot: &Snapshot) -> Vec<Cidr> {
    snapshot.blocks.iter().map(|block| block.value.cidr).collect()
}

/// Returns the pairs of blocks of which the first contains the second.
pub(super) fn nested(mut cidrs: Vec<Cidr>) -> Vec<(Cidr, Cidr)> {
    cidrs.sort_by_key(|cidr| (cidr.addr(), cidr.prefix_len()));
    cidrs.dedup();
    let mut open: Vec<Cidr> = Vec::new();
    let mut pairs = Vec::new();
    for cidr in cidrs {
        while open.last().is_some_and(|outer| !outer.covers(&cidr)) {
            open.pop();
        }
        pairs.extend(open.iter().map(|outer| (*outer, cidr)));
        open.push(cidr);
    }
    pairs
}

fn duplicates(snapshot: &Snapshot, uses: &Uses<'_>, findings: &mut Vec<Finding>) {
    let nested: BTreeSet<Cidr> =
        nested(cidrs(snapshot)).into_iter().flat_map(|(outer, inner)| [outer, inner]).collect();
    let mut holders: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
    for block in snapshot.blocks.iter().filter(|block| nested.contains(&block.value.cidr)) {
        for (held, _) in uses::allocations(&block.value) {
            let text = format!("block {} gave it to {}", held.block, held.holder());
            holders.entry(held.addr).or_default().push(text);
        }
    }
    for (addr, users) in uses.all() {
        let pods = users.iter().filter(|user| matches!(user, User::Pod(_)));
        if users.len() > 1 && pods.count() > 0 {
            let texts = users.iter().map(|user| format!("{user} uses it"));
            holders.entry(addr).or_default().extend(texts);
        }
    }
    for (addr, mut evidence) in holders.into_iter().filter(|(_, evidence)| evidence.len() > 1) {
        evidence.sort();
        findings.push(Finding {
            problem: Problem::Duplicate(addr),
            evidence,
            since: None,
            confidence: Confidence::Likely,
        });
    }
}

/// Finds what is wrong with one block and its allocations.
fn of_block(snapshot: &Snapshot, block: &Block, uses: &Uses<'_>, findings: &mut Vec<Finding>) {
    if let Some(damage) = damage(block) {
        findings.push(finding(Problem::DamagedBlock(block.cidr), Confidence::Likely, damage));
    }
    if !snapshot.pools.iter().any(|pool| pool.cidr.covers(&block.cidr)) {
        let is_empty = slots::is_empty(block, clock(snapshot));
        let confidence = if is_empty { Confidence::Likely } else { Confidence::Possible };
        let text = "no pool contains it; restore the pool, or move its pods away".to_owned();
        findings.push(finding(Problem::OutsidePool(block.cidr), confidence, text));
    }
    for (held, holder) in uses::allocations(block) {
        let since = uses::since(&held.owner);
        let (problem, confidence, reason) = match uses.judge(&held, holder) {
            Verdict::Gone(confidence, reason) => (Problem::Leak(held), confidence, reason),
            Verdict::Elsewhere(reason) => {
                (Problem::WrongHolder(held), Confidence::Possible, reason)
            }
            Verdict::Live => {
                let Some(reason) = unreachable(block, &held, uses) else { continue };
                (Problem::UnreachableBorrow(held), Confidence::Likely, reason)
            }
        };
        findings.push(Finding { problem, evidence: vec![reason], since, confidence });
    }
}

/// Returns why the other nodes cannot find a borrowed address.
fn unreachable(block: &Block, held: &super::Allocation, uses: &Uses<'_>) -> Option<String> {
    let pod = uses.pod_of(held).filter(|pod| pod.addrs.contains(&held.addr))?;
    let runs_on = pod.node.as_ref()?;
    let named = held.owner.get("node");
    let is_at_home = block.affinity == Some(Owner::Host(runs_on.clone()));
    let is_found = named.is_some_and(|node| node == runs_on.as_str());
    if is_at_home || is_found {
        return None;
    }
    let owner = block.affinity.as_ref().map_or("nobody".to_owned(), ToString::to_string);
    let named = named.map_or("no node".to_owned(), |node| format!("node {node}"));
    Some(format!("the block is of {owner}, its pod runs on {runs_on}, but the block says {named}"))
}

/// Returns how a block contradicts itself.
pub(super) fn damage(block: &Block) -> Option<String> {
    let mut free = BTreeSet::new();
    for ordinal in &block.unallocated {
        let slot = usize::try_from(*ordinal).ok().and_then(|index| block.allocations.get(index));
        match slot {
            None => return Some(format!("free ordinal {ordinal} is outside")),
            Some(Some(_)) => return Some(format!("ordinal {ordinal} is free and taken")),
            Some(None) if !free.insert(*ordinal) => {
                return Some(format!("ordinal {ordinal} is free twice"));
            }
            Some(None) => {}
        }
    }
    (0_u32..).zip(&block.allocations).find_map(|(ordinal, slot)| match slot {
        None if !free.contains(&ordinal) => {
            Some(format!("ordinal {ordinal} is neither free nor taken"))
        }
        Some(index) if *index >= block.attributes.len() => {
            Some(format!("ordinal {ordinal} has holder {index}, who is not listed"))
        }
        _ => None,
    })
}

fn unallocated(snapshot: &Snapshot, uses: &Uses<'_>, findings: &mut Vec<Finding>) {
    let blocks: BTreeMap<Cidr, &Block> =
        snapshot.blocks.iter().map(|block| (block.value.cidr, &block.value)).collect();
    let lengths: BTreeSet<u8> = blocks.keys().map(Cidr::prefix_len).collect();
    let is_taken = |addr: IpAddr| {
        let candidates = lengths.iter().filter_map(|len| Cidr::containing(addr, *len).ok());
        candidates.filter_map(|cidr| blocks.get(&cidr)).any(|block| {
            let ordinal = block.cidr.ordinal_of(addr).and_then(|it| u32::try_from(it).ok());
            ordinal.is_some_and(|ordinal| slots::holder(block, ordinal).is_some())
        })
    };
    for (addr, users) in uses.all() {
        let Some(first) = users.first() else { continue };
        let Some(pool) = snapshot.pools.iter().find(|pool| pool.cidr.contains(addr)) else {
            continue;
        };
        // What a first look has found in order is in a block that is not here.
        let elsewhere = &snapshot.elsewhere;
        let is_known = elsewhere.blocks == 0 || elsewhere.strays.contains(&addr);
        if is_known && !is_taken(addr) {
            let text = format!(
                "{first} uses it, pool {} contains it, but no block gave it away; \
                 restart what uses it, unless another IPAM plugin gave it",
                pool.name
            );
            findings.push(finding(Problem::Unallocated(addr), Confidence::Possible, text));
        }
    }
}

fn handles(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    let mut held = uses::held(&snapshot.blocks);
    for handle in &snapshot.handles {
        let real = held.remove(&uses::handle_name(&handle.value.id));
        let is_respected = is_respected_handle(&handle.value.id.0)
            || real.as_ref().is_some_and(|real| real.is_respected);
        let real = real.map(|real| real.counts).unwrap_or_default();
        let id = handle.value.id.clone();
        let (problem, text) = if real.is_empty() {
            (Problem::OrphanHandle(id), "no block gave it an address".to_owned())
        } else if real == handle.value.blocks {
            continue;
        } else {
            let (counts, real) = (counted(&handle.value.blocks), counted(&real));
            let text = format!("it counts {counts}; the blocks say {real}");
            (Problem::HandleMismatch(id), text)
        };
        let confidence = if is_respected { Confidence::Possible } else { Confidence::Likely };
        let evidence = vec![text];
        findings.push(Finding { problem, evidence, since: handle.created, confidence });
    }
    for real in held.into_values() {
        let cidrs: Vec<String> = real.counts.keys().map(ToString::to_string).collect();
        let text = format!("it has addresses in {}", cidrs.join(", "));
        let confidence = if real.is_respected { Confidence::Possible } else { Confidence::Likely };
        findings.push(finding(Problem::MissingHandle(real.id), confidence, text));
    }
}

/// Writes counts for people: `2 in 10.0.0.0/26`.
fn counted(blocks: &BTreeMap<Cidr, u32>) -> String {
    let counts: Vec<String> =
        blocks.iter().map(|(cidr, count)| format!("{count} in {cidr}")).collect();
    if counts.is_empty() { "nothing".to_owned() } else { counts.join(", ") }
}

/// Is the handle one that lives longer than what it counts?
fn is_respected_handle(id: &str) -> bool {
    id == super::WINDOWS_HANDLE || id.contains(".vmi.")
}

fn affinities(snapshot: &Snapshot, uses: &Uses<'_>, findings: &mut Vec<Finding>) {
    let blocks: BTreeMap<Cidr, &Block> =
        snapshot.blocks.iter().map(|block| (block.value.cidr, &block.value)).collect();
    let mut claims: BTreeSet<(&Owner, Cidr)> = BTreeSet::new();
    for affinity in &snapshot.affinities {
        let Affinity { owner, cidr, .. } = &affinity.value;
        claims.insert((owner, *cidr));
        let owned = blocks.get(cidr).map(|block| block.affinity.as_ref());
        let stale = match (owner, owned) {
            (Owner::Host(node), _) if uses.is_gone(node) => {
                Some((Confidence::Certain, format!("node {node} does not exist")))
            }
            (_, None) => Some((Confidence::Likely, "there is no such block".to_owned())),
            (_, Some(Some(other))) if other != owner => {
                Some((Confidence::Likely, format!("the block is of {other}")))
            }
            (_, Some(None)) => Some((Confidence::Likely, "the block is nobody's".to_owned())),
            (_, Some(Some(_))) => None,
        };
        if let Some((confidence, text)) = stale {
            let problem = Problem::StaleAffinity(owner.clone(), *cidr);
            let since: Option<WallTime> = affinity.created;
            findings.push(Finding { problem, evidence: vec![text], since, confidence });
        }
    }
    for (cidr, block) in blocks {
        let Some(owner) = block.affinity.as_ref().filter(|owner| !claims.contains(&(*owner, cidr)))
        else {
            continue;
        };
        let text = format!("block {cidr} is of {owner}, who has no BlockAffinity for it");
        let problem = Problem::MissingAffinity(owner.clone(), cidr);
        findings.push(finding(problem, Confidence::Likely, text));
    }
}

/// Finds empty blocks, but leaves each node one block of each pool.
fn empty_blocks(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    let mut blocks: Vec<&Block> = snapshot.blocks.iter().map(|block| &block.value).collect();
    let is_empty = |block: &Block| slots::is_empty(block, clock(snapshot));
    // Those in use first, so that an empty one is the last of its node only if all are empty.
    blocks.sort_by_key(|block| (is_empty(block), block.cidr));
    let mut served: BTreeSet<(&Owner, Option<usize>)> = BTreeSet::new();
    for block in blocks {
        let pool = snapshot.pools.iter().position(|pool| pool.cidr.covers(&block.cidr));
        let text = match &block.affinity {
            None => "it is nobody's",
            Some(owner @ Owner::Host(_)) if !served.insert((owner, pool)) => {
                "its node has another block of the same pool"
            }
            Some(_) => continue,
        };
        if is_empty(block) {
            let found =
                finding(Problem::EmptyBlock(block.cidr), Confidence::Likely, text.to_owned());
            findings.push(Finding { since: block.claimed_at, ..found });
        }
    }
}

pub(super) fn clock(snapshot: &Snapshot) -> Clock {
    Clock { now: snapshot.now, cooldown: snapshot.config.cooldown }
}
