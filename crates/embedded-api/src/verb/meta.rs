//! The rules of `ObjectMeta`, as apimachinery's `validation` has them, in its order and words.

use serde_json::{Map, Value, json};

use super::names::{self, Rule};
use crate::Object;
use crate::cause::{Cause, Problem, quote};

/// The fields of `ObjectMeta` that are kept; `managedFields` are not.
const FIELDS: [&str; 14] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];
const TEXTS: [&str; 6] =
    ["generateName", "name", "namespace", "resourceVersion", "selfLink", "uid"];
const ANNOTATIONS_LIMIT: usize = 256 << 10;

/// Drops what `ObjectMeta` does not have and what is empty; returns the unknown fields.
///
/// # Errors
///
/// What Go's decoder says of a field of another type.
pub(crate) fn normalise(metadata: &mut Map<String, Value>) -> Result<Vec<String>, String> {
    let unknown = metadata.keys().filter(|key| *key != "managedFields");
    let unknown: Vec<String> =
        unknown.filter(|key| !FIELDS.contains(&key.as_str())).cloned().collect();
    metadata.retain(|key, value| FIELDS.contains(&key.as_str()) && !is_empty(value));
    check_types(metadata)?;
    // The decoder of Go never reads it.
    metadata.remove("selfLink");
    Ok(unknown)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn check_types(metadata: &Map<String, Value>) -> Result<(), String> {
    let wrong = |value: &Value, field: &str, expected: &str| {
        let found = go_kind(value);
        Err(format!(
            "json: cannot unmarshal {found} into Go struct field ObjectMeta.metadata.{field} of type {expected}"
        ))
    };
    for (field, value) in metadata {
        let is_texts =
            |value: &Value| value.as_object()?.values().find(|value| !value.is_string()).cloned();
        match field.as_str() {
            text if TEXTS.contains(&text) && !value.is_string() => {
                return wrong(value, field, "string");
            }
            "labels" | "annotations" if !value.is_object() => {
                return wrong(value, field, "map[string]string");
            }
            "labels" | "annotations" => {
                if let Some(bad) = is_texts(value) {
                    return wrong(&bad, field, "string");
                }
            }
            "finalizers" if !value.is_array() => return wrong(value, field, "[]string"),
            "ownerReferences" if !value.is_array() => {
                return wrong(value, field, "[]v1.OwnerReference");
            }
            "generation" | "deletionGracePeriodSeconds" if !value.is_i64() => {
                return wrong(value, field, "int64");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Names a JSON type as Go's decoder does.
pub(crate) fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Checks metadata on its own.
pub(crate) fn validate(object: &Object, rule: Rule) -> Vec<Cause> {
    let mut causes = Vec::new();
    if let Some(prefix) = object.meta("generateName") {
        causes.extend(names::causes("metadata.generateName", prefix, &rule.problems(prefix, true)));
    }
    match object.name() {
        None => {
            let detail = "name or generateName is required";
            causes.push(Cause::required("metadata.name", detail));
        }
        Some(name) => {
            causes.extend(names::causes("metadata.name", name, &rule.problems(name, false)));
        }
    }
    let generation = object.metadata.get("generation").and_then(Value::as_i64).unwrap_or(0);
    if generation < 0 {
        let detail = "must be greater than or equal to 0";
        causes.push(Cause::invalid("metadata.generation", &json!(generation), detail));
    }
    common(object, &mut causes);
    for finalizer in object.finalizers() {
        let problems = names::qualified(finalizer);
        causes.extend(names::causes("metadata.finalizers", finalizer, &problems));
    }
    for (at, finalizer) in object.finalizers().enumerate() {
        let standard = ["kubernetes", "orphan", "foregroundDeletion"];
        if !finalizer.contains('/') && !standard.contains(&finalizer) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            let field = format!("metadata.finalizers[{at}]");
            causes.push(Cause::invalid(field, &json!(finalizer), detail));
        }
    }
    causes
}

fn common(object: &Object, causes: &mut Vec<Cause>) {
    labels("metadata.labels", object.metadata.get("labels"), causes);
    annotations(object.metadata.get("annotations"), causes);
    owners(object.metadata.get("ownerReferences"), causes);
}

/// Checks a map of labels.
pub(crate) fn labels(field: &str, labels: Option<&Value>, causes: &mut Vec<Cause>) {
    for (key, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        causes.extend(names::causes(field, key, &names::qualified(key)));
        let value = value.as_str().unwrap_or_default();
        causes.extend(names::causes(field, value, &names::label_value(value)));
    }
}

fn annotations(annotations: Option<&Value>, causes: &mut Vec<Cause>) {
    let mut size: usize = 0;
    for (key, value) in annotations.and_then(Value::as_object).into_iter().flatten() {
        // The prefix of an annotation may have capitals.
        let problems = names::qualified(&key.to_lowercase());
        causes.extend(names::causes("metadata.annotations", key, &problems));
        let length = value.as_str().map_or(0, str::len);
        size = size.saturating_add(key.len()).saturating_add(length);
    }
    if size > ANNOTATIONS_LIMIT {
        causes.push(Cause::too_long("metadata.annotations", ANNOTATIONS_LIMIT));
    }
}

fn owners(owners: Option<&Value>, causes: &mut Vec<Cause>) {
    let mut controllers = Vec::new();
    for owner in owners.and_then(Value::as_array).into_iter().flatten() {
        let text = |field: &str| owner.get(field).and_then(Value::as_str).unwrap_or_default();
        let checks = [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ];
        for (field, detail) in checks {
            if text(field).is_empty() {
                let field = format!("metadata.ownerReferences.{field}");
                causes.push(Cause::invalid(field, &json!(""), detail));
            }
        }
        if owner.get("controller") == Some(&Value::Bool(true)) {
            controllers.push(format!("{}/{}", text("kind"), text("name")));
        }
    }
    if let [first, second, ..] = controllers.as_slice() {
        let detail = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {second}"
        );
        let list = owners.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let shown: Vec<String> = list.iter().map(|owner| in_order(owner, &OWNER)).collect();
        let message = format!("Invalid value: [{}]: {detail}", shown.join(","));
        causes.push(Cause::new(Problem::Invalid, "metadata.ownerReferences", message));
    }
}

/// The fields of a reference to an owner, as Go writes them.
const OWNER: [&str; 6] = ["apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"];
/// The fields of metadata, as Go writes them.
const WRITTEN: [&str; 14] = [
    "name",
    "generateName",
    "namespace",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
];

/// Writes an object with its fields in an order, which messages of the API server show.
fn in_order(value: &Value, order: &[&str]) -> String {
    let Some(map) = value.as_object() else { return value.to_string() };
    let known = order.iter().filter_map(|field| map.get_key_value(*field));
    let other = map.iter().filter(|(field, _)| !order.contains(&field.as_str()));
    let members = known.chain(other).map(|(field, value)| format!("{}:{value}", json!(field)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

/// Writes an object of a built-in kind as the API server shows what a patch made.
pub(crate) fn as_patched(value: &Value) -> String {
    let Some(map) = value.as_object() else { return value.to_string() };
    let members = map.iter().map(|(field, value)| {
        let value = if field == "metadata" { in_order(value, &WRITTEN) } else { value.to_string() };
        format!("{}:{value}", json!(field))
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

/// Checks metadata against what it was.
pub(crate) fn validate_update(new: &Object, old: &Object) -> Vec<Cause> {
    let mut causes = Vec::new();
    if old.is_terminating() {
        let known: Vec<&str> = old.finalizers().collect();
        let added = new.finalizers().filter(|finalizer| !known.contains(finalizer));
        let added: Vec<String> = added.map(quote).collect();
        if !added.is_empty() {
            let list = format!("[]string{{{}}}", added.join(", "));
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {list}"
            );
            causes.push(Cause::forbidden("metadata.finalizers", &detail));
        }
    }
    for field in ["name", "namespace", "uid"] {
        if new.meta(field) != old.meta(field) {
            let value = json!(new.meta(field).unwrap_or_default());
            let field = format!("metadata.{field}");
            causes.push(Cause::invalid(field, &value, "field is immutable"));
        }
    }
    common(new, &mut causes);
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(metadata: &Value) -> Object {
        Object::from_value(json!({ "metadata": metadata })).unwrap()
    }

    #[test]
    fn finds_what_kubernetes_finds() {
        let object = object(&json!({
            "name": "cm",
            "labels": {"a b": "c d"},
            "annotations": {"x/y/z": "1"},
            "finalizers": ["foo", "a b"],
            "ownerReferences": [{"name": "x"}],
        }));
        let causes = validate(&object, Rule::Subdomain);
        let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "metadata.labels",
                "metadata.labels",
                "metadata.annotations",
                "metadata.ownerReferences.apiVersion",
                "metadata.ownerReferences.kind",
                "metadata.ownerReferences.uid",
                "metadata.finalizers",
                "metadata.finalizers[0]",
                "metadata.finalizers[1]",
            ]
        );
    }

    #[test]
    fn allows_no_new_finalizers_on_what_is_being_deleted() {
        let old =
            object(&json!({"name": "a", "deletionTimestamp": "t", "finalizers": ["x.org/a"]}));
        let new = object(&json!({"name": "a", "finalizers": ["x.org/a", "x.org/b"]}));
        let causes = validate_update(&new, &old);
        let expected = "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"x.org/b\"}";
        assert_eq!(causes.first().unwrap().text(), expected);
    }

    #[test]
    fn reports_a_field_of_another_type() {
        let mut object = object(&json!({"name": 5}));
        let expected = "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.name of type string";
        assert_eq!(normalise(&mut object.metadata).unwrap_err(), expected);
    }

    #[test]
    fn drops_what_is_not_kept() {
        let mut object =
            object(&json!({"name": "a", "zoo": 1, "managedFields": [{}], "labels": {}}));
        assert_eq!(normalise(&mut object.metadata).unwrap(), ["zoo"]);
        assert_eq!(object.into_value(), json!({"metadata": {"name": "a"}}));
    }
}
