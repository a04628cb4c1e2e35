//! Writing Events, and what they are written of.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use calc::Problem;
use datastore::{Client, Error, Filter};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use model::id::NodeName;
use model::time::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::{News, Notice, Reason, Subject};
use crate::bgp::Snapshot;
use crate::felix::run::Status;
use crate::schedule::Schedule;

/// Where Events about objects without a namespace are.
const NAMESPACE: &str = "default";
/// Who reports them.
const COMPONENT: &str = "calico-node";
/// The API of our objects.
const GROUP: &str = "crd.projectcalico.org/v1";
/// How long to do nothing when there is nothing to do.
const FAR: Duration = Duration::from_secs(3600);

/// What Events are made of, and where they are written.
pub(crate) struct Writer {
    /// The datastore.
    pub(crate) client: Client,
    /// This node in the cluster.
    pub(crate) node: NodeName,
    /// This node in Kubernetes.
    pub(crate) kubernetes_node: NodeName,
    /// How BGP is; `None` if this node speaks none.
    pub(crate) bgp: Option<watch::Receiver<Snapshot>>,
    /// What in the datastore cannot be followed.
    pub(crate) problems: watch::Receiver<Vec<Problem>>,
    /// How many nodes there are.
    pub(crate) felix: watch::Receiver<Status>,
}

impl Writer {
    /// Writes what comes, until nothing comes any more.
    pub(crate) async fn run(mut self) {
        let origin = Instant::now();
        let now = || Timestamp::from_origin(origin.elapsed());
        let mut news = News::new(Schedule::new(&self.node));
        let mut written: BTreeMap<(Subject, Reason), Event> = BTreeMap::new();
        loop {
            let nodes = self.felix.borrow().nodes;
            let due = news.due().and_then(|due| origin.checked_add(due.since_origin()));
            let far = Instant::now().checked_add(FAR).unwrap_or(origin);
            tokio::select! {
                changed = changed(&mut self.bgp) => {
                    if changed.is_err() { return }
                    if let Some(bgp) = &mut self.bgp {
                        let peers = bgp.borrow_and_update().status.peers.clone();
                        news.note_sessions(&peers, now(), nodes);
                    }
                }
                changed = self.problems.changed() => {
                    if changed.is_err() { return }
                    let problems = self.problems.borrow_and_update().clone();
                    news.note_problems(&problems, now(), nodes);
                }
                () = tokio::time::sleep_until(due.unwrap_or(far).into()) => {}
            }
            for notice in news.take(now(), nodes) {
                let key = (notice.subject.clone(), notice.reason);
                // What cannot be written now is old news when it could be: the log has it.
                match self.write(&notice, written.remove(&key)).await {
                    Ok(event) => drop(written.insert(key, event)),
                    Err(error) => tracing::warn!(%error, "an Event about BGP is not written"),
                }
            }
        }
    }

    /// Counts up the Event that was written before, or makes one.
    async fn write(&self, notice: &Notice, before: Option<Event>) -> Result<Event, Error> {
        let now = Time(jiff::Timestamp::now());
        if let Some(mut event) = before {
            event.count = Some(event.count.unwrap_or(1).saturating_add(1));
            event.last_timestamp = Some(now.clone());
            event.message = Some(notice.message.clone());
            match self.client.update(&event).await {
                Ok(event) => return Ok(event),
                // The server forgets Events after an hour.
                Err(Error::NotFound { .. } | Error::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let about = self.about(&notice.subject).await?;
        self.client.create(&self.event(notice, about, now)).await
    }

    fn event(&self, notice: &Notice, about: ObjectReference, now: Time) -> Event {
        let unique = format!("{:?} {:?} {}", notice.subject, notice.reason, now.0);
        let digest = Sha256::digest(unique.as_bytes());
        let hash = digest.first_chunk().copied().map_or(0, u64::from_be_bytes);
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{hash:016x}", self.kubernetes_node)),
                namespace: Some(NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: about,
            reason: Some(notice.reason.word().to_owned()),
            message: Some(notice.message.clone()),
            type_: Some(notice.reason.severity().to_owned()),
            source: Some(EventSource {
                component: Some(COMPONENT.to_owned()),
                host: Some(self.kubernetes_node.to_string()),
            }),
            reporting_component: Some(COMPONENT.to_owned()),
            reporting_instance: Some(self.kubernetes_node.to_string()),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            count: Some(1),
            ..Event::default()
        }
    }

    /// Returns the object, by whose UID `kubectl describe` finds its Events.
    async fn about(&self, subject: &Subject) -> Result<ObjectReference, Error> {
        let (kind, name, uid) = match subject {
            Subject::Node => {
                let name = self.kubernetes_node.to_string();
                // kubelet names a Node by its name here too, and so kubectl asks for that.
                ("Node", name.clone(), Some(name))
            }
            Subject::Peer(name) => ("BGPPeer", name.clone(), self.uid::<api::BgpPeer>(name).await?),
            Subject::Filter(name) => {
                ("BGPFilter", name.clone(), self.uid::<api::BgpFilter>(name).await?)
            }
            Subject::Configuration(name) => {
                ("BGPConfiguration", name.clone(), self.uid::<api::BgpConfiguration>(name).await?)
            }
        };
        let group = if *subject == Subject::Node { "v1" } else { GROUP };
        Ok(ObjectReference {
            api_version: Some(group.to_owned()),
            kind: Some(kind.to_owned()),
            name: Some(name),
            uid,
            ..ObjectReference::default()
        })
    }

    async fn uid<T: datastore::Object>(&self, name: &str) -> Result<Option<String>, Error> {
        // A node may list these objects, as it watches them, but not get one.
        let named = Filter { fields: Some(format!("metadata.name={name}")), ..Filter::default() };
        // One that has gone meanwhile is told of by its name.
        match self.client.list::<T>(&named).await {
            Ok(objects) => Ok(objects.first().and_then(|object| object.metadata().uid.clone())),
            Err(error) if error.is_retryable() => Err(error),
            // One that cannot be read as a whole has troubles, and its name.
            Err(_) => Ok(None),
        }
    }
}

async fn changed(
    bgp: &mut Option<watch::Receiver<Snapshot>>,
) -> Result<(), watch::error::RecvError> {
    match bgp {
        Some(bgp) => bgp.changed().await,
        None => std::future::pending().await,
    }
}
