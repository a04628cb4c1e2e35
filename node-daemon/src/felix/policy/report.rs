//! When this node says which policies it enforces, and where it writes that (ADR 6).
//!
//! After a change nodes write one after the other, each at its own place in a time that grows
//! with their number: a thousand do not write at once.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use api::policy_report;
use datastore::{Client, Error};
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use model::id::NodeName;
use model::policy::{Heard, NodeReport};
use model::time::Timestamp;
use reconcile::Backoff;
use tokio::sync::watch;

use super::engine::Engine;

/// The least time in which all nodes write once.
const LEAST: Duration = Duration::from_secs(2);
/// How much longer that time is for every node: 20 of them write in a second.
const EACH: Duration = Duration::from_millis(50);
/// How long to wait after a report could not be written.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };

/// The last report, if there is one.
pub(crate) type Told = Option<Arc<NodeReport>>;

/// When to report.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// This node's place among all, in parts of 256.
    place: u8,
    last: Option<Timestamp>,
    due: Option<Timestamp>,
}

impl Schedule {
    /// Makes the schedule of a node, which has said nothing yet.
    pub(crate) fn new(node: &NodeName) -> Self {
        let mut hash = DefaultHasher::new();
        node.as_str().hash(&mut hash);
        let [place, ..] = hash.finish().to_ne_bytes();
        Self { place, last: None, due: None }
    }

    /// Takes note that there is something new to say, in a cluster of so many nodes.
    pub(crate) fn note(&mut self, now: Timestamp, nodes: usize) {
        if self.due.is_some() {
            return;
        }
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
        let round = LEAST.max(EACH.saturating_mul(nodes));
        let turn = now + round.mul_f64(f64::from(self.place) / 256.0);
        self.due = Some(self.last.map_or(turn, |last| turn.max(last + round)));
    }

    /// Returns when to report, if there is something to say.
    pub(crate) const fn due(&self) -> Option<Timestamp> {
        self.due
    }

    /// Takes note that it has been said.
    pub(crate) const fn said(&mut self, now: Timestamp) {
        self.due = None;
        self.last = Some(now);
    }
}

/// Says what is in force, when it is this node's turn.
#[derive(Debug)]
pub(crate) struct Teller {
    /// Why the kernel does not hold what it should, if it refused that.
    pub(crate) failure: Option<String>,
    node: NodeName,
    schedule: Schedule,
    /// What was true of the engine when the last report was made.
    told: Option<(u64, Option<String>)>,
    last: Option<Arc<NodeReport>>,
    reports: watch::Sender<Told>,
}

impl Teller {
    /// Makes what tells of `node`; `reports` gets what it says.
    pub(crate) fn new(node: NodeName, reports: watch::Sender<Told>) -> Self {
        let schedule = Schedule::new(&node);
        Self { failure: None, node, schedule, told: None, last: None, reports }
    }

    /// Returns when there is something to say.
    pub(crate) const fn due(&self) -> Option<Timestamp> {
        self.schedule.due()
    }

    /// Says what is new, if it is time.
    pub(crate) fn tell(&mut self, engine: &Engine, now: Timestamp) {
        if engine.is_in_force() {
            self.failure = None;
        }
        if !engine.is_in_sync() || !(engine.is_in_force() || self.failure.is_some()) {
            return;
        }
        let state = (engine.revision(), self.failure.clone());
        if self.told.as_ref() == Some(&state) {
            return;
        }
        self.schedule.note(now, engine.nodes());
        if self.due().is_none_or(|due| now < due) {
            return;
        }
        self.schedule.said(now);
        self.told = Some(state);
        let report = if engine.is_in_force() {
            engine.report(self.node.clone())
        } else {
            // What was in force before still is.
            let before = self.last.as_deref().cloned();
            let nothing = || NodeReport {
                node: self.node.clone(),
                heard: Heard::default(),
                programmed: BTreeMap::new(),
                failure: None,
            };
            before.unwrap_or_else(nothing)
        };
        let report = Arc::new(NodeReport { failure: self.failure.clone(), ..report });
        if self.last.as_ref() != Some(&report) {
            self.last = Some(Arc::clone(&report));
            self.reports.send_replace(Some(report));
        }
    }
}

/// Where reports are written.
pub(crate) struct Writer {
    /// The datastore.
    pub(crate) client: Client,
    /// The Kubernetes node, with which the report goes.
    pub(crate) owner: NodeName,
    /// What to write; only the last one counts.
    pub(crate) reports: watch::Receiver<Told>,
}

impl Writer {
    /// Writes what comes, until nothing comes any more.
    pub(crate) async fn run(mut self) {
        let mut written = None;
        let mut waited = None;
        while self.reports.changed().await.is_ok() {
            let report = self.reports.borrow_and_update().clone();
            let Some(report) = report else { continue };
            match self.write(&report, written.take()).await {
                Ok(object) => {
                    written = Some(object);
                    waited = None;
                }
                Err(error) => {
                    let wait = BACKOFF.after(waited);
                    waited = Some(wait);
                    tracing::warn!(%error, "policy status is not written yet; will be retried");
                    tokio::time::sleep(wait).await;
                    self.reports.mark_changed();
                }
            }
        }
    }

    /// Writes a report over the one that was written before, if that is known.
    async fn write(
        &self,
        report: &NodeReport,
        written: Option<ConfigMap>,
    ) -> Result<ConfigMap, Error> {
        let name = policy_report::name(&report.node);
        let found = match written {
            Some(object) => Some(object),
            None => self.client.get_in::<ConfigMap>(policy_report::NAMESPACE, &name).await?,
        };
        let Some(mut object) = found else {
            let node = self.client.get::<Node>(self.owner.as_str()).await?;
            let uid = node.and_then(|node| node.metadata.uid);
            let owner = uid.map(|uid| policy_report::owner(&self.owner, uid));
            return self.client.create(&policy_report::config_map(report, owner)).await;
        };
        let new = policy_report::config_map(report, None);
        if object.data == new.data {
            return Ok(object);
        }
        object.data = new.data;
        self.client.update(&object).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_secs(seconds))
    }

    #[test]
    fn a_thousand_nodes_take_turns() {
        let mut turns: Vec<u64> = (0..1000)
            .map(|number| {
                let mut schedule = Schedule::new(&format!("node-{number}").parse().unwrap());
                schedule.note(at(100), 1000);
                schedule.due().unwrap().since_origin().as_secs()
            })
            .collect();
        turns.sort_unstable();
        assert!(turns[0] >= 100 && turns[999] <= 150);
        let most = turns.chunk_by(|one, other| one == other).map(<[u64]>::len).max();
        assert!(most < Some(100), "{most:?} in one second");
    }

    #[test]
    fn a_node_writes_once_in_a_round() {
        let mut schedule = Schedule::new(&"node-1".parse().unwrap());
        schedule.note(at(0), 3);
        let first = schedule.due().unwrap();
        assert!(first <= at(2));
        schedule.note(at(1), 3);
        assert_eq!(schedule.due(), Some(first));
        schedule.said(first);
        assert_eq!(schedule.due(), None);
        schedule.note(first, 3);
        assert!(schedule.due() >= Some(first + Duration::from_secs(2)));
    }
}
