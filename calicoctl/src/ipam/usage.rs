//! How full pools and blocks are.

use std::collections::BTreeMap;

use ipam::Ranges;
use ipam::slots::{self, Clock};
use model::block::Block;
use model::net::Cidr;
use model::pool::IpPool;
use model::vrf::VrfName;
use serde::Serialize;

use crate::output::{self, Report};

/// How much to say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Detail {
    /// A row for each pool.
    Pools,
    /// And one for each block.
    Blocks,
}

/// How full everything is.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Usage {
    /// The pools in order, each followed by its blocks; blocks of no pool come last.
    pub rows: Vec<Row>,
}

/// How full a range is.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Row {
    /// What the range is.
    pub grouping: Grouping,
    /// The VRF, if it is of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vrf: Option<String>,
    /// The pool's name; empty for a block of no pool.
    pub pool: String,
    /// The range.
    pub cidr: String,
    /// Its addresses.
    #[serde(flatten)]
    pub counts: Counts,
}

/// What a range is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub enum Grouping {
    /// A pool.
    #[serde(rename = "IP Pool")]
    Pool,
    /// A block of a pool.
    Block,
    /// A block that no pool covers.
    #[serde(rename = "Orphaned Block")]
    Orphan,
}

/// What the addresses of a range are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// All.
    pub total: u128,
    /// Held by somebody.
    pub in_use: u128,
    /// Given back a moment ago, and not free yet.
    pub resting: u128,
    /// Not in use, and never to be assigned.
    pub reserved: u128,
    /// To be had.
    pub free: u128,
}

/// Counts what is in use in each pool, and in each block if that is asked for.
#[must_use]
pub fn usage(
    pools: &[IpPool],
    blocks: &[Block],
    reserved: &[Cidr],
    (clock, detail): (Clock, Detail),
) -> Usage {
    let mut of_pool: BTreeMap<Option<usize>, Vec<(&Block, Counts)>> = BTreeMap::new();
    for block in blocks {
        let pool = innermost(pools, &block.cidr);
        let counts = of_block(block, reserved, clock);
        of_pool.entry(pool).or_default().push((block, counts));
    }
    let mut rows = Vec::new();
    for (index, pool) in pools.iter().enumerate() {
        let blocks = of_pool.remove(&Some(index)).unwrap_or_default();
        rows.push(Row {
            grouping: Grouping::Pool,
            vrf: None,
            pool: pool.name.clone(),
            cidr: pool.cidr.to_string(),
            counts: of_range(&pool.cidr, &blocks, reserved),
        });
        if detail == Detail::Blocks {
            rows.extend(blocks.iter().map(|one| block_row(Grouping::Block, &pool.name, one)));
        }
    }
    let orphans = of_pool.remove(&None).unwrap_or_default();
    rows.extend(orphans.iter().map(|one| block_row(Grouping::Orphan, "", one)));
    Usage { rows }
}

/// Returns the smallest pool that covers a block, by its place in the list.
fn innermost(pools: &[IpPool], cidr: &Cidr) -> Option<usize> {
    let covering = pools.iter().enumerate().filter(|(_, pool)| pool.cidr.covers(cidr));
    covering.max_by_key(|(_, pool)| pool.cidr.prefix_len()).map(|(index, _)| index)
}

fn block_row(grouping: Grouping, pool: &str, (block, counts): &(&Block, Counts)) -> Row {
    Row {
        grouping,
        vrf: None,
        pool: pool.to_owned(),
        cidr: block.cidr.to_string(),
        counts: *counts,
    }
}

/// Counts the addresses of one block.
#[must_use]
pub fn of_block(block: &Block, reserved: &[Cidr], clock: Clock) -> Counts {
    let ranges = Ranges::of(reserved.iter().copied(), block.cidr.family());
    let free = slots::count_free(block, &ranges, clock);
    let mut counts = Counts { total: block.cidr.size(), free, ..Counts::default() };
    let ordinals = 0..u32::try_from(block.allocations.len()).unwrap_or(u32::MAX);
    let held = ordinals.filter(|ordinal| slots::holder(block, *ordinal).is_some());
    counts.in_use = held.count() as u128;
    counts.reserved =
        slots::count_free(block, &Ranges::default(), clock).saturating_sub(counts.free);
    counts.resting = counts
        .total
        .saturating_sub(counts.in_use)
        .saturating_sub(counts.reserved)
        .saturating_sub(counts.free);
    counts
}

/// Adds up a pool: what lies in no block is free, or reserved.
fn of_range(cidr: &Cidr, blocks: &[(&Block, Counts)], reserved: &[Cidr]) -> Counts {
    let ranges = Ranges::of(reserved.iter().copied(), cidr.family());
    let mut sum = Counts { total: cidr.size(), ..Counts::default() };
    let (mut outside, mut outside_reserved) = (sum.total, ranges.count_in(cidr));
    for (block, counts) in blocks {
        sum.in_use = sum.in_use.saturating_add(counts.in_use);
        sum.resting = sum.resting.saturating_add(counts.resting);
        sum.reserved = sum.reserved.saturating_add(counts.reserved);
        sum.free = sum.free.saturating_add(counts.free);
        outside = outside.saturating_sub(counts.total);
        outside_reserved = outside_reserved.saturating_sub(ranges.count_in(&block.cidr));
    }
    sum.reserved = sum.reserved.saturating_add(outside_reserved);
    sum.free = sum.free.saturating_add(outside.saturating_sub(outside_reserved));
    sum
}

impl Usage {
    /// Takes the pools of a VRF, or of none, in behind the others.
    pub fn extend(&mut self, vrf: Option<&VrfName>, other: Self) {
        let vrf = vrf.map(ToString::to_string);
        self.rows.extend(other.rows.into_iter().map(|row| Row { vrf: vrf.clone(), ..row }));
    }
}

impl Report for Usage {
    fn text(&self) -> String {
        let has_vrfs = self.rows.iter().any(|row| row.vrf.is_some());
        let row = |row: &Row| {
            let Counts { total, in_use, free, .. } = row.counts;
            let grouping = match row.grouping {
                Grouping::Pool => "IP Pool",
                Grouping::Block => "Block",
                Grouping::Orphan => "Orphaned Block",
            };
            let mut cells = vec![
                grouping.to_owned(),
                row.cidr.clone(),
                output::count(total),
                output::share(in_use, total),
                output::share(free, total),
            ];
            cells.extend(has_vrfs.then(|| row.vrf.clone().unwrap_or_default()));
            cells
        };
        let mut heads = vec!["GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS FREE"];
        heads.extend(has_vrfs.then_some("VRF"));
        output::grid(&heads, self.rows.iter().map(row))
    }
}
