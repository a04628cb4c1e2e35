//! Every problem that `ipam check` names, planted on a real API server: all are found, all that can
//! be decided are repaired, and nobody alive loses an address.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a failing test should stop at once"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use ipam::slots::{self, Clock};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use lab::api_access::Api;
use lab::control_plane::{ControlPlane, Identity, Kind, Settings};
use model::block::{Affinity, AffinityState, Attributes, Block, Owner};
use model::id::HandleId;
use serde_json::{Value, json};

/// All of `ipam::audit::Problem`.
const ALL: [&str; 14] = [
    "damaged block",
    "duplicate",
    "empty block",
    "handle mismatch",
    "in use but not allocated",
    "leak",
    "missing affinity",
    "missing handle",
    "orphan handle",
    "outside every pool",
    "overlap",
    "stale affinity",
    "unreachable borrow",
    "wrong holder",
];
/// Those that only people can decide: the report says how.
const FOR_PEOPLE: [&str; 4] =
    ["duplicate", "in use but not allocated", "outside every pool", "wrong holder"];

#[test]
fn every_problem_is_found_and_repaired_on_the_embedded_datastore() {
    every_problem(Kind::Embedded);
}

#[test]
fn every_problem_is_found_and_repaired_on_kubernetes() {
    every_problem(Kind::Kubernetes);
}

fn every_problem(kind: Kind) {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { is_durable: false, ..Settings::loopback(kind, dir.path()) };
    let plane = ControlPlane::start(settings).unwrap_or_else(|error| panic!("{error}"));
    plane.install().unwrap();
    let api = plane.api().unwrap();
    plant(&api);
    let ask = |arguments: &[&str]| ask(&plane, dir.path(), arguments);
    let checked = ask(&["check", "--format=json"]);
    assert_eq!(checked.status.code(), Some(3), "{checked:?}");
    assert_eq!(problems(&checked), ALL.into_iter().map(str::to_owned).collect());
    let live = in_use(&api);
    assert_eq!(live.len(), 8, "{live:?}");
    for file in ["one", "two"] {
        let repaired = ask(&["repair", "--yes", "--grace=0", "--undo-file", file]);
        assert!(repaired.status.success(), "{repaired:?}");
    }
    let checked = ask(&["check", "--format=json"]);
    assert_eq!(problems(&checked), FOR_PEOPLE.into_iter().map(str::to_owned).collect());
    assert_eq!(in_use(&api), live);
}

fn plant(api: &Api) {
    api.create::<Namespace>(json!({"metadata": {"name": "shop"}})).unwrap();
    for node in ["a", "b"] {
        api.create::<Node>(json!({"metadata": {"name": node}})).unwrap();
    }
    api.create::<api::IpPool>(json!({
        "metadata": {"name": "pool"},
        "spec": {"cidr": "10.0.0.0/24", "blockSize": 28, "nodeSelector": "all()"},
    }))
    .unwrap();
    for (pod, node, addr) in [
        ("web", "a", "10.0.0.2"),
        ("new", "a", "10.0.0.3"),
        ("handleless", "a", "10.0.0.4"),
        ("twin-1", "a", "10.0.0.5"),
        ("twin-2", "b", "10.0.0.5"),
        ("stray", "a", "10.0.0.10"),
        ("api", "b", "10.0.0.16"),
        ("far", "a", "10.0.0.17"),
        ("claimless", "a", "10.0.0.48"),
        ("outsider", "a", "10.9.9.1"),
    ] {
        run(api, pod, node, addr);
    }
    plant_blocks(api);
    plant_handles(api);
}

fn plant_blocks(api: &Api) {
    let of_a = block("10.0.0.0/28", "a");
    let of_a = [(1, "ghost"), (2, "web"), (3, "old"), (4, "handleless"), (5, "twin-1")]
        .into_iter()
        .fold(of_a, |block, (ordinal, pod)| give(&block, ordinal, pod, "a"));
    let mut of_b = block("10.0.0.16/28", "b");
    of_b = give(&give(&of_b, 0, "api", "b"), 1, "far", "b");
    of_b.unallocated.retain(|ordinal| *ordinal != 15);
    let claimless = give(&block("10.0.0.48/28", "a"), 0, "claimless", "a");
    let outside = give(&block("10.9.9.0/28", "a"), 1, "outsider", "a");
    let idle = block("10.0.0.64/28", "a");
    let outer = block("10.0.0.80/28", "a");
    let inner = block("10.0.0.80/29", "b");
    for (block, is_claimed) in [
        (of_a, true),
        (of_b, true),
        (claimless, false),
        (outside, true),
        (idle, true),
        (outer, true),
        (inner, true),
    ] {
        if is_claimed {
            claim(api, block.affinity.clone().unwrap(), &block.cidr.to_string());
        }
        api.create::<api::IpamBlock>(json!(api::IpamBlock::from_model(&block))).unwrap();
    }
    claim(api, Owner::Host("gone".parse().unwrap()), "10.0.0.32/28");
}

fn plant_handles(api: &Api) {
    for (pod, block, count) in [
        ("ghost", "10.0.0.0/28", 1),
        ("web", "10.0.0.0/28", 2),
        ("old", "10.0.0.0/28", 1),
        ("twin-1", "10.0.0.0/28", 1),
        ("orphan", "10.0.0.0/28", 1),
        ("api", "10.0.0.16/28", 1),
        ("far", "10.0.0.16/28", 1),
        ("claimless", "10.0.0.48/28", 1),
        ("outsider", "10.9.9.0/28", 1),
    ] {
        let name = format!("net.{pod}");
        api.create::<api::IpamHandle>(json!({
            "metadata": {"name": name},
            "spec": {"handleID": name, "block": {block: count}, "deleted": false},
        }))
        .unwrap();
    }
}

/// Makes a pod that runs and has an address.
fn run(api: &Api, name: &str, node: &str, addr: &str) {
    api.create::<Pod>(json!({
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "nodeName": node,
            "automountServiceAccountToken": false,
            "containers": [{"name": "echo", "image": "lab/echo"}],
        },
    }))
    .unwrap();
    let status = json!({"status": {"phase": "Running", "podIP": addr, "podIPs": [{"ip": addr}]}});
    api.patch_status::<Pod>(Some("shop"), name, &status).unwrap();
}

fn clock() -> Clock {
    Clock { now: ledger::now(), cooldown: Duration::ZERO }
}

fn block(cidr: &str, node: &str) -> Block {
    let owner = Owner::Host(node.parse().unwrap());
    slots::fresh(cidr.parse().unwrap(), owner, clock().now).unwrap()
}

fn give(block: &Block, ordinal: u32, pod: &str, node: &str) -> Block {
    let owner = [("namespace", "shop"), ("pod", pod), ("node", node)];
    let owner = owner.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let handle = Some(HandleId(format!("net.{pod}")));
    let holder = Attributes { handle, owner, ..Attributes::default() };
    slots::allocate(block, ordinal, &holder, clock()).unwrap()
}

fn claim(api: &Api, owner: Owner, cidr: &str) {
    let (cidr, state) = (cidr.parse().unwrap(), AffinityState::Confirmed);
    let claim = Affinity { owner, cidr, state, is_deleted: false };
    api.create::<api::BlockAffinity>(json!(api::BlockAffinity::from_model(&claim))).unwrap();
}

/// Returns the addresses that pods use and blocks gave away, with who holds each.
fn in_use(api: &Api) -> BTreeMap<String, String> {
    let pods = api.list::<Pod>().unwrap();
    let used: BTreeSet<String> =
        pods.into_iter().filter_map(|pod| pod.status.and_then(|status| status.pod_ip)).collect();
    let mut held = BTreeMap::new();
    for object in api.list::<api::IpamBlock>().unwrap() {
        let block = Block::try_from(&object).unwrap();
        for ordinal in 0..u32::try_from(block.allocations.len()).unwrap() {
            let Some(holder) = slots::holder(&block, ordinal) else { continue };
            let addr = slots::address(&block, ordinal).unwrap().to_string();
            if used.contains(&addr) {
                held.insert(addr, holder.handle.as_ref().unwrap().to_string());
            }
        }
    }
    held
}

fn ask(plane: &ControlPlane, dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_calicoctl"));
    command.env("KUBECONFIG", plane.kubeconfig(Identity::Admin)).current_dir(dir);
    command.arg("ipam").args(arguments).output().unwrap()
}

fn problems(output: &Output) -> BTreeSet<String> {
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let problems = report["problems"].as_array().unwrap().iter();
    problems.map(|problem| problem["problem"].as_str().unwrap().to_owned()).collect()
}
