//! Defaulting: absent members get their default, nulls that may not be go.

use serde_json::Value;

use super::{Additional, Schema};

impl Schema {
    /// Writes the defaults into a custom resource.
    pub fn default(&self, object: &mut Value) {
        drop_nulls(object, Some(self));
        fill(object, self);
    }

    fn refuses_null(&self) -> bool {
        !self.is_nullable
    }
}

/// Removes the nulls of members that are not nullable and have no default.
fn drop_nulls(value: &mut Value, schema: Option<&Schema>) {
    match value {
        Value::Object(map) => map.retain(|name, value| {
            let member = schema.and_then(|schema| schema.member(name));
            let is_refused = value.is_null()
                && member.is_some_and(|member| member.refuses_null() && member.default.is_none());
            if !is_refused {
                drop_nulls(value, member);
            }
            !is_refused
        }),
        Value::Array(list) => {
            let items = schema.and_then(|schema| schema.items.as_deref());
            for value in list {
                drop_nulls(value, items);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn fill(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(map) => {
            for (name, member) in &schema.properties {
                let Some(default) = &member.default else { continue };
                let found = map.get(name);
                if found.is_none_or(|found| found.is_null() && member.refuses_null()) {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in map {
                match (schema.properties.get(name), &schema.additional) {
                    (Some(member), _) => fill(value, member),
                    (None, Some(Additional::Schema(member))) => fill_item(value, member),
                    (None, Some(Additional::Any) | None) => {}
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = &schema.items else { return };
            for value in list {
                fill_item(value, items);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn fill_item(value: &mut Value, schema: &Schema) {
    if value.is_null() && schema.refuses_null() {
        *value = schema.default.clone().unwrap_or_default();
    }
    fill(value, schema);
}
