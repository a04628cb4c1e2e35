//! The small kinds: `ConfigMap`, Secret, `ServiceAccount`, Namespace, Lease, `PodDisruptionBudget`, definitions.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{Rules, Trait};
use crate::cause::{Cause, Problem};
use crate::verb::names::{self, Rule};
use crate::{Object, crd};

/// The finalizer of every namespace's spec.
pub(crate) const NAMESPACE_FINALIZER: &str = "kubernetes";
const FROZEN: &str = "field is immutable when `immutable` is set";
const DATA_LIMIT: usize = 1 << 20;

pub(super) const fn config_map(rules: Rules) -> Rules {
    Rules {
        validate: validate_config_map,
        validate_update: |new, old| {
            let mut causes = frozen(new, old, &["data", "binaryData"]);
            causes.extend(validate_config_map(new));
            causes
        },
        ..rules
    }
}

pub(super) const fn secret(rules: Rules) -> Rules {
    Rules {
        default: default_secret,
        on_update: |new, old| {
            if !new.body.contains_key("type") {
                copy(new, old, "type");
            }
        },
        validate: validate_secret,
        validate_update: |new, old| {
            let mut causes = Vec::new();
            if new.body.get("type") != old.body.get("type") {
                let value = new.body.get("type").cloned().unwrap_or_default();
                causes.push(Cause::invalid("type", &value, "field is immutable"));
            }
            causes.extend(frozen(new, old, &["data"]));
            causes.extend(validate_secret(new));
            causes
        },
        ..rules
    }
}

pub(super) const fn service_account(rules: Rules) -> Rules {
    Rules { traits: &[Trait::ReturnsDeleted], ..rules }
}

pub(super) const fn namespace(rules: Rules) -> Rules {
    Rules {
        traits: &[Trait::ReturnsDeleted],
        name: Rule::Label,
        on_create: |namespace| {
            add_finalizer(namespace);
            namespace.body.insert("status".to_owned(), json!({"phase": "Active"}));
            label_name(namespace);
        },
        on_update: |new, old| {
            copy(new, old, "spec");
            label_name(new);
        },
        on_status: label_name,
        validate_status: |new, _| validate_phase(new),
        ..rules
    }
}

pub(super) const fn lease(rules: Rules) -> Rules {
    Rules {
        traits: &[Trait::RequiresVersion, Trait::CreatesOnUpdate],
        default: |lease| default(&mut lease.body, "spec", json!({})),
        validate: validate_lease,
        validate_update: |new, _| validate_lease(new),
        ..rules
    }
}

pub(super) const fn budget(rules: Rules) -> Rules {
    Rules {
        traits: &[Trait::Generation, Trait::RequiresVersion],
        on_create: |budget| {
            let status = json!({
                "disruptionsAllowed": 0,
                "currentHealthy": 0,
                "desiredHealthy": 0,
                "expectedPods": 0,
            });
            budget.body.insert("status".to_owned(), status);
        },
        validate: validate_budget,
        validate_update: |new, _| validate_budget(new),
        ..rules
    }
}

/// The contents of definitions are judged by [`crate::crd`].
pub(super) const fn definition(rules: Rules) -> Rules {
    Rules {
        traits: &[Trait::Generation],
        default: |definition| {
            // Go has no list where the client sent none.
            if let Some(spec) = section(definition, "spec")
                && spec.get("versions") == Some(&json!([]))
            {
                spec.insert("versions".to_owned(), Value::Null);
            }
        },
        on_create: |definition| {
            crd::prepare(definition, None);
            if let Some(status) = section(definition, "status") {
                default(status, "conditions", Value::Null);
                default(status, "acceptedNames", json!({"plural": "", "kind": ""}));
            }
        },
        on_update: |new, old| crd::prepare(new, Some(old)),
        validate: |definition| crd::validate(definition, None),
        validate_update: |new, old| crd::validate(new, Some(old)),
        ..rules
    }
}

/// Copies a field of the body, absence included.
pub(super) fn copy(new: &mut Object, old: &Object, field: &str) {
    match old.body.get(field) {
        Some(value) => new.body.insert(field.to_owned(), value.clone()),
        None => new.body.remove(field),
    };
}

/// Returns a field of the body that is an object, made if it is absent.
pub(super) fn section<'a>(
    object: &'a mut Object,
    field: &str,
) -> Option<&'a mut Map<String, Value>> {
    object.body.entry(field).or_insert_with(|| json!({})).as_object_mut()
}

/// Sets a field if it is absent.
pub(super) fn default(map: &mut Map<String, Value>, field: &str, value: Value) {
    map.entry(field).or_insert(value);
}

/// Returns the objects of a list.
pub(super) fn items<'a>(
    map: &'a mut Map<String, Value>,
    field: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    let list = map.get_mut(field).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}

/// Returns the values of a list that is only read.
pub(super) fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Returns a text; absent is empty.
pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Adds a cause unless the value is one of the known ones.
pub(super) fn one_of(field: &str, value: &str, known: &[&str], causes: &mut Vec<Cause>) {
    if !known.contains(&value) {
        causes.push(Cause::unsupported(field, &json!(value), known));
    }
}

/// Adds a cause unless the number is a port.
pub(super) fn port(field: &str, number: i64, causes: &mut Vec<Cause>) {
    if !(1..=65_535).contains(&number) {
        let detail = "must be between 1 and 65535, inclusive";
        causes.push(Cause::invalid(field, &json!(number), detail));
    }
}

fn add_finalizer(namespace: &mut Object) {
    let Some(spec) = section(namespace, "spec") else { return };
    let finalizers = spec.entry("finalizers").or_insert_with(|| json!([]));
    if let Value::Array(list) = finalizers
        && !list.iter().any(|finalizer| finalizer == NAMESPACE_FINALIZER)
    {
        list.push(json!(NAMESPACE_FINALIZER));
    }
}

fn label_name(namespace: &mut Object) {
    let Some(name) = namespace.name().map(str::to_owned) else { return };
    let labels = namespace.metadata.entry("labels").or_insert_with(|| json!({}));
    if let Value::Object(labels) = labels {
        labels.insert("kubernetes.io/metadata.name".to_owned(), json!(name));
    }
}

/// The phase follows the deletion.
fn validate_phase(namespace: &Object) -> Vec<Cause> {
    let phase = namespace.body.get("status").and_then(|status| status.get("phase"));
    let phase = phase.and_then(Value::as_str).unwrap_or_default();
    let (expected, when) =
        if namespace.is_terminating() { ("Terminating", "not empty") } else { ("Active", "empty") };
    if phase == expected {
        return Vec::new();
    }
    let detail = format!("may only be '{expected}' if `deletionTimestamp` is {when}");
    vec![Cause::invalid("status.Phase", &json!(phase), &detail)]
}

fn frozen(new: &Object, old: &Object, fields: &[&str]) -> Vec<Cause> {
    if old.body.get("immutable") != Some(&Value::Bool(true)) {
        return Vec::new();
    }
    let mut causes = Vec::new();
    if new.body.get("immutable") != Some(&Value::Bool(true)) {
        causes.push(Cause::forbidden("immutable", FROZEN));
    }
    let changed = fields.iter().filter(|field| new.body.get(**field) != old.body.get(**field));
    causes.extend(changed.map(|field| Cause::forbidden(*field, FROZEN)));
    causes
}

fn entries<'a>(object: &'a Object, field: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    object.body.get(field).and_then(Value::as_object).into_iter().flatten()
}

fn validate_config_map(object: &Object) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut size: usize = 0;
    for (key, value) in entries(object, "data") {
        let field = format!("data[{key}]");
        causes.extend(names::causes(&field, key, &names::config_key(key)));
        if entries(object, "binaryData").any(|(other, _)| other == key) {
            let detail = "duplicate of key present in binaryData";
            causes.push(Cause::invalid(field, &json!(key), detail));
        }
        size = size.saturating_add(value.as_str().map_or(0, str::len));
    }
    for (key, value) in entries(object, "binaryData") {
        let field = format!("binaryData[{key}]");
        causes.extend(names::causes(&field, key, &names::config_key(key)));
        size = size.saturating_add(decoded_length(value));
    }
    if size > DATA_LIMIT {
        causes.push(Cause::too_long("", DATA_LIMIT));
    }
    causes
}

fn decoded_length(value: &Value) -> usize {
    let text = value.as_str().unwrap_or_default();
    STANDARD.decode(text).map_or(0, |bytes| bytes.len())
}

fn default_secret(object: &mut Object) {
    if let Some(Value::Object(texts)) = object.body.remove("stringData") {
        let Some(data) = section(object, "data") else { return };
        for (key, value) in texts {
            let text = value.as_str().unwrap_or_default();
            data.insert(key, json!(STANDARD.encode(text)));
        }
    }
    object.body.entry("type").or_insert_with(|| json!("Opaque"));
}

fn validate_secret(object: &Object) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut size: usize = 0;
    for (key, value) in entries(object, "data") {
        let field = format!("data[{key}]");
        causes.extend(names::causes(&field, key, &names::config_key(key)));
        size = size.saturating_add(decoded_length(value));
    }
    if size > DATA_LIMIT {
        causes.push(Cause::too_long("data", DATA_LIMIT));
    }
    let required: &[&str] = match object.body.get("type").and_then(Value::as_str) {
        Some("kubernetes.io/tls") => &["tls.crt", "tls.key"],
        Some("kubernetes.io/dockerconfigjson") => &[".dockerconfigjson"],
        Some("kubernetes.io/dockercfg") => &[".dockercfg"],
        Some("kubernetes.io/ssh-auth") => &["ssh-privatekey"],
        _ => &[],
    };
    let absent = required.iter().filter(|key| !entries(object, "data").any(|(k, _)| k == **key));
    causes.extend(absent.map(|key| Cause::required(format!("data[{key}]"), "")));
    causes
}

fn validate_lease(object: &Object) -> Vec<Cause> {
    let mut causes = Vec::new();
    let number = |field: &str| object.body.get("spec")?.get(field)?.as_i64();
    if let Some(seconds) = number("leaseDurationSeconds").filter(|seconds| *seconds <= 0) {
        let field = "spec.leaseDurationSeconds";
        causes.push(Cause::invalid(field, &json!(seconds), "must be greater than 0"));
    }
    if let Some(count) = number("leaseTransitions").filter(|count| *count < 0) {
        let detail = "must be greater than or equal to 0";
        causes.push(Cause::invalid("spec.leaseTransitions", &json!(count), detail));
    }
    causes
}

fn validate_budget(object: &Object) -> Vec<Cause> {
    let spec = object.body.get("spec").unwrap_or(&Value::Null);
    let (least, most) = (spec.get("minAvailable"), spec.get("maxUnavailable"));
    let mut causes = Vec::new();
    if least.is_some() && most.is_some() {
        let detail = "minAvailable and maxUnavailable cannot be both set";
        // The API server shows its internal type, whose fields have capitals.
        let member = |field: &str| spec.get(field).unwrap_or(&Value::Null).to_string();
        let [least, most, selector, policy] =
            ["minAvailable", "maxUnavailable", "selector", "unhealthyPodEvictionPolicy"]
                .map(member);
        let shown = format!(
            r#"{{"MinAvailable":{least},"Selector":{selector},"MaxUnavailable":{most},"UnhealthyPodEvictionPolicy":{policy}}}"#
        );
        let message = format!("Invalid value: {shown}: {detail}");
        causes.push(Cause::new(Problem::Invalid, "spec", message));
    }
    for (field, value) in [("minAvailable", least), ("maxUnavailable", most)] {
        if let Some(number) = value.and_then(Value::as_i64).filter(|number| *number < 0) {
            let detail = "must be greater than or equal to 0";
            causes.push(Cause::invalid(format!("spec.{field}"), &json!(number), detail));
        }
    }
    causes
}
