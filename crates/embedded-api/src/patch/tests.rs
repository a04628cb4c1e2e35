//! Patches against what kube-apiserver made of them.

#![expect(clippy::wildcard_enum_match_arm, reason = "JSON will get no further types")]

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::Status;

fn recorded(kind: &str) -> Value {
    let text = include_str!("../../../../testdata/embedded-api/patches.json");
    let recorded: Value = serde_json::from_str(text).unwrap();
    recorded[kind].clone()
}

/// Runs the recorded cases whose patch is JSON at all.
fn check(group: &Value, apply: impl Fn(&Value, &Value) -> Result<Value, Status>) {
    for case in group["cases"].as_array().unwrap() {
        let text = case["patch"].as_str().unwrap();
        let Ok(patch) = serde_json::from_str::<Value>(text) else { continue };
        let answer = match apply(&group["document"], &patch) {
            Ok(result) => json!({"result": without_empty(result)}),
            Err(status) => json!({"status": shape(&status)}),
        };
        let expected = match case.get("result") {
            Some(result) => json!({"result": without_empty(result.clone())}),
            None => json!({"status": case["status"]}),
        };
        assert_eq!(answer, expected, "{text}");
    }
}

fn shape(status: &Status) -> Value {
    let mut body = status.body();
    let body = body.as_object_mut().unwrap();
    body.retain(|key, _| ["code", "reason", "message", "details"].contains(&key.as_str()));
    json!(body)
}

/// Leaves out what typed objects do not tell from absent.
fn without_empty(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let members = map.into_iter().map(|(key, value)| (key, without_empty(value)));
            let is_kept = |value: &Value| {
                !matches!(value, Value::Null) && *value != json!([]) && *value != json!({})
            };
            members.filter(|(_, value)| is_kept(value)).collect()
        }
        Value::Array(list) => list.into_iter().map(without_empty).collect(),
        scalar => scalar,
    }
}

#[test]
fn json_patches_apply_as_recorded() {
    check(&recorded("json"), super::json);
}

#[test]
fn merge_patches_apply_as_recorded() {
    check(&recorded("merge"), super::merge);
}

#[test]
fn strategic_patches_apply_as_recorded() {
    for group in recorded("strategic").as_array().unwrap() {
        let kind = group["kind"].as_str().unwrap();
        check(group, |current, patch| super::strategic(kind, current, patch));
    }
}

#[test]
fn containers_are_merged_by_name_in_the_order_of_the_patch() {
    let pod = json!({"spec": {"containers": [
        {"name": "one", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
        {"name": "two"},
    ]}});
    let patch = json!({"spec": {
        "$setElementOrder/containers": [{"name": "three"}, {"name": "one"}],
        "containers": [
            {"name": "three", "image": "new"},
            {"name": "one", "env": [{"name": "B", "$patch": "delete"}, {"name": "C", "value": "3"}]},
        ],
    }});
    let expected = json!({"spec": {"containers": [
        {"name": "three", "image": "new"},
        {"name": "one", "env": [{"name": "C", "value": "3"}, {"name": "A", "value": "1"}]},
        {"name": "two"},
    ]}});
    assert_eq!(super::strategic("Pod", &pod, &patch), Ok(expected));
}

#[test]
fn a_patch_of_too_many_operations_is_refused() {
    let patch = Value::Array(vec![json!({"op": "test", "path": "", "value": {}}); 10_001]);
    assert_eq!(super::json(&json!({}), &patch).unwrap_err().code, 413);
}

fn any_json() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        Just("a".to_owned()),
        Just("name".to_owned()),
        Just("$patch".to_owned()),
        Just("$retainKeys".to_owned()),
        Just("containers".to_owned()),
        Just("spec".to_owned()),
        Just("$setElementOrder/containers".to_owned()),
        Just("$deleteFromPrimitiveList/finalizers".to_owned()),
        Just("finalizers".to_owned()),
        Just("metadata".to_owned()),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3_i64).prop_map(Value::from),
        prop_oneof![Just("delete"), Just("replace"), Just("x")].prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(key.clone(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_patch_is_applied_or_refused(current in any_json(), patch in any_json()) {
        let _ = super::json(&current, &patch);
        let _ = super::merge(&current, &patch);
        let _ = super::strategic("Pod", &current, &patch);
    }

    #[test]
    fn an_empty_patch_changes_nothing(current in any_json()) {
        prop_assume!(current.is_object());
        prop_assert_eq!(super::json(&current, &json!([])), Ok(current.clone()));
        prop_assert_eq!(super::merge(&current, &json!({})), Ok(current.clone()));
        prop_assert_eq!(super::strategic("Pod", &current, &json!({})), Ok(current.clone()));
    }

    #[test]
    fn a_merge_patch_is_idempotent(current in any_json(), patch in any_json()) {
        if let Ok(once) = super::merge(&current, &patch) {
            prop_assert_eq!(super::merge(&once, &patch), Ok(once));
        }
    }

    #[test]
    fn json_pointers_survive_any_text(path in "[/~01a-]{0,8}", from in "[/~01a-]{0,8}") {
        let current = json!({"a": [1, {"a": 0}], "": {"": 1}, "~": 1, "/": 2});
        for op in ["add", "remove", "replace", "move", "copy", "test"] {
            let patch = json!([{"op": op, "path": path, "from": from, "value": 1}]);
            let _ = super::json(&current, &patch);
        }
    }
}
