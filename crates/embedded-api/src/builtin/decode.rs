//! Decoding built-in kinds through their types, as the API server does: unknown fields and empty ones go.

use k8s_openapi::serde::Serialize;
use k8s_openapi::serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::cause::quote;

/// Decodes a body by its type; `Err` says what is wrong with it.
pub(super) type Decode = fn(Value) -> Result<Value, String>;

/// Decodes and encodes again, which drops what the type does not know.
pub(super) fn typed<T: DeserializeOwned + Serialize>(value: Value) -> Result<Value, String> {
    let typed: T =
        serde_json::from_value(value).map_err(|error| in_words_of_go(&error.to_string()))?;
    serde_json::to_value(typed).map_err(|error| error.to_string())
}

/// Words what is wrong with base64 as Go does.
fn in_words_of_go(problem: &str) -> String {
    let offset = problem.split_once("offset ").map(|(_, rest)| rest.trim_end_matches('.'));
    match offset.filter(|_| problem.starts_with("Invalid ")) {
        Some(offset) => format!("illegal base64 data at input byte {offset}"),
        None => problem.to_owned(),
    }
}

/// Fields that hold maps of texts: their empty values mean something.
const MAPS: [&str; 10] = [
    "allocatable",
    "binaryData",
    "capacity",
    "data",
    "limits",
    "matchLabels",
    "nodeSelector",
    "requests",
    "stringData",
    "deprecatedTopology",
];
/// Flags that are the same absent and false.
const FLAGS: [&str; 9] = [
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "publishNotReadyAddresses",
    "readOnly",
    "stdin",
    "stdinOnce",
    "tty",
    "unschedulable",
];
/// Numbers that are the same absent and zero.
const NUMBERS: [&str; 3] = ["count", "hostPort", "nodePort"];

/// Drops what the API server does not show: empty lists, maps and texts, and flags that are off.
pub(crate) fn drop_empty(map: &mut Map<String, Value>) {
    map.retain(|key, value| match value {
        Value::Null => false,
        Value::Bool(flag) => *flag || !FLAGS.contains(&key.as_str()),
        Value::Number(number) => number.as_i64() != Some(0) || !NUMBERS.contains(&key.as_str()),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => {
            items.iter_mut().filter_map(Value::as_object_mut).for_each(drop_empty);
            !items.is_empty()
        }
        Value::Object(inner) if MAPS.contains(&key.as_str()) => !inner.is_empty(),
        Value::Object(inner) => {
            drop_empty(inner);
            true
        }
    });
}

/// Writes whole numbers without a fraction, as the API server shows those of schemas.
pub(crate) fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let whole = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 1e15);
            if let Some(float) = whole.filter(|_| number.is_f64())
                && let Ok(integer) = format!("{float:.0}").parse::<i64>()
            {
                *value = integer.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// Returns the paths of fields that were there and are not any more.
pub(crate) fn unknown(before: &Value, after: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare(before, after, "", &mut found);
    found
}

fn compare(before: &Value, after: &Value, path: &str, found: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in before.iter().filter(|(_, value)| !value.is_null()) {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match after.get(key) {
                    Some(after) => compare(value, after, &path, found),
                    None => found.push(path),
                }
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            for (at, (before, after)) in before.iter().zip(after).enumerate() {
                compare(before, after, &format!("{path}[{at}]"), found);
            }
        }
        _ => {}
    }
}

/// Words an unknown field.
pub(crate) fn unknown_field(path: &str) -> String {
    format!("unknown field {}", quote(path))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    #[test]
    fn finds_unknown_fields_where_they_are() {
        let body = json!({"spec": {"containers": [{"name": "a", "foo": 1}], "bar": {"x": 1}}});
        let decoded = typed::<Pod>(body.clone()).unwrap();
        assert_eq!(unknown(&body, &decoded), ["spec.bar", "spec.containers[0].foo"]);
    }

    #[test]
    fn drops_empty_values_but_not_those_of_maps() {
        let mut body = json!({
            "data": {"a": ""},
            "args": [],
            "hostNetwork": false,
            "emptyDir": {},
            "nodeSelector": {},
            "nodePort": 0,
            "podSelector": {"matchLabels": {}},
            "apiGroups": [""],
        });
        drop_empty(body.as_object_mut().unwrap());
        let expected = json!({
            "data": {"a": ""},
            "emptyDir": {},
            "podSelector": {},
            "apiGroups": [""],
        });
        assert_eq!(body, expected);
    }
}
