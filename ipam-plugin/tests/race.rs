//! Processes that race for addresses and are killed at random, on a real datastore.
//!
//! Four writers run the library in processes of their own, life after life, two of them for eight
//! containers at a time as calico-node does for plugins, and one runs the real program. No address may be held by two containers at
//! a time; when all containers are released, nothing may be left.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops at the first surprise; a writer speaks on standard output"
)]

#[path = "race/ledger.rs"]
mod ledger;
#[path = "race/writer.rs"]
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use ::ledger::{Driver, HostLock};
use datastore::{Client, Options};
use futures::stream::{self, StreamExt as _};
use ipam_plugin::delete::delete;
use lab::api_access::Api;
use lab::control_plane::{ControlPlane, Identity, Kind, Settings};
use ledger::Ledger;
use serde_json::Value;

/// Allocations by writers that use the library, each.
const BY_LIBRARY: usize = 475;
/// Allocations by the writer that runs the program.
const BY_PROGRAM: usize = 100;
const WRITERS: usize = 4;
const NODES: usize = 3;

#[test]
fn two_thousand_racing_allocations_with_killed_writers_on_the_embedded_datastore() {
    race_on(Kind::Embedded);
}

#[test]
fn two_thousand_racing_allocations_with_killed_writers_on_kubernetes() {
    race_on(Kind::Kubernetes);
}

fn race_on(kind: Kind) {
    let directory = tempfile::tempdir().unwrap();
    let plane = start(kind, directory.path());
    let api = plane.api().unwrap();
    let kubeconfig = plane.kubeconfig(Identity::CniPlugin);
    let ledger = Ledger::default();
    std::thread::scope(|scope| {
        for number in 0..WRITERS {
            let (kubeconfig, ledger) = (&kubeconfig, &ledger);
            scope.spawn(move || writer::race_with_library(number, BY_LIBRARY, kubeconfig, ledger));
        }
        writer::race_with_program(WRITERS, BY_PROGRAM, &kubeconfig, &ledger);
    });
    let holders = ledger.holders();
    let held = held(&api);
    for (addr, container) in holders {
        let handle = writer::holder(&container).handle().0;
        assert_eq!(held.get(&addr), Some(&handle), "{container} was told that it has {addr}");
    }
    let containers = ledger.containers();
    assert!(containers.len() >= WRITERS * BY_LIBRARY + BY_PROGRAM);
    assert!(ledger.kills() > 50, "too few writers were killed for this to prove anything");
    release_all(&kubeconfig, &containers);
    assert_eq!(self::held(&api), BTreeMap::new(), "addresses are lost");
    assert_eq!(api.list::<api::IpamHandle>().unwrap().len(), 0, "handles are left");
}

/// Starts a control plane with our CRDs and RBAC and a small cluster in it.
fn start(kind: Kind, directory: &Path) -> ControlPlane {
    let settings = Settings { is_durable: false, ..Settings::loopback(kind, directory) };
    let plane = ControlPlane::start(settings).unwrap_or_else(|error| panic!("{error}"));
    plane.install().unwrap();
    plane.api().unwrap().apply(&cluster()).unwrap();
    plane
}

/// Not a test: one life of a writer, in a process that the test above starts.
#[test]
fn a_life() {
    if let Some(life) = writer::Life::from_environment() {
        life.live();
    }
}

/// Returns who holds which address; no two blocks may overlap.
fn held(api: &Api) -> BTreeMap<String, String> {
    let mut held = BTreeMap::new();
    for block in api.list::<api::IpamBlock>().unwrap() {
        let block: Value = serde_json::to_value(block).unwrap();
        let spec = &block["spec"];
        let cidr: model::net::Cidr = spec["cidr"].as_str().unwrap().parse().unwrap();
        for (ordinal, slot) in spec["allocations"].as_array().unwrap().iter().enumerate() {
            let Some(index) = slot.as_u64() else { continue };
            let attributes = &spec["attributes"][usize::try_from(index).unwrap()];
            let handle = attributes["handle_id"].as_str().unwrap().to_owned();
            let addr = cidr.nth(ordinal as u128).unwrap().to_string();
            assert_eq!(held.insert(addr, handle), None, "{cidr} overlaps another block");
        }
    }
    held
}

/// Releases every container, as a DEL does that is not killed.
fn release_all(kubeconfig: &Path, containers: &BTreeSet<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = Client::connect(&Options::kubeconfig(kubeconfig)).unwrap();
    let release = async |container: &String| {
        let lock = HostLock::at(kubeconfig.with_file_name("ipam.lock"));
        let mut driver = Driver::new(client.clone(), lock);
        delete(&mut driver, &writer::holder(container)).await.unwrap();
    };
    runtime.block_on(stream::iter(containers).for_each_concurrent(8, release));
}

/// The cluster: nodes, a pool with blocks of 64 addresses, and readiness.
fn cluster() -> String {
    let mut manifests = String::from(
        "apiVersion: crd.projectcalico.org/v1\n\
         kind: ClusterInformation\n\
         metadata: {name: default}\n\
         spec: {datastoreReady: true}\n\
         ---\n\
         apiVersion: crd.projectcalico.org/v1\n\
         kind: IPPool\n\
         metadata: {name: default-ipv4-ippool}\n\
         spec: {cidr: 10.244.0.0/20, blockSize: 26, nodeSelector: all()}\n",
    );
    for node in 0..NODES {
        let node = format!("apiVersion: v1\nkind: Node\nmetadata: {{name: node-{node}}}\n");
        write!(manifests, "---\n{node}").unwrap();
    }
    manifests
}
