//! Field selectors: `fieldSelector` of a request, as apimachinery's `fields` reads it.

use std::borrow::Cow;

use serde_json::Value;

use crate::{Object, Reason, Status};

/// What may be selected by in a resource.
#[derive(Clone, Copy, Debug)]
pub enum Selectable<'a> {
    /// A built-in resource: its plural with its group, as `events.events.k8s.io`.
    Builtin(&'a str),
    /// A namespaced custom resource and the paths of its `selectableFields`.
    Namespaced(&'a [String]),
    /// A cluster-scoped custom resource and the paths of its `selectableFields`.
    Cluster(&'a [String]),
}

/// A conjunction of tests on fields; none matches everything.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Fields {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Term {
    field: String,
    is_negated: bool,
    value: String,
}

const META: [&str; 2] = ["metadata.name", "metadata.namespace"];
const POD: &[&str] = &[
    "spec.host",
    "spec.hostNetwork",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.nominatedNodeName",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];
const REFERENCE: [&str; 7] =
    ["apiVersion", "fieldPath", "kind", "name", "namespace", "resourceVersion", "uid"];

impl Fields {
    /// Parses the text of a request's `fieldSelector`.
    ///
    /// # Errors
    ///
    /// [`Status`] 400 as Kubernetes words it: bad syntax, or a field that cannot be selected by.
    pub fn parse(selectable: Selectable<'_>, text: &str) -> Result<Self, Status> {
        let bad = |message| Status::new(400, Reason::BadRequest, message);
        let mut parts = split_terms(text);
        parts.sort_unstable();
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        let terms = parts.map(|part| Term::parse(text, part)).collect::<Result<Vec<_>, _>>();
        let terms = terms.map_err(bad)?;
        terms.iter().try_for_each(|term| selectable.check(&term.field)).map_err(bad)?;
        Ok(Self { terms })
    }

    /// Returns whether every object matches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Returns whether an object passes all tests.
    #[must_use]
    pub fn matches(&self, object: &Object) -> bool {
        let passes = |term: &Term| (read(object, &term.field) == term.value) != term.is_negated;
        self.terms.iter().all(passes)
    }

    /// Returns the value that a field must have, so that one object can be read instead of all.
    #[must_use]
    pub fn required(&self, field: &str) -> Option<&str> {
        let term = self.terms.iter().find(|term| term.field == field && !term.is_negated)?;
        Some(&term.value)
    }
}

impl Term {
    fn parse(selector: &str, part: &str) -> Result<Self, String> {
        let Some(at) = part.find("!=").into_iter().chain(part.find('=')).min() else {
            return Err(format!("invalid selector: '{selector}'; can't understand '{part}'"));
        };
        let (field, rest) = part.split_at_checked(at).unwrap_or((part, ""));
        let operator = ["!=", "==", "="].into_iter().find(|operator| rest.starts_with(operator));
        let operator = operator.unwrap_or_default();
        let value = unescape(rest.strip_prefix(operator).unwrap_or_default())?;
        Ok(Self { field: field.to_owned(), is_negated: operator == "!=", value })
    }
}

impl Selectable<'_> {
    fn check(self, field: &str) -> Result<(), String> {
        let is_known = match self {
            Self::Namespaced(paths) => META.contains(&field) || has_path(paths, field),
            Self::Cluster(paths) => field == "metadata.name" || has_path(paths, field),
            Self::Builtin(resource) => match builtin_fields(resource, field) {
                Some(is_known) => is_known,
                None if META.contains(&field) => true,
                None => {
                    let known = r#"only "metadata.name", "metadata.namespace""#;
                    return Err(format!("{field:?} is not a known field selector: {known}"));
                }
            },
        };
        if is_known { Ok(()) } else { Err(format!("field label not supported: {field}")) }
    }
}

fn has_path(paths: &[String], field: &str) -> bool {
    paths.iter().any(|path| path.strip_prefix('.').unwrap_or(path) == field)
}

/// Returns whether a resource that has fields of its own knows `field`; `None` if it has none.
fn builtin_fields(resource: &str, field: &str) -> Option<bool> {
    let is_meta = META.contains(&field);
    let is_reference =
        |prefix| field.strip_prefix(prefix).is_some_and(|field| REFERENCE.contains(&field));
    Some(match resource {
        "pods" => is_meta || POD.contains(&field),
        "nodes" => matches!(field, "metadata.name" | "spec.unschedulable"),
        "namespaces" => matches!(field, "metadata.name" | "status.phase"),
        "secrets" => is_meta || field == "type",
        "services" => is_meta || matches!(field, "spec.clusterIP" | "spec.type"),
        "events" => {
            let own = ["reason", "reportingComponent", "source", "type"];
            is_meta || own.contains(&field) || is_reference("involvedObject.")
        }
        "events.events.k8s.io" => {
            let own = ["reason", "reportingController", "type"];
            is_meta || own.contains(&field) || is_reference("regarding.")
        }
        _ => return None,
    })
}

/// Returns a field as the selector compares it; what is absent is empty.
fn read(object: &Object, field: &str) -> String {
    let first =
        |paths: &[&str]| paths.iter().map(|path| text_at(object, path)).find(|t| !t.is_empty());
    let found = match field {
        "spec.host" => Some(text_at(object, "spec.nodeName")),
        "spec.hostNetwork" | "spec.unschedulable" => {
            first(&[field]).or_else(|| Some("false".to_owned()))
        }
        "status.podIP" => first(&["status.podIPs.0.ip", field]),
        // Kubernetes accepts this one and never fills it.
        "status.podIPs" => None,
        "reportingComponent" | "reportingController" => {
            first(&["reportingComponent", "reportingController"])
        }
        "source" => first(&[
            "source.component",
            "deprecatedSource.component",
            "reportingComponent",
            "reportingController",
        ]),
        _ => match field.split_once('.') {
            Some(("involvedObject" | "regarding", rest)) => {
                first(&[&format!("involvedObject.{rest}"), &format!("regarding.{rest}")])
            }
            _ => Some(text_at(object, field)),
        },
    };
    found.unwrap_or_default()
}

fn text_at(object: &Object, path: &str) -> String {
    let mut parts = path.split('.');
    let map = if path.starts_with("metadata.") { &object.metadata } else { &object.body };
    if path.starts_with("metadata.") {
        parts.next();
    }
    let mut value = parts.next().and_then(|key| map.get(key));
    for part in parts {
        value = match value {
            Some(Value::Object(map)) => map.get(part),
            Some(Value::Array(list)) => part.parse::<usize>().ok().and_then(|at| list.get(at)),
            _ => None,
        };
    }
    let text = match value {
        Some(Value::String(text)) => Cow::Borrowed(text.as_str()),
        Some(scalar @ (Value::Bool(_) | Value::Number(_))) => Cow::Owned(scalar.to_string()),
        _ => Cow::Borrowed(""),
    };
    text.into_owned()
}

/// Splits at the commas that no backslash precedes.
fn split_terms(text: &str) -> Vec<&str> {
    let mut is_escaped = false;
    let is_separator = |c: char| {
        let separates = c == ',' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        separates
    };
    text.split(is_separator).collect()
}

fn unescape(text: &str) -> Result<String, String> {
    let mut value = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => value.push(escaped),
                other => {
                    let other = other.map(String::from).unwrap_or_default();
                    let problem = "invalid field selector: invalid escape sequence";
                    return Err(format!("{problem}: \\{other}"));
                }
            },
            ',' | '=' => {
                let code = u32::from(c);
                let problem = "invalid field selector: unescaped character in value";
                return Err(format!("{problem}: {code}"));
            }
            _ => value.push(c),
        }
    }
    Ok(value)
}
