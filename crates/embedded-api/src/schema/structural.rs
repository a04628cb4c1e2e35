//! What makes a schema structural, which CRDs of v1 require, and what else Kubernetes forbids in one.

mod openapi;

use serde_json::{Map, Value, json};

use super::parse::read;
use super::pattern::Pattern;
use crate::Cause;

type Fields = Map<String, Value>;

/// Where in the tree of schemas one stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Returns what is wrong with the schema that stands at `path`.
pub(super) fn check(schema: &Value, path: &str) -> Vec<Cause> {
    let Some(fields) = schema.as_object() else {
        return vec![Cause::required(path, "must be a JSON object")];
    };
    let mut causes = Vec::new();
    invariants(fields, Level::Root, path, &mut causes);
    complete(fields, fields, [path, path], &mut causes);
    causes.sort_by_key(Cause::text);
    if causes.is_empty() {
        defaults(schema, path, &mut causes);
    }
    openapi::check(fields, path, &mut causes);
    causes
}

fn invariants(fields: &Fields, level: Level, path: &str, causes: &mut Vec<Cause>) {
    let kind = text(fields, "type");
    if kind == "array" && !fields.contains_key("items") {
        causes.push(Cause::required(format!("{path}.items"), "must be specified"));
    }
    if let Some(Value::Object(items)) = fields.get("items") {
        invariants(items, Level::Item, &format!("{path}.items"), causes);
    }
    for (name, schema) in properties(fields) {
        invariants(schema, Level::Field, &format!("{path}.properties[{name}]"), causes);
    }
    if let Some(additional) = fields.get("additionalProperties") {
        let path = format!("{path}.additionalProperties");
        if level == Level::Root {
            causes.push(Cause::forbidden(&path, "must not be used at the root"));
        }
        if let Value::Object(schema) = additional {
            invariants(schema, Level::Field, &path, causes);
        }
    }
    extensions(fields, path, causes);
    let int_or_string = json!([{"type": "integer"}, {"type": "string"}]);
    let may_say_types = fields.get("anyOf") == Some(&int_or_string);
    let first = fields.get("allOf").and_then(|all| all.get(0)).and_then(|first| first.get("anyOf"));
    let first_may_say_types = first == Some(&int_or_string);
    for (junction, child, child_path) in junctions(fields, path) {
        if junction == "anyOf" && may_say_types {
            continue;
        }
        let is_first = child_path == format!("{path}.allOf[0]");
        nested(child, is_first && first_may_say_types, &child_path, causes);
    }
    check_pattern(fields, path, causes);
    types(fields, level, path, causes);
    metadata(fields, level, path, causes);
}

fn extensions(fields: &Fields, path: &str, causes: &mut Vec<Cause>) {
    if !is_set(fields, "x-kubernetes-int-or-string") {
        return;
    }
    for name in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
        if is_set(fields, name) {
            let rule = "must be false if x-kubernetes-int-or-string is true";
            causes.push(Cause::invalid(format!("{path}.{name}"), &json!(true), rule));
        }
    }
}

fn types(fields: &Fields, level: Level, path: &str, causes: &mut Vec<Cause>) {
    let kind = text(fields, "type");
    let field = format!("{path}.type");
    let is_embedded = is_set(fields, "x-kubernetes-embedded-resource");
    let may_be_empty = is_set(fields, "x-kubernetes-int-or-string")
        || is_set(fields, "x-kubernetes-preserve-unknown-fields");
    if is_embedded && kind != "object" {
        let rule = "must be object if x-kubernetes-embedded-resource is true";
        causes.push(if kind.is_empty() {
            Cause::required(&field, rule)
        } else {
            Cause::invalid(&field, &json!(kind), rule)
        });
    } else if kind.is_empty() && !may_be_empty {
        let rule = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        causes.push(Cause::required(&field, rule));
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        causes.push(Cause::invalid(&field, &json!(kind), "must be object at the root"));
    }
    if is_embedded && fields.contains_key("additionalProperties") {
        let rule = "must not be used if x-kubernetes-embedded-resource is set";
        causes.push(Cause::forbidden(format!("{path}.additionalProperties"), rule));
    }
    let is_preserving = is_set(fields, "x-kubernetes-preserve-unknown-fields");
    if is_embedded && !is_preserving && properties(fields).next().is_none() {
        let rule = "must not be empty if x-kubernetes-embedded-resource is true without \
                    x-kubernetes-preserve-unknown-fields";
        causes.push(Cause::required(format!("{path}.properties"), rule));
    }
}

/// Every object of the API has these members, whatever a schema says.
fn metadata(fields: &Fields, level: Level, path: &str, causes: &mut Vec<Cause>) {
    let is_checked = level == Level::Root || is_set(fields, "x-kubernetes-embedded-resource");
    for (name, schema) in properties(fields).filter(|_| is_checked) {
        let expected = match name.as_str() {
            "kind" | "apiVersion" => "string",
            "metadata" => "object",
            _ => continue,
        };
        if text(schema, "type") != expected {
            let field = format!("{path}.properties[{name}].type");
            let rule = format!("must be {expected}");
            causes.push(Cause::invalid(field, &json!(text(schema, "type")), &rule));
        }
    }
    let schema = fields.get("properties").and_then(|all| all.get("metadata"));
    let Some(Value::Object(schema)) = schema.filter(|_| level == Level::Root) else { return };
    let mut names = properties(schema).map(|(name, _)| name.as_str());
    let restricts_names_only = names.all(|name| matches!(name, "name" | "generateName"));
    let is_known =
        |name: &String| matches!(name.as_str(), "type" | "default" | "properties" | "description");
    if !restricts_names_only || !schema.keys().all(is_known) {
        let rule = "must not specify anything other than name and generateName, but metadata is \
                    implicitly specified";
        causes.push(Cause::forbidden(format!("{path}.properties[metadata]"), rule));
    }
}

/// Checks a schema below `allOf`, `anyOf`, `oneOf` or `not`, where only values may be restricted.
fn nested(fields: &Fields, may_say_types: bool, path: &str, causes: &mut Vec<Cause>) {
    for (junction, child, child_path) in junctions(fields, path) {
        if !(junction == "anyOf" && may_say_types) {
            nested(child, false, &child_path, causes);
        }
    }
    check_pattern(fields, path, causes);
    if let Some(Value::Object(items)) = fields.get("items") {
        nested(items, false, &format!("{path}.items"), causes);
    }
    for (name, schema) in properties(fields) {
        nested(schema, false, &format!("{path}.properties[{name}]"), causes);
        if name == "metadata" {
            let field = format!("{path}.properties[metadata]");
            causes.push(Cause::forbidden(field, "must not be specified in a nested context"));
        }
    }
    let structural = [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
        ("x-kubernetes-validations", "must be empty to be structural"),
    ];
    for (name, rule) in structural {
        let value = fields.get(name);
        let is_empty =
            |value: &Value| *value == json!("") || *value == json!([]) || *value == json!(false);
        if value.is_some_and(|value| !value.is_null() && !is_empty(value)) {
            causes.push(Cause::forbidden(format!("{path}.{name}"), rule));
        }
    }
}

/// Requires that what is restricted below `allOf` and the like is specified in the schema itself.
fn complete(nested: &Fields, schema: &Fields, [path, at]: [&str; 2], causes: &mut Vec<Cause>) {
    for (_, child, child_at) in junctions(nested, at) {
        complete(child, schema, [path, &child_at], causes);
        if let Some(Value::Object(items)) = child.get("items") {
            let (path, at) = (format!("{path}.items"), format!("{child_at}.items"));
            match schema.get("items") {
                Some(Value::Object(schema)) => complete(items, schema, [&path, &at], causes),
                _ => causes.push(Cause::required(path, &format!("because it is defined in {at}"))),
            }
        }
        for (name, child) in properties(child) {
            let path = format!("{path}.properties[{name}]");
            let at = format!("{child_at}.properties[{name}]");
            match schema.get("properties").and_then(|all| all.get(name)) {
                Some(Value::Object(schema)) => complete_member(child, schema, [&path, &at], causes),
                _ => causes.push(Cause::required(path, &format!("because it is defined in {at}"))),
            }
        }
    }
}

fn complete_member(
    child: &Fields,
    schema: &Fields,
    [path, at]: [&str; 2],
    causes: &mut Vec<Cause>,
) {
    complete(child, schema, [path, at], causes);
    for (name, child) in properties(child) {
        let path = format!("{path}.properties[{name}]");
        let at = format!("{at}.properties[{name}]");
        match schema.get("properties").and_then(|all| all.get(name)) {
            Some(Value::Object(schema)) => complete_member(child, schema, [&path, &at], causes),
            _ => causes.push(Cause::required(path, &format!("because it is defined in {at}"))),
        }
    }
}

/// Requires that defaults obey their own schema.
fn defaults(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Value::Object(fields) = schema else { return };
    if let Some(default) = fields.get("default").filter(|default| !default.is_null()) {
        let field = format!("{path}.default");
        let schema = read(schema);
        let unknown = schema.prune_value(&mut default.clone());
        if unknown.is_empty() {
            causes.extend(schema.validate(default, None).into_iter().map(|cause| {
                let is_whole = cause.field == "<nil>";
                let inner =
                    if is_whole { field.clone() } else { format!("{field}.{}", cause.field) };
                Cause { field: inner, ..cause }
            }));
        } else {
            causes.push(Cause::invalid(&field, default, "must not have unknown fields"));
        }
    }
    for (name, schema) in fields.get("properties").and_then(Value::as_object).into_iter().flatten()
    {
        defaults(schema, &format!("{path}.properties[{name}]"), causes);
    }
    for name in ["items", "additionalProperties"] {
        if let Some(schema) = fields.get(name) {
            defaults(schema, &format!("{path}.{name}"), causes);
        }
    }
}

fn check_pattern(fields: &Fields, path: &str, causes: &mut Vec<Cause>) {
    if let Err(error) = Pattern::parse(text(fields, "pattern")) {
        let rule = format!("must be a valid regular expression, but isn't: {error}");
        let pattern = json!(text(fields, "pattern"));
        causes.push(Cause::invalid(format!("{path}.pattern"), &pattern, &rule));
    }
}

/// Returns the schemas of the logical junctions: the junction's name, the schema, its path.
fn junctions<'a>(fields: &'a Fields, path: &str) -> Vec<(&'static str, &'a Fields, String)> {
    let mut found = Vec::new();
    for name in ["anyOf", "allOf", "oneOf"] {
        let list = fields.get(name).and_then(Value::as_array).into_iter().flatten();
        for (index, schema) in list.enumerate() {
            if let Value::Object(schema) = schema {
                found.push((name, schema, format!("{path}.{name}[{index}]")));
            }
        }
    }
    if let Some(Value::Object(schema)) = fields.get("not") {
        found.push(("not", schema, format!("{path}.not")));
    }
    found
}

fn properties(fields: &Fields) -> impl Iterator<Item = (&String, &Fields)> {
    let all = fields.get("properties").and_then(Value::as_object).into_iter().flatten();
    all.filter_map(|(name, schema)| Some((name, schema.as_object()?)))
}

fn text<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn is_set(fields: &Fields, name: &str) -> bool {
    fields.get(name).and_then(Value::as_bool).unwrap_or_default()
}
