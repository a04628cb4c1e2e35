//! Strategic merge patches: lists are merged as the types of Kubernetes say.
//!
//! Directives: `$patch: replace | delete`, `$retainKeys`, `$deleteFromPrimitiveList/<list>`
//! and `$setElementOrder/<list>`.

#![expect(clippy::wildcard_enum_match_arm, reason = "JSON will get no further types")]

use serde_json::{Map, Value};

use super::directive::{Strategy, lookup, lookup_root};
use super::order::{arrange, position};
use super::unprocessable;
use crate::verb::meta::go_kind;
use crate::{Reason, Status};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList";
const ELEMENT_ORDER: &str = "$setElementOrder";
const BAD_ORDER: &str = "invalid patch format of setElementOrder list";
const BAD_RETAIN: &str = "invalid patch format of retainKeys";

type Object = Map<String, Value>;

/// Applies a strategic merge patch to an object of a built-in kind.
///
/// # Errors
///
/// [`Status`] 400 for malformed directives, 422 for lists of lists, and 500, as Kubernetes
/// answers, for items without their merge key.
pub fn strategic(kind: &str, current: &Value, patch: &Value) -> Result<Value, Status> {
    let patch = match patch {
        Value::Object(patch) => patch.clone(),
        Value::Null => Map::new(),
        other => {
            let found = go_kind(other);
            let into = "Go value of type map[string]interface {}";
            return Err(Status::bad_request(format!("json: cannot unmarshal {found} into {into}")));
        }
    };
    let current = current.as_object().cloned().unwrap_or_default();
    merge_map(Type::Root(kind), current, patch).map(Value::Object)
}

/// The type of the object that is being merged.
#[derive(Clone, Copy)]
enum Type<'a> {
    Root(&'a str),
    Named(&'static str),
}

impl Type<'_> {
    fn field(self, name: &str) -> (Type<'static>, Strategy) {
        let (kind, strategy) = match self {
            Self::Root(kind) => lookup_root(kind, name),
            Self::Named(kind) => lookup(kind, name),
        };
        (Type::Named(kind), strategy)
    }
}

fn merge_map(kind: Type<'_>, mut current: Object, mut patch: Object) -> Result<Object, Status> {
    match patch.get(DIRECTIVE) {
        None => {}
        Some(Value::String(directive)) if directive == "replace" => {
            patch.remove(DIRECTIVE);
            return Ok(patch);
        }
        Some(Value::String(directive)) if directive == "delete" => return Ok(Map::new()),
        Some(other) => return Err(unknown_directive(other, &patch)),
    }
    retain_keys(&mut current, &mut patch)?;
    merge_ordered(kind, &mut current, &mut patch)?;
    for (key, value) in patch {
        let (key, is_deletion) = match key.strip_prefix(DELETE_FROM) {
            None => (key, false),
            Some(rest) => {
                let name = rest.strip_prefix('/');
                let name = name
                    .ok_or_else(|| Status::bad_request("invalid patch format of primitive list"))?;
                (name.to_owned(), true)
            }
        };
        if let Some(merged) =
            merge_value(kind.field(&key), current.remove(&key), value, is_deletion)?
        {
            current.insert(key, merged);
        }
    }
    Ok(current)
}

/// Merges one field; `None` removes it.
fn merge_value(
    (kind, strategy): (Type<'_>, Strategy),
    current: Option<Value>,
    patch: Value,
    is_deletion: bool,
) -> Result<Option<Value>, Status> {
    match (current, patch) {
        (_, Value::Null) => Ok(None),
        (Some(Value::Object(_)), Value::Object(patch)) if strategy == Strategy::Replace => {
            Ok(Some(Value::Object(patch)))
        }
        (Some(Value::Object(current)), Value::Object(patch)) => {
            merge_map(kind, current, patch).map(|merged| Some(Value::Object(merged)))
        }
        (Some(Value::Array(current)), Value::Array(patch)) if is_deletion => {
            Ok(Some(Value::Array(delete_scalars(current, &patch)?)))
        }
        (Some(Value::Array(current)), Value::Array(patch)) => {
            merge_list((kind, strategy), current, patch).map(|merged| Some(Value::Array(merged)))
        }
        (current, _) if is_deletion => Ok(current),
        (_, patch) => Ok(without_directives(without_nulls(patch))),
    }
}

/// Drops the fields that `$retainKeys` does not name.
fn retain_keys(current: &mut Object, patch: &mut Object) -> Result<(), Status> {
    let Some(retained) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(retained) = retained else { return Err(Status::bad_request(BAD_RETAIN)) };
    let is_retained = |key: &str| retained.iter().any(|name| name.as_str() == Some(key));
    let is_directive = |key: &str| key.starts_with(DELETE_FROM) || key.starts_with(ELEMENT_ORDER);
    let mut named = patch.iter().filter(|(key, value)| !value.is_null() && !is_directive(key));
    if named.any(|(key, _)| !is_retained(key)) {
        return Err(Status::bad_request(BAD_RETAIN));
    }
    current.retain(|key, _| is_retained(key));
    Ok(())
}

/// Merges the lists that a `$setElementOrder` goes with, and takes both out of the patch.
fn merge_ordered(kind: Type<'_>, current: &mut Object, patch: &mut Object) -> Result<(), Status> {
    let directives: Vec<_> =
        patch.keys().filter(|key| key.starts_with(ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let order = patch.remove(&directive).unwrap_or_default();
        let Value::Array(order) = order else { return Err(wrong_list(&order)) };
        let name = directive.strip_prefix(ELEMENT_ORDER).and_then(|rest| rest.strip_prefix('/'));
        let name = name.ok_or_else(|| Status::bad_request(BAD_ORDER))?;
        let (item, strategy) = kind.field(name);
        let server = current.get(name).map(as_list).transpose()?;
        let changed = patch.get(name).map(as_list).transpose()?;
        let key = merge_key(strategy);
        if let Some(changed) = &changed {
            check_order(changed, &order, key)?;
        }
        let merged = match (server.clone(), changed.clone()) {
            (None, None) => continue,
            (Some(server), None) => server,
            (None, Some(changed)) => {
                let kept = changed.into_iter().filter_map(without_directives);
                kept.collect()
            }
            (Some(server), Some(changed)) => merge_list((item, strategy), server, changed)?,
        };
        let server = server.unwrap_or_default();
        element_kind(&server, changed.as_deref().unwrap_or_default())?;
        if let Some(key) = key {
            merged.iter().try_for_each(|item| require_key(item, key).map(drop))?;
        }
        current.insert(name.to_owned(), Value::Array(arrange(merged, &order, &server, key)));
        patch.remove(name);
    }
    Ok(())
}

/// Refuses a list whose items are not in the order of its `$setElementOrder`, or not in it.
fn check_order(changed: &[Value], order: &[Value], key: Option<&str>) -> Result<(), Status> {
    if changed.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut remaining = order.iter();
    for item in changed.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        let mut is_found = false;
        for candidate in remaining.by_ref() {
            is_found = match key {
                None => candidate == item,
                Some(key) => require_key(candidate, key)? == require_key(item, key)?,
            };
            if is_found {
                break;
            }
        }
        if !is_found {
            let (changed, order) = (go_list(changed), go_list(order));
            return Err(internal(format!(
                "The order in patch list:\n{changed}\n doesn't match {ELEMENT_ORDER} list:\n{order}\n"
            )));
        }
    }
    Ok(())
}

fn merge_list(
    (kind, strategy): (Type<'_>, Strategy),
    current: Vec<Value>,
    patch: Vec<Value>,
) -> Result<Vec<Value>, Status> {
    let (Strategy::Set | Strategy::Map(_)) = strategy else { return Ok(patch) };
    if current.is_empty() && patch.is_empty() {
        return Ok(current);
    }
    element_kind(&current, &patch)?;
    let Strategy::Map(key) = strategy else {
        let mut merged = Vec::new();
        for item in current.iter().chain(&patch) {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return Ok(arrange(merged, &patch, &current, None));
    };
    let (server, patch) = apply_item_directives(current, patch, key)?;
    let mut merged = server.clone();
    for item in &patch {
        require_key(item, key)?;
        match position(&merged, item, Some(key)).and_then(|at| merged.get_mut(at)) {
            None => merged.push(item.clone()),
            Some(found) => {
                let (Value::Object(current), Value::Object(item)) = (found.take(), item.clone())
                else {
                    return Err(unprocessable());
                };
                *found = Value::Object(merge_map(kind, current, item)?);
            }
        }
    }
    merged.iter().try_for_each(|item| require_key(item, key).map(drop))?;
    Ok(arrange(merged, &patch, &server, Some(key)))
}

/// Obeys the items that are directives, and returns the other items.
fn apply_item_directives(
    mut current: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), Status> {
    let mut items = Vec::new();
    let mut is_replacement = false;
    for item in patch {
        match item.get(DIRECTIVE) {
            None => items.push(item),
            Some(Value::String(directive)) if directive == "delete" => {
                require_key(&item, key)?;
                current.retain(|candidate| candidate.get(key) != item.get(key));
            }
            Some(Value::String(directive)) if directive == "replace" => is_replacement = true,
            Some(Value::String(directive)) if directive == "merge" => {
                return Err(internal(
                    "merging lists cannot yet be specified in the patch".to_owned(),
                ));
            }
            Some(other) => {
                let fields = item.as_object().cloned().unwrap_or_default();
                return Err(unknown_directive(other, &fields));
            }
        }
    }
    Ok(if is_replacement { (items, Vec::new()) } else { (current, items) })
}

fn delete_scalars(current: Vec<Value>, deleted: &[Value]) -> Result<Vec<Value>, Status> {
    if current.is_empty() && deleted.is_empty() {
        return Ok(current);
    }
    element_kind(&current, deleted)?;
    Ok(current.into_iter().filter(|item| !deleted.contains(item)).collect())
}

/// Refuses lists of lists, and lists of several types.
fn element_kind(left: &[Value], right: &[Value]) -> Result<(), Status> {
    let mut items = left.iter().chain(right);
    let Some(first) = items.next() else {
        return Err(internal("no elements in any of the given slices".to_owned()));
    };
    if first.is_array() {
        return Err(unprocessable());
    }
    if items.all(|item| go_kind(item) == go_kind(first)) {
        return Ok(());
    }
    let (left, right) = (go_list(left), go_list(right));
    Err(internal(format!("list element types are not identical: [{left} {right}]")))
}

const fn merge_key(strategy: Strategy) -> Option<&'static str> {
    match strategy {
        Strategy::Map(key) => Some(key),
        Strategy::Default | Strategy::Replace | Strategy::Set => None,
    }
}

fn as_list(value: &Value) -> Result<Vec<Value>, Status> {
    value.as_array().cloned().ok_or_else(|| wrong_list(value))
}

fn wrong_list(value: &Value) -> Status {
    let found = match value {
        Value::Object(_) => "map[string]interface {}",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(_) => "int64",
        Value::Null | Value::Array(_) => "%!s(<nil>)",
    };
    internal(format!("expected a []interface {{}}, but received a {found}"))
}

fn require_key<'a>(item: &'a Value, key: &str) -> Result<&'a Value, Status> {
    let item_key = item.get(key);
    item_key.ok_or_else(|| {
        internal(format!("map: {} does not contain declared merge key: {key}", go(item)))
    })
}

fn unknown_directive(directive: &Value, item: &Object) -> Status {
    let item = go(&Value::Object(item.clone()));
    let directive = match directive {
        Value::String(text) => text.clone(),
        Value::Number(number) => format!("%!s(int64={number})"),
        other => format!("%!s({})", go(other)),
    };
    internal(format!("unknown patch type: {directive} in map: {item}"))
}

/// What Kubernetes has no better answer for.
fn internal(message: String) -> Status {
    Status::new(500, Reason::Unknown, message)
}

/// Shows a value as Go's `%v`.
fn go(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => go_list(list),
        Value::Object(map) => {
            let members: Vec<_> =
                map.iter().map(|(key, value)| format!("{key}:{}", go(value))).collect();
            format!("map[{}]", members.join(" "))
        }
        scalar => scalar.to_string(),
    }
}

fn go_list(list: &[Value]) -> String {
    format!("[{}]", list.iter().map(go).collect::<Vec<_>>().join(" "))
}

/// Leaves out objects that carry a directive.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => {
            let kept =
                map.into_iter().filter_map(|(key, value)| Some((key, without_directives(value)?)));
            Some(Value::Object(kept.collect()))
        }
        Value::Array(list) => {
            Some(Value::Array(list.into_iter().filter_map(without_directives).collect()))
        }
        scalar => Some(scalar),
    }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(without_nulls).collect()),
        scalar => scalar,
    }
}
