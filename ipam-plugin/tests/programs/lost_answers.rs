//! Answers that get lost after the server has done what was asked: whichever it is, a repeated
//! command finds its way, and in the end exactly what is in use is taken (R06).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use lab::control_plane::{Identity, Kind};
use lab::proxy::{Fate, Passing, Proxy};
use serde_json::json;

use super::{Datastore, addr, call, holders};

const POOL: &str = "
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
    assert_eq!(world.store.api.list::<api::IpamHandle>().unwrap().len(), 0);
    world.requires_no_overlap();
}

struct World {
    store: Datastore,
    proxy: Proxy,
}

impl World {
    fn start(kind: Kind, directory: &std::path::Path) -> Self {
        let store = Datastore::start(kind, directory, POOL);
        let kubeconfig = store.plane.kubeconfig(Identity::CniPlugin);
        let proxy = Proxy::open(&kubeconfig, "127.0.0.1:0".parse().unwrap()).unwrap();
        proxy.write_kubeconfig(&directory.join("proxy.kubeconfig")).unwrap();
        Self { store, proxy }
    }

    fn add_node(&self, name: &str) -> String {
        let node = json!({"metadata": {"name": name}});
        self.store.api.create::<k8s_openapi::api::core::v1::Node>(node).unwrap();
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
        let way = json!({"kubeconfig": self.store.directory.join("proxy.kubeconfig")});
        let config = self.store.config(node, &json!({"kubernetes": way}));
        for _ in 0..5 {
            match call(command, &container, &config) {
                Ok(answer) if command == "ADD" => {
                    return (format!("net.{container}"), addr(&answer));
                }
                Ok(_) => return (container, String::new()),
                Err(_) => {}
            }
            if command == "ADD" {
                self.insist("DEL", node, &container.replace(&format!("{node}-"), ""));
            }
        }
        panic!("{command} of {container} fails again and again");
    }

    /// Returns who holds which address of the node's blocks.
    fn taken_on(&self, node: &str) -> BTreeMap<String, String> {
        let mut taken = BTreeMap::new();
        for block in self.store.blocks() {
            let owner = block.affinity.as_ref().map(ToString::to_string);
            let is_here = owner == Some(format!("host:{node}"));
            for (addr, (handle, _)) in holders(&block) {
                if is_here || handle.contains(node) {
                    assert_eq!(taken.insert(handle, addr), None, "a container has two addresses");
                }
            }
        }
        taken
    }

    fn requires_no_overlap(&self) {
        let blocks = self.store.blocks();
        for (at, one) in blocks.iter().enumerate() {
            for other in &blocks[at + 1..] {
                assert!(!one.cidr.overlaps(&other.cidr), "{} and {}", one.cidr, other.cidr);
            }
        }
    }
}
