//! Definitions against what kube-apiserver made of them.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Cell, Column, CustomKind, establish, prepare, validate};
use crate::Object;

const NOW: &str = "2026-01-02T03:04:05Z";

fn recorded() -> Vec<Value> {
    let text = include_str!("../../../../testdata/embedded-api/crds.json");
    serde_json::from_str(text).unwrap()
}

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

/// Leaves out what this server words otherwise: Go's internal form of values, and what the general
/// checks of metadata find.
fn shorten(cause: &Value) -> Option<String> {
    let (field, message) = (cause["field"].as_str().unwrap(), cause["message"].as_str().unwrap());
    let is_dumped =
        message.starts_with("Invalid value: [{") || message.starts_with("Invalid value: {");
    let message = match message.rsplit_once("}: ").or_else(|| message.rsplit_once("]: ")) {
        Some((_, rule)) if is_dumped => rule,
        _ => message,
    };
    let is_general = field == "metadata.name" && message.contains("RFC 1123");
    (!is_general).then(|| format!("{field}: {message}"))
}

#[test]
fn definitions_are_prepared_and_validated_as_recorded() {
    for case in recorded() {
        let mut definition = object(case["crd"].clone());
        prepare(&mut definition, None);
        let causes = validate(&definition, None);
        let causes: Vec<_> = causes.iter().filter_map(|cause| shorten(&cause.to_value())).collect();
        let expected = case.get("causes").and_then(Value::as_array).cloned().unwrap_or_default();
        let expected: Vec<_> = expected.iter().filter_map(shorten).collect();
        if causes.iter().any(|cause| cause.contains("this server does not call webhooks")) {
            assert_eq!(expected.len(), 2);
            continue;
        }
        assert_eq!(causes, expected, "{}", case["crd"]);
        if let Some(spec) = case.get("spec") {
            assert_eq!(&definition.body["spec"], spec);
            assert_eq!(
                definition.body["status"]["storedVersions"],
                case["status"]["storedVersions"]
            );
        }
    }
}

fn ours() -> Vec<Object> {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/crds");
    let read = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        object(serde_saphyr::from_str(&text).unwrap())
    };
    std::fs::read_dir(dir).unwrap().map(|file| read(file.unwrap().path())).collect()
}

#[test]
fn our_definitions_are_established() {
    let definitions = ours();
    assert_eq!(definitions.len(), 22);
    for mut definition in definitions {
        prepare(&mut definition, None);
        assert_eq!(validate(&definition, None), []);
        establish(&mut definition, &[], NOW);
        let kind = CustomKind::new(&definition).unwrap();
        assert!(kind.served("v1").is_some() && kind.served("v2").is_none());
        assert_eq!(definition.body["status"]["conditions"][1]["status"], "True", "{}", kind.kind);
    }
}

#[test]
fn the_status_is_that_of_kubernetes() {
    let mut pools =
        ours().into_iter().find(|crd| crd.name() == Some("ippools.crd.projectcalico.org")).unwrap();
    prepare(&mut pools, None);
    establish(&mut pools, &[], NOW);
    let names = json!({
        "kind": "IPPool",
        "listKind": "IPPoolList",
        "plural": "ippools",
        "shortNames": ["ipp", "ipps", "pool", "pools"],
        "singular": "ippool",
    });
    let expected = json!({
        "acceptedNames": names,
        "conditions": [
            {
                "lastTransitionTime": NOW,
                "message": "no conflicts found",
                "reason": "NoConflicts",
                "status": "True",
                "type": "NamesAccepted",
            },
            {
                "lastTransitionTime": NOW,
                "message": "the initial names have been accepted",
                "reason": "InitialNamesAccepted",
                "status": "True",
                "type": "Established",
            },
        ],
        "storedVersions": ["v1"],
    });
    assert_eq!(pools.body["status"], expected);
}

fn definition(plural: &str, kind: &str) -> Value {
    let version = json!({
        "name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object"}},
    });
    json!({
        "metadata": {"name": format!("{plural}.example.com")},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind, "shortNames": ["s"]},
            "versions": [version],
        },
    })
}

fn established(value: Value, others: &[&Object]) -> Object {
    let mut definition = object(value);
    prepare(&mut definition, None);
    establish(&mut definition, others, NOW);
    definition
}

#[test]
fn names_that_are_in_use_are_not_accepted() {
    let first = established(definition("foos", "Foo"), &[]);
    let second = established(definition("bars", "Foo"), &[&first]);
    let conditions = &second.body["status"]["conditions"];
    assert_eq!(conditions[0]["reason"], "ShortNamesConflict");
    assert_eq!(conditions[0]["message"], "\"s\" is already in use");
    assert_eq!(conditions[1]["reason"], "NotAccepted");
    assert_eq!(second.body["status"]["acceptedNames"]["plural"], "bars");
    assert_eq!(second.body["status"]["acceptedNames"].get("kind"), None);
}

#[test]
fn an_established_definition_keeps_its_names_and_stored_versions() {
    let old = established(definition("foos", "Foo"), &[]);
    let mut changed = definition("foos", "Bar");
    changed["spec"]["scope"] = json!("Cluster");
    changed["spec"]["versions"][0]["name"] = json!("v2");
    let mut changed = object(changed);
    prepare(&mut changed, Some(&old));
    assert_eq!(changed.body["status"]["storedVersions"], json!(["v1", "v2"]));
    let fields: Vec<_> =
        validate(&changed, Some(&old)).into_iter().map(|cause| cause.field).collect();
    assert_eq!(fields, ["spec.scope", "spec.names.kind", "status.storedVersions[0]"]);
}

#[test]
fn a_condition_keeps_its_time_while_its_status_stays() {
    let mut definition = established(definition("foos", "Foo"), &[]);
    establish(&mut definition, &[], "2027-01-01T00:00:00Z");
    assert_eq!(definition.body["status"]["conditions"][1]["lastTransitionTime"], NOW);
}

#[test]
fn columns_show_what_their_paths_find() {
    let object = json!({
        "metadata": {"labels": {"x.y/z": "l"}, "creationTimestamp": NOW},
        "spec": {
            "a": "text",
            "b": true,
            "f": 1.7,
            "nul": null,
            "o": {"z": 1, "y": ["q", null]},
            "list": [{"n": 1}, {"n": 2, "t": "q"}],
        },
        "status": {"conditions": [{"type": "Up", "status": "?"}, {"type": "Ready", "status": "True"}]},
    });
    // As kube-apiserver 1.34.4 showed this object.
    let cases = [
        ("string", ".spec.a", json!("text")),
        ("string", ".spec.list[1].n", json!("2")),
        ("string", r#".status.conditions[?(@.type=="Ready")].status"#, json!("True")),
        ("string", ".metadata.labels['x.y/z']", json!(null)),
        ("string", r".metadata.labels['x\.y/z']", json!("l")),
        ("string", r".metadata.labels.x\.y/z", json!("l")),
        ("string", ".spec.list", json!(r#"[{"n":1},{"n":2,"t":"q"}]"#)),
        ("string", ".spec.list[*].n", json!("1")),
        ("string", ".spec.b", json!("true")),
        ("string", ".spec.missing.x", json!(null)),
        ("string", ".spec.list[-1].n", json!("2")),
        ("string", ".spec.nul", json!("<no value>")),
        ("string", ".spec.f", json!("1.7")),
        ("string", ".spec.list[?(@.n>1)].n", json!("2")),
        ("string", ".spec.list[?(@.n==2)].n", json!("2")),
        ("string", ".spec.list[?(@.t=='q')].n", json!("2")),
        ("string", ".spec.list[5].n", json!(null)),
        ("string", ".spec.o", json!(r#"{"y":["q",null],"z":1}"#)),
        ("string", ".", json!(null)),
        ("integer", ".spec.f", json!(1)),
        ("integer", ".spec.a", json!(null)),
        ("boolean", ".spec.b", json!(true)),
        ("date", ".spec.list", json!(null)),
    ];
    for (kind, path, expected) in cases {
        let columns = json!([{"name": "X", "type": kind, "jsonPath": path}]);
        let columns = Column::all(Some(&columns));
        assert_eq!(columns[0].cell(&object), Cell::Value(expected), "{path}");
    }
    let age = &Column::all(None)[0];
    assert_eq!(age.cell(&object), Cell::Since(NOW.to_owned()));
}

#[test]
fn paths_that_are_not_understood_are_refused() {
    for path in [".spec.list[0:2].n", "..n", ".spec['a','b']", ".spec[", ".spec[?(@.n)]"] {
        let mut foos = definition("foos", "Foo");
        foos["spec"]["versions"][0]["additionalPrinterColumns"] =
            json!([{"name": "X", "type": "string", "jsonPath": path}]);
        let causes = validate(&established(foos, &[]), None);
        assert_eq!(causes.len(), 1, "{path}");
        assert_eq!(causes[0].field, "spec.additionalPrinterColumns[0].JSONPath");
    }
}

proptest! {
    #[test]
    fn any_path_is_read_or_refused(path in "[.a\\[\\]'*?@()=<>0-9\\\\\"-]{0,16}|\\PC{0,12}") {
        let object = json!({"a": [{"a": 1}, {"a": "x"}], "": {"a": null}});
        if let Some(path) = super::path::Path::parse(&path) {
            let _ = path.first(&object);
        }
    }

    #[test]
    fn a_broken_definition_is_refused(at in 0..6_usize, value in "[a-z.]{0,3}") {
        let places = ["group", "scope", "names", "versions", "conversion", "preserveUnknownFields"];
        let mut foos = definition("foos", "Foo");
        foos["spec"][places[at]] = json!(value);
        let foos = established(foos, &[]);
        let is_harmless = ["conversion", "preserveUnknownFields"].contains(&places[at]);
        prop_assert_eq!(validate(&foos, None).is_empty(), is_harmless);
        let _ = CustomKind::new(&foos);
    }
}
