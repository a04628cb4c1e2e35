//! JSON patches: RFC 6902, with the liberties of the library that kube-apiserver uses.
//!
//! It counts negative indices from the end, lets `replace` add to an object,
//! and lets `copy` read null where nothing is.

#![expect(clippy::wildcard_enum_match_arm, reason = "JSON will get no further types")]

use serde_json::{Map, Value};

use super::{unprocessable, wrong_type};
use crate::{Reason, Status};

/// The most operations in one patch.
const MAX_OPERATIONS: usize = 10_000;

/// Applies a JSON patch.
///
/// # Errors
///
/// [`Status`] 400 for what is no patch, 413 for one that is too long, 422 for one that does not
/// apply to the object.
pub fn json(current: &Value, patch: &Value) -> Result<Value, Status> {
    let operations = decode(patch)?;
    if operations.len() > MAX_OPERATIONS {
        let count = operations.len();
        let message = format!(
            "Request entity is too large: The allowed maximum operations in a JSON patch is \
             {MAX_OPERATIONS}, got {count}"
        );
        return Err(Status::new(413, Reason::RequestEntityTooLarge, message));
    }
    let mut document = current.clone();
    for operation in operations {
        apply(&mut document, operation).ok_or_else(unprocessable)?;
    }
    Ok(document)
}

fn decode(patch: &Value) -> Result<Vec<Option<&Map<String, Value>>>, Status> {
    let operations = match patch {
        Value::Null => return Ok(Vec::new()),
        Value::Array(operations) => operations,
        other => return Err(wrong_type(other, "value of type []handlers.jsonPatchOp")),
    };
    operations.iter().map(decode_operation).collect()
}

fn decode_operation(operation: &Value) -> Result<Option<&Map<String, Value>>, Status> {
    let fields = match operation {
        Value::Null => return Ok(None),
        Value::Object(fields) => fields,
        other => return Err(wrong_type(other, "value of type handlers.jsonPatchOp")),
    };
    for name in ["op", "path", "from"] {
        match fields.get(name) {
            None | Some(Value::Null | Value::String(_)) => {}
            Some(other) => {
                let into = format!("struct field jsonPatchOp.{name} of type string");
                return Err(wrong_type(other, &into));
            }
        }
    }
    Ok(Some(fields))
}

/// Applies one operation; `None` if it cannot be.
fn apply(document: &mut Value, operation: Option<&Map<String, Value>>) -> Option<()> {
    let operation = operation?;
    let text = |name: &str| operation.get(name).and_then(Value::as_str);
    let value = || operation.get("value").cloned().unwrap_or_default();
    let path = text("path");
    match text("op")? {
        "add" => add(document, path?, value()),
        "remove" => remove(document, path?).map(drop),
        "replace" => replace(document, path?, value()),
        "move" => {
            let from = text("from")?;
            get(document, from)?;
            let value = remove(document, from)?;
            add(document, path?, value)
        }
        "copy" => {
            let value = get(document, text("from")?)?;
            add(document, path?, value)
        }
        "test" => {
            let actual = match path? {
                "" => document.clone(),
                path => get(document, path)?,
            };
            (actual == value()).then_some(())
        }
        _ => None,
    }
}

/// Finds what contains the target of a path, and the target's key in it.
fn container<'a>(document: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let (_, path) = path.split_once('/')?;
    let (parents, key) = path.rsplit_once('/').map_or((None, path), |(up, key)| (Some(up), key));
    let mut container = document;
    for part in parents.into_iter().flat_map(|parents| parents.split('/')) {
        let part = unescape(part);
        container = match container {
            Value::Object(map) => map.get_mut(&part)?,
            Value::Array(list) => {
                let at = index(&part, list.len())?;
                list.get_mut(at)?
            }
            _ => return None,
        };
    }
    matches!(container, Value::Object(_) | Value::Array(_)).then(|| (container, unescape(key)))
}

/// Reads a member; one that an object does not have is null.
fn get(document: &mut Value, path: &str) -> Option<Value> {
    match container(document, path)? {
        (Value::Object(map), key) => Some(map.get(&key).cloned().unwrap_or_default()),
        (Value::Array(list), key) => list.get(index(&key, list.len())?).cloned(),
        _ => None,
    }
}

fn add(document: &mut Value, path: &str, value: Value) -> Option<()> {
    match container(document, path)? {
        (Value::Object(map), key) => {
            map.insert(key, value);
        }
        (Value::Array(list), key) if key == "-" => list.push(value),
        (Value::Array(list), key) => {
            let at = index(&key, list.len().checked_add(1)?)?;
            list.insert(at, value);
        }
        _ => return None,
    }
    Some(())
}

fn remove(document: &mut Value, path: &str) -> Option<Value> {
    match container(document, path)? {
        (Value::Object(map), key) => map.remove(&key),
        (Value::Array(list), key) => {
            let at = index(&key, list.len())?;
            Some(list.remove(at))
        }
        _ => None,
    }
}

fn replace(document: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        if value.is_object() || value.is_array() {
            *document = value;
        }
        return Some(());
    }
    match container(document, path)? {
        (Value::Object(map), key) => {
            map.insert(key, value);
        }
        (Value::Array(list), key) => {
            let at = index(&key, list.len())?;
            *list.get_mut(at)? = value;
        }
        _ => return None,
    }
    Some(())
}

/// Reads an index below `length`; negative ones count from the end.
fn index(key: &str, length: usize) -> Option<usize> {
    let at: i64 = key.parse().ok()?;
    let length_signed = i64::try_from(length).ok()?;
    let at = if at < 0 { at.checked_add(length_signed)? } else { at };
    usize::try_from(at).ok().filter(|at| *at < length)
}

/// RFC 6901 §4.
fn unescape(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}
