//! What holds for any bytes as a selector: Calico's, a label selector and a field selector.

use std::collections::BTreeMap;

use embedded_api::Object;
use embedded_api::selector::{Fields, Labels, Selectable};
use selector::Selector;
use serde_json::json;

/// Panics if one of the parsers breaks its promises on `bytes`.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    calico(text);
    labels(text);
    fields(text);
}

/// The canonical text means the same and is its own canonical text.
fn calico(text: &str) {
    match text.parse::<Selector>() {
        Err(error) => assert!(!error.to_string().is_empty(), "a refusal without words: {text:?}"),
        Ok(selector) => {
            let canonical = selector.to_string();
            let again: Selector = canonical.parse().expect("canonical text is a selector");
            assert_eq!(again.to_string(), canonical, "of {text:?}");
            for labels in samples() {
                assert_eq!(selector.matches(&labels), again.matches(&labels), "{text:?}");
            }
        }
    }
}

/// A refusal is a bad request with words; what is parsed matches the same twice.
fn labels(text: &str) {
    match Labels::parse(text) {
        Err(status) => assert!(status.code == 400 && !status.message.is_empty(), "{text:?}"),
        Ok(labels) => {
            for object in samples().iter().map(object) {
                let is_match = labels.matches(&object);
                assert!(is_match || !labels.is_empty(), "{text:?} is empty and refuses something");
                assert_eq!(is_match, labels.clone().matches(&object), "{text:?}");
            }
        }
    }
}

/// A refusal is a bad request with words; a name that is required is the only one that matches.
fn fields(text: &str) {
    for selectable in [Selectable::Builtin("pods"), Selectable::Cluster(&[])] {
        match Fields::parse(selectable, text) {
            Err(status) => assert!(status.code == 400 && !status.message.is_empty(), "{text:?}"),
            Ok(fields) => {
                let required = fields.required("metadata.name");
                for object in samples().iter().map(object) {
                    let is_named = required.is_none_or(|name| object.name() == Some(name));
                    assert!(is_named || !fields.matches(&object), "{text:?}");
                }
            }
        }
    }
}

fn samples() -> Vec<BTreeMap<String, String>> {
    let sample = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    vec![
        sample(&[]),
        sample(&[("app", "web"), ("tier", "")]),
        sample(&[("app", "db"), ("projectcalico.org/namespace", "default")]),
    ]
}

fn object(labels: &BTreeMap<String, String>) -> Object {
    let value = json!({
        "metadata": {"name": "one", "namespace": "default", "labels": labels},
        "spec": {"nodeName": "node-1"}, "status": {"phase": "Running"},
    });
    Object::from_value(value).expect("an object")
}
