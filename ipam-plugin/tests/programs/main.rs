//! The programs on a real datastore: what runtimes, Calico and a bad network do to them.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]

mod gc_and_status;
mod host_local;
mod lost_answers;
mod mixed;
mod service;
mod storms;
mod vrfs;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lab::api_access::Api;
use lab::control_plane::{ControlPlane, Identity, Kind, Settings};
use model::block::Block;
use serde_json::{Value, json};

/// What every cluster needs: calico-node has run.
const READY: &str = "
apiVersion: crd.projectcalico.org/v1
kind: ClusterInformation
metadata: {name: default}
spec: {datastoreReady: true}
";

/// An API server with what Calico needs, for one test.
struct Datastore {
    directory: PathBuf,
    api: Api,
    plane: ControlPlane,
}

impl Datastore {
    /// Starts it with more objects, in YAML.
    fn start(kind: Kind, directory: &Path, objects: &str) -> Self {
        let settings = Settings::loopback(kind, &directory.join("plane"));
        let plane = ControlPlane::start(Settings { is_durable: false, ..settings });
        let plane = plane.unwrap_or_else(|error| panic!("{error}"));
        plane.install().unwrap();
        let api = plane.api().unwrap();
        api.apply(&format!("{READY}---\n{objects}")).unwrap();
        Self { directory: directory.to_owned(), api, plane }
    }

    /// Returns the configuration of a node; `more` goes before.
    fn config(&self, node: &str, more: &Value) -> Value {
        let mut config = json!({
            "cniVersion": "1.1.0", "name": "net", "type": "calico", "nodename": node,
            "nodename_file_optional": true, "log_level": "error",
            "ipam_lock_file": self.directory.join(format!("{node}.lock")),
            "kubernetes": {"kubeconfig": self.plane.kubeconfig(Identity::CniPlugin)},
            "ipam": {"type": "calico-ipam"},
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    }

    fn blocks(&self) -> Vec<Block> {
        let objects = self.api.list::<api::IpamBlock>().unwrap();
        objects.iter().map(|object| object.try_into().unwrap()).collect()
    }
}

/// Runs calico-ipam as a runtime does; returns what it prints, which is an error unless it succeeds.
fn call(command: &str, container: &str, config: &Value) -> Result<Value, Value> {
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
    let answer = serde_json::from_slice(&output.stdout).unwrap_or_default();
    if output.status.success() { Ok(answer) } else { Err(answer) }
}

/// Returns the address in an ADD's answer.
fn addr(answer: &Value) -> String {
    let address = answer["ips"][0]["address"].as_str().unwrap();
    address.split('/').next().unwrap().to_owned()
}

/// Who holds an address: the handle, and the pod.
type Held = (String, Option<String>);

/// Returns who holds the addresses of a block.
fn holders(block: &Block) -> BTreeMap<String, Held> {
    let ordinals = 0..u32::try_from(block.allocations.len()).unwrap();
    let held = ordinals.filter_map(|ordinal| {
        let holder = ipam::slots::holder(block, ordinal)?;
        let addr = ipam::slots::address(block, ordinal).unwrap().to_string();
        let handle = holder.handle.as_ref().unwrap().to_string();
        Some((addr, (handle, holder.owner.get("pod").cloned())))
    });
    held.collect()
}
