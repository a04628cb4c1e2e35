//! The columns that `kubectl get` shows for custom resources.

use serde_json::{Map, Value, json};

use super::path::Path;
use super::text;

/// A column of a table, after the one of names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Column {
    /// The heading.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: String,
    /// A format of `OpenAPI`; empty if there is none.
    pub format: String,
    /// What it shows.
    pub description: String,
    /// Above zero it is shown only by `-o wide`.
    pub priority: i64,
    path: Path,
}

/// What stands in a column for one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// A value, or null.
    Value(Value),
    /// A moment (RFC 3339), to be shown as the time since then.
    Since(String),
}

const CREATED: &str = "CreationTimestamp is a timestamp representing the server time when this \
    object was created. It is not guaranteed to be set in happens-before order across separate \
    operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\n\
    Populated by the system. Read-only. Null for lists. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

impl Column {
    /// Reads `additionalPrinterColumns`; without any, there is one of ages.
    pub(super) fn all(columns: Option<&Value>) -> Vec<Self> {
        let columns = columns.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if columns.is_empty() {
            let age = json!({
                "name": "Age",
                "type": "date",
                "description": CREATED,
                "jsonPath": ".metadata.creationTimestamp",
            });
            return age.as_object().and_then(Self::new).into_iter().collect();
        }
        columns.iter().filter_map(|column| Self::new(column.as_object()?)).collect()
    }

    fn new(fields: &Map<String, Value>) -> Option<Self> {
        let path = text(fields, "jsonPath");
        let description = match text(fields, "description") {
            "" => format!("Custom resource definition column (in JSONPath format): {path}"),
            own => own.to_owned(),
        };
        Some(Self {
            name: text(fields, "name").to_owned(),
            kind: text(fields, "type").to_owned(),
            format: text(fields, "format").to_owned(),
            description,
            priority: fields.get("priority").and_then(Value::as_i64).unwrap_or_default(),
            path: Path::parse(path)?,
        })
    }

    /// Returns what stands in this column for an object.
    #[must_use]
    pub fn cell(&self, object: &Value) -> Cell {
        let Some(value) = self.path.first(object) else { return Cell::Value(Value::Null) };
        let shown = match (self.kind.as_str(), value) {
            ("date", Value::String(moment)) => return Cell::Since(moment.clone()),
            ("string", Value::Null) => Some(json!("<no value>")),
            ("string", Value::String(text)) => Some(json!(text)),
            ("string", other) => Some(json!(other.to_string())),
            ("boolean", Value::Bool(_)) => Some(value.clone()),
            ("number", Value::Number(_)) => value.as_f64().map(Value::from),
            ("integer", Value::Number(_)) => whole(value),
            _ => None,
        };
        Cell::Value(shown.unwrap_or_default())
    }
}

/// Cuts off the fraction.
fn whole(value: &Value) -> Option<Value> {
    if value.is_i64() {
        return Some(value.clone());
    }
    let text = format!("{:.0}", value.as_f64()?.trunc());
    text.parse::<i64>().ok().map(Value::from)
}
