//! Nodes of Calico and ours share pools: each leaves the other's as it was, and none is given twice.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Node;
use lab::control_plane::Kind;
use lab::rest::Request;
use serde_json::{Value, json};

use super::{Datastore, addr, call};

const POOLS: &str = "
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata: {name: shared}
spec: {cidr: 10.244.0.0/21, blockSize: 28, nodeSelector: all()}
---
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata: {name: full}
spec: {cidr: 10.244.1.0/28, blockSize: 28, nodeSelector: '!all()'}
";

const GROUP: &str = "/apis/crd.projectcalico.org/v1";

#[test]
fn calicos_nodes_and_ours_share_pools_on_the_embedded_datastore() {
    share_pools(Kind::Embedded);
}

#[test]
fn calicos_nodes_and_ours_share_pools_on_kubernetes() {
    share_pools(Kind::Kubernetes);
}

fn share_pools(kind: Kind) {
    let directory = tempfile::tempdir().unwrap();
    let store = Datastore::start(kind, directory.path(), POOLS);
    for node in ["node-1", "node-2", "node-3"] {
        store.api.create::<Node>(json!({"metadata": {"name": node}})).unwrap();
    }
    let calicos = fixtures();
    for object in &calicos {
        store.api.create_any(object).unwrap();
    }
    let specs = || -> Vec<Value> {
        calicos.iter().map(|object| get(&store, object)["spec"].clone()).collect()
    };
    let before: Vec<Value> = calicos.iter().map(|object| object["spec"].clone()).collect();
    assert_eq!(specs(), before, "every number and every text is kept");

    // A node of ours takes a block beside Calico's, more than one block's addresses.
    let ours = store.config("node-3", &json!({}));
    let mut given = BTreeSet::new();
    for number in 0..18 {
        let answer = call("ADD", &format!("ours-{number}"), &ours).unwrap();
        assert!(given.insert(addr(&answer)), "{answer}");
    }
    assert_eq!(specs(), before, "Calico's objects are as they were");
    let foreign = ["10.244.1.", "10.244.2.0"];
    assert!(given.iter().all(|addr| foreign.iter().all(|one| !addr.starts_with(one))), "{given:?}");

    // It borrows where it is sent into a pool that is Calico's as a whole.
    let lent =
        store.config("node-3", &json!({"ipam": {"type": "calico-ipam", "ipv4_pools": ["full"]}}));
    assert_eq!(addr(&call("ADD", "lent", &lent).unwrap()), "10.244.1.7");
    let lender = &calicos[0];
    assert_eq!(lender["metadata"]["name"], "10-244-1-0-28");
    // Then Calico takes the next, as it does: from the front, by a new holder at the end.
    assert_eq!(take_as_calico(&store, lender, "calicos"), 9);
    // And so does a node that was Calico's, and is ours now: its block goes on.
    let taken_over = store.config("node-1", &json!({}));
    assert_eq!(addr(&call("ADD", "new", &taken_over).unwrap()), "10.244.1.8");
    require_valid(&get(&store, lender));
    for (container, config) in [("lent", &lent), ("new", &taken_over)] {
        call("DEL", container, config).unwrap();
    }
    let after = get(&store, lender);
    require_valid(&after);
    let spec = &after["spec"];
    assert_eq!(spec["unallocated"], json!([10, 11, 12, 14, 7, 8]));
    let (mut expected, number) = (lender["spec"]["attributes"].clone(), spec["attributes"].clone());
    expected.as_array_mut().unwrap().push(number[6].clone());
    assert_eq!(number, expected, "Calico's holders, and its new one");
    for (ordinal, sequence) in lender["spec"]["sequenceNumberForAllocation"].as_object().unwrap() {
        assert_eq!(spec["sequenceNumberForAllocation"][ordinal], *sequence);
    }
    let first = lender["spec"]["sequenceNumber"].as_u64().unwrap();
    assert_eq!(spec["sequenceNumber"].as_u64().unwrap(), first + 5, "three gave, two took back");
    assert_eq!(specs()[1..], before[1..]);
    for number in 0..18 {
        call("DEL", &format!("ours-{number}"), &ours).unwrap();
    }
    let handles = store.api.list::<api::IpamHandle>().unwrap();
    let of_calico = calicos.iter().filter(|object| object["kind"] == "IPAMHandle");
    assert_eq!(handles.len(), of_calico.count());
}

fn fixtures() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/ipam/calico-3.32.json");
    let all: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    // Whoever meets what is being deleted finishes that.
    let is_kept = |object: &Value| object["spec"]["deleted"] != true;
    all.into_iter().filter(is_kept).collect()
}

fn path(object: &Value) -> String {
    let plural = match object["kind"].as_str().unwrap() {
        "IPAMBlock" => "ipamblocks",
        "BlockAffinity" => "blockaffinities",
        "IPAMHandle" => "ipamhandles",
        other => panic!("{other}"),
    };
    format!("{GROUP}/{plural}/{}", object["metadata"]["name"].as_str().unwrap())
}

fn get(store: &Datastore, object: &Value) -> Value {
    store.api.send(Request::get(path(object))).unwrap().success().unwrap()
}

/// Takes the next free ordinal of a block, writing what Calico writes; returns it.
fn take_as_calico(store: &Datastore, block: &Value, holder: &str) -> u64 {
    let mut object = get(store, block);
    let spec = &mut object["spec"];
    let ordinal = spec["unallocated"].as_array_mut().unwrap().remove(0);
    let attributes = spec["attributes"].as_array_mut().unwrap();
    let handle = format!("k8s-pod-network.{holder}");
    attributes.push(json!({"handle_id": handle, "secondary": {"node": "node-1"}}));
    let index = attributes.len() - 1;
    let at = usize::try_from(ordinal.as_u64().unwrap()).unwrap();
    spec["allocations"][at] = json!(index);
    let sequence = spec["sequenceNumber"].as_u64().unwrap();
    spec["sequenceNumberForAllocation"][at.to_string()] = json!(sequence);
    spec["sequenceNumber"] = json!(sequence + 1);
    let put = Request::json(http::Method::PUT, path(block), &object);
    store.api.send(put).unwrap().success().unwrap();
    ordinal.as_u64().unwrap()
}

/// Requires what Calico's code takes for granted when it reads a block.
fn require_valid(object: &Value) {
    let spec = &object["spec"];
    let list = |field: &str| spec[field].as_array().unwrap();
    let (slots, free) = (list("allocations"), list("unallocated"));
    let holders = list("attributes").len();
    for (ordinal, slot) in slots.iter().enumerate() {
        let times = free.iter().filter(|free| **free == json!(ordinal)).count();
        match slot.as_u64() {
            None => assert_eq!(times, 1, "{ordinal} is free once: {spec}"),
            Some(index) => {
                assert!(
                    usize::try_from(index).unwrap() < holders,
                    "{ordinal} has a holder: {spec}"
                );
                assert_eq!(times, 0, "{ordinal} is not free: {spec}");
            }
        }
    }
    // Those that an old release gave away have no number.
    for ordinal in spec["sequenceNumberForAllocation"].as_object().unwrap().keys() {
        let ordinal: usize = ordinal.parse().unwrap();
        assert!(slots[ordinal].is_u64(), "{ordinal} is taken: {spec}");
    }
    assert_eq!(
        (slots.len(), &spec["strictAffinity"], &spec["deleted"]),
        (16, &json!(false), &json!(false))
    );
}
