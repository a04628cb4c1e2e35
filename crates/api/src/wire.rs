//! One declaration per wire type: the struct, its JSON and its `OpenAPI` schema.
//!
//! The struct, how it is read and written, and its part of the CRD in
//! `manifests/crds` come from the same lines, so none of them can say
//! something else than the others. Each type keeps the fields that it does not
//! know in `unknown`, so that they survive being read and written back.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::invalid::Fault;

/// A type with a place in a CRD.
pub(crate) trait Schema {
    /// Whether a field of this type must be there.
    const IS_REQUIRED: bool = true;

    /// Returns the schema (`OpenAPI` 3, structural).
    fn schema() -> Value;
}

/// Reads `null` as the default, since Go writes it for empty lists.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Is a field to be left out when it is written?
pub(crate) trait Absent {
    /// Returns whether there is nothing to write; an empty list is something.
    fn is_absent(&self) -> bool {
        false
    }
}

impl<T> Absent for Option<T> {
    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

/// A number that may have a part behind the point; whole ones are written without, as Go does.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Decimal(pub f64);

impl From<f64> for Decimal {
    fn from(number: f64) -> Self {
        Self(number)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f64::deserialize(deserializer).map(Self)
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // `Display` of a whole number has no point, and of no number an exponent.
        match self.0.to_string().parse::<i64>() {
            Ok(whole) => serializer.serialize_i64(whole),
            Err(_) => serializer.serialize_f64(self.0),
        }
    }
}

impl Absent for String {}
impl Absent for bool {}
impl Absent for Decimal {}
impl Absent for i64 {}
impl Absent for Value {}
impl<T> Absent for Vec<T> {}
impl<T> Absent for BTreeMap<String, T> {}

/// Declares wire types: `field: Type = "nameInJson",`.
///
/// A field of an `Option` is left out when it is `None`; every other field is
/// required by the schema and always written.
macro_rules! wire {
    ($(
        $(#[doc = $about:literal])+
        pub struct $name:ident {
            $( $(#[doc = $doc:literal])+ $field:ident: $type:ty = $wire:literal, )*
        }
    )+) => {$(
        $(#[doc = $about])+
        #[derive(Clone, Debug, Default, ::serde::Deserialize, PartialEq, ::serde::Serialize)]
        pub struct $name {
            $(
                $(#[doc = $doc])+
                #[serde(
                    rename = $wire,
                    default,
                    deserialize_with = "crate::wire::null_as_default",
                    skip_serializing_if = "crate::wire::Absent::is_absent"
                )]
                pub $field: $type,
            )*
            /// What this version does not know; written back as it was.
            #[serde(flatten)]
            pub unknown: ::serde_json::Map<String, ::serde_json::Value>,
        }

        impl $crate::wire::Schema for $name {
            fn schema() -> ::serde_json::Value {
                $crate::wire::object(&[ $( (
                    $wire,
                    <$type as $crate::wire::Schema>::IS_REQUIRED,
                    <$type as $crate::wire::Schema>::schema(),
                    &[$($doc),+],
                ), )* ])
            }
        }

        impl $crate::wire::Absent for $name {}
    )+};
}

pub(crate) use wire;

/// A field of a wire type: its name, whether it must be there, its schema, its documentation.
pub(crate) type Field<'a> = (&'a str, bool, Value, &'a [&'a str]);

/// Returns the schema of an object that keeps fields that it does not know.
pub(crate) fn object(fields: &[Field<'_>]) -> Value {
    let mut properties = Map::new();
    for (name, _, schema, about) in fields {
        let mut schema = schema.clone();
        let about: Vec<&str> = about.iter().map(|line| line.trim()).collect();
        if let Some(schema) = schema.as_object_mut() {
            schema.insert("description".to_owned(), about.join(" ").into());
        }
        properties.insert((*name).to_owned(), schema);
    }
    let required: Vec<&str> =
        fields.iter().filter(|(_, required, ..)| *required).map(|(name, ..)| *name).collect();
    let mut schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("properties".to_owned(), properties.into());
        if !required.is_empty() {
            schema.insert("required".to_owned(), required.into());
        }
    }
    schema
}

/// Returns `schema` with more fields that must be there.
pub(crate) fn requiring(mut schema: Value, names: &[&str]) -> Value {
    let own = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let all: Vec<Value> = own.into_iter().chain(names.iter().map(|name| (*name).into())).collect();
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("required".to_owned(), all.into());
    }
    schema
}

/// Returns the first field of `value` that is not of the type that the schema says.
pub(crate) fn mismatch(schema: &Value, value: &Value) -> Option<Fault> {
    mismatch_at(schema, value).map(|(path, value, expected)| {
        Fault::new(joined(path), value, format!("is not {expected}: write one"))
    })
}

/// Writes a path the way people do: `ingress[0].source`.
fn joined(path: VecDeque<String>) -> String {
    let path: Vec<String> = path.into();
    path.join(".").replace(".[", "[")
}

/// Returns the path, the value and what was expected.
fn mismatch_at<'a>(
    schema: &Value,
    value: &'a Value,
) -> Option<(VecDeque<String>, &'a Value, &'static str)> {
    let within = |name: String, schema: Option<&Value>, value: &'a Value| {
        let (mut path, value, expected) = mismatch_at(schema?, value)?;
        path.push_front(name);
        Some((path, value, expected))
    };
    let wrong = |expected| Some((VecDeque::new(), value, expected));
    match (schema.get("type").and_then(Value::as_str), value) {
        (_, Value::Null) | (None, Value::Number(_) | Value::String(_)) => None,
        (Some("object"), Value::Object(fields)) => fields.iter().find_map(|(name, value)| {
            let own = schema.get("properties").and_then(|properties| properties.get(name));
            within(name.clone(), own.or_else(|| schema.get("additionalProperties")), value)
        }),
        (Some("object"), _) => wrong("an object"),
        (Some("array"), Value::Array(values)) => {
            let items = schema.get("items");
            let mut values = values.iter().enumerate();
            values.find_map(|(index, value)| within(format!("[{index}]"), items, value))
        }
        (Some("array"), _) => wrong("a list"),
        (Some("string"), other) if !other.is_string() => wrong("text in quotes"),
        (Some("boolean"), other) if !other.is_boolean() => wrong("true or false"),
        (Some("integer"), other) if !other.is_i64() && !other.is_u64() => wrong("an integer"),
        (Some("number"), other) if !other.is_number() => wrong("a number"),
        (None, _) if schema.get("x-kubernetes-int-or-string").is_some() => {
            wrong("a number or text")
        }
        _ => None,
    }
}

impl<T: Schema> Schema for Option<T> {
    const IS_REQUIRED: bool = false;

    fn schema() -> Value {
        T::schema()
    }
}

impl<T: Schema> Schema for Vec<T> {
    fn schema() -> Value {
        let mut items = T::schema();
        if let (false, Some(items)) = (T::IS_REQUIRED, items.as_object_mut()) {
            items.insert("nullable".to_owned(), true.into());
        }
        json!({"type": "array", "items": items})
    }
}

impl<T: Schema> Schema for BTreeMap<String, T> {
    fn schema() -> Value {
        json!({"type": "object", "additionalProperties": T::schema()})
    }
}

impl Schema for String {
    fn schema() -> Value {
        json!({"type": "string"})
    }
}

impl Schema for bool {
    fn schema() -> Value {
        json!({"type": "boolean"})
    }
}

impl Schema for i64 {
    fn schema() -> Value {
        json!({"type": "integer", "format": "int64"})
    }
}

impl Schema for u64 {
    fn schema() -> Value {
        json!({"type": "integer", "format": "int64"})
    }
}

impl Schema for Decimal {
    fn schema() -> Value {
        json!({"type": "number"})
    }
}

/// A number or text: a port, a protocol, an AS.
impl Schema for Value {
    fn schema() -> Value {
        json!({"x-kubernetes-int-or-string": true})
    }
}
