//! What Kubernetes forbids in the schemas of CRDs, structural or not.

use serde_json::{Value, json};

use super::{Fields, is_set, junctions, properties, text};
use crate::Cause;

const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];
const UNSUPPORTED: &[&str] =
    &["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"];

/// Adds what is forbidden at `path` and below.
pub(super) fn check(fields: &Fields, path: &str, causes: &mut Vec<Cause>) {
    types(fields, path, causes);
    if is_set(fields, "uniqueItems") {
        let rule =
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        causes.push(Cause::forbidden(format!("{path}.uniqueItems"), rule));
    }
    if let Some(additional) = fields.get("additionalProperties") {
        let field = format!("{path}.additionalProperties");
        if *additional != json!(true) && properties(fields).next().is_some() {
            let rule = "additionalProperties and properties are mutual exclusive";
            causes.push(Cause::forbidden(&field, rule));
        }
        if let Value::Object(schema) = additional {
            check(schema, &field, causes);
        }
    }
    for (name, schema) in properties(fields) {
        check(schema, &format!("{path}.properties[{name}]"), causes);
    }
    for (_, schema, path) in junctions(fields, path) {
        check(schema, &path, causes);
    }
    match fields.get("items") {
        Some(Value::Object(schema)) => check(schema, &format!("{path}.items"), causes),
        Some(Value::Array(_)) => {
            let rule = "items must be a schema object and not an array";
            causes.push(Cause::forbidden(format!("{path}.items"), rule));
        }
        _ => {}
    }
    extensions(fields, path, causes);
    list_type(fields, path, causes);
    // Differs from Kubernetes: this server has no evaluator of CEL.
    let rules = fields.get("x-kubernetes-validations").and_then(Value::as_array);
    if rules.is_some_and(|rules| !rules.is_empty()) {
        let rule = "rules in CEL are not supported by this server; remove them from the CRD or use \
                    Kubernetes' own API server";
        causes.push(Cause::forbidden(format!("{path}.x-kubernetes-validations"), rule));
    }
}

fn types(fields: &Fields, path: &str, causes: &mut Vec<Cause>) {
    let kind = text(fields, "type");
    if !kind.is_empty() && !TYPES.contains(&kind) {
        causes.push(Cause::unsupported(format!("{path}.type"), &json!(kind), TYPES));
    }
    for name in UNSUPPORTED {
        if fields.get(*name).is_some_and(|value| !value.is_null()) {
            causes.push(Cause::forbidden(
                format!("{path}.{name}"),
                &format!("{name} is not supported"),
            ));
        }
    }
    if kind == "null" {
        let rule = "type cannot be set to null, use nullable as an alternative";
        causes.push(Cause::forbidden(format!("{path}.type"), rule));
    }
}

fn extensions(fields: &Fields, path: &str, causes: &mut Vec<Cause>) {
    let preserve = "x-kubernetes-preserve-unknown-fields";
    if fields.get(preserve) == Some(&json!(false)) {
        let rule = "must be true or undefined";
        causes.push(Cause::invalid(format!("{path}.{preserve}"), &json!(false), rule));
    }
    let map_type = text(fields, "x-kubernetes-map-type");
    if !map_type.is_empty() {
        require_type(fields, path, ["object", "x-kubernetes-map-type"], causes);
        if !matches!(map_type, "atomic" | "granular") {
            let field = format!("{path}.x-kubernetes-map-type");
            causes.push(Cause::unsupported(field, &json!(map_type), &["atomic", "granular"]));
        }
    }
}

fn require_type(fields: &Fields, path: &str, [kind, because]: [&str; 2], causes: &mut Vec<Cause>) {
    let found = text(fields, "type");
    let rule = format!("must be {kind} if {because} is specified");
    if found.is_empty() {
        causes.push(Cause::required(format!("{path}.type"), &rule));
    } else if found != kind {
        causes.push(Cause::invalid(format!("{path}.type"), &json!(found), &rule));
    }
}

fn list_type(fields: &Fields, path: &str, causes: &mut Vec<Cause>) {
    let list_type = text(fields, "x-kubernetes-list-type");
    let field = format!("{path}.x-kubernetes-list-type");
    let keys = fields.get("x-kubernetes-list-map-keys");
    let has_keys = keys.and_then(Value::as_array).is_some_and(|keys| !keys.is_empty());
    if has_keys && list_type != "map" {
        let rule = "must be map if x-kubernetes-list-map-keys is non-empty";
        causes.push(if list_type.is_empty() {
            Cause::required(&field, rule)
        } else {
            Cause::invalid(&field, &json!(list_type), rule)
        });
    }
    if list_type.is_empty() {
        return;
    }
    require_type(fields, path, ["array", "x-kubernetes-list-type"], causes);
    if !matches!(list_type, "atomic" | "set" | "map") {
        causes.push(Cause::unsupported(&field, &json!(list_type), &["atomic", "set", "map"]));
    }
    let Some(Value::Object(items)) = fields.get("items") else { return };
    if matches!(list_type, "set" | "map") && is_set(items, "nullable") {
        let rule = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        causes.push(Cause::forbidden(format!("{path}.items.nullable"), &rule));
    }
    match list_type {
        "set" => set_items(items, path, causes),
        "map" => map_keys(fields, items, path, causes),
        _ => {}
    }
}

fn set_items(items: &Fields, path: &str, causes: &mut Vec<Cause>) {
    let rule = "must be atomic as item of a list with x-kubernetes-list-type=set";
    let of_list = items.get("x-kubernetes-list-type").filter(|kind| **kind != json!("atomic"));
    match text(items, "type") {
        "array" if of_list.is_some() => {
            let field = format!("{path}.items.x-kubernetes-list-type");
            causes.push(Cause::invalid(field, of_list.unwrap_or(&Value::Null), rule));
        }
        "object" if text(items, "x-kubernetes-map-type") != "atomic" => {
            let field = format!("{path}.items.x-kubernetes-map-type");
            causes.push(Cause::invalid(field, of_list.unwrap_or(&Value::Null), rule));
        }
        _ => {}
    }
}

fn map_keys(fields: &Fields, items: &Fields, path: &str, causes: &mut Vec<Cause>) {
    let field = format!("{path}.x-kubernetes-list-map-keys");
    let all = fields.get("x-kubernetes-list-map-keys").cloned().unwrap_or_else(|| json!([]));
    let keys: Vec<&str> = all.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if keys.is_empty() {
        let rule = "must not be empty if x-kubernetes-list-type is map";
        causes.push(Cause::required(&field, rule));
    }
    let kind = json!(text(items, "type"));
    if kind != json!("object") {
        let rule = "must be object if parent array's x-kubernetes-list-type is map";
        causes.push(Cause::invalid(format!("{path}.items.type"), &kind, rule));
        return;
    }
    let required = items.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    for (index, key) in keys.iter().enumerate() {
        let at = format!("{path}.items.properties[{key}]");
        let schema =
            items.get("properties").and_then(|all| all.get(key)).and_then(Value::as_object);
        if keys.iter().take(index).any(|other| other == key) {
            causes.push(Cause::invalid(&field, &all, "must not contain duplicate entries"));
        }
        let Some(schema) = schema else {
            causes.push(Cause::invalid(
                &field,
                &all,
                "entries must all be names of item properties",
            ));
            continue;
        };
        if matches!(text(schema, "type"), "array" | "object") {
            let rule = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            causes.push(Cause::invalid(format!("{at}.type"), &kind, rule));
        }
        if !required.contains(&json!(key)) && !schema.contains_key("default") {
            let rule = "this property is in x-kubernetes-list-map-keys, so it must have a default \
                        or be a required property";
            causes.push(Cause::required(format!("{at}.default"), rule));
        }
        if is_set(schema, "nullable") {
            let rule = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            causes.push(Cause::forbidden(format!("{at}.nullable"), rule));
        }
    }
}
