//! GC and STATUS of the real program, on a real datastore.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use lab::api_access::Api;
use lab::control_plane::{ControlPlane, Identity, Kind, Settings};
use serde_json::{Value, json};

/// One node, and a pool of one block with four addresses.
const CLUSTER: &str = "
apiVersion: crd.projectcalico.org/v1
kind: ClusterInformation
metadata: {name: default}
spec: {datastoreReady: true}
---
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata: {name: small}
spec: {cidr: 10.244.0.0/30, blockSize: 30, nodeSelector: all()}
---
apiVersion: v1
kind: Node
metadata: {name: node-0}
";

struct World {
    kubeconfig: PathBuf,
    api: Api,
    _plane: ControlPlane,
}

impl World {
    fn start(directory: &std::path::Path) -> Self {
        let settings = Settings::loopback(Kind::Embedded, directory);
        let plane = ControlPlane::start(Settings { is_durable: false, ..settings });
        let plane = plane.unwrap_or_else(|error| panic!("{error}"));
        plane.install().unwrap();
        let api = plane.api().unwrap();
        api.apply(CLUSTER).unwrap();
        Self { kubeconfig: plane.kubeconfig(Identity::CniPlugin), api, _plane: plane }
    }

    /// Runs the program and returns the code and the message of its error, zero for none.
    fn call(&self, command: &str, container: &str, more: &Value) -> (u64, String) {
        let mut config = json!({
            "cniVersion": "1.1.0", "name": "net", "type": "calico", "nodename": "node-0",
            "nodename_file_optional": true, "log_level": "error",
            "ipam_lock_file": self.kubeconfig.with_file_name("ipam.lock"),
            "kubernetes": {"kubeconfig": self.kubeconfig}, "ipam": {"type": "calico-ipam"},
        });
        let more = more.as_object().unwrap().clone();
        config.as_object_mut().unwrap().extend(more);
        let mut child = Command::new(env!("CARGO_BIN_EXE_calico-ipam"))
            .env_clear()
            .envs([("CNI_COMMAND", command), ("CNI_CONTAINERID", container)])
            .envs([("CNI_NETNS", "/run/netns/none"), ("CNI_IFNAME", "eth0")])
            .env("CNI_PATH", "/opt/cni/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        if output.status.success() {
            return (0, String::new());
        }
        let error: Value = serde_json::from_slice(&output.stdout).unwrap();
        (error["code"].as_u64().unwrap(), error["msg"].as_str().unwrap().to_owned())
    }

    fn succeeds(&self, command: &str, container: &str, more: &Value) {
        assert_eq!(
            self.call(command, container, more),
            (0, String::new()),
            "{command} {container}"
        );
    }

    /// Returns the names of the handles that there are.
    fn handles(&self) -> Vec<String> {
        let handles = self.api.list::<api::IpamHandle>().unwrap();
        handles.into_iter().map(|handle| handle.metadata.name.unwrap()).collect()
    }
}

#[test]
fn what_the_runtime_no_longer_knows_is_collected_and_exhaustion_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::start(directory.path());
    let nothing = json!({});
    world.succeeds("STATUS", "", &nothing);
    for container in ["c1", "c2", "c3", "c4"] {
        world.succeeds("ADD", container, &nothing);
    }
    let full = "pool small 10.244.0.0/30: 0 of 4 addresses free; all blocks are full: delete pods";
    let (code, message) = world.call("ADD", "c5", &nothing);
    assert!(code == 106 && message.starts_with(full), "{code} {message}");
    // The first answer is looked for, the second remembered.
    for _ in 0..2 {
        let (code, message) = world.call("STATUS", "", &nothing);
        assert!(code == 50 && message.starts_with(full), "{code} {message}");
    }
    world.succeeds("DEL", "c1", &nothing);
    world.succeeds("STATUS", "", &nothing);

    let (code, message) = world.call("GC", "", &nothing);
    assert!(code == 7 && message.contains("cni.dev/valid-attachments"), "{code} {message}");
    assert_eq!(world.handles(), ["net.c2", "net.c3", "net.c4"]);
    let other = json!({"name": "other", "cni.dev/valid-attachments": []});
    world.succeeds("GC", "", &other);
    assert_eq!(world.handles(), ["net.c2", "net.c3", "net.c4"]);
    let valid = json!({"cni.dev/valid-attachments": [{"containerID": "c3", "ifname": "eth0"}]});
    world.succeeds("GC", "", &valid);
    assert_eq!(world.handles(), ["net.c3"]);
    world.succeeds("GC", "", &json!({"cni.dev/valid-attachments": []}));
    assert!(world.handles().is_empty());
}
