//! When this node says which policies it enforces, and where it writes that (ADR 6).

use std::collections::BTreeMap;
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
use crate::schedule::Schedule;

/// How long to wait after a report could not be written.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };

/// The last report, if there is one.
pub(crate) type Told = Option<Arc<NodeReport>>;

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
