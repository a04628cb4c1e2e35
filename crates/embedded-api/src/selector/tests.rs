//! Selectors against what kube-apiserver answered, and against objects.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Fields, Labels, Selectable};
use crate::Object;

fn recorded() -> Value {
    let text = include_str!("../../../../testdata/embedded-api/selectors.json");
    serde_json::from_str(text).unwrap()
}

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

fn labelled(labels: &Value) -> Object {
    object(json!({"metadata": {"labels": labels}}))
}

#[test]
fn label_selectors_are_refused_as_recorded() {
    for row in recorded()["labels"].as_array().unwrap() {
        let selector = row[0].as_str().unwrap();
        let message = Labels::parse(selector).err().map(|status| status.message);
        assert_eq!(message.as_deref(), row[1].as_str(), "{selector}");
    }
}

#[test]
fn field_selectors_are_refused_as_recorded() {
    for row in recorded()["fields"].as_array().unwrap() {
        let (resource, selector) = (row[0].as_str().unwrap(), row[1].as_str().unwrap());
        let selectable = match resource {
            "ippools.crd.projectcalico.org" => Selectable::Cluster(&[]),
            "networkpolicies.crd.projectcalico.org" => Selectable::Namespaced(&[]),
            _ => Selectable::Builtin(resource),
        };
        let message = Fields::parse(selectable, selector).err().map(|status| status.message);
        assert_eq!(message.as_deref(), row[2].as_str(), "{resource} {selector}");
    }
}

#[test]
fn labels_match() {
    let cases = [
        ("", true),
        ("a", true),
        ("b", false),
        ("!a", false),
        ("!b", true),
        ("a=x", true),
        ("a==y", false),
        ("a!=y", true),
        ("b!=y", true),
        ("a in (x,y)", true),
        ("a in ()", false),
        ("e in (,)", true),
        ("e=", true),
        ("a notin (x)", false),
        ("b notin (x)", true),
        ("n>4", true),
        ("n>5", false),
        ("n<6", true),
        ("a<6", false),
        ("b<6", false),
        ("a=x,n=5", true),
        ("a=x,n=6", false),
    ];
    let object = labelled(&json!({"a": "x", "e": "", "n": "5"}));
    for (selector, expected) in cases {
        assert_eq!(Labels::parse(selector).unwrap().matches(&object), expected, "{selector}");
    }
}

#[test]
fn fields_match() {
    let pod = json!({
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"nodeName": "one", "hostNetwork": true},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]},
    });
    let event = json!({
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod"},
        "source": {"component": "kubelet"},
    });
    let cases = [
        ("pods", &pod, "metadata.name=p", true),
        ("pods", &pod, "metadata.name!=p", false),
        ("pods", &pod, "metadata.namespace=n,spec.nodeName=one", true),
        ("pods", &pod, "spec.host=one", true),
        ("pods", &pod, "spec.nodeName=two", false),
        ("pods", &pod, "spec.nodeName=", false),
        ("pods", &pod, "spec.hostNetwork=true", true),
        ("pods", &pod, "status.phase!=Succeeded,status.phase!=Failed", true),
        ("pods", &pod, "status.podIP=10.0.0.1", true),
        ("nodes", &json!({}), "spec.unschedulable=false", true),
        ("events", &event, "involvedObject.kind=Pod", true),
        ("events.events.k8s.io", &event, "regarding.kind=Pod", true),
        ("events", &event, "source=kubelet", true),
        ("secrets", &json!({"type": "Opaque"}), "type=Opaque", true),
    ];
    for (resource, value, selector, expected) in cases {
        let fields = Fields::parse(Selectable::Builtin(resource), selector).unwrap();
        assert_eq!(fields.matches(&object(value.clone())), expected, "{resource} {selector}");
    }
}

#[test]
fn selectable_fields_of_custom_resources_match() {
    let paths = [".spec.color".to_owned()];
    let fields = Fields::parse(Selectable::Cluster(&paths), "spec.color=red").unwrap();
    assert!(fields.matches(&object(json!({"spec": {"color": "red"}}))));
    assert!(!fields.matches(&object(json!({"spec": {"color": "blue"}}))));
}

#[test]
fn tells_which_object_is_required() {
    let fields = Fields::parse(Selectable::Builtin("nodes"), "metadata.name=one").unwrap();
    assert_eq!(fields.required("metadata.name"), Some("one"));
    let fields = Fields::parse(Selectable::Builtin("nodes"), "metadata.name!=one").unwrap();
    assert_eq!(fields.required("metadata.name"), None);
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[ab!=<>(), \\\\é./\\-]{0,24}|\\PC{0,24}") {
        let nothing = Object::default();
        let _ = Labels::parse(&text).map(|labels| labels.matches(&nothing));
        let _ = Fields::parse(Selectable::Builtin("pods"), &text).map(|fields| fields.matches(&nothing));
    }

    #[test]
    fn a_label_matches_its_own_selector(key in "[a-z]{1,8}", value in "([a-z0-9]{1,8})?") {
        let object = labelled(&json!({ key.clone(): value.clone() }));
        let matches = |selector: String| Labels::parse(&selector).unwrap().matches(&object);
        let (equal, within) = (format!("{key}={value}"), format!("{key} in ({value},other)"));
        let differs = format!("{key}!={value}");
        prop_assert!(matches(equal));
        prop_assert!(matches(within));
        prop_assert!(!matches(differs));
    }
}
