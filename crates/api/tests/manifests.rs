//! The manifests are what the types say.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail"
)]

use std::path::{Path, PathBuf};
use std::{env, fs};

use serde_json::Value;

/// What stands above each generated file.
const HEADER: &str = "\
# Made from the types in crates/api by its tests (UPDATE_GOLDEN=1); do not edit.
";

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests")
}

#[test]
fn crds_are_those_of_the_types() {
    let definitions = api::crd::definitions();
    assert_eq!(definitions.len(), 22);
    compare(&manifests().join("crds"), &definitions);
}

#[test]
fn crds_for_docker_are_those_of_the_types() {
    compare(&manifests().join("docker/crds"), &api::crd::definitions_for_docker());
}

fn compare(directory: &Path, definitions: &[Value]) {
    let mut names = Vec::new();
    for definition in definitions {
        let name = definition["metadata"]["name"].as_str().unwrap();
        let path = directory.join(format!("{name}.yaml"));
        let actual = format!("{HEADER}{}", serde_saphyr::to_string(definition).unwrap());
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &actual).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(actual, expected, "{} (UPDATE_GOLDEN=1 rewrites it)", path.display());
        let read: Value = serde_saphyr::from_str(&expected).unwrap();
        assert_eq!(&read, definition, "{} is read as it was written", path.display());
        names.push(format!("{name}.yaml"));
    }
    let files = fs::read_dir(directory).unwrap();
    let mut files: Vec<_> =
        files.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    names.sort();
    assert_eq!(files, names, "there is a file for each kind, and no other");
}

/// What the API server does not know it would drop, so every object says that it may stay.
#[test]
fn every_object_in_a_spec_keeps_unknown_fields() {
    fn check(schema: &Value, path: &str) {
        if schema["type"] == "object" && schema.get("additionalProperties").is_none() {
            assert_eq!(schema["x-kubernetes-preserve-unknown-fields"], true, "{path}");
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            check(property, &format!("{path}.{name}"));
        }
        if let Some(items) = schema.get("items") {
            check(items, &format!("{path}[]"));
        }
    }
    let calicos = api::crd::definitions().into_iter();
    for definition in calicos.chain(api::crd::definitions_for_docker()) {
        let name = definition["metadata"]["name"].as_str().unwrap();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        check(&schema["properties"]["spec"], &format!("{name} spec"));
        check(&schema["properties"]["status"], &format!("{name} status"));
    }
}

#[test]
fn required_fields_are_calicos() {
    let required = |plural: &str| {
        let name = format!("{plural}.crd.projectcalico.org");
        let definitions = api::crd::definitions();
        let definition = definitions.iter().find(|found| found["metadata"]["name"] == name);
        let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/required";
        let list = definition.unwrap().pointer(path).cloned().unwrap_or_default();
        let mut list: Vec<String> = serde_json::from_value(list).unwrap_or_default();
        list.sort();
        list.join(" ")
    };
    assert_eq!(required("ipamblocks"), "allocations attributes cidr strictAffinity unallocated");
    assert_eq!(required("blockaffinities"), "cidr deleted node state");
    assert_eq!(required("ipamhandles"), "block handleID");
    assert_eq!(required("ipamconfigs"), "autoAllocateBlocks strictAffinity");
    assert_eq!(required("ippools"), "cidr");
    assert_eq!(required("networkpolicies"), "");
}
