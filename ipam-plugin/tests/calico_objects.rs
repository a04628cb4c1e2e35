//! Objects that Calico 3.32 wrote are read, used, and left as valid as they were.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail"
)]

use std::time::Duration;

use ipam::Ranges;
use ipam::slots::{self, Clock};
use model::block::{Affinity, Attributes, Block, Handle};
use model::id::HandleId;
use model::time::WallTime;
use serde_json::{Value, json};

const CLOCK: Clock = Clock { now: WallTime(1_790_000_000_000_000_000), cooldown: Duration::ZERO };

/// Returns the objects of that kind in testdata/ipam.
fn objects(kind: &str) -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/ipam/calico-3.32.json");
    let all: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    all.into_iter().filter(|object| object["kind"] == kind).collect()
}

fn block_of(json: &Value) -> (api::IpamBlock, Block) {
    let object: api::IpamBlock = serde_json::from_value(json.clone()).unwrap();
    let block = Block::try_from(&object).unwrap();
    (object, block)
}

fn written(mut object: api::IpamBlock, block: &Block) -> Value {
    object.set(block);
    json!(object)
}

#[test]
fn what_is_not_changed_is_written_as_it_was() {
    for json in objects("IPAMBlock") {
        let (object, block) = block_of(&json);
        assert_eq!(written(object, &block), json);
    }
    for json in objects("BlockAffinity") {
        let mut object: api::BlockAffinity = serde_json::from_value(json.clone()).unwrap();
        let claim = Affinity::try_from(&object).unwrap();
        object.set(&claim);
        assert_eq!(json!(object)["spec"]["cidr"], json["spec"]["cidr"]);
        assert_eq!(Affinity::try_from(&object).unwrap(), claim);
    }
    for json in objects("IPAMHandle") {
        let mut object: api::IpamHandle = serde_json::from_value(json.clone()).unwrap();
        let handle = Handle::try_from(&object).unwrap();
        object.set(&handle);
        assert_eq!(json!(object), json);
    }
}

#[test]
fn an_address_is_taken_and_given_back_among_those_of_others() {
    let ours = Attributes {
        handle: Some(HandleId("k8s-pod-network.ours".to_owned())),
        ..Attributes::default()
    };
    for json in objects("IPAMBlock") {
        let (object, block) = block_of(&json);
        let free = slots::next_free(&block, &Ranges::default(), CLOCK).unwrap();
        assert_eq!(json!(free), json["spec"]["unallocated"][0], "the one that rested longest");
        let taken = slots::allocate(&block, free, &ours, CLOCK).unwrap();
        let both = written(object.clone(), &taken);
        for (before, after) in attributes(&json).iter().zip(attributes(&both)) {
            assert_eq!(*before, after, "the holders of others stay as they were written");
        }
        let given_back = slots::release(&taken, &[free], CLOCK);
        let mut expected = json.clone();
        let spec = &mut expected["spec"];
        spec["sequenceNumber"] = json!(block.sequence_number + 2);
        let mut queue = block.unallocated.clone();
        queue.rotate_left(1);
        spec["unallocated"] = json!(queue);
        assert_eq!(written(object, &given_back), expected);
    }
}

fn attributes(json: &Value) -> Vec<Value> {
    json["spec"]["attributes"].as_array().unwrap().clone()
}

#[test]
fn a_handle_with_text_behind_it_is_still_the_containers() {
    let (_, block) = block_of(&objects("IPAMBlock")[0]);
    let held = |id: &str| slots::held_by(&block, &HandleId(id.to_owned()));
    assert_eq!(held("k8s-pod-network.aabb"), [5]);
    assert_eq!(held("windows-reserved-ipam-handle"), [0, 1, 2, 15]);
}
