//! ADD, CHECK and DEL in real network namespaces against a real API server.
//!
//! Everything runs inside a namespace that stands for a node, the control plane too.

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
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use api::ClusterInformation;
use common::node::Namespace;
use common::{Answer, Call, Fake};
use datastore::{Client, Options};
use k8s_openapi::api::core::v1::{Namespace as PodNamespace, Node, Pod};
use lab::api_access::Api;
use lab::control_plane::{ControlPlane, Identity, Kind, Settings};
use lab::rest::Request;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

/// An account that may read everything and write nothing.
const READER: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules: [{apiGroups: ['*'], resources: ['*'], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: kube-system}]
";

/// A cluster of one node, and what its containers are made with.
struct World {
    client: Client,
    api: Api,
    control_plane: ControlPlane,
    node: Namespace,
    fake: Fake,
    directory: TempDir,
}

#[test]
fn containers_are_attached_and_detached_on_the_embedded_datastore() {
    attach_and_detach_on(Kind::Embedded);
}

#[test]
fn containers_are_attached_and_detached_on_kubernetes() {
    attach_and_detach_on(Kind::Kubernetes);
}

fn attach_and_detach_on(kind: Kind) {
    let node = Namespace::node();
    let netns = kernel::Netns::open(node.netns.path()).unwrap();
    netns.run(|| run(kind, node)).unwrap();
}

/// Runs every scenario on this thread, which is inside the node's namespace.
fn run(kind: Kind, node: Namespace) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let control_plane = start(kind, &directory.path().join("control-plane"));
    let fake = Fake::new(&directory.path().join("ipam"));
    fs::write(directory.path().join("nodename"), "node-1\n").unwrap();
    runtime.block_on(async {
        let admin = Options::kubeconfig(control_plane.kubeconfig(Identity::Admin));
        let client = Client::connect(&admin).unwrap();
        let api = control_plane.api().unwrap();
        let world = World { client, api, control_plane, node, fake, directory };
        // The server makes its namespaces after it is ready.
        world
            .until(async |client| client.get::<PodNamespace>("default").await.unwrap().is_some())
            .await;
        scenarios::run_all(&world).await;
    });
}

/// Starts a control plane with our CRDs and RBAC, and with an account that may only read.
fn start(kind: Kind, directory: &Path) -> ControlPlane {
    let settings = Settings { is_durable: false, ..Settings::loopback(kind, directory) };
    let control_plane = ControlPlane::start(settings).unwrap_or_else(|error| panic!("{error}"));
    control_plane.install().unwrap_or_else(|error| panic!("{error}"));
    control_plane.api().unwrap().apply(READER).unwrap();
    control_plane
}

fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

impl World {
    /// Waits until something is so.
    async fn until(&self, is_so: impl AsyncFn(&Client) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !is_so(&self.client).await {
            assert!(Instant::now() < end, "waited a minute in vain");
        }
    }

    /// Returns the kubeconfig of the CNI plugin.
    fn kubeconfig(&self) -> PathBuf {
        self.control_plane.kubeconfig(Identity::CniPlugin)
    }

    /// Returns the kubeconfig of an account that may only read.
    fn readers_kubeconfig(&self) -> PathBuf {
        let token = self.api.create_token("kube-system", "reader").unwrap();
        let text = fs::read(self.kubeconfig()).unwrap();
        let mut config: Value = serde_json::from_slice(&text).unwrap();
        config["users"][0]["user"]["token"] = json!(token);
        let path = self.directory.path().join("reader.kubeconfig");
        fs::write(&path, config.to_string()).unwrap();
        path
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

    /// Makes a pool for calico-ipam, and the node that takes from it.
    async fn make_pool(&self) {
        let node: Node = object(json!({"metadata": {"name": "node-1"}}));
        self.client.create(&node).await.unwrap();
        let pool: api::IpPool = object(json!({
            "metadata": {"name": "own"},
            "spec": {"cidr": "10.66.0.0/24", "blockSize": 26, "nodeSelector": "all()"},
        }));
        self.client.create(&pool).await.unwrap();
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
        let path = format!("/api/v1/namespaces/default/pods/{name}?gracePeriodSeconds=0");
        let delete = Request { method: http::Method::DELETE, ..Request::get(path) };
        self.api.send(delete).unwrap().success().unwrap();
        let is_gone =
            async |client: &Client| client.get_in::<Pod>("default", name).await.unwrap().is_none();
        self.until(is_gone).await;
    }

    fn config(&self) -> Value {
        json!({
            "cniVersion": "1.0.0", "name": "net", "type": "calico", "log_level": "debug", "mtu": 1440,
            "nodename_file": self.directory.path().join("nodename"),
            "log_file_path": self.directory.path().join("cni.log"),
            "endpoint_status_dir": self.directory.path().join("run/endpoint-status"),
            "ipam": {"type": "fake-ipam"},
            "kubernetes": {"kubeconfig": self.kubeconfig()},
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
