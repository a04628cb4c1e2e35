//! ADD, CHECK and DEL in real network namespaces against the real kube-apiserver.
//!
//! Everything runs inside a namespace that stands for a node. The test says that
//! it is skipped without root or without the program `target/lab/control-plane`
//! (or that which `CALICO_CONTROL_PLANE` names).

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod common;
mod scenarios;

use std::fs;
use std::path::PathBuf;

use api::ClusterInformation;
use common::control_plane::{ControlPlane, program};
use common::node::Namespace;
use common::{Answer, Call, Fake};
use datastore::Client;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A cluster of one node, and what its containers are made with.
struct World {
    client: Client,
    control_plane: ControlPlane,
    node: Namespace,
    fake: Fake,
    directory: TempDir,
}

#[test]
fn containers_are_attached_and_detached() {
    let Some(program) = program() else {
        eprintln!("skipped: target/lab/control-plane is not built (cargo xtask test builds it)");
        return;
    };
    if !fs::read_to_string("/proc/self/status").unwrap().contains("CapEff:\t000001ff") {
        eprintln!("skipped: run as root to make network namespaces");
        return;
    }
    let node = Namespace::node();
    let netns = kernel::Netns::open(node.netns.path()).unwrap();
    netns.run(|| run(&program, node)).unwrap();
}

/// Runs every scenario on this thread, which is inside the node's namespace.
fn run(program: &std::path::Path, node: Namespace) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let control_plane = ControlPlane::start(program, &directory.path().join("control-plane"));
    let fake = Fake::new(&directory.path().join("ipam"));
    fs::write(directory.path().join("nodename"), "node-1\n").unwrap();
    runtime.block_on(async {
        let client = control_plane.client().await;
        let world = World { client, control_plane, node, fake, directory };
        world.set_up().await;
        scenarios::run_all(&world).await;
    });
}

fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

impl World {
    async fn set_up(&self) {
        let name = "clusterinformations.crd.projectcalico.org";
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let crd: CustomResourceDefinition = object(json!({
            "metadata": {"name": name},
            "spec": {
                "group": "crd.projectcalico.org", "scope": "Cluster",
                "names": {"kind": "ClusterInformation", "plural": "clusterinformations"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
            },
        }));
        self.client.create(&crd).await.unwrap();
        while self.client.get::<ClusterInformation>("default").await.is_err() {
            tokio::task::yield_now().await;
        }
        let role: ClusterRole = object(json!({
            "metadata": {"name": "readers"},
            "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get"]}],
        }));
        self.client.create(&role).await.unwrap();
        let binding: ClusterRoleBinding = object(json!({
            "metadata": {"name": "readers"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "readers"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "readers"}],
        }));
        self.client.create(&binding).await.unwrap();
    }

    async fn open_datastore(&self) {
        let cluster: ClusterInformation = object(json!({
            "metadata": {"name": "default"}, "spec": {"datastoreReady": true},
        }));
        self.client.create(&cluster).await.unwrap();
    }

    async fn set_ready(&self, is_ready: bool) {
        let mut cluster = self.client.get::<ClusterInformation>("default").await.unwrap().unwrap();
        cluster.spec.datastore_ready = Some(is_ready);
        self.client.update(&cluster).await.unwrap();
    }

    async fn make_pod(&self, name: &str, annotations: Value) -> Pod {
        let pod: Pod = object(json!({
            "metadata": {"name": name, "namespace": "default", "annotations": annotations},
            "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "none"}]},
        }));
        self.client.create(&pod).await.unwrap()
    }

    async fn pod(&self, name: &str) -> Pod {
        self.client.get_in::<Pod>("default", name).await.unwrap().unwrap()
    }

    async fn delete_pod(&self, name: &str) {
        // A pod that a node has takes a grace period unless it is told to go at once.
        let kubeconfig = self.control_plane.kubeconfig("admin-token");
        let status = std::process::Command::new(program().unwrap())
            .args(["kubectl", "--kubeconfig"])
            .arg(kubeconfig)
            .args(["delete", "pod", name, "--grace-period=0", "--force", "--wait=true"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status();
        assert!(status.unwrap().success());
        while self.client.get_in::<Pod>("default", name).await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
    }

    fn config(&self) -> Value {
        json!({
            "cniVersion": "1.0.0", "name": "net", "type": "calico", "log_level": "debug", "mtu": 1440,
            "nodename_file": self.directory.path().join("nodename"),
            "log_file_path": self.directory.path().join("cni.log"),
            "ipam": {"type": "fake-ipam"},
            "kubernetes": {"kubeconfig": self.control_plane.kubeconfig("admin-token")},
        })
    }

    /// Returns a call for `container` whose namespace is `netns`.
    fn call(&self, command: &'static str, container: &str, netns: Option<&Namespace>) -> Call {
        let mut call = Call::new(command, &self.config());
        call.container_id = container.into();
        call.netns = netns.map(Namespace::path).unwrap_or_default();
        call.path = self.fake.directory.display().to_string();
        call.extra.push(("CALICO_CNI_TRACE", self.trace_file().display().to_string()));
        call
    }

    fn trace_file(&self) -> PathBuf {
        self.directory.path().join("trace")
    }

    fn call_for_pod(
        &self,
        command: &'static str,
        pod: &str,
        container: &str,
        netns: Option<&Namespace>,
    ) -> Call {
        let mut call = self.call(command, container, netns);
        call.args =
            format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod};K8S_POD_UID=x");
        call
    }
}

/// Changes the configuration of a call.
fn configure(call: &mut Call, change: impl FnOnce(&mut Value)) {
    let mut config: Value = serde_json::from_slice(&call.stdin).unwrap();
    change(&mut config);
    call.stdin = config.to_string().into_bytes();
}

/// Says that `answer` is a success.
fn succeeded(answer: Answer) -> Value {
    assert!(answer.is_success, "{answer:?}");
    answer.stdout
}
