//! Planted faults on a real datastore: the check finds each, the repair mends them without
//! touching what is alive, and the way back brings them back.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a failing test should stop at once"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use lab::api_access::Api;
use lab::control_plane::{ControlPlane, Identity, Kind, Settings};
use serde_json::{Value, json};

#[test]
fn planted_faults_are_found_and_repaired_and_come_back_on_the_embedded_datastore() {
    faults_on(Kind::Embedded);
}

#[test]
fn planted_faults_are_found_and_repaired_and_come_back_on_kubernetes() {
    faults_on(Kind::Kubernetes);
}

#[test]
fn a_pool_is_split_only_under_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(Kind::Embedded, dir.path());
    let information = json!({
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "ClusterInformation",
        "metadata": {"name": "default"},
        "spec": {"calicoVersion": "v3.32.1", "datastoreReady": true},
    });
    cluster.api.create_any(&information).unwrap();
    let split = ["ipam", "split", "2", "--name=default-ipv4-ippool"];
    let refused = complaint(&cluster.ask(&split));
    assert!(refused.contains("calicoctl datastore migrate lock"), "{refused}");
    assert!(cluster.ask(&["datastore", "migrate", "lock"]).status.success());
    let done = cluster.ask(&split);
    assert!(done.status.success(), "{done:?}");
    assert!(cluster.ask(&["datastore", "migrate", "unlock"]).status.success());
    let mut ranges: Vec<String> =
        cluster.api.list::<api::IpPool>().unwrap().into_iter().map(|pool| pool.spec.cidr).collect();
    ranges.sort();
    assert_eq!(ranges, ["10.0.0.0/25", "10.0.0.128/25", "fd00:10:244::/48"]);
    let configured = cluster.ask(&["ipam", "configure", "--strictaffinity=true"]);
    assert!(configured.status.success(), "{configured:?}");
    let config = cluster.api.get::<api::IpamConfig>("default").unwrap().unwrap();
    assert_eq!(config.spec.strict_affinity, Some(true));
    let version = cluster.ask(&["version"]);
    let said = String::from_utf8_lossy(&version.stdout).into_owned();
    assert!(said.contains("Cluster Version:   v3.32.1"), "{said}");
}

/// A cluster with the faults of `testdata/calicoctl/cluster.yaml`.
struct Cluster {
    dir: PathBuf,
    plane: ControlPlane,
    api: Api,
}

fn faults_on(kind: Kind) {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(kind, dir.path());
    let report = dir.path().join("report.json");
    let checked = cluster.ask(&["ipam", "check", "--format=json", "-o", &text(&report)]);
    assert_eq!(checked.status.code(), Some(3), "{checked:?}");
    let found: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let planted = [
        ("handle mismatch", 1),
        ("leak", 3),
        ("missing handle", 1),
        ("orphan handle", 1),
        ("outside every pool", 1),
        ("overlap", 1),
        ("stale affinity", 2),
    ];
    assert_eq!(problems(&found), planted.map(|(name, count)| (name.to_owned(), count)).into());
    let in_use = cluster.ask(&["ipam", "release", "--ip=10.0.0.3"]);
    assert!(complaint(&in_use).contains("is in use by pod shop/cart"), "{in_use:?}");
    let before = cluster.holdings();
    let undo: Vec<PathBuf> = ["one", "two"].map(|name| dir.path().join(name)).into();
    for file in &undo {
        let repair = ["ipam", "repair", "--yes", "--grace=0", "--undo-file", &text(file)];
        let repaired = cluster.ask(&repair);
        assert!(repaired.status.success(), "{repaired:?}");
    }
    let checked = cluster.ask(&["ipam", "check"]);
    assert_eq!(checked.status.code(), Some(0), "{}", String::from_utf8_lossy(&checked.stdout));
    let live = ["10.0.0.2", "10.0.0.3", "10.0.0.4", "fd00:10:244::1"];
    assert_eq!(cluster.holders().into_keys().collect::<Vec<_>>(), live);
    for file in undo.iter().rev() {
        let undone = cluster.ask(&["ipam", "repair", "--undo", &text(file)]);
        assert!(undone.status.success(), "{undone:?}");
    }
    assert_eq!(cluster.holdings(), before);
    cluster.releases_single_addresses(&report);
}

impl Cluster {
    fn start(kind: Kind, dir: &Path) -> Self {
        let settings = Settings { is_durable: false, ..Settings::loopback(kind, dir) };
        let plane = ControlPlane::start(settings).unwrap_or_else(|error| panic!("{error}"));
        plane.install().unwrap();
        let api = plane.api().unwrap();
        api.create::<Namespace>(json!({"metadata": {"name": "shop"}})).unwrap();
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "none", "namespace": "shop"}});
        api.create_any(&account).unwrap();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/calicoctl/cluster.yaml");
        let objects: Vec<Value> =
            serde_saphyr::from_multiple(&std::fs::read_to_string(path).unwrap()).unwrap();
        // The server gives services an uid of its own, and their handles are made of it.
        let is_of_service = |object: &Value| object.to_string().contains("192.0.2.");
        for mut object in objects.into_iter().filter(|object| !is_of_service(object)) {
            object["metadata"]
                .as_object_mut()
                .unwrap()
                .retain(|key, _| !["uid", "creationTimestamp"].contains(&key.as_str()));
            if object["kind"] == "Pod" {
                object["spec"]["serviceAccountName"] = json!("none");
                object["spec"]["automountServiceAccountToken"] = json!(false);
            }
            api.create_any(&object).unwrap();
            if object["kind"] == "Pod" {
                let name = object["metadata"]["name"].as_str().unwrap();
                let status = json!({"status": object["status"]});
                api.patch_status::<Pod>(Some("shop"), name, &status).unwrap();
            }
        }
        Self { dir: dir.to_owned(), plane, api }
    }

    /// Runs calicoctl as the administrator.
    fn ask(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_calicoctl"));
        command.env("KUBECONFIG", self.plane.kubeconfig(Identity::Admin)).current_dir(&self.dir);
        command.args(arguments).output().unwrap()
    }

    /// Returns who holds which address.
    fn holders(&self) -> BTreeMap<String, String> {
        let mut holders = BTreeMap::new();
        for block in self.api.list::<api::IpamBlock>().unwrap() {
            let block = model::block::Block::try_from(&block).unwrap();
            for ordinal in 0..u32::try_from(block.allocations.len()).unwrap() {
                let Some(holder) = ipam::slots::holder(&block, ordinal) else { continue };
                let addr = ipam::slots::address(&block, ordinal).unwrap().to_string();
                let handle = holder.handle.as_ref().unwrap().to_string();
                assert_eq!(holders.insert(addr, handle), None);
            }
        }
        holders
    }

    /// Returns all that repairs may change: who holds what, and the claims, handles and blocks.
    fn holdings(&self) -> BTreeMap<String, String> {
        let mut all = self.holders();
        for block in self.api.list::<api::IpamBlock>().unwrap() {
            all.insert(format!("block {}", block.spec.cidr), format!("{:?}", block.spec.affinity));
        }
        for claim in self.api.list::<api::BlockAffinity>().unwrap() {
            all.insert(format!("claim {}", claim.name()), claim.spec.state.clone());
        }
        for handle in self.api.list::<api::IpamHandle>().unwrap() {
            all.insert(format!("handle {}", handle.name()), format!("{:?}", handle.spec.block));
        }
        all
    }

    fn releases_single_addresses(&self, report: &Path) {
        let released = self.ask(&["ipam", "release", "--ip=10.0.0.5"]);
        let said = String::from_utf8_lossy(&released.stdout).into_owned();
        assert_eq!(said, "Successfully released IP address 10.0.0.5\n", "{released:?}");
        assert!(!self.holdings().contains_key("handle k8s-pod-network.c3"));
        let again = self.ask(&["ipam", "release", "--ip=10.0.0.5"]);
        assert!(complaint(&again).contains("10.0.0.5 is not assigned"), "{again:?}");
        // The undo gave the leaks back at a later write than that of the report.
        let released = self.ask(&["ipam", "release", "--from-report", &text(report)]);
        let said = String::from_utf8_lossy(&released.stdout).into_owned();
        assert_eq!(said, "Released 0 IPs successfully\n", "{released:?}");
        self.ask(&["ipam", "check", "-o", &text(report)]);
        let released = self.ask(&["ipam", "release", "--from-report", &text(report)]);
        let said = String::from_utf8_lossy(&released.stdout).into_owned();
        assert_eq!(said, "Released 2 IPs successfully\n", "{released:?}");
    }
}

fn problems(report: &Value) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for problem in report["problems"].as_array().unwrap() {
        *counts.entry(problem["problem"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

fn complaint(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
