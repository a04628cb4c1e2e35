//! From findings to writes, and when to refuse.

mod edits;

use std::collections::BTreeSet;

use model::block::Block;

use super::{Allocation, Confidence, Finding, Revisioned, Snapshot, uses};
use crate::machine::{Key, Record};
use crate::slots::{self, Clock};
use edits::Edits;

/// The most that a plan may take away.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// The most allocations that may go, in hundredths of all that belong to pods, tunnels
    /// and Services.
    pub percent: u32,
    /// That many may always go.
    pub floor: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { percent: 25, floor: 64 }
    }
}

/// Why there is no plan.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refused {
    /// There are allocations but no node.
    #[error(
        "the list of nodes is empty while {allocations} addresses are taken; \
         nothing is released until the API server lists nodes again"
    )]
    NoNodes {
        /// How many addresses are taken.
        allocations: usize,
    },
    /// Many pods hold addresses, but no pod exists.
    #[error(
        "the list of pods is empty while {allocations} addresses are taken by pods; \
         nothing is released: check that pods can be listed, or raise the limit"
    )]
    NoPods {
        /// How many addresses pods hold.
        allocations: usize,
    },
    /// Pods use addresses, but no block exists.
    #[error(
        "the list of blocks is empty while {in_use} addresses of pools are in use; \
         nothing is deleted: check that ipamblocks can be listed"
    )]
    NoBlocks {
        /// How many addresses are in use.
        in_use: usize,
    },
    /// More would go than the limit allows.
    #[error(
        "{releases} of {allocations} allocations would be released, more than the limit of \
         {limit}; nothing is released: check the nodes and pods, or raise the limit"
    )]
    TooMany {
        /// How many would go.
        releases: usize,
        /// How many there are.
        allocations: usize,
        /// How many may go.
        limit: usize,
    },
}

/// Writes that repair findings, to be carried out in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The writes. Blocks come before handles and affinities.
    pub writes: Vec<Write>,
    /// Findings that no write repairs, by their place in the list that was given.
    pub left: Vec<usize>,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// The object as it was when the write was decided; `None` if it is to be created.
    pub base: Option<Revisioned<Record>>,
    /// What to do with it.
    pub change: Change,
    /// The writes that must have been done before; if one was refused, this one is left out.
    pub after: BTreeSet<Key>,
    /// The addresses that the write gives back. Check that their holders are still gone.
    pub releases: Vec<Allocation>,
    /// The findings that it repairs, by their place in the list that was given.
    pub findings: Vec<usize>,
}

/// What a [`Write`] does.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Put this in its place, if the revision is still that of the base; or create it.
    Put(Record),
    /// Delete it, if the revision is still that of the base: mark it as deleted first.
    Delete(Key),
}

/// Plans the repair of `findings`.
///
/// The findings must be of this snapshot; the caller leaves out those that have not lasted
/// long enough. What a plan never does: release an address that is in use, release a part of
/// what a handle holds, or touch what [`is_respected`](super::is_respected) names.
///
/// # Errors
///
/// [`Refused`] if lists look as if they had failed, or too much would go.
pub fn plan(snapshot: &Snapshot, findings: &[Finding], limits: &Limits) -> Result<Plan, Refused> {
    let mut edits = Edits::of(snapshot);
    for (index, finding) in findings.iter().enumerate() {
        if finding.confidence > Confidence::Possible {
            edits.add(index, &finding.problem);
        }
    }
    edits.keep_whole_handles();
    guard(snapshot, &edits, limits)?;
    let mut writes = edits.block_writes();
    writes.extend(edits.handle_writes());
    writes.extend(edits.affinity_writes());
    let repaired: BTreeSet<usize> =
        writes.iter().flat_map(|write| write.findings.iter().copied()).collect();
    let left = (0..findings.len()).filter(|index| !repaired.contains(index)).collect();
    Ok(Plan { writes, left })
}

/// Refuses what looks like the consequence of a failed list rather than of the cluster's life.
fn guard(snapshot: &Snapshot, edits: &Edits<'_>, limits: &Limits) -> Result<(), Refused> {
    let uses = edits.uses();
    let all = || snapshot.blocks.iter().flat_map(|block| uses::allocations(&block.value));
    let elsewhere = &snapshot.elsewhere;
    let allocations = all().filter(|(_, holder)| !uses::is_respected(holder)).count();
    let allocations = allocations.saturating_add(elsewhere.allocations);
    let of_pods = all().filter(|(held, _)| held.owner.contains_key("pod")).count();
    let of_pods = of_pods.saturating_add(elsewhere.of_pods);
    if snapshot.nodes.is_empty() && allocations.max(snapshot.affinities.len()) > 0 {
        return Err(Refused::NoNodes { allocations });
    }
    if snapshot.pods.is_empty() && elsewhere.pods == 0 && of_pods > limits.floor {
        return Err(Refused::NoPods { allocations: of_pods });
    }
    let in_pool = |addr| snapshot.pools.iter().any(|pool| pool.cidr.contains(addr));
    let in_use = uses.all().filter(|(addr, _)| in_pool(*addr)).count();
    if snapshot.blocks.is_empty() && elsewhere.blocks == 0 && in_use > 0 && edits.is_any() {
        return Err(Refused::NoBlocks { in_use });
    }
    let percent = usize::try_from(limits.percent).unwrap_or(usize::MAX);
    let share = allocations.saturating_mul(percent).checked_div(100).unwrap_or_default();
    let limit = share.max(limits.floor);
    // What a part of a cluster has too much is not found part by part.
    let releases = edits.releases().saturating_add(elsewhere.unused);
    if releases > limit {
        return Err(Refused::TooMany { releases, allocations, limit });
    }
    Ok(())
}

/// Decides a refused release anew, on the block as it is now.
///
/// Only allocations that are still the same, by handle and sequence number, are given back.
/// Returns `None` if there is nothing left to do.
#[must_use]
pub fn rebase(write: &Write, current: Revisioned<Block>, clock: Clock) -> Option<Write> {
    let releases: Vec<Allocation> =
        write.releases.iter().filter(|held| is_same(&current.value, held)).cloned().collect();
    if releases.is_empty() {
        return None;
    }
    let ordinals: Vec<u32> = releases.iter().map(|held| held.ordinal).collect();
    let after = slots::release(&current.value, &ordinals, clock);
    Some(Write {
        base: Some(Revisioned {
            value: Record::Block(current.value),
            revision: current.revision,
            created: current.created,
        }),
        change: Change::Put(Record::Block(after)),
        after: write.after.clone(),
        releases,
        findings: write.findings.clone(),
    })
}

/// Does the block still say of the address what it said when the allocation was seen?
fn is_same(block: &Block, seen: &Allocation) -> bool {
    let now = slots::holder(block, seen.ordinal);
    block.cidr == seen.block
        && now.is_some_and(|now| now.handle == seen.handle && now.owner == seen.owner)
        && block.allocated_at.get(&seen.ordinal).copied() == seen.sequence_number
}
