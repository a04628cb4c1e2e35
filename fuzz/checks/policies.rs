//! What holds for any JSON as policies: they are read, calculated and rendered, step by step as
//! at once, and what cannot be read of an object opens nothing that it would have closed.
//!
//! The input is a list of objects; each takes the place of an earlier one of its kind and name.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::kubernetes::ClusterNetworkPolicy;
use api::{PolicyObject, Reading};
use calc::policy::{Change, Inputs, Policies, oracle};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use model::endpoint::{NamedPort, WorkloadEndpoint};
use model::id::NamespacedName;
use model::policy::{Action, PolicyId, PolicyKind, Profile, Rule};
use model::pool::IpPool;
use model::vrf::{PoolVrf, VrfName};
use render::{Renderer, Settings, render};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The most objects of one input: the oracle looks at all of them after each.
const MOST: usize = 8;

/// Panics if a policy breaks a promise.
pub fn check(bytes: &[u8]) {
    let Ok(Value::Array(objects)) = serde_json::from_slice::<Value>(bytes) else { return };
    let node = || "node-1".parse().expect("a node's name");
    let (mut policies, mut inputs) = (Policies::new(node()), Inputs::new(node()));
    for change in world() {
        policies.apply(change.clone());
        inputs.apply(change);
    }
    drop(policies.take_changes());
    let mut renderer = Renderer::new(policies.state().clone(), Settings::default());
    for reading in objects.iter().take(MOST).filter_map(reading) {
        judge(&reading);
        let policy = Arc::new(reading.policy);
        let change = Change::Policy(policy.id.clone(), Some(policy));
        policies.apply(change.clone());
        inputs.apply(change);
        drop(renderer.apply(&policies.take_changes()));
        assert_eq!(policies.state(), &oracle::state(&inputs), "step by step and at once differ");
        let at_once = render(policies.state(), &Settings::default());
        assert_eq!(renderer.tables(), &at_once, "rendered step by step and at once differ");
    }
}

/// What could not be read denies, or belongs to a policy that can only allow.
fn judge(reading: &Reading) {
    let Reading { policy, faults } = reading;
    let mut rules = policy.ingress.iter().chain(&policy.egress).flatten();
    assert!(
        rules.all(|rule: &Rule| rule.refused.is_none() || rule.action == Action::Deny),
        "a rule that cannot be read does more than deny"
    );
    assert!(faults.iter().all(|fault| !fault.to_string().is_empty()), "a fault without words");
    let is_whole = reading.clone().complete().is_ok();
    assert_eq!(is_whole, faults.is_empty());
}

fn reading(object: &Value) -> Option<Reading> {
    let word = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    match (word("apiVersion"), word("kind")) {
        ("networking.k8s.io/v1", _) => read::<NetworkPolicy>(object, PolicyKind::Kubernetes),
        (_, "NetworkPolicy") => read::<api::CalicoNetworkPolicy>(object, PolicyKind::Network),
        (_, "GlobalNetworkPolicy") => read::<api::GlobalNetworkPolicy>(object, PolicyKind::Global),
        (_, "ClusterNetworkPolicy") => {
            read::<ClusterNetworkPolicy>(object, PolicyKind::KubernetesCluster)
        }
        (_, "StagedNetworkPolicy") => {
            read::<api::StagedNetworkPolicy>(object, PolicyKind::StagedNetwork)
        }
        (_, "StagedGlobalNetworkPolicy") => {
            read::<api::StagedGlobalNetworkPolicy>(object, PolicyKind::StagedGlobal)
        }
        (_, "StagedKubernetesNetworkPolicy") => {
            read::<api::StagedKubernetesNetworkPolicy>(object, PolicyKind::StagedKubernetes)
        }
        _ => None,
    }
}

/// Reads an object as nodes do; the API server sees to it that it has names.
fn read<T: PolicyObject + DeserializeOwned>(object: &Value, kind: PolicyKind) -> Option<Reading> {
    let name = object.pointer("/metadata/name")?.as_str()?.to_owned();
    let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str);
    if namespace.is_some() != kind.is_namespaced() || namespace.is_some_and(str::is_empty) {
        return None;
    }
    let id = PolicyId { kind, namespace: namespace.map(str::to_owned), name };
    Some(match serde_json::from_value::<T>(object.clone()) {
        Ok(object) => object.reading(),
        Err(error) => Reading::unreadable(id, error.to_string()),
    })
}

/// A namespace, a pod here and one elsewhere, and one here of a tenant with the first one's addresses.
fn world() -> Vec<Change> {
    let profile = Profile {
        name: "kns.shop".to_owned(),
        labels_to_apply: [("pcns.team".to_owned(), "red".to_owned())].into(),
        ..Profile::default_allow()
    };
    let mut changes = vec![Change::Profile(profile.name.clone(), Some(Arc::new(profile)))];
    let red: VrfName = "red".parse().expect("a VRF's name");
    let id = "5001".parse().expect("a VRF's number");
    let vrf = Some(PoolVrf { name: red.clone(), id, imports: BTreeSet::new() });
    let pool = IpPool { vrf, ..IpPool::plain("red", "10.0.0.0/24".parse().expect("a range")) };
    changes.push(Change::Pool(pool.name.clone(), Some(Arc::new(pool))));
    let pods = [("web", "node-1", None), ("db", "node-2", None), ("tenant", "node-1", Some(red))];
    for (number, (name, node, vrf)) in pods.into_iter().enumerate() {
        let place = number % 2;
        let pod = NamespacedName { namespace: "shop".to_owned(), name: name.to_owned() };
        let labels = [
            ("app", name),
            ("projectcalico.org/namespace", "shop"),
            ("projectcalico.org/orchestrator", "k8s"),
            ("projectcalico.org/serviceaccount", "default"),
        ];
        let if_name = format!("cali{number}").parse().expect("an interface's name");
        let addrs = vec![
            format!("10.0.0.{place}").parse().expect("an address"),
            format!("fd00::{place}").parse().expect("an address"),
        ];
        let node = node.parse().expect("a node's name");
        let endpoint = WorkloadEndpoint {
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            profiles: vec!["kns.shop".to_owned()],
            ports: vec![NamedPort { name: "http".to_owned(), protocol: 6, port: 80 }],
            vrf,
            ..WorkloadEndpoint::new(pod.clone(), node, if_name, addrs)
        };
        changes.push(Change::Workload(pod, Some(Arc::new(endpoint))));
    }
    changes
}
