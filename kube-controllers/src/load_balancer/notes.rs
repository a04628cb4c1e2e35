//! What Services are told, each thing once: in the log, and as events that `kubectl describe` shows.

use std::collections::{BTreeMap, BTreeSet};

use api::Invalid;
use datastore::Client;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use model::service::BalancerRequest;
use tracing::{debug, warn};

/// What was last complained of, by the Service's uid or, if it cannot be read, by its name.
#[derive(Debug, Default)]
pub(super) struct Notes(BTreeMap<String, String>);

impl Notes {
    /// Says that a Service cannot be read.
    pub(super) fn complain_of(&mut self, error: &Invalid) {
        let text = error.to_string();
        if self.0.get(&error.object) != Some(&text) {
            warn!("{text}");
            self.0.insert(error.object.clone(), text);
        }
    }

    /// Says why a Service has no address, if that is new.
    pub(super) async fn complain(
        &mut self,
        client: &Client,
        request: &BalancerRequest,
        problem: &str,
    ) {
        if self.0.get(&request.uid).is_some_and(|before| before == problem) {
            return;
        }
        warn!(service = %request.id, problem, "no address");
        self.0.insert(request.uid.clone(), problem.to_owned());
        if let Err(error) = client.create(&event(request, problem)).await {
            debug!(%error, "cannot write an event");
        }
    }

    /// Takes note that a Service has what it wants.
    pub(super) fn content(&mut self, request: &BalancerRequest) {
        self.0.remove(&request.uid);
    }

    /// Forgets Services that are not among these; those that cannot be read stay.
    pub(super) fn forget_others<'a>(&mut self, rest: impl Iterator<Item = &'a BalancerRequest>) {
        let rest: BTreeSet<&str> = rest.map(|request| request.uid.as_str()).collect();
        self.0.retain(|key, _| rest.contains(key.as_str()) || key.starts_with("Service "));
    }
}

fn event(request: &BalancerRequest, problem: &str) -> Event {
    let now = jiff::Timestamp::now();
    let id = &request.id;
    // As Kubernetes' own events are named: by their object and their time.
    let name = format!("{}.{:x}", id.name, now.as_nanosecond());
    Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(id.namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Service".to_owned()),
            name: Some(id.name.clone()),
            namespace: Some(id.namespace.clone()),
            uid: Some(request.uid.clone()),
            ..ObjectReference::default()
        },
        reason: Some("NoLoadBalancerAddress".to_owned()),
        message: Some(problem.to_owned()),
        type_: Some("Warning".to_owned()),
        source: Some(EventSource {
            component: Some("calico-kube-controllers".to_owned()),
            ..EventSource::default()
        }),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        ..Event::default()
    }
}
