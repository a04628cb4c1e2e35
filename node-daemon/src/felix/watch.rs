//! From the datastore's watches to [`Event`]s: objects become model values here, or are refused.

use std::fmt::Display;
use std::sync::Arc;

use calc::Change;
use datastore::{Client, Filter, Mirror, Object, ObjectKey, WatchEvent};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use model::id::{NamespacedName, NodeName};
use model::policy::{PolicyId, PolicyKind};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

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

/// What each of them hears of one object.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// For routes.
    pub(crate) routes: Option<Event>,
    /// For policy.
    pub(crate) policy: Option<PolicyEvent>,
}

impl Heard {
    fn routes(change: Change) -> Self {
        Self { routes: Some(Event::Store(change)), policy: None }
    }

    fn policy(change: calc::policy::Change) -> Self {
        Self { routes: None, policy: Some(PolicyEvent::Change(change)) }
    }

    fn synced(kind: Kind) -> Self {
        Self {
            routes: Kind::ROUTES.contains(&kind).then_some(Event::Synced(kind)),
            policy: Kind::POLICY.contains(&kind).then_some(PolicyEvent::Synced(kind)),
        }
    }
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
    let own_affinities = Filter {
        labels: Some(format!(
            "{}={}",
            api::names::HOSTNAME_HASH_LABEL,
            api::names::hostname_hash(scope.node.as_str())
        )),
        ..Filter::default()
    };
    let everything = Filter::default();
    let mut watches = Watches { client, listeners, tasks: JoinSet::new() };
    watches.start(Kind::Nodes, &everything, node);
    watches.start(Kind::Pools, &everything, pool);
    watches.start(Kind::Affinities, &own_affinities, affinity);
    let pods = scope.clone();
    watches.start(Kind::Endpoints, &everything, move |key, object| endpoint(key, object, &pods));
    watches.start(Kind::BgpConfigurations, &everything, bgp_configuration);
    watches.start(Kind::BgpPeers, &everything, bgp_peer);
    watches.start(Kind::FelixConfigurations, &everything, move |key, object| {
        settings.take(key, object)
    });
    watches.start_policies();
    watches.start(Kind::Namespaces, &everything, namespace);
    watches.start(Kind::ServiceAccounts, &everything, service_account);
    watches.start(Kind::Tiers, &everything, tier);
    watches.start(Kind::NetworkSets, &everything, network_set::<api::NetworkSet>);
    watches.start(Kind::GlobalNetworkSets, &everything, network_set::<api::GlobalNetworkSet>);
    watches.start(Kind::HostEndpoints, &everything, host_endpoint);
    watches.start(Kind::EndpointSlices, &everything, endpoint_slice);
    watches.tasks
}

struct Watches<'a> {
    client: &'a Client,
    listeners: &'a Listeners,
    tasks: JoinSet<()>,
}

impl Watches<'_> {
    /// Starts the watches of all kinds of policies.
    fn start_policies(&mut self) {
        let all = Filter::default();
        self.start(Kind::Policies, &all, |key, object: Option<&api::CalicoNetworkPolicy>| {
            policy(PolicyKind::Network, key, object.map(TryInto::try_into))
        });
        self.start(Kind::GlobalPolicies, &all, |key, object: Option<&api::GlobalNetworkPolicy>| {
            policy(PolicyKind::Global, key, object.map(TryInto::try_into))
        });
        self.start(Kind::KubernetesPolicies, &all, |key, object: Option<&NetworkPolicy>| {
            let read = object.map(api::kubernetes::network_policy);
            policy(PolicyKind::Kubernetes, key, read)
        });
        self.start(Kind::StagedPolicies, &all, |key, object: Option<&api::StagedNetworkPolicy>| {
            policy(PolicyKind::StagedNetwork, key, object.map(TryInto::try_into))
        });
        self.start(
            Kind::StagedGlobalPolicies,
            &all,
            |key, object: Option<&api::StagedGlobalNetworkPolicy>| {
                policy(PolicyKind::StagedGlobal, key, object.map(TryInto::try_into))
            },
        );
        self.start(
            Kind::StagedKubernetesPolicies,
            &all,
            |key, object: Option<&api::StagedKubernetesNetworkPolicy>| {
                policy(PolicyKind::StagedKubernetes, key, object.map(TryInto::try_into))
            },
        );
    }

    /// Starts a watch of `T`, of whose objects `read` says what to tell whom.
    fn start<T, R>(&mut self, kind: Kind, filter: &Filter, mut read: R)
    where
        T: Object,
        R: FnMut(&ObjectKey, Option<&T>) -> Heard + Send + 'static,
    {
        let stream = self.client.watch::<T>(filter);
        let listeners = self.listeners.clone();
        self.tasks.spawn(async move {
            let mut stream = std::pin::pin!(stream);
            let mut mirror = Mirror::default();
            while let Some(event) = stream.next().await {
                report(kind, &event);
                for change in mirror.apply(event) {
                    let heard = match change {
                        datastore::Change::Upsert(key, object) => read(&key, Some(&object)),
                        datastore::Change::Delete(key) => read(&key, None),
                        datastore::Change::Synced => Heard::synced(kind),
                    };
                    if listeners.tell(heard).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
}

/// A listener is gone, and so the daemon is about to end.
struct Gone;

impl Listeners {
    async fn tell(&self, heard: Heard) -> Result<(), Gone> {
        if let Some(event) = heard.policy {
            self.policy.send(event).await.map_err(|_| Gone)?;
        }
        if let Some(event) = heard.routes {
            self.routes.send(event).await.map_err(|_| Gone)?;
        }
        Ok(())
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

fn node(key: &ObjectKey, object: Option<&Node>) -> Heard {
    let Some(name) = accepted(key.name.parse::<NodeName>()) else { return Heard::default() };
    let node = object.and_then(|object| accepted(api::kubernetes::node(object))).map(Box::new);
    Heard {
        policy: Some(PolicyEvent::Node(name.clone(), node.clone())),
        ..Heard::routes(Change::Node(name, node))
    }
}

fn pool(key: &ObjectKey, object: Option<&api::IpPool>) -> Heard {
    let pool = object.and_then(|object| accepted(object.try_into())).map(Box::new);
    Heard {
        policy: Some(PolicyEvent::Pool(key.name.clone(), pool.clone())),
        ..Heard::routes(Change::Pool(key.name.clone(), pool))
    }
}

fn affinity(key: &ObjectKey, object: Option<&api::BlockAffinity>) -> Heard {
    let affinity = object.and_then(|object| accepted(object.try_into()));
    Heard::routes(Change::Affinity(key.name.clone(), affinity))
}

/// Routes are made for this node's pods; policy needs to know everybody's addresses.
fn endpoint(key: &ObjectKey, object: Option<&Pod>, scope: &Scope) -> Heard {
    let prefix = &scope.interface_prefix;
    let read = |pod: &Pod| accepted(api::kubernetes::workload_endpoint(pod, prefix));
    let endpoint = object.and_then(read).flatten();
    let own = endpoint.as_ref().filter(|endpoint| endpoint.node == scope.node);
    let own = Change::Endpoint(name_of(key), own.cloned().map(Box::new));
    let everybodys = calc::policy::Change::Workload(name_of(key), endpoint.map(Arc::new));
    Heard { policy: Some(PolicyEvent::Change(everybodys)), ..Heard::routes(own) }
}

/// Only the object named `default` is the cluster's.
fn bgp_configuration(key: &ObjectKey, object: Option<&api::BgpConfiguration>) -> Heard {
    if key.name != "default" {
        return Heard::default();
    }
    let configuration = object.and_then(|object| accepted(object.try_into()));
    Heard::routes(Change::Bgp(configuration.map(Box::new)))
}

fn bgp_peer(key: &ObjectKey, object: Option<&api::BgpPeer>) -> Heard {
    let peer = object.and_then(|object| accepted(object.try_into()));
    Heard::routes(Change::Peer(key.name.clone(), peer.map(Box::new)))
}

fn policy(
    kind: PolicyKind,
    key: &ObjectKey,
    read: Option<Result<model::policy::Policy, api::Invalid>>,
) -> Heard {
    let id = PolicyId { kind, namespace: key.namespace.clone(), name: key.name.clone() };
    let policy = read.and_then(accepted).map(Arc::new);
    Heard::policy(calc::policy::Change::Policy(id, policy))
}

fn namespace(key: &ObjectKey, object: Option<&Namespace>) -> Heard {
    let profile = object.map(api::kubernetes::namespace_profile).map(Arc::new);
    Heard::policy(calc::policy::Change::Profile(format!("kns.{}", key.name), profile))
}

fn service_account(key: &ObjectKey, object: Option<&ServiceAccount>) -> Heard {
    let NamespacedName { namespace, name } = name_of(key);
    let profile = object.map(api::kubernetes::service_account_profile).map(Arc::new);
    Heard::policy(calc::policy::Change::Profile(format!("ksa.{namespace}.{name}"), profile))
}

fn tier(key: &ObjectKey, object: Option<&api::Tier>) -> Heard {
    let tier = object.and_then(|object| accepted(object.try_into()));
    Heard::policy(calc::policy::Change::Tier(key.name.clone(), tier))
}

fn network_set<T>(key: &ObjectKey, object: Option<&T>) -> Heard
where
    for<'a> model::network_set::NetworkSet: TryFrom<&'a T, Error = api::Invalid>,
{
    let set = object.and_then(|object| accepted(object.try_into())).map(Arc::new);
    let id =
        calc::policy::NetworkSetId { namespace: key.namespace.clone(), name: key.name.clone() };
    Heard::policy(calc::policy::Change::NetworkSet(id, set))
}

fn host_endpoint(key: &ObjectKey, object: Option<&api::HostEndpoint>) -> Heard {
    let endpoint = object.and_then(|object| accepted(object.try_into())).map(Arc::new);
    Heard::policy(calc::policy::Change::Host(key.name.clone(), endpoint))
}

fn endpoint_slice(key: &ObjectKey, object: Option<&EndpointSlice>) -> Heard {
    let slice = object.and_then(|object| accepted(api::kubernetes::endpoint_slice(object)));
    Heard::policy(calc::policy::Change::EndpointSlice(name_of(key), slice.map(Arc::new)))
}

fn name_of(key: &ObjectKey) -> NamespacedName {
    let namespace = key.namespace.clone().unwrap_or_default();
    NamespacedName { namespace, name: key.name.clone() }
}
