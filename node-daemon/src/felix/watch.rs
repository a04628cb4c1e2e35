//! The watches: what the datastore tells goes to those whom it concerns.

use api::PolicyObject;
use api::kubernetes::ClusterNetworkPolicy;
use datastore::{Client, Filter, Mirror, Object, ObjectKey, WatchEvent};
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use model::id::NodeName;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::border::{self, Heard};
use super::demand::{Whose, affinities};
use super::event::{Event, Kind};
use super::policy::event::Event as PolicyEvent;
use super::settings::Settings;

/// What of the datastore concerns one node.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// The node.
    pub(crate) node: NodeName,
    /// How the names of workload interfaces start.
    pub(crate) interface_prefix: String,
}

/// Who hears of the datastore.
#[derive(Clone, Debug)]
pub(crate) struct Listeners {
    /// The loop that programs routes.
    pub(crate) routes: mpsc::Sender<Event>,
    /// The loop that programs policy.
    pub(crate) policy: mpsc::Sender<PolicyEvent>,
}

/// Starts a watch for every [`Kind`]; `listeners` hear of their objects.
///
/// The watches end when the returned set is dropped.
pub(crate) fn all(
    client: &Client,
    scope: &Scope,
    mut settings: Settings,
    listeners: &Listeners,
) -> JoinSet<()> {
    let everything = Filter::default();
    let mut watches = Watches { client, listeners, tasks: JoinSet::new() };
    watches.start(Kind::Nodes, &everything, border::node);
    watches.start(Kind::Pools, &everything, border::pool);
    watches.start(Kind::Affinities, &affinities(&scope.node, Whose::Own), border::affinity);
    let pods = scope.clone();
    watches.start(Kind::Endpoints, &everything, move |key, object| {
        border::endpoint(key, object, &pods)
    });
    watches.start(Kind::BgpConfigurations, &everything, border::bgp_configuration);
    watches.start(Kind::BgpPeers, &everything, border::bgp_peer);
    watches.start(Kind::BgpFilters, &everything, border::bgp_filter);
    watches.start(Kind::FelixConfigurations, &everything, move |key, object| {
        settings.take(key, object)
    });
    watches.start_policies::<api::CalicoNetworkPolicy>(Kind::Policies);
    watches.start_policies::<api::GlobalNetworkPolicy>(Kind::GlobalPolicies);
    watches.start_policies::<NetworkPolicy>(Kind::KubernetesPolicies);
    watches.start_policies::<ClusterNetworkPolicy>(Kind::ClusterPolicies);
    watches.start_policies::<api::StagedNetworkPolicy>(Kind::StagedPolicies);
    watches.start_policies::<api::StagedGlobalNetworkPolicy>(Kind::StagedGlobalPolicies);
    watches.start_policies::<api::StagedKubernetesNetworkPolicy>(Kind::StagedKubernetesPolicies);
    watches.start(Kind::Namespaces, &everything, border::namespace);
    watches.start(Kind::ServiceAccounts, &everything, border::service_account);
    watches.start(Kind::Tiers, &everything, border::tier);
    watches.start(Kind::NetworkSets, &everything, border::network_set::<api::NetworkSet>);
    let global_sets = border::network_set::<api::GlobalNetworkSet>;
    watches.start(Kind::GlobalNetworkSets, &everything, global_sets);
    watches.start(Kind::HostEndpoints, &everything, border::host_endpoint);
    watches.start(Kind::EndpointSlices, &everything, border::endpoint_slice);
    watches.start(Kind::WorkloadEndpoints, &everything, border::workload_endpoint);
    watches.start(Kind::Profiles, &everything, border::profile);
    watches.tasks
}

struct Watches<'a> {
    client: &'a Client,
    listeners: &'a Listeners,
    tasks: JoinSet<()>,
}

impl Watches<'_> {
    /// Starts a watch of a kind of policies.
    fn start_policies<T: Object + PolicyObject>(&mut self, kind: Kind) {
        if let Some(of) = kind.of_policy() {
            self.start(kind, &Filter::default(), border::policies::<T>(of));
        }
    }

    /// Starts a watch of `T`, of whose objects `read` says what to tell whom.
    fn start<T, R>(&mut self, kind: Kind, filter: &Filter, read: R)
    where
        T: Object,
        R: FnMut(&ObjectKey, Option<&T>) -> Heard + Send + 'static,
    {
        let stream = self.client.watch::<T>(filter);
        self.tasks.spawn(follow(kind, stream, self.listeners.clone(), read));
    }
}

/// Tells `listeners` of all that a watch tells, until it or they end.
pub(super) async fn follow<T, R>(
    kind: Kind,
    stream: impl Stream<Item = WatchEvent<T>>,
    listeners: Listeners,
    mut read: R,
) where
    T: Object,
    R: FnMut(&ObjectKey, Option<&T>) -> Heard,
{
    let mut stream = std::pin::pin!(stream);
    let mut mirror = Mirror::default();
    while let Some(event) = stream.next().await {
        report(kind, &event);
        if is_none(kind, &event) && listeners.tell(Heard::synced(kind)).await.is_err() {
            return;
        }
        for change in mirror.apply(event) {
            let heard = match change {
                datastore::Change::Upsert(key, object) => read(&key, Some(&object)),
                datastore::Change::Unreadable(key, problem) => {
                    let closed = border::unreadable(kind, &key, problem);
                    closed.unwrap_or_else(|| read(&key, None))
                }
                datastore::Change::Delete(key) => read(&key, None),
                datastore::Change::Synced => Heard::synced(kind),
            };
            if listeners.tell(heard).await.is_err() {
                return;
            }
        }
    }
}

/// A listener is gone, and so the daemon is about to end.
pub(super) struct Gone;

impl Listeners {
    pub(super) async fn tell(&self, heard: Heard) -> Result<(), Gone> {
        if let Some(event) = heard.policy {
            self.policy.send(event).await.map_err(|_| Gone)?;
        }
        if let Some(event) = heard.routes {
            self.routes.send(event).await.map_err(|_| Gone)?;
        }
        Ok(())
    }
}

/// Does the server say that there is nothing of the kind, as it does not know it?
fn is_none<T>(kind: Kind, event: &WatchEvent<T>) -> bool {
    let WatchEvent::Failed(error) = event else { return false };
    let is_unknown = matches!(error, datastore::Error::UnknownKind { .. });
    let is_forbidden = matches!(error, datastore::Error::Forbidden { .. });
    (is_unknown && kind.is_optional()) || (is_forbidden && kind.is_of_docker())
}

/// Logs what is wrong with the server or an object; what is known stays in force meanwhile.
pub(super) fn report<T>(kind: Kind, event: &WatchEvent<T>) {
    match event {
        WatchEvent::Failed(error) if is_none(kind, event) => {
            tracing::debug!(?kind, %error, "taken for none of this kind");
        }
        WatchEvent::Failed(error) => {
            tracing::warn!(?kind, %error, "watch failed and will be retried");
        }
        WatchEvent::Invalid { key, error } => {
            tracing::warn!(?kind, object = %key, %error, "object cannot be read");
        }
        WatchEvent::Init => tracing::debug!(?kind, "listing"),
        WatchEvent::InitDone => tracing::debug!(?kind, "in sync"),
        WatchEvent::InitApply(_) | WatchEvent::Apply(_) | WatchEvent::Delete(_) => {}
    }
}
