//! Reads a schema from the JSON of a CRD, once.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::format;
use super::pattern::Pattern;
use super::{Additional, Bound, ListKind, Rules, Schema};
use crate::Cause;

impl Schema {
    /// Reads the `openAPIV3Schema` that stands at `path` of a CRD, and requires that it is structural.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in Kubernetes' words and order; also, CEL rules, which this server
    /// cannot evaluate and so must not accept.
    pub fn parse(schema: &Value, path: &str) -> Result<Self, Vec<Cause>> {
        let causes = super::structural::check(schema, path);
        if causes.is_empty() { Ok(read(schema)) } else { Err(causes) }
    }
}

/// Reads a schema that has been checked.
pub(super) fn read(schema: &Value) -> Schema {
    let nothing = Map::new();
    let fields = schema.as_object().unwrap_or(&nothing);
    let is_set = |name: &str| fields.get(name).and_then(Value::as_bool).unwrap_or_default();
    let child = |name: &str| fields.get(name).filter(|value| value.is_object()).map(read);
    let additional = match fields.get("additionalProperties") {
        Some(schema @ Value::Object(_)) => Some(Additional::Schema(Box::new(read(schema)))),
        Some(Value::Bool(true)) => Some(Additional::Any),
        _ => None,
    };
    let kind = if is_set("x-kubernetes-int-or-string") {
        vec!["integer".to_owned(), "string".to_owned()]
    } else {
        text(fields, "type").into_iter().collect()
    };
    Schema {
        kind,
        is_nullable: is_set("nullable"),
        preserves_unknown: is_set("x-kubernetes-preserve-unknown-fields"),
        is_embedded: is_set("x-kubernetes-embedded-resource"),
        properties: members(fields.get("properties")),
        additional,
        items: child("items").map(Box::new),
        default: fields.get("default").filter(|value| !value.is_null()).cloned(),
        list: list_kind(fields),
        rules: Box::new(rules(fields)),
    }
}

fn rules(fields: &Map<String, Value>) -> Rules {
    let count = |name: &str| fields.get(name).and_then(Value::as_u64);
    let number = |name: &str| fields.get(name).and_then(Value::as_f64);
    let is_set = |name: &str| fields.get(name).and_then(Value::as_bool).unwrap_or_default();
    let bound = |name: &str, exclusive: &str| {
        number(name).map(|value| Bound { value, is_exclusive: is_set(exclusive) })
    };
    let schemas = |name: &str| {
        let list = fields.get(name).and_then(Value::as_array);
        list.into_iter().flatten().map(read).collect()
    };
    let pattern = text(fields, "pattern").and_then(|pattern| Pattern::parse(&pattern).ok());
    Rules {
        required: texts(fields, "required"),
        enumeration: fields.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
        format: text(fields, "format").and_then(|name| format::normalize(&name)),
        pattern,
        min_length: count("minLength"),
        max_length: count("maxLength"),
        min_items: count("minItems"),
        max_items: count("maxItems"),
        min_properties: count("minProperties"),
        max_properties: count("maxProperties"),
        minimum: bound("minimum", "exclusiveMinimum"),
        maximum: bound("maximum", "exclusiveMaximum"),
        multiple_of: number("multipleOf"),
        all_of: schemas("allOf"),
        any_of: schemas("anyOf"),
        one_of: schemas("oneOf"),
        not: fields.get("not").map(|schema| Box::new(read(schema))),
    }
}

fn members(value: Option<&Value>) -> BTreeMap<String, Schema> {
    let members = value.and_then(Value::as_object).into_iter().flatten();
    members.map(|(name, schema)| (name.clone(), read(schema))).collect()
}

fn list_kind(fields: &Map<String, Value>) -> ListKind {
    match fields.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => ListKind::Set,
        Some("map") => ListKind::Map(texts(fields, "x-kubernetes-list-map-keys")),
        _ => ListKind::Atomic,
    }
}

fn text(fields: &Map<String, Value>, name: &str) -> Option<String> {
    let text = fields.get(name).and_then(Value::as_str);
    text.filter(|text| !text.is_empty()).map(str::to_owned)
}

fn texts(fields: &Map<String, Value>, name: &str) -> Vec<String> {
    let list = fields.get(name).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}
