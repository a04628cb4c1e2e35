//! What Prometheus is told, under Calico's names.

use std::collections::BTreeMap;

use ipam::audit::{Allocation, Finding, Problem, Snapshot};
use ipam::slots;
use model::block::{Block, Owner};
use model::net::Cidr;
use model::pool::IpPool;
use telemetry::metrics::{Counters, Gauge, Gauges, Labels, Registry};

/// The metrics of address management.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    in_use: Gauges,
    borrowed: Gauges,
    blocks: Gauges,
    candidates: Gauges,
    problems: Gauges,
    sizes: Gauges,
    reclamations: Counters,
    refused: Gauge,
    waiting: Gauge,
}

/// What there is, counted while it comes by, and what is wrong with it.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    candidates: BTreeMap<Place, i64>,
    problems: BTreeMap<&'static str, i64>,
    sizes: BTreeMap<String, i64>,
    blocks: BTreeMap<Place, i64>,
    in_use: BTreeMap<Place, i64>,
    borrowed: BTreeMap<Place, i64>,
}

impl Seen {
    /// Counts a block and what it gave away.
    pub(crate) fn block(&mut self, block: &Block, pools: &[IpPool]) {
        let (pool, owner) = (pool_of(pools, block.cidr), owner_of(block));
        add(&mut self.blocks, (pool.clone(), owner.clone()));
        for ordinal in (0_u32..).zip(&block.allocations).map(|(ordinal, _)| ordinal) {
            let Some(holder) = slots::holder(block, ordinal) else { continue };
            let node = holder.owner.get("node").cloned().unwrap_or_else(|| owner.clone());
            if node != owner {
                add(&mut self.borrowed, (pool.clone(), node.clone()));
            }
            add(&mut self.in_use, (pool.clone(), node));
        }
    }
}

impl Seen {
    /// Counts what a look at one VRF, or at those who are in none, has found.
    pub(crate) fn found(&mut self, snapshot: &Snapshot, findings: &[Finding]) {
        for finding in findings {
            let count = self.problems.entry(finding.problem.name()).or_default();
            *count = count.saturating_add(1);
            if let Problem::Leak(held) = &finding.problem {
                add(&mut self.candidates, place_of(snapshot, held));
            }
        }
        for pool in &snapshot.pools {
            let size = i64::try_from(pool.cidr.size()).unwrap_or(i64::MAX);
            self.sizes.insert(pool.name.clone(), size);
        }
    }
}

/// A pool and a node.
type Place = (String, String);

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let gauges = |name, help| registry.gauges(name, help);
        Self {
            in_use: gauges("ipam_allocations_in_use", "Addresses in use, per pool and node."),
            borrowed: gauges(
                "ipam_allocations_borrowed",
                "Addresses in use from blocks of other nodes, per pool and node.",
            ),
            blocks: gauges("ipam_blocks", "Blocks, per pool and node."),
            candidates: gauges(
                "ipam_allocations_gc_candidates",
                "Addresses that look lost, per pool and node.",
            ),
            problems: gauges("ipam_problems", "What the audit finds wrong, per problem."),
            sizes: gauges("ipam_ippool_size", "Addresses of each pool."),
            reclamations: registry.counters(
                "ipam_allocations_gc_reclamations",
                "Lost addresses that were given back, per pool and node.",
            ),
            refused: registry.gauge(
                "ipam_gc_refused",
                "Whether the last look released nothing because too much would have gone.",
            ),
            waiting: registry.gauge(
                "ipam_load_balancer_services_waiting",
                "Services of type LoadBalancer that have not got the addresses they want.",
            ),
        }
    }

    /// Tells what a look saw; what is gone is told no more.
    pub(crate) fn tell(&self, seen: &Seen) {
        set(&self.blocks, &seen.blocks);
        set(&self.in_use, &seen.in_use);
        set(&self.borrowed, &seen.borrowed);
        set(&self.candidates, &seen.candidates);
        self.problems.clear();
        for (problem, count) in &seen.problems {
            self.problems.get_or_create(&vec![("problem", (*problem).to_owned())]).set(*count);
        }
        self.sizes.clear();
        for (pool, size) in &seen.sizes {
            self.sizes.get_or_create(&vec![("ippool", pool.clone())]).set(*size);
        }
    }

    /// Counts leaks that were repaired.
    pub(crate) fn count_released<'a>(
        &self,
        snapshot: &Snapshot,
        findings: impl Iterator<Item = &'a Finding>,
    ) {
        for finding in findings {
            if let Problem::Leak(held) = &finding.problem {
                self.reclamations.get_or_create(&labels(place_of(snapshot, held))).inc();
            }
        }
    }

    /// Tells that a look was refused, and that the next was not.
    pub(crate) fn tell_refusal(&self, count: usize) {
        self.refused.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Tells how many Services wait for addresses.
    pub(crate) fn tell_waiting_services(&self, count: usize) {
        self.waiting.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

fn add(counts: &mut BTreeMap<Place, i64>, place: Place) {
    let count = counts.entry(place).or_default();
    *count = count.saturating_add(1);
}

fn set(gauges: &Gauges, counts: &BTreeMap<Place, i64>) {
    gauges.clear();
    for (place, count) in counts {
        gauges.get_or_create(&labels(place.clone())).set(*count);
    }
}

fn labels((pool, node): Place) -> Labels {
    vec![("ippool", pool), ("node", node)]
}

fn pool_of(pools: &[IpPool], cidr: Cidr) -> String {
    let pool = pools.iter().find(|pool| pool.cidr.covers(&cidr));
    pool.map_or_else(|| "no_ippool".to_owned(), |pool| pool.name.clone())
}

fn owner_of(block: &Block) -> String {
    match &block.affinity {
        Some(Owner::Host(node)) => node.to_string(),
        Some(Owner::Virtual(name)) => name.clone(),
        None => "no_affinity".to_owned(),
    }
}

fn place_of(snapshot: &Snapshot, held: &Allocation) -> Place {
    let node = held.owner.get("node").cloned().unwrap_or_else(|| "unknown_node".to_owned());
    (pool_of(&snapshot.pools, held.block), node)
}
