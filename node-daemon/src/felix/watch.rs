//! From the datastore's watches to [`Event`]s: objects become model values here, or are refused.

use std::fmt::Display;

use calc::Change;
use datastore::{Client, Filter, Mirror, Object, ObjectKey, WatchEvent};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Node, Pod};
use model::id::{NamespacedName, NodeName};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::event::{Event, Kind};
use super::settings::Settings;

/// What of the datastore concerns one node.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// The node.
    pub(crate) node: NodeName,
    /// How the names of workload interfaces start.
    pub(crate) interface_prefix: String,
}

/// Starts a watch for every [`Kind`]; their events arrive in `events`.
///
/// The watches end when the returned set is dropped.
pub(crate) fn all(
    client: &Client,
    scope: &Scope,
    mut settings: Settings,
    events: &mpsc::Sender<Event>,
) -> JoinSet<()> {
    let own_pods =
        Filter { fields: Some(format!("spec.nodeName={}", scope.node)), ..Filter::default() };
    let own_affinities = Filter {
        labels: Some(format!(
            "{}={}",
            api::names::HOSTNAME_HASH_LABEL,
            api::names::hostname_hash(scope.node.as_str())
        )),
        ..Filter::default()
    };
    let everything = Filter::default();
    let mut watches = Watches { client, events, tasks: JoinSet::new() };
    watches.start(Kind::Nodes, &everything, node);
    watches.start(Kind::Pools, &everything, |key, object| Some(pool(key, object)));
    watches.start(Kind::Affinities, &own_affinities, |key, object| Some(affinity(key, object)));
    let prefix = scope.interface_prefix.clone();
    watches
        .start(Kind::Endpoints, &own_pods, move |key, object| Some(endpoint(key, object, &prefix)));
    watches.start(Kind::BgpConfigurations, &everything, bgp_configuration);
    watches.start(Kind::BgpPeers, &everything, |key, object| Some(bgp_peer(key, object)));
    watches.start(Kind::FelixConfigurations, &everything, move |key, object| {
        settings.take(key, object)
    });
    watches.tasks
}

struct Watches<'a> {
    client: &'a Client,
    events: &'a mpsc::Sender<Event>,
    tasks: JoinSet<()>,
}

impl Watches<'_> {
    /// Starts a watch of `T`, whose objects `read` turns into events.
    fn start<T, R>(&mut self, kind: Kind, filter: &Filter, mut read: R)
    where
        T: Object,
        R: FnMut(&ObjectKey, Option<&T>) -> Option<Event> + Send + 'static,
    {
        let stream = self.client.watch::<T>(filter);
        let events = self.events.clone();
        self.tasks.spawn(async move {
            let mut stream = std::pin::pin!(stream);
            let mut mirror = Mirror::default();
            while let Some(event) = stream.next().await {
                report(kind, &event);
                for change in mirror.apply(event) {
                    let event = match change {
                        datastore::Change::Upsert(key, object) => read(&key, Some(&object)),
                        datastore::Change::Delete(key) => read(&key, None),
                        datastore::Change::Synced => Some(Event::Synced(kind)),
                    };
                    let Some(event) = event else { continue };
                    if events.send(event).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
}

/// Logs what is wrong with the server or an object; what is known stays in force meanwhile.
fn report<T>(kind: Kind, event: &WatchEvent<T>) {
    match event {
        WatchEvent::Failed(error) => {
            tracing::warn!(?kind, %error, "watch failed and will be retried");
        }
        WatchEvent::Invalid { key, error } => {
            tracing::warn!(?kind, object = %key, %error, "object ignored");
        }
        WatchEvent::Init => tracing::debug!(?kind, "listing"),
        WatchEvent::InitDone => tracing::debug!(?kind, "in sync"),
        WatchEvent::InitApply(_) | WatchEvent::Apply(_) | WatchEvent::Delete(_) => {}
    }
}

/// Returns the value, or reports why there is none: an object that is refused counts as absent.
fn accepted<T, E: Display>(result: Result<T, E>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::warn!(%error, "object ignored");
            None
        }
    }
}

fn node(key: &ObjectKey, object: Option<&Node>) -> Option<Event> {
    let name: NodeName = accepted(key.name.parse())?;
    let node = object.and_then(|object| accepted(api::kubernetes::node(object)));
    Some(Event::Store(Change::Node(name, node.map(Box::new))))
}

fn pool(key: &ObjectKey, object: Option<&api::IpPool>) -> Event {
    let pool = object.and_then(|object| accepted(object.try_into()));
    Event::Store(Change::Pool(key.name.clone(), pool.map(Box::new)))
}

fn affinity(key: &ObjectKey, object: Option<&api::BlockAffinity>) -> Event {
    let affinity = object.and_then(|object| accepted(object.try_into()));
    Event::Store(Change::Affinity(key.name.clone(), affinity))
}

fn endpoint(key: &ObjectKey, object: Option<&Pod>, interface_prefix: &str) -> Event {
    let read = |pod: &Pod| accepted(api::kubernetes::workload_endpoint(pod, interface_prefix));
    let endpoint = object.and_then(read).flatten();
    let namespace = key.namespace.clone().unwrap_or_default();
    let pod = NamespacedName { namespace, name: key.name.clone() };
    Event::Store(Change::Endpoint(pod, endpoint.map(Box::new)))
}

/// Only the object named `default` is the cluster's.
fn bgp_configuration(key: &ObjectKey, object: Option<&api::BgpConfiguration>) -> Option<Event> {
    let configuration = object.and_then(|object| accepted(object.try_into()));
    let change = Change::Bgp(configuration.map(Box::new));
    (key.name == "default").then_some(Event::Store(change))
}

fn bgp_peer(key: &ObjectKey, object: Option<&api::BgpPeer>) -> Event {
    let peer = object.and_then(|object| accepted(object.try_into()));
    Event::Store(Change::Peer(key.name.clone(), peer.map(Box::new)))
}
