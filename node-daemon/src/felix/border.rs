//! Where objects become model values, or are refused: then they count as absent, but policies deny.

use std::fmt::Display;
use std::sync::Arc;

use api::{Invalid, PolicyObject, Reading};
use calc::Change;
use datastore::ObjectKey;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use model::desired::Password;
use model::endpoint::WorkloadEndpoint;
use model::id::{NamespacedName, NodeName};
use model::peer::{BgpConfiguration, BgpNodeConfiguration};
use model::policy::{PolicyId, PolicyKind};

use super::event::{Event, Kind};
use super::policy::event::{Event as PolicyEvent, Known, OfBgp};
use super::watch::Scope;

/// What the loops for routes and for policy hear of one object.
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

    fn known(id: PolicyId, known: Option<Known>) -> Self {
        Self { policy: Some(PolicyEvent::Policy(id, known.map(Box::new))), routes: None }
    }

    pub(crate) fn synced(kind: Kind) -> Self {
        let is_asked_for = matches!(kind, Kind::Services | Kind::OtherAffinities);
        let is_of_routes = is_asked_for || Kind::ROUTES.contains(&kind);
        Self {
            routes: is_of_routes.then_some(Event::Synced(kind)),
            policy: Kind::POLICY.contains(&kind).then_some(PolicyEvent::Synced(kind)),
        }
    }
}

/// Returns the value, or why there is none: what is wrong with objects of BGP is told to more
/// than the log.
fn judged<T>(result: Option<Result<T, Invalid>>) -> calc::Known<T> {
    result.map(|result| result.map(Box::new).map_err(|error| error.detail()))
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

pub(crate) fn node(key: &ObjectKey, object: Option<&Node>) -> Heard {
    let Some(name) = accepted(key.name.parse::<NodeName>()) else { return Heard::default() };
    let node = object.and_then(|object| accepted(api::kubernetes::node(object))).map(Box::new);
    Heard {
        policy: Some(PolicyEvent::Node(name.clone(), node.clone())),
        ..Heard::routes(Change::Node(name, node))
    }
}

pub(crate) fn pool(key: &ObjectKey, object: Option<&api::IpPool>) -> Heard {
    let pool = object.and_then(|object| accepted(object.try_into())).map(Box::new);
    Heard {
        policy: Some(PolicyEvent::Pool(key.name.clone(), pool.clone())),
        ..Heard::routes(Change::Pool(key.name.clone(), pool))
    }
}

pub(crate) fn affinity(key: &ObjectKey, object: Option<&api::BlockAffinity>) -> Heard {
    let name = key.name.clone();
    let read = |object| Some((accepted(api::vrf_of(object))?, accepted(object.try_into())?));
    Heard::routes(match object.and_then(read) {
        Some((Some(vrf), affinity)) => Change::VrfAffinity(name, vrf, affinity),
        Some((None, affinity)) => Change::Affinity(name, Some(affinity)),
        None => Change::Affinity(name, None),
    })
}

/// Both need to know everybody's addresses: routes, those that lie in other nodes' blocks.
pub(crate) fn endpoint(key: &ObjectKey, object: Option<&Pod>, scope: &Scope) -> Heard {
    let prefix = &scope.interface_prefix;
    let read = |pod: &Pod| accepted(api::kubernetes::workload_endpoint(pod, prefix));
    if let Some(Err(fault)) = object.map(api::kubernetes::allowed_sources) {
        tracing::warn!(%fault, "annotation ignored: the pod sends from its own addresses only");
    }
    for fault in object.map(|pod| api::kubernetes::controls(pod).1).into_iter().flatten() {
        tracing::warn!(pod = %key, %fault, "annotation ignored: not limited");
    }
    if let Some(Err(fault)) = object.map(api::kubernetes::floating) {
        tracing::warn!(%fault, "annotation ignored: the pod has no floating address");
    }
    let endpoint = object.and_then(read).flatten().map(Arc::new);
    let for_policy = calc::policy::Change::Workload(name_of(key), endpoint.clone());
    Heard {
        policy: Some(PolicyEvent::Change(for_policy)),
        ..Heard::routes(Change::Endpoint(name_of(key), endpoint))
    }
}

/// What is no pod is routed and judged like one.
pub(crate) fn workload_endpoint(key: &ObjectKey, object: Option<&api::WorkloadEndpoint>) -> Heard {
    let endpoint: Option<WorkloadEndpoint> = object.and_then(|object| accepted(object.try_into()));
    let endpoint = endpoint.map(Arc::new);
    let id = api::workload_id(key.namespace.as_deref().unwrap_or_default(), &key.name);
    let for_policy = calc::policy::Change::Workload(id.clone(), endpoint.clone());
    Heard {
        policy: Some(PolicyEvent::Change(for_policy)),
        ..Heard::routes(Change::Endpoint(id, endpoint))
    }
}

/// Profiles that Calico makes of namespaces and accounts are nobody else's to write.
pub(crate) fn profile(key: &ObjectKey, object: Option<&api::Profile>) -> Heard {
    if api::is_reserved_profile(&key.name) {
        tracing::warn!(profile = %key.name, "object ignored: its name is kept for Kubernetes");
        return Heard::default();
    }
    let read = |object: &api::Profile| {
        let (profile, faults) = api::profile(object);
        for fault in faults {
            tracing::warn!(error = %fault, "profile is not read as a whole: what is left denies");
        }
        Arc::new(profile)
    };
    Heard::policy(calc::policy::Change::Profile(key.name.clone(), object.map(read)))
}

/// The object named `default` is the cluster's, `node.<name>` that of one node.
pub(crate) fn bgp_configuration(key: &ObjectKey, object: Option<&api::BgpConfiguration>) -> Heard {
    if let Some(node) = key.name.strip_prefix("node.") {
        let Some(node) = accepted(node.parse::<NodeName>()) else { return Heard::default() };
        let own = judged(object.map(BgpNodeConfiguration::try_from));
        let port = own.as_ref().and_then(|own| own.as_ref().ok()?.listen_port);
        return Heard {
            policy: Some(PolicyEvent::BgpPort(node.clone(), port)),
            ..Heard::routes(Change::NodeBgp(node, own))
        };
    }
    if key.name != "default" {
        return Heard::default();
    }
    let (configuration, faults) = object.map(api::bgp_configuration).unzip();
    let configuration: Option<BgpConfiguration> = configuration;
    let faults = faults.iter().flatten().map(Invalid::detail).collect();
    let of_policy = configuration.as_ref().map(OfBgp::of).unwrap_or_default();
    Heard {
        policy: Some(PolicyEvent::Bgp(Box::new(of_policy))),
        ..Heard::routes(Change::Bgp(configuration.map(Box::new), faults))
    }
}

pub(crate) fn bgp_peer(key: &ObjectKey, object: Option<&api::BgpPeer>) -> Heard {
    Heard::routes(Change::Peer(key.name.clone(), judged(object.map(TryInto::try_into))))
}

pub(crate) fn bgp_filter(key: &ObjectKey, object: Option<&api::BgpFilter>) -> Heard {
    Heard::routes(Change::Filter(key.name.clone(), judged(object.map(TryInto::try_into))))
}

pub(crate) fn service(key: &ObjectKey, object: Option<&Service>) -> Heard {
    let service = object.and_then(|object| accepted(api::kubernetes::service(object)));
    Heard::routes(Change::Service(name_of(key), service.map(Arc::new)))
}

/// A value that is no password counts as absent, apart from what is said about it.
pub(crate) fn secret(name: &str, object: Option<&Secret>) -> Heard {
    let values = object.map(|object| {
        let data = object.data.iter().flatten();
        data.map(|(key, value)| (key.clone(), Password::new(&value.0))).collect()
    });
    Heard::routes(Change::Secret(name.to_owned(), values))
}

/// Returns how to read policies of a kind.
pub(crate) fn policies<T: PolicyObject>(
    kind: PolicyKind,
) -> impl Fn(&ObjectKey, Option<&T>) -> Heard {
    move |key, object| {
        let id = id_of(kind, key);
        let read = |object: &T| known(object.reading(), object.generation());
        Heard::known(id, object.map(read))
    }
}

/// Returns what is heard of an object of which nothing but the key could be read.
pub(crate) fn unreadable(kind: Kind, key: &ObjectKey, problem: String) -> Option<Heard> {
    let name = key.name.clone();
    if kind == Kind::BgpPeers {
        return Some(Heard::routes(Change::Peer(name, Some(Err(problem)))));
    }
    if kind == Kind::BgpFilters {
        return Some(Heard::routes(Change::Filter(name, Some(Err(problem)))));
    }
    let id = id_of(kind.of_policy()?, key);
    let reading = Reading::unreadable(id.clone(), problem);
    Some(Heard::known(id, Some(known(reading, 0))))
}

fn id_of(kind: PolicyKind, key: &ObjectKey) -> PolicyId {
    PolicyId { kind, namespace: key.namespace.clone(), name: key.name.clone() }
}

fn known(reading: Reading, generation: i64) -> Known {
    for fault in &reading.faults {
        tracing::warn!(error = %fault, "policy is not read as a whole: what is left opens nothing");
    }
    let faults = reading.faults.iter().map(Invalid::detail).collect();
    Known { policy: Arc::new(reading.policy), generation, faults }
}

pub(crate) fn namespace(key: &ObjectKey, object: Option<&Namespace>) -> Heard {
    let profile = object.map(api::kubernetes::namespace_profile).map(Arc::new);
    Heard::policy(calc::policy::Change::Profile(format!("kns.{}", key.name), profile))
}

pub(crate) fn service_account(key: &ObjectKey, object: Option<&ServiceAccount>) -> Heard {
    let NamespacedName { namespace, name } = name_of(key);
    let profile = object.map(api::kubernetes::service_account_profile).map(Arc::new);
    Heard::policy(calc::policy::Change::Profile(format!("ksa.{namespace}.{name}"), profile))
}

pub(crate) fn tier(key: &ObjectKey, object: Option<&api::Tier>) -> Heard {
    let tier = object.and_then(|object| accepted(object.try_into()));
    Heard::policy(calc::policy::Change::Tier(key.name.clone(), tier))
}

pub(crate) fn network_set<T>(key: &ObjectKey, object: Option<&T>) -> Heard
where
    for<'a> model::network_set::NetworkSet: TryFrom<&'a T, Error = api::Invalid>,
{
    let set = object.and_then(|object| accepted(object.try_into())).map(Arc::new);
    let id =
        calc::policy::NetworkSetId { namespace: key.namespace.clone(), name: key.name.clone() };
    Heard::policy(calc::policy::Change::NetworkSet(id, set))
}

pub(crate) fn host_endpoint(key: &ObjectKey, object: Option<&api::HostEndpoint>) -> Heard {
    let endpoint = object.and_then(|object| accepted(object.try_into())).map(Arc::new);
    Heard::policy(calc::policy::Change::Host(key.name.clone(), endpoint))
}

pub(crate) fn endpoint_slice(key: &ObjectKey, object: Option<&EndpointSlice>) -> Heard {
    let slice = object.and_then(|object| accepted(api::kubernetes::endpoint_slice(object)));
    let slice = slice.map(Arc::new);
    let for_policy = calc::policy::Change::EndpointSlice(name_of(key), slice.clone());
    Heard {
        policy: Some(PolicyEvent::Change(for_policy)),
        ..Heard::routes(Change::EndpointSlice(name_of(key), slice))
    }
}

fn name_of(key: &ObjectKey) -> NamespacedName {
    let namespace = key.namespace.clone().unwrap_or_default();
    NamespacedName { namespace, name: key.name.clone() }
}
