//! Handles orphaned by the thousand, while some are written to: all are found, and only they are
//! deleted (R05).

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a failing test should stop at once"
)]

use std::process::Command;

use k8s_openapi::api::core::v1::Node;
use lab::api_access::Api;
use lab::control_plane::{ControlPlane, Identity, Kind, Settings};
use model::block::Owner;
use serde_json::{Value, json};

/// How many handles lead nowhere: `ORPHANS`, or a tenth of what clusters were seen to have.
const ORPHANS: usize = 3_000;
/// How many writers make them.
const WRITERS: usize = 8;

#[test]
fn orphans_by_the_thousand_are_deleted_and_nothing_else_on_the_embedded_datastore() {
    orphans_are_deleted(Kind::Embedded);
}

#[test]
fn orphans_by_the_thousand_are_deleted_and_nothing_else_on_kubernetes() {
    orphans_are_deleted(Kind::Kubernetes);
}

fn orphans_are_deleted(kind: Kind) {
    let count = std::env::var("ORPHANS").map_or(ORPHANS, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { is_durable: false, ..Settings::loopback(kind, dir.path()) };
    let plane = ControlPlane::start(settings).unwrap_or_else(|error| panic!("{error}"));
    plane.install().unwrap();
    let api = plane.api().unwrap();
    let handle = |name: &str| {
        json!({
            "metadata": {"name": name},
            "spec": {"handleID": name, "block": {"10.9.0.0/26": 1}, "deleted": false},
        })
    };
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (api, handle) = (&api, &handle);
            scope.spawn(move || {
                for number in (writer..count).step_by(WRITERS) {
                    let name = format!("k8s-pod-network.orphan{number}");
                    api.create::<api::IpamHandle>(handle(&name)).unwrap();
                }
            });
        }
    });
    let kept = holders(&api);
    let ask = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_calicoctl"));
        command.env("KUBECONFIG", plane.kubeconfig(Identity::Admin)).current_dir(dir.path());
        command.arg("ipam").args(arguments).output().unwrap()
    };
    let checked = ask(&["check", "--format=json"]);
    let found: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let orphans = found["problems"].as_array().unwrap().iter();
    assert_eq!(orphans.filter(|one| one["problem"] == "orphan handle").count(), count);
    // Meanwhile somebody writes to some of them, as an ADD does before its block gives.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in (0..count).rev().step_by(20) {
                let name = format!("k8s-pod-network.orphan{number}");
                let Some(mut handle) = api.get::<api::IpamHandle>(&name).unwrap() else { return };
                handle.spec.block.insert("10.9.0.64/26".to_owned(), 1);
                // Who comes too late is told so.
                let _ = api.update(&handle);
            }
        });
        let repaired = ask(&["repair", "--yes", "--grace=0", "--undo-file=undo.json"]);
        assert!(!repaired.stdout.is_empty(), "{repaired:?}");
    });
    let repaired = ask(&["repair", "--yes", "--grace=0", "--undo-file=again.json"]);
    assert!(repaired.status.success(), "{repaired:?}");
    let mut left: Vec<String> =
        api.list::<api::IpamHandle>().unwrap().iter().map(|one| one.name().to_owned()).collect();
    left.sort();
    assert_eq!(left, kept);
}

/// Makes a block with holders of whom nothing is known, which therefore are alive; returns the
/// names of their handles.
fn holders(api: &Api) -> Vec<String> {
    api.create::<api::IpPool>(json!({
        "metadata": {"name": "pool"}, "spec": {"cidr": "10.9.0.0/24", "nodeSelector": "all()"},
    }))
    .unwrap();
    api.create::<Node>(json!({"metadata": {"name": "node-1"}})).unwrap();
    let owner = Owner::Host("node-1".parse().unwrap());
    let (cidr, now) = ("10.9.0.0/26".parse().unwrap(), ledger::now());
    let clock = ipam::slots::Clock { now, cooldown: std::time::Duration::ZERO };
    let mut block = ipam::slots::fresh(cidr, owner.clone(), now).unwrap();
    let mut names = Vec::new();
    for ordinal in 0..20 {
        let name = format!("k8s-pod-network.kept{ordinal}");
        let handle = Some(model::id::HandleId(name.clone()));
        let holder = model::block::Attributes { handle, ..Default::default() };
        block = ipam::slots::allocate(&block, ordinal, &holder, clock).unwrap();
        api.create::<api::IpamHandle>(json!({
            "metadata": {"name": name},
            "spec": {"handleID": name, "block": {"10.9.0.0/26": 1}, "deleted": false},
        }))
        .unwrap();
        names.push(name);
    }
    api.create::<api::IpamBlock>(json!(api::IpamBlock::from_model(&block))).unwrap();
    let state = model::block::AffinityState::Confirmed;
    let claim = model::block::Affinity { owner, cidr, state, is_deleted: false };
    api.create::<api::BlockAffinity>(json!(api::BlockAffinity::from_model(&claim))).unwrap();
    names.sort();
    names
}
