//! The arithmetic of one block: taking an address out of it and putting it back.
//!
//! Functions from block to block; none of them changes what it is given. Each
//! write raises the sequence number, keeps `attributes` free of duplicates and
//! of entries that nobody uses, and hands out the address that has rested
//! longest: allocation takes from the front of `unallocated`, release appends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use model::block::{Attributes, Block, Owner};
use model::id::{HandleId, NodeName};
use model::net::Cidr;
use model::time::WallTime;

use crate::Ranges;

/// The most addresses that a block may have: those of a /20 or a /116.
const MAX_SIZE: u32 = 4096;

/// What the clock and the configuration say about resting addresses.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The time.
    pub now: WallTime,
    /// How long an address rests after its release.
    pub cooldown: Duration,
}

/// Returns a new block without allocations, or `None` if `cidr` is larger than a block may be.
#[must_use]
pub fn fresh(cidr: Cidr, owner: Owner, now: WallTime) -> Option<Block> {
    let size = u32::try_from(cidr.size()).ok().filter(|size| *size <= MAX_SIZE)?;
    Some(Block {
        cidr,
        affinity: Some(owner),
        claimed_at: Some(now),
        allocations: (0..size).map(|_| None).collect(),
        unallocated: (0..size).collect(),
        attributes: Vec::new(),
        sequence_number: now.as_unsigned_nanos(),
        allocated_at: BTreeMap::new(),
        is_deleted: false,
    })
}

/// Returns the ordinal to hand out next, if the block has one that is not reserved.
#[must_use]
pub fn next_free(block: &Block, reserved: &Ranges, clock: Clock) -> Option<u32> {
    let block = reaped(block, clock);
    let is_free = |ordinal: u32| block.allocations.get(index(ordinal)).is_some_and(Option::is_none);
    let free = block.unallocated.iter().copied();
    // Asking the slot too: a damaged list must not give an address twice.
    free.into_iter().find(|ordinal| is_free(*ordinal) && !is_reserved(&block, *ordinal, reserved))
}

/// Returns the number of addresses that could be handed out now.
#[must_use]
pub fn count_free(block: &Block, reserved: &Ranges, clock: Clock) -> u128 {
    let block = reaped(block, clock);
    let free = block.unallocated.iter().filter(|ordinal| !is_reserved(&block, **ordinal, reserved));
    free.count() as u128
}

/// Returns the block with `ordinal` given to `holder`, or `None` if it is taken or outside.
#[must_use]
pub fn allocate(block: &Block, ordinal: u32, holder: &Attributes, clock: Clock) -> Option<Block> {
    let mut block = reaped(block, clock);
    let holder_index = match block.attributes.iter().position(|one| one == holder) {
        Some(index) => index,
        None => block.attributes.len(),
    };
    let slot = block.allocations.get_mut(index(ordinal)).filter(|slot| slot.is_none())?;
    *slot = Some(holder_index);
    if holder_index == block.attributes.len() {
        block.attributes.push(holder.clone());
    }
    block.unallocated.retain(|free| *free != ordinal);
    block.sequence_number = block.sequence_number.wrapping_add(1);
    block.allocated_at.insert(ordinal, block.sequence_number);
    Some(without_unused_attributes(block))
}

/// Returns the block with `ordinals` given back.
///
/// They are free at once, or rest if the configuration has a cooldown. The
/// sequence number rises even if there is nothing to give back, so that a
/// write which somebody based on the block as it was will be refused.
#[must_use]
pub fn release(block: &Block, ordinals: &[u32], clock: Clock) -> Block {
    let mut block = block.clone();
    let resting = Attributes { released_at: Some(clock.now), ..Attributes::default() };
    for ordinal in ordinals {
        let Some(slot) = block.allocations.get_mut(index(*ordinal)).filter(|slot| slot.is_some())
        else {
            continue;
        };
        block.allocated_at.remove(ordinal);
        if clock.cooldown.is_zero() {
            *slot = None;
            block.unallocated.push(*ordinal);
        } else {
            *slot = Some(block.attributes.len());
        }
    }
    block.attributes.push(resting);
    block.sequence_number = block.sequence_number.wrapping_add(1);
    reaped(&without_unused_attributes(block), clock)
}

/// Returns the block with the address said to be on `node`; unchanged if nobody holds it.
#[must_use]
pub fn moved(block: &Block, ordinal: u32, node: &NodeName) -> Block {
    let Some(holder) = holder(block, ordinal) else { return block.clone() };
    let mut holder = holder.clone();
    holder.owner.insert("node".to_owned(), node.to_string());
    let mut block = block.clone();
    if let Some(slot) = block.allocations.get_mut(index(ordinal)) {
        *slot = Some(block.attributes.len());
    }
    block.attributes.push(holder);
    without_unused_attributes(block)
}

/// Returns the ordinals that `handle` holds, in order.
#[must_use]
pub fn held_by(block: &Block, handle: &HandleId) -> Vec<u32> {
    ordinals(block)
        .filter(|(_, holder)| {
            holder.is_some_and(|holder| holder.released_at.is_none() && is_handle(holder, handle))
        })
        .map(|(ordinal, _)| ordinal)
        .collect()
}

/// Returns who holds `ordinal`; a resting address is nobody's.
#[must_use]
pub fn holder(block: &Block, ordinal: u32) -> Option<&Attributes> {
    let index = (*block.allocations.get(index(ordinal))?)?;
    block.attributes.get(index).filter(|holder| holder.released_at.is_none())
}

/// Does the block hold nothing, not even an address that rests?
#[must_use]
pub fn is_empty(block: &Block, clock: Clock) -> bool {
    reaped(block, clock).allocations.iter().all(Option::is_none)
}

/// Returns the address of `ordinal`, if it is inside.
#[must_use]
pub fn address(block: &Block, ordinal: u32) -> Option<IpAddr> {
    block.cidr.nth(ordinal.into())
}

/// Is `holder` the handle of that id? Old blocks have text behind a `\r` in it.
#[must_use]
pub fn is_handle(holder: &Attributes, id: &HandleId) -> bool {
    let name = |id: &'_ HandleId| id.0.split('\r').next().unwrap_or_default().to_owned();
    holder.handle.as_ref().is_some_and(|held| name(held) == name(id))
}

/// Returns the block with addresses free that have rested long enough.
fn reaped(block: &Block, clock: Clock) -> Block {
    let mut block = block.clone();
    let rested: Vec<u32> = ordinals(&block)
        .filter(|(ordinal, _)| is_rested(&block, *ordinal, clock))
        .map(|(ordinal, _)| ordinal)
        .collect();
    for ordinal in &rested {
        if let Some(slot) = block.allocations.get_mut(index(*ordinal)) {
            *slot = None;
        }
        block.unallocated.push(*ordinal);
    }
    if rested.is_empty() { block } else { without_unused_attributes(block) }
}

fn is_rested(block: &Block, ordinal: u32, clock: Clock) -> bool {
    let holder = block.allocations.get(index(ordinal)).copied().flatten();
    let released_at =
        holder.and_then(|at| block.attributes.get(at)).and_then(|one| one.released_at);
    let cooldown = i128::try_from(clock.cooldown.as_nanos()).unwrap_or(i128::MAX);
    released_at.is_some_and(|at| at.0.saturating_add(cooldown) <= clock.now.0)
}

fn is_reserved(block: &Block, ordinal: u32, reserved: &Ranges) -> bool {
    address(block, ordinal).is_none_or(|addr| reserved.contains(addr))
}

/// Drops the attributes that no address refers to and numbers the others anew.
fn without_unused_attributes(mut block: Block) -> Block {
    let used: BTreeSet<usize> = block.allocations.iter().copied().flatten().collect();
    let mut kept: Vec<Attributes> = Vec::new();
    let mut renumbered: BTreeMap<usize, usize> = BTreeMap::new();
    for old in used {
        // An index beyond the attributes is taken by nobody that we know, and not free either.
        let attributes = block.attributes.get(old).cloned().unwrap_or_default();
        let new = kept.iter().position(|one| *one == attributes).unwrap_or(kept.len());
        if new == kept.len() {
            kept.push(attributes);
        }
        renumbered.insert(old, new);
    }
    for slot in &mut block.allocations {
        *slot = slot.and_then(|old| renumbered.get(&old).copied());
    }
    block.attributes = kept;
    block
}

fn ordinals(block: &Block) -> impl Iterator<Item = (u32, Option<&Attributes>)> {
    (0_u32..)
        .zip(&block.allocations)
        .map(|(ordinal, slot)| (ordinal, slot.and_then(|index| block.attributes.get(index))))
}

fn index(ordinal: u32) -> usize {
    usize::try_from(ordinal).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
