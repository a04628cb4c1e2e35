//! When pools and nodes will run out of addresses.
//!
//! Growth is measured against an earlier forecast, or estimated: of what is in use, so much is
//! younger than a week, or than the oldest of what is in use. What was released meanwhile does not show in that, so growth is really
//! no more, and what the estimate says is the earliest time.

use std::collections::BTreeMap;
use std::time::Duration;

use ipam::slots::{self, Clock};
use model::block::{Block, IpamConfig, Owner};
use model::net::{Cidr, Family};
use model::pool::IpPool;
use model::time::WallTime;
use serde::{Deserialize, Serialize};

use super::moment;
use super::usage::{self, Detail, Grouping};
use crate::output::{self, Report};

/// How far back the estimate looks.
const WINDOW: Duration = Duration::from_secs(7 * 24 * 3600);
/// How far it looks at least: what is younger says nothing about a day.
const SHORTEST_WINDOW: Duration = Duration::from_secs(3600);

/// What a forecast is made from.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// All pools.
    pub pools: &'a [IpPool],
    /// All blocks.
    pub blocks: &'a [Block],
    /// What is never assigned.
    pub reserved: &'a [Cidr],
    /// The configuration.
    pub config: &'a IpamConfig,
    /// The time.
    pub now: WallTime,
}

/// When everything runs out.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Forecast {
    /// The time of the forecast (RFC 3339).
    pub time: String,
    /// What growth was seen over, in seconds.
    pub window_seconds: u64,
    /// How growth is known.
    pub growth_is: Basis,
    /// The pools, in order.
    pub pools: Vec<Outlook>,
    /// The nodes, by name and family.
    pub nodes: Vec<NodeOutlook>,
}

/// How growth is known.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// Against an earlier forecast.
    Measured,
    /// From the age of what is in use: growth is no more than that.
    Estimated,
}

/// What is left of something, and until when.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outlook {
    /// The pool or the node.
    pub name: String,
    /// How many addresses are in use.
    pub in_use: u128,
    /// How many are left.
    pub left: u128,
    /// By how many the use grew within the window.
    pub growth: u128,
    /// When there will be none (RFC 3339); absent if use does not grow.
    pub runs_out: Option<String>,
}

/// What is left to a node until its limit of blocks.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeOutlook {
    /// The node's addresses.
    pub outlook: Outlook,
    /// Their family, 4 or 6.
    pub family: u8,
    /// How many blocks it has.
    pub blocks: u32,
    /// How many it may have, of both families.
    pub max_blocks: u32,
    /// Whether it then takes addresses from the blocks of others.
    pub then_borrows: bool,
}

/// What a node has in one family.
#[derive(Clone, Copy, Debug, Default)]
struct Holding {
    blocks: u32,
    size: u128,
    free: u128,
    in_use: u128,
    young: u128,
}

/// Makes a forecast, by comparison with an earlier one if there is one.
#[must_use]
pub fn forecast(sight: Sight<'_>, earlier: Option<&Forecast>) -> Forecast {
    let then = earlier.and_then(|earlier| moment::of_text(&earlier.time));
    let window = match then {
        Some(then) => moment::age(then, sight.now),
        None => history(sight).clamp(SHORTEST_WINDOW, WINDOW),
    };
    let horizon = Horizon { now: sight.now, window };
    Forecast {
        time: moment::text(sight.now),
        window_seconds: window.as_secs(),
        growth_is: if then.is_some() { Basis::Measured } else { Basis::Estimated },
        pools: pools(sight, horizon, earlier),
        nodes: nodes(sight, horizon, earlier),
    }
}

/// Returns how long there have been blocks and allocations, as far as they tell.
fn history(sight: Sight<'_>) -> Duration {
    let holders = |block: &Block| -> Vec<WallTime> {
        let times = block.attributes.iter().filter_map(|holder| holder.owner.get("timestamp"));
        times.filter_map(|text| moment::of_go(text)).chain(block.claimed_at).collect()
    };
    let oldest = sight.blocks.iter().flat_map(holders).min();
    oldest.map_or(Duration::ZERO, |oldest| moment::age(oldest, sight.now))
}

/// From when growth is known, and until now.
#[derive(Clone, Copy, Debug)]
struct Horizon {
    now: WallTime,
    window: Duration,
}

impl Horizon {
    /// Completes an outlook with the time at which nothing will be left.
    fn outlook(self, name: &str, (in_use, left): (u128, u128), growth: u128) -> Outlook {
        let seconds = left
            .saturating_mul(self.window.as_secs().into())
            .checked_div(growth)
            .and_then(|seconds| u64::try_from(seconds).ok());
        // What lies beyond a hundred years is said by nobody who counts pods.
        let seconds = seconds.filter(|seconds| *seconds < 100 * 366 * 86_400);
        let runs_out = seconds
            .map(|seconds| moment::text(moment::after(self.now, Duration::from_secs(seconds))));
        Outlook { name: name.to_owned(), in_use, left, growth, runs_out }
    }

    /// Counts the addresses of `block` that were taken within the window.
    fn young(self, block: &Block) -> u128 {
        let is_young = |ordinal: &u32| {
            let holder = slots::holder(block, *ordinal);
            let time = holder.and_then(|one| one.owner.get("timestamp"));
            let time = time.and_then(|text| moment::of_go(text));
            time.is_some_and(|time| moment::age(time, self.now) < self.window)
        };
        let ordinals = 0..u32::try_from(block.allocations.len()).unwrap_or(u32::MAX);
        ordinals.filter(is_young).count() as u128
    }
}

fn clock(sight: Sight<'_>) -> Clock {
    Clock { now: sight.now, cooldown: sight.config.cooldown }
}

fn pools(sight: Sight<'_>, horizon: Horizon, earlier: Option<&Forecast>) -> Vec<Outlook> {
    let rows =
        usage::usage(sight.pools, sight.blocks, sight.reserved, (clock(sight), Detail::Pools));
    let outlook = |row: &usage::Row| {
        let pool = sight.pools.iter().find(|pool| pool.name == row.pool)?;
        let blocks = sight.blocks.iter().filter(|block| pool.cidr.covers(&block.cidr));
        let in_use = row.counts.in_use;
        let growth = match earlier {
            Some(earlier) => grown(&row.pool, in_use, earlier.pools.iter()),
            None => blocks.map(|block| horizon.young(block)).sum(),
        };
        Some(horizon.outlook(&row.pool, (in_use, row.counts.free), growth))
    };
    let pools = rows.rows.iter().filter(|row| row.grouping == Grouping::Pool);
    pools.filter_map(outlook).collect()
}

/// Returns by how much the use grew; what is new grew from nothing.
fn grown<'a>(name: &str, in_use: u128, mut earlier: impl Iterator<Item = &'a Outlook>) -> u128 {
    let before = earlier.find(|outlook| outlook.name == name);
    in_use.saturating_sub(before.map_or(0, |outlook| outlook.in_use))
}

fn nodes(sight: Sight<'_>, horizon: Horizon, earlier: Option<&Forecast>) -> Vec<NodeOutlook> {
    let mut holdings: BTreeMap<(&str, Family), Holding> = BTreeMap::new();
    for block in sight.blocks {
        let Some(Owner::Host(node)) = &block.affinity else { continue };
        let counts = usage::of_block(block, sight.reserved, clock(sight));
        let holding = holdings.entry((node.as_str(), block.cidr.family())).or_default();
        holding.blocks = holding.blocks.saturating_add(1);
        holding.size = holding.size.max(counts.total);
        holding.free = holding.free.saturating_add(counts.free);
        holding.in_use = holding.in_use.saturating_add(counts.in_use);
        holding.young = holding.young.saturating_add(horizon.young(block));
    }
    let outlook = |((name, family), holding): (&(&str, Family), &Holding)| {
        let max_blocks = sight.config.max_blocks_per_host;
        let more = u128::from(max_blocks.saturating_sub(holding.blocks));
        let left = holding.free.saturating_add(more.saturating_mul(holding.size));
        let family = family.number();
        let growth = match earlier {
            Some(earlier) => {
                let before = earlier.nodes.iter().filter(|node| node.family == family);
                grown(name, holding.in_use, before.map(|node| &node.outlook))
            }
            None => holding.young,
        };
        NodeOutlook {
            outlook: horizon.outlook(name, (holding.in_use, left), growth),
            family,
            blocks: holding.blocks,
            max_blocks,
            then_borrows: !sight.config.is_strict_affinity,
        }
    };
    holdings.iter().map(outlook).collect()
}

impl Report for Forecast {
    fn text(&self) -> String {
        let window = moment::span(Duration::from_secs(self.window_seconds));
        let growth = format!("IN {}", window.to_uppercase());
        let pools = self.pools.iter().map(|pool| {
            vec![
                pool.name.clone(),
                output::count(pool.in_use),
                output::count(pool.left),
                format!("+{}", pool.growth),
                self.end(pool),
            ]
        });
        let heads = ["POOL", "IPS IN USE", "IPS FREE", &growth, "RUNS OUT"];
        let pools = output::grid(&heads, pools);
        let nodes = self.nodes.iter().map(|node| {
            let outlook = &node.outlook;
            vec![
                outlook.name.clone(),
                format!("IPv{}", node.family),
                format!("{} of {}", node.blocks, node.max_blocks),
                output::count(outlook.in_use),
                output::count(outlook.left),
                format!("+{}", outlook.growth),
                self.end(outlook),
                if node.then_borrows { "borrows" } else { "has none" }.to_owned(),
            ]
        });
        let heads =
            ["NODE", "FAMILY", "BLOCKS", "IPS IN USE", "IPS LEFT", &growth, "RUNS OUT", "THEN IT"];
        let nodes = output::grid(&heads, nodes);
        let basis = match self.growth_is {
            Basis::Measured => "Growth is measured against the earlier forecast.",
            Basis::Estimated => {
                "Growth is what is in use and younger than that. What was released does not show in \
                 it, so these\nare the earliest times; keep a forecast (-o json) and compare with it \
                 (--since) to know better."
            }
        };
        format!("{pools}\n\n{nodes}\n{basis}")
    }
}

impl Forecast {
    fn end(&self, outlook: &Outlook) -> String {
        let now = moment::of_text(&self.time);
        let end = outlook.runs_out.as_deref().and_then(moment::of_text);
        match (outlook.left, end, now) {
            (0, ..) => "now".to_owned(),
            (_, Some(end), Some(now)) => {
                let day: String = moment::text(end).chars().take(10).collect();
                format!("{day} (in {})", moment::span(moment::age(now, end)))
            }
            _ => "-".to_owned(),
        }
    }
}
