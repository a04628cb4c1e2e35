//! JSON merge patches: RFC 7386.

#![expect(clippy::wildcard_enum_match_arm, reason = "JSON will get no further types")]

use serde_json::{Map, Value};

use super::wrong_type;
use crate::Status;

/// Applies a merge patch.
///
/// # Errors
///
/// [`Status`] 400 if the patch is no object.
pub fn merge(current: &Value, patch: &Value) -> Result<Value, Status> {
    let patch = match patch {
        Value::Object(patch) => patch,
        Value::Null => return Err(Status::bad_request("Invalid JSON Patch")),
        other => return Err(wrong_type(other, "value of type map[string]interface {}")),
    };
    let mut document = current.as_object().cloned().unwrap_or_default();
    merge_map(&mut document, patch);
    Ok(Value::Object(document))
}

fn merge_map(document: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        match (document.get_mut(key), value) {
            (_, Value::Null) => {
                document.remove(key);
            }
            (Some(Value::Object(current)), Value::Object(patch)) => merge_map(current, patch),
            // What replaces an object is taken as it is, nulls included.
            (Some(current @ Value::Object(_)), value) => *current = value.clone(),
            (_, value) => {
                document.insert(key.clone(), without_nulls(value));
            }
        }
    }
}

/// Leaves out the members that are null, at any depth; items of lists stay.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let members = map.iter().filter(|(_, value)| !value.is_null());
            let members = members.map(|(key, value)| (key.clone(), without_nulls(value)));
            Value::Object(members.collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(without_nulls).collect()),
        scalar => scalar.clone(),
    }
}
