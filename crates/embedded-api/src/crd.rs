//! Custom resources: `CustomResourceDefinition` of apiextensions.k8s.io/v1, and what it defines.
//!
//! A definition is [`prepare`]d, [`validate()`]d and [`establish()`]ed, in this order; then
//! [`CustomKind`] is what it defines.

mod column;
mod establish;
mod path;
#[cfg(test)]
mod tests;
mod validate;

use std::sync::{Arc, LazyLock};

use serde_json::{Map, Value, json};

use crate::schema::Schema;
use crate::selector::Selectable;
use crate::{Cause, Object};

pub use column::{Cell, Column};
pub use establish::establish;
pub use validate::validate;

/// A kind that a CRD defines, in all its versions.
#[derive(Clone, Debug)]
pub struct CustomKind {
    /// The API group.
    pub group: String,
    /// The name in paths: `ippools`.
    pub plural: String,
    /// The name for one: `ippool`.
    pub singular: String,
    /// The kind: `IPPool`.
    pub kind: String,
    /// The kind of its lists: `IPPoolList`.
    pub list_kind: String,
    /// Abbreviations that kubectl takes.
    pub short_names: Vec<String>,
    /// Groups of kinds that kubectl takes.
    pub categories: Vec<String>,
    /// Whether its objects are in namespaces.
    pub is_namespaced: bool,
    /// The versions, as the CRD lists them.
    pub versions: Vec<Arc<Version>>,
}

/// One version of a kind.
#[derive(Clone, Debug)]
pub struct Version {
    /// The name: `v1`.
    pub name: String,
    /// Whether clients may use it.
    pub is_served: bool,
    /// Whether objects are kept in it. (As no version is converted, all are the same.)
    pub is_storage: bool,
    /// What its objects look like.
    pub schema: Schema,
    /// `openAPIV3Schema` as it was written, for `OpenAPI`.
    pub raw_schema: Value,
    /// Whether the status is written apart from the rest.
    pub has_status: bool,
    /// The columns of its tables, after the name.
    pub columns: Vec<Column>,
    /// The paths that may be selected by: `.spec.color`.
    pub selectable: Vec<String>,
    /// The warning that clients get, if the version is deprecated.
    pub deprecation: Option<String>,
}

impl CustomKind {
    /// Reads a definition that [`validate()`] finds nothing wrong with.
    ///
    /// # Errors
    ///
    /// The causes, if one of its schemas is refused after all.
    pub fn new(definition: &Object) -> Result<Self, Vec<Cause>> {
        let spec = Spec::of(definition);
        let names = |name: &str| text(spec.names, name).to_owned();
        let versions = spec.versions.iter().enumerate();
        let versions = versions.map(|(index, version)| spec.version(index, version).map(Arc::new));
        Ok(Self {
            group: text(spec.fields, "group").to_owned(),
            plural: names("plural"),
            singular: names("singular"),
            kind: names("kind"),
            list_kind: names("listKind"),
            short_names: texts(spec.names, "shortNames"),
            categories: texts(spec.names, "categories"),
            is_namespaced: text(spec.fields, "scope") == "Namespaced",
            versions: versions.collect::<Result<_, _>>()?,
        })
    }

    /// Returns a served version.
    #[must_use]
    pub fn served(&self, name: &str) -> Option<&Arc<Version>> {
        self.versions.iter().find(|version| version.is_served && version.name == name)
    }

    /// Returns what may be selected by in a version.
    #[must_use]
    pub fn selectable<'a>(&self, version: &'a Version) -> Selectable<'a> {
        if self.is_namespaced {
            Selectable::Namespaced(&version.selectable)
        } else {
            Selectable::Cluster(&version.selectable)
        }
    }
}

/// Fills the defaults of a definition and sets the parts of its status that a client cannot:
/// all of them on creation (`old` is `None`), none but the stored versions on an update.
pub fn prepare(definition: &mut Object, old: Option<&Object>) {
    let old_status = old.and_then(|old| old.body.get("status")).cloned();
    let spec = definition.body.entry("spec").or_insert_with(|| json!({}));
    if let Value::Object(spec) = spec {
        default_spec(spec);
    }
    let mut status = match old_status {
        Some(Value::Object(status)) => status,
        _ => Map::new(),
    };
    let mut stored = texts(&status, "storedVersions");
    let spec = Spec::of(definition);
    let storage = spec.versions.iter().find(|version| is_set(version, "storage"));
    if let Some(name) = storage.map(|version| text(version, "name").to_owned())
        && !stored.contains(&name)
    {
        stored.push(name);
    }
    status.insert("storedVersions".to_owned(), json!(stored));
    definition.body.insert("status".to_owned(), Value::Object(status));
}

fn default_spec(spec: &mut Map<String, Value>) {
    if spec.get("preserveUnknownFields") == Some(&json!(false)) {
        spec.remove("preserveUnknownFields");
    }
    if spec.get("conversion").is_none_or(Value::is_null) {
        spec.insert("conversion".to_owned(), json!({"strategy": "None"}));
    }
    let names = spec.entry("names").or_insert_with(|| json!({}));
    let Value::Object(names) = names else { return };
    let kind = text(names, "kind").to_owned();
    for (name, default) in [("singular", kind.to_lowercase()), ("listKind", format!("{kind}List"))]
    {
        if !kind.is_empty() && text(names, name).is_empty() {
            names.insert(name.to_owned(), json!(default));
        }
    }
}

/// The parts of a definition's spec; what is absent is empty.
struct Spec<'a> {
    fields: &'a Map<String, Value>,
    names: &'a Map<String, Value>,
    versions: Vec<&'a Map<String, Value>>,
}

/// A part of all versions that Kubernetes reports once if it is the same in all of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    Schema,
    Subresources,
    Columns,
    Selectable,
}

impl<'a> Spec<'a> {
    fn of(definition: &'a Object) -> Self {
        static NOTHING: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
        let member = |fields: &'a Map<String, Value>, name: &str| {
            fields.get(name).and_then(Value::as_object).unwrap_or_else(|| &NOTHING)
        };
        let fields = member(&definition.body, "spec");
        let versions = fields.get("versions").and_then(Value::as_array).into_iter().flatten();
        let versions = versions.filter_map(Value::as_object).collect();
        Self { fields, names: member(fields, "names"), versions }
    }

    /// Returns whether all versions have the same of a part.
    fn is_shared(&self, part: Part) -> bool {
        let first = self.versions.first().and_then(|version| part.of(version));
        first.is_some() && self.versions.iter().all(|version| part.of(version) == first)
    }

    /// Returns the path of a part in messages.
    fn path(&self, index: usize, part: Part) -> String {
        match (self.is_shared(part), part) {
            (true, Part::Schema) => "spec.validation".to_owned(),
            (true, _) => format!("spec.{}", part.name()),
            (false, _) => format!("spec.versions[{index}].{}", part.name()),
        }
    }

    fn version(&self, index: usize, fields: &Map<String, Value>) -> Result<Version, Vec<Cause>> {
        let schema = fields.get("schema").and_then(|schema| schema.get("openAPIV3Schema"));
        let schema = schema.cloned().unwrap_or_else(|| json!({}));
        let path = format!("{}.openAPIV3Schema", self.path(index, Part::Schema));
        let subresources = fields.get("subresources");
        let name = text(fields, "name").to_owned();
        let qualified =
            format!("{}/{name} {}", text(self.fields, "group"), text(self.names, "kind"));
        let deprecation = is_set(fields, "deprecated").then(|| {
            let own = fields.get("deprecationWarning").and_then(Value::as_str);
            own.map_or_else(|| format!("{qualified} is deprecated"), str::to_owned)
        });
        let selectable =
            Part::Selectable.of(fields).and_then(Value::as_array).into_iter().flatten();
        let selectable = selectable.filter_map(|field| field.get("jsonPath")?.as_str());
        Ok(Version {
            is_served: is_set(fields, "served"),
            is_storage: is_set(fields, "storage"),
            schema: Schema::parse(&schema, &path)?,
            raw_schema: schema,
            has_status: subresources
                .is_some_and(|all| all.get("status").is_some_and(Value::is_object)),
            columns: Column::all(Part::Columns.of(fields)),
            selectable: selectable.map(str::to_owned).collect(),
            deprecation,
            name,
        })
    }
}

impl Part {
    const fn name(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::Subresources => "subresources",
            Self::Columns => "additionalPrinterColumns",
            Self::Selectable => "selectableFields",
        }
    }

    fn of(self, version: &Map<String, Value>) -> Option<&Value> {
        version.get(self.name()).filter(|value| !value.is_null() && **value != json!([]))
    }
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> &'a str {
    fields.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn texts(fields: &Map<String, Value>, name: &str) -> Vec<String> {
    let list = fields.get(name).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn is_set(fields: &Map<String, Value>, name: &str) -> bool {
    fields.get(name).and_then(Value::as_bool).unwrap_or_default()
}
