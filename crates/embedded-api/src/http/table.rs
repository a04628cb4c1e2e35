//! `Table` of meta/v1: what kubectl prints, row by row.

mod cells;
mod human;
mod pod;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::crd::{Cell, Column};
use crate::resource::{Body, Resource};
use crate::status::Status;

/// The column definitions of kube-apiserver 1.34, by resource.
const COLUMNS: &str = include_str!("table/columns.json");

/// How much of its object a row carries.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Include {
    /// Its metadata.
    #[default]
    Metadata,
    /// All of it.
    Object,
    /// Nothing.
    None,
}

/// The columns of one kind.
pub(crate) struct Table {
    resource: String,
    definitions: Arc<Value>,
    custom: Option<Vec<Column>>,
}

impl Include {
    /// Reads the parameter `includeObject` of a table.
    ///
    /// # Errors
    ///
    /// 400 for another word.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, Status> {
        match text {
            Some("Object") => Ok(Self::Object),
            Some("None") => Ok(Self::None),
            None | Some("" | "Metadata") => Ok(Self::Metadata),
            Some(other) => Err(Status::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: \
                 must be 'Metadata', 'Object', 'None', or empty"
            ))),
        }
    }
}

impl Table {
    /// Returns the columns of a kind.
    pub(crate) fn of(resource: &Resource) -> Self {
        let name = resource.qualified();
        let Some(columns) = custom_columns(resource) else {
            let known = builtin().get(&name);
            let definitions = known.map_or_else(|| Arc::new(json!([])), Arc::clone);
            return Self { resource: name, definitions, custom: None };
        };
        let first = builtin().get("configmaps").and_then(|it| it.get(0).cloned());
        let definitions = first.into_iter().chain(columns.iter().map(definition));
        let definitions = Arc::new(definitions.collect());
        Self { resource: name, definitions, custom: Some(columns.to_vec()) }
    }

    /// Returns one row.
    pub(crate) fn row(&self, object: &Value, include: Include, now: Timestamp) -> Value {
        let cells = match &self.custom {
            None => cells::row(&self.resource, object, now),
            Some(columns) => custom_row(columns, object, now),
        };
        let shown = match include {
            Include::Object => object.clone(),
            Include::Metadata => partial(object),
            Include::None => Value::Null,
        };
        let mut row = json!({"cells": cells, "object": shown});
        let conditions = pod::conditions(object).filter(|_| self.resource == "pods");
        if let (Some(conditions), Some(row)) = (conditions, row.as_object_mut()) {
            row.insert("conditions".to_owned(), conditions);
        }
        row
    }

    /// Returns a table of rows.
    pub(crate) fn body(&self, metadata: Value, rows: Vec<Value>) -> Value {
        Value::Object(Map::from_iter([
            ("kind".to_owned(), json!("Table")),
            ("apiVersion".to_owned(), json!("meta.k8s.io/v1")),
            ("metadata".to_owned(), metadata),
            ("columnDefinitions".to_owned(), (*self.definitions).clone()),
            ("rows".to_owned(), Value::Array(rows)),
        ]))
    }
}

fn custom_columns(resource: &Resource) -> Option<&[Column]> {
    match &resource.body {
        Body::Builtin(_) => None,
        Body::Custom { version, .. } => Some(&version.columns),
    }
}

fn definition(column: &Column) -> Value {
    json!({
        "name": column.name,
        "type": column.kind,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    })
}

fn custom_row(columns: &[Column], object: &Value, now: Timestamp) -> Vec<Value> {
    let name = object.pointer("/metadata/name").cloned().unwrap_or_default();
    let cells = columns.iter().map(|column| match column.cell(object) {
        Cell::Value(value) => value,
        Cell::Since(time) => json!(human::age(Some(&json!(time)), now)),
    });
    std::iter::once(name).chain(cells).collect()
}

/// Returns `PartialObjectMetadata` of an object.
pub(crate) fn partial(object: &Value) -> Value {
    let metadata = object.get("metadata").cloned().unwrap_or_else(|| json!({}));
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}

fn builtin() -> &'static BTreeMap<String, Arc<Value>> {
    static ALL: OnceLock<BTreeMap<String, Arc<Value>>> = OnceLock::new();
    ALL.get_or_init(|| {
        let all: BTreeMap<String, Value> = serde_json::from_str(COLUMNS).unwrap_or_default();
        all.into_iter().map(|(name, columns)| (name, Arc::new(columns))).collect()
    })
}

#[cfg(test)]
mod tests;
