//! Structural schemas of custom resources: parse, prune, default and validate, in Kubernetes' words.

mod default;
mod format;
mod parse;
mod pattern;
mod prune;
mod structural;
#[cfg(test)]
mod tests;
mod validate;

use std::collections::BTreeMap;

use serde_json::Value;

use pattern::Pattern;

/// A schema of `openAPIV3Schema`, or a part of one.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// The JSON types that a value may have: `object`, `array`, `string`, `integer`, ….
    kind: Vec<String>,
    is_nullable: bool,
    preserves_unknown: bool,
    /// Whether a whole object of the API, with `metadata`, is embedded here.
    is_embedded: bool,
    properties: BTreeMap<String, Schema>,
    additional: Option<Additional>,
    items: Option<Box<Schema>>,
    default: Option<Value>,
    list: ListKind,
    rules: Box<Rules>,
}

/// What other members an object may have.
#[derive(Clone, Debug)]
enum Additional {
    Any,
    Schema(Box<Schema>),
}

/// What makes items of a list the same.
#[derive(Clone, Debug, Default)]
enum ListKind {
    /// Nothing: the list is one value.
    #[default]
    Atomic,
    /// Their value.
    Set,
    /// The values of these keys.
    Map(Vec<String>),
}

/// What a value must be, beyond its type.
#[derive(Clone, Debug, Default)]
struct Rules {
    required: Vec<String>,
    enumeration: Vec<Value>,
    format: Option<String>,
    pattern: Option<Pattern>,
    min_length: Option<u64>,
    max_length: Option<u64>,
    min_items: Option<u64>,
    max_items: Option<u64>,
    min_properties: Option<u64>,
    max_properties: Option<u64>,
    minimum: Option<Bound>,
    maximum: Option<Bound>,
    multiple_of: Option<f64>,
    all_of: Vec<Schema>,
    any_of: Vec<Schema>,
    one_of: Vec<Schema>,
    not: Option<Box<Schema>>,
}

/// An end of a range.
#[derive(Clone, Copy, Debug)]
struct Bound {
    value: f64,
    is_exclusive: bool,
}

impl Schema {
    /// Returns the schema of the member `name`: its own or that of all others.
    fn member(&self, name: &str) -> Option<&Self> {
        match (self.properties.get(name), &self.additional) {
            (Some(schema), _) => Some(schema),
            (None, Some(Additional::Schema(schema))) => Some(schema),
            (None, Some(Additional::Any) | None) => None,
        }
    }
}
