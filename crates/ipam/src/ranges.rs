//! Sets of addresses as merged ranges, and the search for a block in the gaps.

use std::net::IpAddr;

use model::id::NodeName;
use model::net::{Cidr, Family};
use model::pool::IpPool;

/// A set of addresses of one family.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ranges(Vec<Range>);

/// A range of addresses as numbers, both ends inside.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Range {
    first: u128,
    last: u128,
}

impl Ranges {
    /// Returns the union of those of `cidrs` that are of `family`.
    #[must_use]
    pub fn of(cidrs: impl IntoIterator<Item = Cidr>, family: Family) -> Self {
        let cidrs = cidrs.into_iter().filter(|cidr| cidr.family() == family);
        let mut sorted: Vec<Range> = cidrs.map(|cidr| Range::of(&cidr)).collect();
        sorted.sort_unstable();
        let mut merged: Vec<Range> = Vec::new();
        for range in sorted {
            match merged.last_mut() {
                Some(last) if range.first <= last.last.saturating_add(1) => {
                    last.last = last.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    /// Is `addr` in the set?
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        let addr = number(addr);
        self.meeting(Range { first: addr, last: addr }).is_some()
    }

    /// Returns how many addresses of `cidr` are in the set.
    pub fn count_in(&self, cidr: &Cidr) -> u128 {
        let Range { first, last } = Range::of(cidr);
        let shared = self.0.iter().map(|one| (one.first.max(first), one.last.min(last)));
        shared
            .filter(|(first, last)| first <= last)
            .map(|(first, last)| last.saturating_sub(first).saturating_add(1))
            .fold(0, u128::saturating_add)
    }

    /// Returns the first range that shares an address with `range`.
    fn meeting(&self, range: Range) -> Option<Range> {
        let at = self.0.partition_point(|one| one.last < range.first);
        self.0.get(at).copied().filter(|one| one.first <= range.last)
    }
}

impl Range {
    fn of(cidr: &Cidr) -> Self {
        let first = number(cidr.addr());
        Self { first, last: first.saturating_add(cidr.size().saturating_sub(1)) }
    }
}

/// Returns the first block of `pool`, from a place that depends on `seed`, that
/// meets nothing in `taken` and is not all in `reserved`.
///
/// Comparing ranges and not names keeps blocks disjoint even after the pool's
/// block size was changed.
#[must_use]
pub(crate) fn first_gap(
    pool: &IpPool,
    taken: &Ranges,
    reserved: &Ranges,
    seed: u64,
) -> Option<Cidr> {
    let count = block_count(pool);
    let start = u128::from(seed).checked_rem(count)?;
    let gap_in = |from, to| gap_between(pool, taken, reserved, (from, to));
    gap_in(start, count).or_else(|| gap_in(0, start))
}

fn gap_between(
    pool: &IpPool,
    taken: &Ranges,
    reserved: &Ranges,
    (from, to): (u128, u128),
) -> Option<Cidr> {
    let size = block_size(pool)?;
    let base = number(pool.cidr.addr());
    let mut at = from;
    while at < to {
        let addr = pool.cidr.nth(at.checked_mul(size)?)?;
        let block = Cidr::containing(addr, pool.block_len).ok()?;
        let range = Range::of(&block);
        let obstacle = taken.meeting(range).or_else(|| {
            reserved.meeting(range).filter(|one| one.first <= range.first && range.last <= one.last)
        });
        let Some(obstacle) = obstacle else { return Some(block) };
        let end = obstacle.last.saturating_add(1).checked_sub(base)?.checked_div(size)?;
        at = end.max(at.checked_add(1)?);
    }
    None
}

/// Returns where `block` stands in the order in which a node with that `seed`
/// tries the blocks of `pool`.
#[must_use]
pub(crate) fn turn(pool: &IpPool, block: &Cidr, seed: u64) -> Option<u128> {
    let count = block_count(pool);
    let start = u128::from(seed).checked_rem(count)?;
    let at = pool.cidr.ordinal_of(block.addr())?.checked_div(block_size(pool)?)?;
    Some(if at >= start {
        at.checked_sub(start)?
    } else {
        at.checked_add(count)?.checked_sub(start)?
    })
}

/// Returns the seed of a node: where in a pool it begins to look for a block.
///
/// The 32-bit FNV-1 hash of its name, so that nodes spread over the pool and a
/// node finds its place again.
#[must_use]
pub fn seed_of(node: &NodeName) -> u64 {
    let hash = node
        .as_str()
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| hash.wrapping_mul(0x0100_0193) ^ u32::from(byte));
    hash.into()
}

fn block_count(pool: &IpPool) -> u128 {
    let bits = pool.block_len.saturating_sub(pool.cidr.prefix_len());
    1_u128.checked_shl(bits.into()).unwrap_or(u128::MAX)
}

fn block_size(pool: &IpPool) -> Option<u128> {
    let bits = pool.family().bits().checked_sub(pool.block_len)?;
    1_u128.checked_shl(bits.into())
}

fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => u32::from(addr).into(),
        IpAddr::V6(addr) => addr.into(),
    }
}

#[cfg(test)]
mod tests;
