//! Schemas against what kube-apiserver made of them.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::Schema;
use crate::Cause;

const PATH: &str = "spec.validation.openAPIV3Schema";

/// The schemas that objects were recorded for.
static SCHEMAS: LazyLock<Vec<Schema>> = LazyLock::new(|| {
    let groups = recorded("schemas");
    let groups = groups.as_array().unwrap().iter();
    groups.map(|group| Schema::parse(&group["schema"], PATH).unwrap()).collect()
});

fn recorded(part: &str) -> Value {
    let text = include_str!("../../../../testdata/embedded-api/schemas.json");
    let recorded: Value = serde_json::from_str(text).unwrap();
    recorded[part].clone()
}

/// Returns causes in an order that does not depend on that of members.
fn sorted(causes: impl IntoIterator<Item = Value>) -> Vec<String> {
    let mut causes: Vec<_> = causes.into_iter().map(|cause| cause.to_string()).collect();
    causes.sort_unstable();
    causes
}

fn object(spec: &Value) -> Value {
    json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "x"}, "spec": spec})
}

#[test]
fn objects_are_pruned_defaulted_and_validated_as_recorded() {
    for group in recorded("schemas").as_array().unwrap() {
        let schema = Schema::parse(&group["schema"], PATH).unwrap();
        for case in group["cases"].as_array().unwrap() {
            let name = &case["spec"];
            let mut object = object(name);
            let unknown = schema.prune(&mut object);
            assert_eq!(json!(unknown), case.get("unknown").cloned().unwrap_or(json!([])), "{name}");
            schema.default(&mut object);
            let causes = schema.validate(&object, None);
            let expected =
                case.get("causes").and_then(Value::as_array).cloned().unwrap_or_default();
            assert_eq!(sorted(causes.iter().map(Cause::to_value)), sorted(expected), "{name}");
            if let Some(result) = case.get("result") {
                assert_eq!(&object["spec"], result, "{name}");
            }
        }
    }
}

#[test]
fn schemas_are_refused_as_recorded() {
    for case in recorded("refused").as_array().unwrap() {
        let causes = Schema::parse(&case["schema"], PATH).err().unwrap_or_default();
        // The words of the compiler of regular expressions are its own.
        let shorten = |cause: Value| {
            let message = cause["message"].as_str().unwrap();
            let message = message.split("but isn't: ").next().unwrap();
            json!({"reason": cause["reason"], "field": cause["field"], "message": message})
        };
        let expected = case["causes"].as_array().cloned().unwrap_or_default();
        let expected = sorted(expected.into_iter().map(shorten));
        let causes = sorted(causes.iter().map(Cause::to_value).map(shorten));
        assert_eq!(causes, expected, "{}", case["schema"]);
    }
}

#[test]
fn rules_in_cel_are_refused() {
    let rules = json!([{"rule": "self.a > 0"}]);
    let schema = json!({"type": "object", "x-kubernetes-validations": rules});
    let causes = Schema::parse(&schema, PATH).unwrap_err();
    assert_eq!(causes[0].field, format!("{PATH}.x-kubernetes-validations"));
    assert!(causes[0].message.contains("CEL"));
}

#[test]
fn what_did_not_change_is_not_complained_of() {
    let recorded = recorded("ratcheting");
    let schema = Schema::parse(&recorded["schema"], PATH).unwrap();
    let old = object(&recorded["old"]);
    for update in recorded["updates"].as_array().unwrap() {
        let causes = schema.validate(&object(&update["new"]), Some(&old));
        let causes: Vec<_> = causes.iter().map(Cause::to_value).collect();
        assert_eq!(json!(causes), update["causes"], "{}", update["new"]);
    }
}

/// The schemas of all our CRDs.
fn ours() -> Vec<(String, Schema)> {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/crds");
    let files = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    let read = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let crd: Value = serde_saphyr::from_str(&text).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let schema = Schema::parse(schema, PATH).unwrap();
        (crd["spec"]["names"]["kind"].as_str().unwrap().to_owned(), schema)
    };
    files.map(read).collect()
}

#[test]
fn our_crds_have_schemas() {
    let mut schemas = ours();
    assert_eq!(schemas.len(), 22);
    schemas.retain(|(kind, _)| kind == "IPPool");
    let (_, pools) = &schemas[0];
    let mut pool = object(&json!({"blockSize": "x", "frob": 1}));
    pool["frob"] = json!(1);
    assert_eq!(pools.prune(&mut pool), ["frob"], "the spec keeps what it does not know");
    let causes: Vec<_> = pools.validate(&pool, None).iter().map(Cause::text).collect();
    let expected = [
        "spec.blockSize: Invalid value: \"string\": spec.blockSize in body must be of type \
         integer: \"string\"",
        "spec.cidr: Required value",
    ];
    assert_eq!(causes, expected);
}

fn any_json() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        Just("spec"),
        Just("s"),
        Just("l"),
        Just("o"),
        Just("one"),
        Just("map"),
        Just("k"),
        Just("metadata"),
        Just("x"),
        Just("nest"),
        Just("set"),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 4, move |inner| {
        let members =
            prop::collection::btree_map(key.clone().prop_map(str::to_owned), inner.clone(), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::Array),
            members.prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn pruning_and_defaulting_settle(mut object in any_json()) {
        for schema in SCHEMAS.iter() {
            schema.prune(&mut object);
            schema.default(&mut object);
            let settled = object.clone();
            prop_assert_eq!(schema.prune(&mut object), Vec::<String>::new());
            schema.default(&mut object);
            prop_assert_eq!(&object, &settled);
            // What is unchanged is allowed, whatever it is; lists may have had duplicates before.
            prop_assert_eq!(schema.validate(&object, Some(&settled)), Vec::new());
        }
    }

    #[test]
    fn any_schema_is_read_or_refused(schema in any_json(), object in any_json()) {
        let schema = json!({"type": "object", "properties": schema});
        if let Ok(schema) = Schema::parse(&schema, PATH) {
            let _ = schema.validate(&object, None);
        }
    }
}
