//! What findings ask of each object, put together so that each object is written once.

use std::collections::{BTreeMap, BTreeSet};

use model::block::{Affinity, AffinityState, Block, Handle, Owner};
use model::id::HandleId;
use model::net::Cidr;

use super::{Change, Write};
use crate::audit::check::{cidrs, clock, nested};
use crate::audit::uses::{self, Held, Uses};
use crate::audit::{Allocation, Problem, Revisioned, Snapshot};
use crate::machine::{Key, Record};
use crate::slots;

/// What is to be done with one block.
#[derive(Clone, Debug, Default)]
struct BlockEdit {
    /// Given back, with the finding that asks for it.
    releases: Vec<(usize, Allocation)>,
    /// Allocations that say the wrong node.
    moves: Vec<Allocation>,
    gives_up_owner: bool,
    is_mended: bool,
    /// Deleted, if nothing is left in it.
    is_unwanted: bool,
    findings: Vec<usize>,
}

/// What is to be done with all objects.
#[derive(Debug)]
pub(super) struct Edits<'a> {
    snapshot: &'a Snapshot,
    uses: Uses<'a>,
    held: BTreeMap<String, Held>,
    by_cidr: BTreeMap<Cidr, &'a Revisioned<Block>>,
    nested: BTreeSet<Cidr>,
    blocks: BTreeMap<Cidr, BlockEdit>,
    handles: BTreeMap<String, Vec<usize>>,
    /// Claims to delete.
    unclaims: BTreeMap<(Owner, Cidr), Vec<usize>>,
    /// Claims to make.
    claims: BTreeMap<(Owner, Cidr), Vec<usize>>,
}

impl<'a> Edits<'a> {
    pub(super) fn of(snapshot: &'a Snapshot) -> Self {
        let pairs = nested(cidrs(snapshot));
        Self {
            snapshot,
            uses: Uses::of(snapshot),
            held: uses::held(&snapshot.blocks),
            by_cidr: snapshot.blocks.iter().map(|block| (block.value.cidr, block)).collect(),
            nested: pairs.into_iter().flat_map(|(outer, inner)| [outer, inner]).collect(),
            blocks: BTreeMap::new(),
            handles: BTreeMap::new(),
            unclaims: BTreeMap::new(),
            claims: BTreeMap::new(),
        }
    }

    pub(super) fn uses(&self) -> &Uses<'a> {
        &self.uses
    }

    pub(super) fn is_any(&self) -> bool {
        !self.handles.is_empty() || !self.unclaims.is_empty() || !self.blocks.is_empty()
    }

    pub(super) fn releases(&self) -> usize {
        self.blocks.values().map(|edit| edit.releases.len()).sum()
    }

    /// Adds what a finding asks for.
    pub(super) fn add(&mut self, index: usize, problem: &Problem) {
        match problem {
            Problem::Leak(held) => self.add_leak(index, held),
            Problem::UnreachableBorrow(held) => {
                self.edit(index, held.block).moves.push(held.clone());
            }
            Problem::DamagedBlock(cidr) => self.edit(index, *cidr).is_mended = true,
            Problem::EmptyBlock(cidr) | Problem::OutsidePool(cidr) => {
                self.edit(index, *cidr).is_unwanted = true;
            }
            Problem::Overlap(outer, inner) => self.add_overlap(index, *outer, *inner),
            Problem::MissingHandle(id)
            | Problem::OrphanHandle(id)
            | Problem::HandleMismatch(id) => {
                self.handles.entry(uses::handle_name(id)).or_default().push(index);
            }
            Problem::StaleAffinity(owner, cidr) => self.add_stale(index, owner, *cidr),
            Problem::MissingAffinity(owner, cidr) => match owner {
                Owner::Host(node) if self.uses.is_gone(node) => {
                    self.edit(index, *cidr).gives_up_owner = true;
                }
                Owner::Host(_) | Owner::Virtual(_) => {
                    self.claims.entry((owner.clone(), *cidr)).or_default().push(index);
                }
            },
            // Whoever uses these is alive; no write makes that right.
            Problem::Duplicate(_) | Problem::WrongHolder(_) | Problem::Unallocated(_) => {}
        }
    }

    fn edit(&mut self, index: usize, cidr: Cidr) -> &mut BlockEdit {
        let edit = self.blocks.entry(cidr).or_default();
        edit.findings.push(index);
        edit
    }

    fn add_leak(&mut self, index: usize, held: &Allocation) {
        if !self.uses.users(held.addr).is_empty() {
            return;
        }
        self.edit(index, held.block).releases.push((index, held.clone()));
    }

    /// Deletes the block of the two that is empty; of two empty ones the one that does not
    /// have its pool's size.
    fn add_overlap(&mut self, index: usize, outer: Cidr, inner: Cidr) {
        let is_empty = |cidr: &Cidr| {
            let block = self.by_cidr.get(cidr);
            block.is_some_and(|block| slots::is_empty(&block.value, clock(self.snapshot)))
        };
        let fits = |cidr: &Cidr| {
            let mut pools = self.snapshot.pools.iter();
            pools.any(|pool| pool.block_of(cidr.addr()) == Some(*cidr))
        };
        let mut empty: Vec<Cidr> = [outer, inner].into_iter().filter(is_empty).collect();
        empty.sort_by_key(fits);
        if let Some(cidr) = empty.first() {
            self.edit(index, *cidr).is_unwanted = true;
        }
    }

    fn add_stale(&mut self, index: usize, owner: &Owner, cidr: Cidr) {
        self.unclaims.entry((owner.clone(), cidr)).or_default().push(index);
        let block = self.by_cidr.get(&cidr);
        if block.is_some_and(|block| block.value.affinity.as_ref() == Some(owner)) {
            let edit = self.edit(index, cidr);
            edit.gives_up_owner = true;
            edit.is_unwanted = true;
        }
    }

    /// Takes back the release of handles of which a part would stay.
    pub(super) fn keep_whole_handles(&mut self) {
        let mut going: BTreeMap<String, u32> = BTreeMap::new();
        for (_, held) in self.blocks.values().flat_map(|edit| &edit.releases) {
            let count = going.entry(name_of(held)).or_default();
            *count = count.saturating_add(1);
        }
        let held = &self.held;
        let is_whole = |allocation: &Allocation| {
            let name = name_of(allocation);
            let all: u32 = held.get(&name).map_or(0, |held| held.counts.values().sum());
            allocation.handle.is_none() || going.get(&name).is_some_and(|going| *going >= all)
        };
        for edit in self.blocks.values_mut() {
            let kept: Vec<usize> = edit
                .releases
                .iter()
                .filter(|(_, held)| !is_whole(held))
                .map(|(index, _)| *index)
                .collect();
            edit.releases.retain(|(_, held)| is_whole(held));
            edit.findings.retain(|index| !kept.contains(index));
            for (_, held) in edit.releases.iter().filter(|(_, held)| held.handle.is_some()) {
                self.handles.entry(name_of(held)).or_default();
            }
        }
        self.blocks.retain(|_, edit| !edit.findings.is_empty());
    }

    pub(super) fn block_writes(&mut self) -> Vec<Write> {
        self.settle_counted_blocks();
        let mut writes = Vec::new();
        let edits: Vec<(Cidr, BlockEdit)> =
            self.blocks.iter().map(|(cidr, edit)| (*cidr, edit.clone())).collect();
        for (cidr, mut edit) in edits {
            let Some(base) = self.by_cidr.get(&cidr).copied() else { continue };
            let Some(change) = self.block_change(&base.value, &mut edit) else {
                self.blocks.remove(&cidr);
                continue;
            };
            if let (Change::Delete(_), Some(owner)) = (&change, &base.value.affinity) {
                let unclaim = self.unclaims.entry((owner.clone(), cidr)).or_default();
                unclaim.extend(edit.findings.iter().copied());
            }
            writes.push(Write {
                base: Some(Revisioned {
                    value: Record::Block(base.value.clone()),
                    revision: base.revision.clone(),
                    created: base.created,
                }),
                change,
                after: BTreeSet::new(),
                releases: edit.releases.into_iter().map(|(_, held)| held).collect(),
                findings: edit.findings,
            });
        }
        writes
    }

    /// Has the blocks written that a handle counts before it is lowered: a killed assignment
    /// may still have a write to them under way, which is then refused.
    fn settle_counted_blocks(&mut self) {
        for handle in &self.snapshot.handles {
            if !self.handles.contains_key(&uses::handle_name(&handle.value.id)) {
                continue;
            }
            for cidr in handle.value.blocks.keys().filter(|cidr| self.by_cidr.contains_key(cidr)) {
                self.blocks.entry(*cidr).or_default();
            }
        }
    }

    /// Returns what becomes of the block; `None` if nothing.
    fn block_change(&self, block: &Block, edit: &mut BlockEdit) -> Option<Change> {
        let ordinals: Vec<u32> = edit.releases.iter().map(|(_, held)| held.ordinal).collect();
        let clock = clock(self.snapshot);
        let mut after = slots::release(block, &ordinals, clock);
        if edit.is_mended {
            after.unallocated = mended(&after);
        }
        for held in &edit.moves {
            let runs_on = self.uses.pod_of(held).and_then(|pod| pod.node.clone());
            if let Some(node) = runs_on {
                after = slots::moved(&after, held.ordinal, &node);
            }
        }
        if edit.gives_up_owner {
            after.affinity = None;
            after.claimed_at = None;
        }
        let is_empty = slots::is_empty(&after, clock);
        let is_nobodys = after.affinity.is_none();
        if is_empty && (edit.is_unwanted || (is_nobodys && !self.nested.contains(&block.cidr))) {
            return Some(Change::Delete(Key::Block(block.cidr)));
        }
        let is_changed = !edit.releases.is_empty()
            || !edit.moves.is_empty()
            || edit.is_mended
            || edit.gives_up_owner
            || edit.findings.is_empty();
        is_changed.then_some(Change::Put(Record::Block(after)))
    }

    pub(super) fn handle_writes(&self) -> Vec<Write> {
        let mut gone: BTreeMap<String, BTreeMap<Cidr, u32>> = BTreeMap::new();
        for (_, held) in self.blocks.values().flat_map(|edit| &edit.releases) {
            let counts = gone.entry(name_of(held)).or_default();
            let count = counts.entry(held.block).or_default();
            *count = count.saturating_add(1);
        }
        let bases: BTreeMap<String, &Revisioned<Handle>> =
            self.snapshot.handles.iter().map(|it| (uses::handle_name(&it.value.id), it)).collect();
        let writes = self.handles.iter().filter_map(|(name, findings)| {
            let mut findings = findings.clone();
            findings.sort_unstable();
            let base = bases.get(name).copied();
            let id = base.map(|base| &base.value.id);
            let held = self.held.get(name);
            let id: HandleId = id.or(held.map(|held| &held.id))?.clone();
            let mut blocks = held.map(|held| held.counts.clone()).unwrap_or_default();
            for (cidr, count) in gone.get(name).into_iter().flatten() {
                let rest = blocks.get(cidr).copied().unwrap_or_default().saturating_sub(*count);
                blocks.insert(*cidr, rest);
            }
            blocks.retain(|_, count| *count > 0);
            self.handle_write(base, Handle { id, blocks, is_deleted: false }, findings)
        });
        writes.collect()
    }

    fn handle_write(
        &self,
        base: Option<&Revisioned<Handle>>,
        real: Handle,
        findings: Vec<usize>,
    ) -> Option<Write> {
        let counted = base.into_iter().flat_map(|base| base.value.blocks.keys());
        let held = self.held.get(&uses::handle_name(&real.id));
        let held = held.into_iter().flat_map(|held| held.counts.keys());
        let touched = counted.chain(held).filter(|cidr| self.blocks.contains_key(cidr));
        let after = touched.map(|cidr| Key::Block(*cidr)).collect();
        let change = match base {
            Some(base) if base.value == real => return None,
            Some(_) if real.blocks.is_empty() => Change::Delete(Key::Handle(real.id)),
            None if real.blocks.is_empty() => return None,
            _ => Change::Put(Record::Handle(real)),
        };
        let base = base.map(|base| Revisioned {
            value: Record::Handle(base.value.clone()),
            revision: base.revision.clone(),
            created: base.created,
        });
        Some(Write { base, change, after, releases: Vec::new(), findings })
    }

    pub(super) fn affinity_writes(&self) -> Vec<Write> {
        let after = |cidr: &Cidr| {
            let is_written = self.blocks.contains_key(cidr) && self.by_cidr.contains_key(cidr);
            is_written.then_some(Key::Block(*cidr)).into_iter().collect()
        };
        let bases: BTreeMap<(&Owner, Cidr), &Revisioned<Affinity>> = self
            .snapshot
            .affinities
            .iter()
            .map(|it| ((&it.value.owner, it.value.cidr), it))
            .collect();
        let deletes = self.unclaims.iter().filter_map(|((owner, cidr), findings)| {
            let base = bases.get(&(owner, *cidr))?;
            Some(Write {
                base: Some(Revisioned {
                    value: Record::Affinity(base.value.clone()),
                    revision: base.revision.clone(),
                    created: base.created,
                }),
                change: Change::Delete(Key::Affinity(owner.clone(), *cidr)),
                after: after(cidr),
                releases: Vec::new(),
                findings: findings.clone(),
            })
        });
        // A block that is deleted needs no claim.
        let unclaimed: BTreeSet<Cidr> = self.unclaims.keys().map(|(_, cidr)| *cidr).collect();
        let claims = self.claims.iter().filter(|((_, cidr), _)| !unclaimed.contains(cidr));
        let creates = claims.map(|((owner, cidr), findings)| Write {
            base: None,
            change: Change::Put(Record::Affinity(Affinity {
                owner: owner.clone(),
                cidr: *cidr,
                state: AffinityState::Confirmed,
                is_deleted: false,
            })),
            after: after(cidr),
            releases: Vec::new(),
            findings: findings.clone(),
        });
        deletes.chain(creates).collect()
    }
}

fn name_of(held: &Allocation) -> String {
    held.handle.as_ref().map(uses::handle_name).unwrap_or_default()
}

/// Returns the free ordinals of a block: those that it says, as far as they are free, then
/// those that it lost.
fn mended(block: &Block) -> Vec<u32> {
    let mut lost: BTreeSet<u32> = (0_u32..)
        .zip(&block.allocations)
        .filter(|(_, slot)| slot.is_none())
        .map(|(ordinal, _)| ordinal)
        .collect();
    let mut free: Vec<u32> =
        block.unallocated.iter().copied().filter(|ordinal| lost.remove(ordinal)).collect();
    free.extend(lost);
    free
}
