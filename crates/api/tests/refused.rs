//! Wrong objects are refused, each with one line that says what to do.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail"
)]

mod common;

use std::{env, fs};

use common::{read, testdata};
use serde_json::{Value, json};

/// Returns the object of an entry of the table.
fn object(entry: &Value) -> Value {
    let mut json = json!({
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": entry["kind"],
        "metadata": {"name": entry.get("name").cloned().unwrap_or_else(|| "x".into())},
        "spec": entry["spec"],
    });
    if let Some(annotations) = entry.get("annotations") {
        json["metadata"]["annotations"] = annotations.clone();
    }
    if let Some(namespace) = entry.get("namespace") {
        json["metadata"]["namespace"] = namespace.clone();
    }
    json
}

#[test]
fn wrong_objects_are_refused_with_a_remedy() {
    let entries = fs::read_to_string(testdata("refused.yaml")).unwrap();
    let entries: Vec<Value> = serde_saphyr::from_str(&entries).unwrap();
    let lines = entries.iter().map(|entry| match read(&object(entry)) {
        Err(invalid) => format!("{invalid}\n"),
        Ok(_) => panic!("{entry} is not refused"),
    });
    let actual: String = lines.collect();
    assert_eq!(actual.lines().count(), entries.len(), "each error is one line");
    let path = testdata("refused.txt");
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &actual).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    for (actual, expected) in actual.lines().zip(expected.lines()) {
        assert_eq!(actual, expected, "UPDATE_GOLDEN=1 rewrites {}", path.display());
    }
    assert_eq!(actual, expected, "UPDATE_GOLDEN=1 rewrites {}", path.display());
}

#[test]
fn objects_of_other_kinds_are_refused() {
    let json = json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "Tier"});
    let error = api::IpPool::from_json(&json).unwrap_err();
    assert_eq!(error.to_string(), "IPPool : kind `Tier` is not the one wanted here: use IPPool");
    let json = json!({"apiVersion": "projectcalico.org/v3", "kind": "IPPool",
        "metadata": {"name": "a"}});
    let error = api::IpPool::from_json(&json).unwrap_err();
    assert_eq!(
        error.to_string(),
        "IPPool a: apiVersion `projectcalico.org/v3` is not the one wanted here: \
         use crd.projectcalico.org/v1"
    );
}

#[test]
fn hostile_values_stay_on_one_short_line() {
    let value = format!("a\nb\u{1b}[31m{}", "x".repeat(10_000));
    let entry = json!({"kind": "IPPool", "spec": {"cidr": value}});
    let line = read(&object(&entry)).unwrap_err().to_string();
    assert_eq!(line.lines().count(), 1);
    assert!(line.len() < 300, "{}", line.len());
    assert!(!line.contains('\u{1b}'));
}
