//! Pruning: members that the schema does not know are removed.

use serde_json::Value;

use super::{Additional, Schema};

const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

impl Schema {
    /// Removes the unknown members of a custom resource, and returns their paths in order:
    /// `spec.list[0].name`.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let root = Place { is_object_of_api: true, ..Place::new(String::new(), Some(self)) };
        self.prune_at(object, &root)
    }

    /// Removes the unknown members of what is no object of the API, such as a default.
    pub(super) fn prune_value(&self, value: &mut Value) -> Vec<String> {
        self.prune_at(value, &Place::new(String::new(), Some(self)))
    }

    fn prune_at(&self, value: &mut Value, place: &Place) -> Vec<String> {
        let mut unknown = Vec::new();
        prune(value, Some(self), place, &mut unknown);
        unknown.sort_unstable();
        unknown
    }
}

struct Place {
    path: String,
    /// Whether `apiVersion`, `kind` and `metadata` belong here, whatever the schema says.
    is_object_of_api: bool,
    /// Whether the list around this keeps unknown members, also those of its items.
    is_preserved: bool,
}

impl Place {
    fn member(&self, name: &str, schema: Option<&Schema>) -> Self {
        let path =
            if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Self::new(path, schema)
    }

    fn item(&self, index: usize, schema: Option<&Schema>) -> Self {
        Self::new(format!("{}[{index}]", self.path), schema)
    }

    fn new(path: String, schema: Option<&Schema>) -> Self {
        let is_object_of_api = schema.is_some_and(|schema| schema.is_embedded);
        Self { path, is_object_of_api, is_preserved: false }
    }
}

fn prune(value: &mut Value, schema: Option<&Schema>, place: &Place, unknown: &mut Vec<String>) {
    let preserves = place.is_preserved || schema.is_some_and(|schema| schema.preserves_unknown);
    match value {
        Value::Object(map) => map.retain(|name, value| {
            if place.is_object_of_api && META.contains(&name.as_str()) {
                return true;
            }
            let member = schema.and_then(|schema| schema.member(name));
            let additional = schema.and_then(|schema| schema.additional.as_ref());
            let place = place.member(name, member);
            // Below members that may be anything nothing is known, so it goes.
            let is_known = member.is_some() || matches!(additional, Some(Additional::Any));
            if is_known {
                prune(value, member, &place, unknown);
            } else if !preserves {
                unknown.push(place.path);
            }
            is_known || preserves
        }),
        Value::Array(list) => {
            let items = schema.and_then(|schema| schema.items.as_deref());
            if preserves && items.is_none() {
                return;
            }
            for (index, value) in list.iter_mut().enumerate() {
                let place = Place { is_preserved: preserves, ..place.item(index, items) };
                prune(value, items, &place, unknown);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
