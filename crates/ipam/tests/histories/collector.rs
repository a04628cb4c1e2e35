//! The garbage collection after a history: the audit finds and repairs all, and frees nothing live.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipam::Record;
use ipam::audit::{
    self, Allocation, Change, Confidence, Finding, Limits, PodUse, Problem, Revisioned, Snapshot,
};
use model::block::IpamConfig;
use model::id::{HandleId, NamespacedName, NodeName};
use model::pool::IpPool;
use model::time::WallTime;

use crate::common::store::Store;

/// How often the audit may need to run: what one repair uncovers, the next one mends.
const ROUNDS: usize = 4;

/// What the collector knows besides the store.
pub(crate) struct Cluster<'a> {
    pub(crate) pools: &'a [IpPool],
    pub(crate) config: IpamConfig,
    pub(crate) now: WallTime,
    /// The nodes, with what is live on them.
    pub(crate) live: &'a BTreeMap<IpAddr, (HandleId, NodeName)>,
    pub(crate) nodes: &'a [NodeName],
}

/// Repairs until nothing is left to repair.
pub(crate) fn collect(store: &mut Store, cluster: &Cluster<'_>) {
    for round in 0..ROUNDS {
        let snapshot = snapshot(store, cluster);
        let findings = audit::check(&snapshot);
        for Finding { problem, evidence, .. } in &findings {
            let is_corruption = matches!(
                problem,
                Problem::Duplicate(_)
                    | Problem::DamagedBlock(_)
                    | Problem::Unallocated(_)
                    | Problem::WrongHolder(_)
                    | Problem::MissingHandle(_)
            );
            assert!(!is_corruption, "{problem}: {evidence:?}");
        }
        let limits = Limits { percent: 100, floor: usize::MAX };
        let plan = audit::plan(&snapshot, &findings, &limits).unwrap();
        if plan.writes.is_empty() {
            let left: Vec<String> = findings
                .iter()
                .filter(|finding| finding.confidence > Confidence::Possible)
                .filter(|finding| !goes_with_its_handle(&finding.problem, cluster))
                .map(|finding| finding.problem.to_string())
                .collect();
            assert!(left.is_empty(), "after {round} repairs there is still {left:?}");
            return;
        }
        for write in plan.writes {
            for released in &write.releases {
                let is_live = cluster.live.contains_key(&released.addr)
                    && released.handle.as_ref() == Some(&cluster.live[&released.addr].0);
                assert!(!is_live, "{} is live and would be freed", released.addr);
            }
            match write.change {
                Change::Put(record) => store.insert(record),
                Change::Delete(key) => store.remove(&key),
            }
        }
    }
    panic!("{ROUNDS} repairs were not enough");
}

/// Is it an address beside a live one of the same handle? Handles are released as a whole.
fn goes_with_its_handle(problem: &Problem, cluster: &Cluster<'_>) -> bool {
    let Problem::Leak(Allocation { handle: Some(id), .. }) = problem else { return false };
    cluster.live.values().any(|(handle, _)| handle == id)
}

fn snapshot(store: &Store, cluster: &Cluster<'_>) -> Snapshot {
    let mut addrs: BTreeMap<&(HandleId, NodeName), Vec<IpAddr>> = BTreeMap::new();
    for (addr, holder) in cluster.live {
        addrs.entry(holder).or_default().push(*addr);
    }
    let pods = addrs.into_iter().map(|((handle, node), addrs)| PodUse {
        pod: NamespacedName { namespace: "ns".to_owned(), name: handle.0.clone() },
        uid: handle.0.clone(),
        node: Some(node.clone()),
        addrs,
        is_terminated: false,
    });
    let mut snapshot = Snapshot {
        now: cluster.now,
        pools: cluster.pools.to_vec(),
        nodes: cluster.nodes.iter().cloned().collect(),
        pods: pods.collect(),
        config: cluster.config,
        ..Snapshot::default()
    };
    for (revision, record) in store.records() {
        let revision = revision.to_string();
        match record.clone() {
            Record::Block(value) => {
                snapshot.blocks.push(Revisioned { value, revision, created: None });
            }
            Record::Affinity(value) => {
                snapshot.affinities.push(Revisioned { value, revision, created: None });
            }
            Record::Handle(value) => {
                snapshot.handles.push(Revisioned { value, revision, created: None });
            }
        }
    }
    snapshot
}
