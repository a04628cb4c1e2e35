//! Where policies are in force, asked of a real datastore.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a failing test should stop at once"
)]

use std::process::Command;

use lab::control_plane::{ControlPlane, Identity, Kind, Settings};
use model::policy::NodeReport;
use serde_json::json;

#[test]
fn policies_are_counted_on_the_embedded_datastore() {
    status_on(Kind::Embedded);
}

#[test]
fn policies_are_counted_on_kubernetes() {
    status_on(Kind::Kubernetes);
}

/// One node has reported, another has not, and one rule cannot be followed.
fn status_on(kind: Kind) {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { is_durable: false, ..Settings::loopback(kind, dir.path()) };
    let plane = ControlPlane::start(settings).unwrap_or_else(|error| panic!("{error}"));
    plane.install().unwrap();
    let api = plane.api().unwrap();
    for node in ["one", "two"] {
        api.create_any(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}))
            .unwrap();
    }
    let rules = json!([{"action": "Allow", "protocol": "HTTP"}]);
    let policy = json!({
        "apiVersion": "crd.projectcalico.org/v1", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "closed"}, "spec": {"selector": "app == 'db'", "ingress": rules},
    });
    let made = api.create_any(&policy).unwrap();
    let generation = made["metadata"]["generation"].as_i64().unwrap();
    let id: model::policy::PolicyId = "gnp/closed".parse().unwrap();
    let report = NodeReport {
        node: "one".parse().unwrap(),
        heard: [(&id, generation)].into_iter().collect(),
        programmed: [(id, generation)].into(),
        failure: None,
    };
    let report = api::policy_report::config_map(&report, None);
    api.create::<k8s_openapi::api::core::v1::ConfigMap>(serde_json::to_value(report).unwrap())
        .unwrap();

    let ask = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_calicoctl"))
            .args(arguments)
            .env("KUBECONFIG", plane.kubeconfig(Identity::Admin))
            .output()
            .unwrap()
    };
    let all = ask(&["policy", "status", "-o", "json"]);
    assert_eq!(all.status.code(), Some(3), "{all:?}");
    let said: serde_json::Value = serde_json::from_slice(&all.stdout).unwrap();
    let policy = &said["policies"][0];
    let counts = ["generation", "programmed", "behind", "pending"].map(|key| policy[key].as_i64());
    assert_eq!(counts, [generation, 1, 0, 1].map(Some), "{said}");
    assert!(policy["rejected"][0].as_str().unwrap().contains("HTTP"), "{said}");
    let missing = ask(&["policy", "status", "np/shop/web"]);
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
}
