//! Answers that get lost after the server has done what was asked: whichever it is, a repeated
//! command finds its way, and in the end exactly what is in use is taken (R06).

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use lab::api_access::Api;
use lab::control_plane::{ControlPlane, Identity, Kind, Settings};
use lab::proxy::{Fate, Passing, Proxy};
use serde_json::{Value, json};

const CLUSTER: &str = "
apiVersion: crd.projectcalico.org/v1
kind: ClusterInformation
metadata: {name: default}
spec: {datastoreReady: true}
---
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata: {name: pool}
spec: {cidr: 10.244.0.0/20, blockSize: 28, nodeSelector: all()}
";

/// More writes than any command makes.
const MOST_WRITES: usize = 20;

#[test]
fn no_lost_answer_costs_an_address_on_the_embedded_datastore() {
    no_lost_answer_costs_an_address(Kind::Embedded);
}

#[test]
fn no_lost_answer_costs_an_address_on_kubernetes() {
    no_lost_answer_costs_an_address(Kind::Kubernetes);
}

fn no_lost_answer_costs_an_address(kind: Kind) {
    let directory = tempfile::tempdir().unwrap();
    let world = World::start(kind, directory.path());
    let mut hit = Vec::new();
    for fate in [Fate::LosesAnswer, Fate::IsLost] {
        for at in 1..MOST_WRITES {
            // A node without any block: its first address takes the most writes.
            let node = world.add_node(&format!("{fate:?}-{at}").to_lowercase());
            let lost = world.lose(at, fate);
            let first = world.insist("ADD", &node, "first");
            let Some(what) = lost.lock().unwrap().clone() else {
                // There is no such write.
                world.insist("DEL", &node, "first");
                break;
            };
            hit.push(format!("{fate:?} of {what} of a first ADD"));
            // And one that has a block, with the same loss; then both are given back with it.
            world.lose(at, fate);
            let second = world.insist("ADD", &node, "second");
            assert_ne!(first, second);
            world.lose(at, fate);
            world.insist("DEL", &node, "first");
            assert_eq!(world.taken_on(&node), [second].into());
            world.lose(at, fate);
            world.insist("DEL", &node, "second");
            assert_eq!(world.taken_on(&node), BTreeMap::new());
        }
    }
    // Create and update of block, claim and handle, both ways.
    for write in [
        "POST blockaffinities",
        "PUT blockaffinities",
        "POST ipamblocks",
        "PUT ipamblocks",
        "POST ipamhandles",
    ] {
        for fate in ["LosesAnswer", "IsLost"] {
            let point = format!("{fate} of {write} of a first ADD");
            assert!(hit.contains(&point), "{point} is missing: {hit:#?}");
        }
    }
    assert_eq!(world.api.list::<api::IpamHandle>().unwrap().len(), 0);
    world.requires_no_overlap();
}

struct World {
    directory: PathBuf,
    api: Api,
    proxy: Proxy,
    _plane: ControlPlane,
}

impl World {
    fn start(kind: Kind, directory: &std::path::Path) -> Self {
        let settings = Settings::loopback(kind, &directory.join("plane"));
        let plane = ControlPlane::start(Settings { is_durable: false, ..settings });
        let plane = plane.unwrap_or_else(|error| panic!("{error}"));
        plane.install().unwrap();
        let api = plane.api().unwrap();
        api.apply(CLUSTER).unwrap();
        let kubeconfig = plane.kubeconfig(Identity::CniPlugin);
        let proxy = Proxy::open(&kubeconfig, "127.0.0.1:0".parse().unwrap()).unwrap();
        proxy.write_kubeconfig(&directory.join("proxy.kubeconfig")).unwrap();
        Self { directory: directory.to_owned(), api, proxy, _plane: plane }
    }

    fn add_node(&self, name: &str) -> String {
        let node = json!({"metadata": {"name": name}});
        self.api.create::<k8s_openapi::api::core::v1::Node>(node).unwrap();
        name.to_owned()
    }

    /// Lets the write `at` go wrong, counted from now; returns where it is noted which that was.
    fn lose(&self, at: usize, fate: Fate) -> Arc<Mutex<Option<String>>> {
        let noted = Arc::new(Mutex::new(None));
        let (note, mut count) = (Arc::clone(&noted), 0);
        self.proxy.judge(move |Passing { method, path }| {
            if method == http::Method::GET {
                return Fate::Passes;
            }
            count += 1;
            if count != at {
                return Fate::Passes;
            }
            let kind = path.split('/').nth(4).unwrap_or_default();
            let kind = kind.split('?').next().unwrap_or_default();
            *note.lock().unwrap() = Some(format!("{method} {kind}"));
            fate
        });
        noted
    }

    /// Runs the program as a runtime does: a failed ADD is taken back and repeated, and so is a
    /// failed DEL. Returns the container with its address.
    fn insist(&self, command: &str, node: &str, container: &str) -> (String, String) {
        let container = format!("{node}-{container}");
        for _ in 0..5 {
            let (is_done, answer) = self.call(command, node, &container);
            if is_done && command == "ADD" {
                let address = answer["ips"][0]["address"].as_str().unwrap();
                return (format!("net.{container}"), address.split('/').next().unwrap().to_owned());
            }
            if is_done {
                return (container, String::new());
            }
            if command == "ADD" {
                self.insist("DEL", node, &container.replace(&format!("{node}-"), ""));
            }
        }
        panic!("{command} of {container} fails again and again");
    }

    fn call(&self, command: &str, node: &str, container: &str) -> (bool, Value) {
        let config = json!({
            "cniVersion": "1.1.0", "name": "net", "type": "calico", "nodename": node,
            "nodename_file_optional": true, "log_level": "error",
            "ipam_lock_file": self.directory.join(format!("{node}.lock")),
            "kubernetes": {"kubeconfig": self.directory.join("proxy.kubeconfig")},
            "ipam": {"type": "calico-ipam"},
        });
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
        (output.status.success(), answer)
    }

    /// Returns who holds which address of the node's blocks.
    fn taken_on(&self, node: &str) -> BTreeMap<String, String> {
        let mut taken = BTreeMap::new();
        for block in self.blocks() {
            let is_here = block
                .affinity
                .as_ref()
                .is_some_and(|owner| owner.to_string() == format!("host:{node}"));
            for ordinal in 0..u32::try_from(block.allocations.len()).unwrap() {
                let Some(holder) = ipam::slots::holder(&block, ordinal) else { continue };
                let handle = holder.handle.as_ref().unwrap().to_string();
                if is_here || handle.contains(node) {
                    let addr = ipam::slots::address(&block, ordinal).unwrap().to_string();
                    assert_eq!(taken.insert(handle, addr), None, "a container has two addresses");
                }
            }
        }
        taken
    }

    fn blocks(&self) -> Vec<model::block::Block> {
        let objects = self.api.list::<api::IpamBlock>().unwrap();
        objects.iter().map(|object| object.try_into().unwrap()).collect()
    }

    fn requires_no_overlap(&self) {
        let blocks = self.blocks();
        for (at, one) in blocks.iter().enumerate() {
            for other in &blocks[at + 1..] {
                assert!(!one.cidr.overlaps(&other.cidr), "{} and {}", one.cidr, other.cidr);
            }
        }
    }
}
