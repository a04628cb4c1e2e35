//! The versions of a definition: names, schemas, subresources, columns and selectable fields.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{is_apart, show_versions};
use crate::Cause;
use crate::crd::path::Path;
use crate::crd::{Part, Spec, is_set, text};
use crate::schema::Schema;
use crate::selector::name;

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
const MAX_SELECTABLE: usize = 8;
/// What the root of a schema may have beside a separate status.
const BESIDE_STATUS: &[&str] = &[
    "type",
    "description",
    "format",
    "title",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "multipleOf",
    "required",
    "items",
    "properties",
    "externalDocs",
    "example",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];

type Fields = Map<String, Value>;

/// Checks what each version has for itself.
pub(super) fn check_all(spec: &Spec<'_>, causes: &mut Vec<Cause>) {
    for (index, version) in spec.versions.iter().enumerate() {
        let schema = version.get("schema").and_then(|schema| schema.get("openAPIV3Schema"));
        if schema.is_none_or(Value::is_null) {
            let field = format!("spec.versions[{index}].schema.openAPIV3Schema");
            causes.push(Cause::required(field, ""));
        }
    }
    for (index, version) in spec.versions.iter().enumerate() {
        check_name(&format!("spec.versions[{index}].name"), version, causes);
        check_deprecation(index, version, causes);
        for part in [Part::Schema, Part::Subresources, Part::Columns, Part::Selectable] {
            if is_apart(spec, part) {
                check_part(spec, [index, index], part, causes);
            }
        }
    }
    let names: BTreeSet<_> = spec.versions.iter().map(|version| text(version, "name")).collect();
    if names.len() != spec.versions.len() {
        let rule = "must contain unique version names";
        causes.push(Cause::invalid("spec.versions", &show_versions(spec), rule));
    }
    if spec.versions.iter().filter(|version| is_set(version, "storage")).count() != 1 {
        let rule = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid("spec.versions", &show_versions(spec), rule));
    }
    if let Some(first) = spec.versions.first() {
        check_name("spec.version", first, causes);
    }
}

/// Checks what all versions have in common, once.
pub(super) fn check_shared(spec: &Spec<'_>, causes: &mut Vec<Cause>) {
    for part in [Part::Schema, Part::Subresources, Part::Columns, Part::Selectable] {
        if spec.is_shared(part) {
            check_part(spec, [0, 0], part, causes);
        }
    }
}

fn check_name(field: &str, version: &Fields, causes: &mut Vec<Cause>) {
    let own = text(version, "name");
    let problems = name::dns_1035_label(own).join(",");
    if !problems.is_empty() {
        causes.push(Cause::invalid(field, &json!(own), &problems));
    }
}

fn check_deprecation(index: usize, version: &Fields, causes: &mut Vec<Cause>) {
    let Some(warning) = version.get("deprecationWarning").and_then(Value::as_str) else { return };
    let mut refuse = |rule: &str| {
        let field = format!("spec.versions[{index}].deprecationWarning");
        causes.push(Cause::invalid(field, &json!(warning), rule));
    };
    if !is_set(version, "deprecated") {
        return refuse("can only be set for deprecated versions");
    }
    if warning.len() > 256 {
        refuse("must be <= 256 characters long");
    }
    if warning.is_empty() {
        refuse("must not be an empty string");
    }
    if let Some((at, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
        refuse(&format!(
            "must only contain printable UTF-8 characters; non-printable character found at index \
             {at}"
        ));
    }
}

fn check_part(spec: &Spec<'_>, [index, at]: [usize; 2], part: Part, causes: &mut Vec<Cause>) {
    let Some(version) = spec.versions.get(index) else { return };
    let Some(value) = part.of(version) else { return };
    let path = spec.path(at, part);
    match part {
        Part::Schema => check_schema(spec, version, &path, causes),
        Part::Subresources => check_scale(value, &path, causes),
        Part::Columns => check_columns(value, &path, causes),
        Part::Selectable => check_selectable(version, value, &path, causes),
    }
}

fn check_schema(spec: &Spec<'_>, version: &Fields, path: &str, causes: &mut Vec<Cause>) {
    let schema = version.get("schema").and_then(|schema| schema.get("openAPIV3Schema"));
    let Some(Value::Object(fields)) = schema else { return };
    let path = format!("{path}.openAPIV3Schema");
    let has_status = |version: &Fields| {
        version
            .get("subresources")
            .is_some_and(|all| all.get("status").is_some_and(Value::is_object))
    };
    let is_shared = spec.is_shared(Part::Schema);
    let statuses = spec.versions.iter().any(|version| has_status(version));
    if (is_shared && statuses) || has_status(version) {
        if text(fields, "type") != "object" {
            let rule = "only \"object\" is allowed as the type at the root of the schema if the \
                        status subresource is enabled";
            causes.push(Cause::invalid(format!("{path}.type"), &json!(text(fields, "type")), rule));
        }
        if fields.keys().any(|name| !BESIDE_STATUS.contains(&name.as_str())) {
            let rule = "only [Description Type Format Title Maximum ExclusiveMaximum Minimum \
                        ExclusiveMinimum MaxLength MinLength Pattern MaxItems MinItems UniqueItems \
                        MultipleOf Required Items Properties ExternalDocs Example \
                        XPreserveUnknownFields XValidations] fields are allowed at the root of the \
                        schema if the status subresource is enabled";
            causes.push(Cause::invalid(&path, &Value::Object(fields.clone()), rule));
        }
    }
    if is_set(fields, "nullable") {
        let rule = "nullable cannot be true at the root";
        causes.push(Cause::forbidden(format!("{path}.nullable"), rule));
    }
    causes.extend(Schema::parse(schema.unwrap_or(&Value::Null), &path).err().unwrap_or_default());
}

fn check_scale(subresources: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Some(Value::Object(scale)) = subresources.get("scale") else { return };
    let paths: [(&str, &[&str], &str); 3] = [
        ("specReplicasPath", &[".spec."], ".spec"),
        ("statusReplicasPath", &[".status."], ".status"),
        ("labelSelectorPath", &[".spec.", ".status."], "either .spec or .status"),
    ];
    for (name, prefixes, where_) in paths {
        let field = format!("{path}.scale.{name}");
        let value = text(scale, name);
        if value.is_empty() {
            if name != "labelSelectorPath" {
                causes.push(Cause::required(field, ""));
            }
        } else if !value.starts_with('.') {
            let rule = "must be a simple json path starting with .";
            causes.push(Cause::invalid(field, &json!(value), rule));
        } else if !prefixes.iter().any(|prefix| value.starts_with(prefix)) {
            let rule = format!("should be a json path under {where_}");
            causes.push(Cause::invalid(field, &json!(value), &rule));
        }
    }
}

fn check_columns(columns: &Value, path: &str, causes: &mut Vec<Cause>) {
    let columns = columns.as_array().into_iter().flatten().filter_map(Value::as_object);
    for (index, column) in columns.enumerate() {
        let path = format!("{path}[{index}]");
        let (kind, format) = (text(column, "type"), text(column, "format"));
        if text(column, "name").is_empty() {
            causes.push(Cause::required(format!("{path}.name"), ""));
        }
        let rule = format!("must be one of {}", COLUMN_TYPES.join(","));
        if kind.is_empty() {
            causes.push(Cause::required(format!("{path}.type"), &rule));
        } else if !COLUMN_TYPES.contains(&kind) {
            causes.push(Cause::invalid(format!("{path}.type"), &json!(kind), &rule));
        }
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            let rule = format!("must be one of {}", COLUMN_FORMATS.join(","));
            causes.push(Cause::invalid(format!("{path}.format"), &json!(format), &rule));
        }
        check_column_path(text(column, "jsonPath"), format!("{path}.JSONPath"), causes);
    }
}

fn check_column_path(path: &str, field: String, causes: &mut Vec<Cause>) {
    if path.is_empty() {
        causes.push(Cause::required(field, ""));
    } else if !path.starts_with('.') {
        let rule = "must be a simple json path starting with .";
        causes.push(Cause::invalid(field, &json!(path), rule));
    } else if Path::parse(path).is_none() {
        // Differs from Kubernetes, which understands more and shows nothing for the rest.
        let rule = "is a json path that this server does not understand; use members, [index], \
                    [*] and [?(@.member==value)]";
        causes.push(Cause::invalid(field, &json!(path), rule));
    }
}

fn check_selectable(version: &Fields, selectable: &Value, path: &str, causes: &mut Vec<Cause>) {
    let schema = version.get("schema").and_then(|schema| schema.get("openAPIV3Schema"));
    let mut seen = BTreeSet::new();
    let fields = selectable.as_array().into_iter().flatten().filter_map(Value::as_object);
    for (index, fields) in fields.enumerate() {
        let field = format!("{path}[{index}].jsonPath");
        let json_path = text(fields, "jsonPath");
        if json_path.is_empty() {
            causes.push(Cause::required(field, ""));
            continue;
        }
        let mut found = schema.filter(|_| json_path.starts_with('.'));
        for part in json_path.split('.').skip(1) {
            found = found.and_then(|schema| schema.get("properties")?.get(part));
        }
        let value = json!(json_path);
        let Some(found) = found else {
            let rule = "is an invalid path: does not refer to a valid field";
            causes.push(Cause::invalid(field, &value, rule));
            continue;
        };
        if json_path.starts_with(".metadata") {
            causes.push(Cause::invalid(&field, &value, "must not point to fields in metadata"));
        }
        if !found["type"]
            .as_str()
            .is_some_and(|kind| matches!(kind, "string" | "boolean" | "integer"))
        {
            let rule = "must point to a field of type string, boolean or integer. Enum string \
                        fields and strings with formats are allowed.";
            causes.push(Cause::invalid(&field, &value, rule));
        }
        if !seen.insert(json_path) {
            causes.push(Cause::duplicate(field, &value));
        }
    }
    if seen.len() > MAX_SELECTABLE {
        causes.push(Cause::too_many(path, seen.len(), MAX_SELECTABLE));
    }
}
