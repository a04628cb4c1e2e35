//! What Prometheus is told, under Calico's names.

use std::collections::BTreeMap;

use ipam::audit::{Allocation, Finding, Problem, Snapshot};
use ipam::slots;
use model::block::{Block, Owner};
use model::net::Cidr;
use telemetry::metrics::{Counters, Gauge, Gauges, Labels, Registry};

/// The metrics of address management.
#[derive(Debug)]
pub(crate) struct Metrics {
    in_use: Gauges,
    borrowed: Gauges,
    blocks: Gauges,
    candidates: Gauges,
    problems: Gauges,
    sizes: Gauges,
    reclamations: Counters,
    refused: Gauge,
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
        }
    }

    /// Tells what a look saw; what is gone is told no more.
    pub(crate) fn tell(&self, snapshot: &Snapshot, findings: &[Finding]) {
        let mut blocks: BTreeMap<Place, i64> = BTreeMap::new();
        let mut in_use: BTreeMap<Place, i64> = BTreeMap::new();
        let mut borrowed: BTreeMap<Place, i64> = BTreeMap::new();
        for block in snapshot.blocks.iter().map(|block| &block.value) {
            let pool = pool_of(snapshot, block.cidr);
            add(&mut blocks, (pool.clone(), owner_of(block)));
            for ordinal in (0_u32..).zip(&block.allocations).map(|(ordinal, _)| ordinal) {
                let Some(holder) = slots::holder(block, ordinal) else { continue };
                let node = holder.owner.get("node").cloned().unwrap_or_else(|| owner_of(block));
                if node != owner_of(block) {
                    add(&mut borrowed, (pool.clone(), node.clone()));
                }
                add(&mut in_use, (pool.clone(), node));
            }
        }
        let mut candidates: BTreeMap<Place, i64> = BTreeMap::new();
        let mut problems: BTreeMap<&'static str, i64> = BTreeMap::new();
        for finding in findings {
            let count = problems.entry(finding.problem.name()).or_default();
            *count = count.saturating_add(1);
            if let Problem::Leak(held) = &finding.problem {
                add(&mut candidates, place_of(snapshot, held));
            }
        }
        set(&self.blocks, blocks);
        set(&self.in_use, in_use);
        set(&self.borrowed, borrowed);
        set(&self.candidates, candidates);
        self.problems.clear();
        for (problem, count) in problems {
            self.problems.get_or_create(&vec![("problem", problem.to_owned())]).set(count);
        }
        self.sizes.clear();
        for pool in &snapshot.pools {
            let size = i64::try_from(pool.cidr.size()).unwrap_or(i64::MAX);
            self.sizes.get_or_create(&vec![("ippool", pool.name.clone())]).set(size);
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
}

fn add(counts: &mut BTreeMap<Place, i64>, place: Place) {
    let count = counts.entry(place).or_default();
    *count = count.saturating_add(1);
}

fn set(gauges: &Gauges, counts: BTreeMap<Place, i64>) {
    gauges.clear();
    for (place, count) in counts {
        gauges.get_or_create(&labels(place)).set(count);
    }
}

fn labels((pool, node): Place) -> Labels {
    vec![("ippool", pool), ("node", node)]
}

fn pool_of(snapshot: &Snapshot, cidr: Cidr) -> String {
    let pool = snapshot.pools.iter().find(|pool| pool.cidr.covers(&cidr));
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
    (pool_of(snapshot, held.block), node)
}
