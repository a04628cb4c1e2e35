//! Every kind of object is read, and written back as it was.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail"
)]

mod common;

use std::fs;

use common::{read, testdata};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Returns the objects of testdata/api/objects.
fn objects() -> Vec<Value> {
    let mut files: Vec<_> =
        fs::read_dir(testdata("objects")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path| serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    files.into_iter().map(read).collect()
}

#[test]
fn there_is_a_valid_object_of_each_kind() {
    let mut kinds: Vec<String> =
        objects().iter().map(|json| json["kind"].as_str().unwrap().to_owned()).collect();
    let mut defined: Vec<String> = api::crd::definitions()
        .iter()
        .map(|crd| crd["spec"]["names"]["kind"].as_str().unwrap().to_owned())
        .collect();
    kinds.sort();
    defined.sort();
    assert_eq!(kinds, defined);
}

#[test]
fn objects_are_written_as_they_were_read() {
    for json in objects() {
        // Metadata is Kubernetes' own; what it leaves out is null or absent.
        assert_eq!(read(&json), Ok(json.clone()));
    }
}

#[test]
fn numbers_beyond_a_float_survive() {
    for number in [1_782_300_755_123_456_789, (1_u64 << 53) + 1, u64::MAX - 1, u64::MAX] {
        let mut json = objects().into_iter().find(|json| json["kind"] == "IPAMBlock").unwrap();
        json["spec"]["sequenceNumber"] = number.into();
        json["spec"]["sequenceNumberForAllocation"]["1"] = number.into();
        let text = json.to_string();
        let object: api::IpamBlock = serde_json::from_str(&text).unwrap();
        let block = model::block::Block::try_from(&object).unwrap();
        assert_eq!(block.sequence_number, number);
        let mut written = object.clone();
        written.set(&block);
        assert_eq!(written, object);
        assert!(serde_json::to_string(&written).unwrap().contains(&number.to_string()));
    }
}

#[test]
fn lists_that_calico_requires_are_never_null() {
    let json = json!({
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "IPAMBlock",
        "metadata": {"name": "10-0-0-0-32"},
        "spec": {
            "cidr": "10.0.0.0/32", "allocations": [null], "unallocated": null,
            "attributes": null, "strictAffinity": false,
        },
    });
    let written = read(&json).unwrap();
    assert_eq!(written["spec"]["unallocated"], json!([]));
    assert_eq!(written["spec"]["attributes"], json!([]));
    assert_eq!(written["spec"]["allocations"], json!([null]));
}

/// Adds `unknown` fields to every object inside `json` of which the schema says that it keeps them.
fn with_unknown(json: &mut Value, schema: &Value, unknown: &Map<String, Value>) {
    match json {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                with_unknown(value, &schema["properties"][name], unknown);
            }
            if schema["x-kubernetes-preserve-unknown-fields"] == true {
                let new = unknown.iter().map(|(key, value)| (format!("new-{key}"), value.clone()));
                fields.extend(new);
            }
        }
        Value::Array(values) => {
            for value in values {
                with_unknown(value, &schema["items"], unknown);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Returns the objects with the schemas of their specs.
fn objects_with_schemas() -> Vec<(Value, Value)> {
    let definitions = api::crd::definitions();
    let schema = |kind: &Value| {
        let definition = definitions.iter().find(|crd| crd["spec"]["names"]["kind"] == *kind);
        definition.unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
            .clone()
    };
    objects().into_iter().map(|json| (json.clone(), schema(&json["kind"]))).collect()
}

/// Returns any JSON.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("JSON has no infinity", |number| number.is_finite())
            .prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,8}", inner, 0..4)
                .prop_map(|fields| fields.into_iter().collect::<Map<_, _>>().into()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 16,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn unknown_fields_survive(
        unknown in prop::collection::btree_map("[a-z]{1,8}", any_json(), 1..4),
    ) {
        let unknown: Map<String, Value> = unknown.into_iter().collect();
        for (mut json, schema) in objects_with_schemas() {
            with_unknown(&mut json["spec"], &schema, &unknown);
            let root = json.as_object_mut().unwrap();
            root.extend(unknown.iter().map(|(key, value)| (format!("new-{key}"), value.clone())));
            prop_assert_eq!(read(&json).unwrap(), json);
        }
    }

    #[test]
    fn unknown_fields_survive_a_change_of_a_block(
        unknown in prop::collection::btree_map("[a-z]{1,8}", any_json(), 1..4),
    ) {
        let unknown: Map<String, Value> = unknown.into_iter().collect();
        let all = objects_with_schemas();
        let (mut json, schema) =
            all.into_iter().find(|(json, _)| json["kind"] == "IPAMBlock").unwrap();
        with_unknown(&mut json["spec"], &schema, &unknown);
        let mut object = api::IpamBlock::from_json(&json).unwrap();
        let mut block = model::block::Block::try_from(&object).unwrap();
        // The second holder gives his address back, and the first is all there is.
        block.attributes.truncate(1);
        block.allocations[2] = None;
        block.unallocated.push(2);
        block.allocated_at.remove(&2);
        block.sequence_number += 1;
        object.set(&block);
        json["spec"]["attributes"].as_array_mut().unwrap().truncate(1);
        json["spec"]["allocations"][2] = Value::Null;
        json["spec"]["unallocated"] = json!([3, 0, 2]);
        json["spec"]["sequenceNumberForAllocation"].as_object_mut().unwrap().remove("2");
        json["spec"]["sequenceNumber"] = 1_782_300_755_123_456_790_u64.into();
        prop_assert_eq!(serde_json::to_value(&object).unwrap(), json);
    }
}
