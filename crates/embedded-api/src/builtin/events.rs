//! Events: one thing in two groups; both are kept as core/v1 and shown as asked for.

use serde_json::{Map, Value, json};

use super::core::default;
use super::{Rules, Trait};
use crate::Object;
use crate::cause::Cause;

/// Names of fields in core/v1 and in events.k8s.io/v1.
const NAMES: [(&str, &str); 6] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

pub(super) const fn event(rules: Rules) -> Rules {
    Rules {
        traits: &[Trait::CreatesOnUpdate],
        default: |event| complete(&mut event.body),
        validate,
        validate_update: |new, _| validate(new),
        ..rules
    }
}

pub(super) const fn events_event(rules: Rules) -> Rules {
    Rules {
        default: |event| {
            to_core(event);
            complete(&mut event.body);
        },
        ..self::event(rules)
    }
}

fn complete(body: &mut Map<String, Value>) {
    default(body, "involvedObject", json!({}));
    default(body, "source", json!({}));
    for field in ["firstTimestamp", "lastTimestamp", "eventTime"] {
        default(body, field, Value::Null);
    }
    for field in ["reportingComponent", "reportingInstance"] {
        default(body, field, json!(""));
    }
}

/// Gives the fields the names of core/v1.
pub(crate) fn to_core(event: &mut Object) {
    for (core, other) in NAMES {
        if let Some(value) = event.body.remove(other) {
            event.body.insert(core.to_owned(), value);
        }
    }
    if let Some(value) = event.body.remove("reportingController") {
        event.body.insert("reportingComponent".to_owned(), value);
    }
    event.body.insert("apiVersion".to_owned(), json!("v1"));
}

/// Gives the fields the names of events.k8s.io/v1.
pub(crate) fn to_events(event: &mut Object) {
    for (core, other) in NAMES {
        if let Some(value) = event.body.remove(core) {
            event.body.insert(other.to_owned(), value);
        }
    }
    let controller = event.body.remove("reportingComponent").unwrap_or_default();
    if controller.as_str().is_some_and(|text| !text.is_empty()) {
        event.body.insert("reportingController".to_owned(), controller);
    }
    if event.body.get("reportingInstance").and_then(Value::as_str) == Some("") {
        event.body.remove("reportingInstance");
    }
    event.body.insert("apiVersion".to_owned(), json!("events.k8s.io/v1"));
}

fn validate(event: &Object) -> Vec<Cause> {
    let about = event.body.get("involvedObject").and_then(|about| about.get("namespace"));
    let about = about.and_then(Value::as_str).unwrap_or_default();
    let own = event.namespace().unwrap_or_default();
    // What belongs to no namespace is told of in the default one.
    if about == own || (about.is_empty() && matches!(own, "default" | "kube-system")) {
        return Vec::new();
    }
    let detail = "does not match event.namespace";
    vec![Cause::invalid("involvedObject.namespace", &json!(about), detail)]
}
