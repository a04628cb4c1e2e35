//! `x-kubernetes-list-type`: items of sets and keys of maps occur once.

use serde_json::{Map, Value};

use crate::Cause;
use crate::schema::{Additional, ListKind, Schema};

/// Returns the items that occur again, below a custom resource.
pub(super) fn duplicates(schema: &Schema, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    visit(schema, object, "", &mut causes);
    causes
}

fn visit(schema: &Schema, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                match (schema.properties.get(name), &schema.additional) {
                    (Some(member), _) => {
                        let dot = if path.is_empty() { "" } else { "." };
                        visit(member, value, &format!("{path}{dot}{name}"), causes);
                    }
                    (None, Some(Additional::Schema(member))) => {
                        visit(member, value, &format!("{path}[{name}]"), causes);
                    }
                    (None, Some(Additional::Any) | None) => {}
                }
            }
        }
        Value::Array(list) => {
            causes.extend(repeated(&schema.list, list, path));
            for (index, value) in list.iter().enumerate() {
                let Some(items) = &schema.items else { break };
                visit(items, value, &format!("{path}[{index}]"), causes);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn repeated(kind: &ListKind, list: &[Value], path: &str) -> Vec<Cause> {
    let identities: Vec<Value> = match kind {
        ListKind::Atomic => return Vec::new(),
        ListKind::Set => list.to_vec(),
        ListKind::Map(keys) => {
            let mut others = list.iter().enumerate();
            let other = others.find(|(_, item)| !item.is_null() && !item.is_object());
            if let Some((index, item)) = other {
                let rule = "must be an object for an array of list-type map";
                return vec![Cause::invalid(format!("{path}[{index}]"), item, rule)];
            }
            let key_of = |item: &Value| {
                let members =
                    keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
                Value::Object(members.collect::<Map<_, _>>())
            };
            list.iter().map(key_of).collect()
        }
    };
    let mut causes = Vec::new();
    for (index, identity) in identities.iter().enumerate() {
        // The second of several is told, not each.
        let before = identities.iter().take(index).filter(|other| *other == identity).count();
        if before == 1 {
            causes.push(Cause::duplicate(format!("{path}[{index}]"), identity));
        }
    }
    causes
}
