//! From the JSON of a request to an object of the kind, and from there to what is stored and shown.

use serde_json::{Value, json};

use super::options::FieldValidation;
use super::{meta, rules};
use crate::Object;
use crate::builtin::decode::{drop_empty, unknown, unknown_field, whole_numbers};
use crate::builtin::events;
use crate::cause::{Cause, quote};
use crate::resource::{Body, Resource};
use crate::status::Status;

const ENDPOINTS: &str =
    "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice";

/// A decoded object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decoded {
    /// In the form in which it is stored, with the defaults.
    pub(crate) object: Object,
    /// What the answer warns of.
    pub(crate) warnings: Vec<String>,
}

/// Decodes the object of a create or an update.
///
/// # Errors
///
/// 400 with what is wrong.
pub(crate) fn decode(
    resource: &Resource,
    value: Value,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    let value = check_kind(resource, value)?;
    let (kind, version) = (&resource.kind, &resource.version);
    decode_body(resource, value, validation).map_err(|problem| {
        let version = quote(version);
        let message =
            format!("{kind} in version {version} cannot be handled as a {kind}: {problem}");
        Status::bad_request(message)
    })
}

/// Decodes what a patch made; the error is the bare problem.
///
/// # Errors
///
/// What is wrong.
pub(crate) fn decode_body(
    resource: &Resource,
    value: Value,
    validation: FieldValidation,
) -> Result<Decoded, String> {
    let mut object = Object::from_value(value)?;
    let mut strange = meta::normalise(&mut object.metadata).map_err(|problem| {
        let is_custom = matches!(resource.body, Body::Custom { .. });
        // Go decodes the metadata of custom resources on its own.
        if is_custom { problem.replace("ObjectMeta.metadata.", "ObjectMeta.") } else { problem }
    })?;
    for field in &mut strange {
        field.insert_str(0, "metadata.");
    }
    match &resource.body {
        Body::Builtin(kind) => {
            let before = Value::Object(std::mem::take(&mut object.body));
            let after = (kind.rules.decode)(before.clone())?;
            let Value::Object(mut after) = after else {
                return Err("an object of the API must be a JSON object".to_owned());
            };
            after.remove("metadata");
            let after_value = Value::Object(after);
            strange.extend(unknown(&before, &after_value));
            if let Value::Object(map) = after_value {
                object.body = map;
            }
            if rules::is_definition(resource) {
                complete_definition(&before, &mut object);
            } else {
                drop_empty(&mut object.body);
            }
            (kind.rules.default)(&mut object);
        }
        Body::Custom { version, .. } => {
            let metadata = std::mem::take(&mut object.metadata);
            let mut value = object.into_value();
            strange.extend(version.schema.prune(&mut value));
            version.schema.default(&mut value);
            object = Object::from_value(value)?;
            object.metadata = metadata;
        }
    }
    let warnings: Vec<String> = strange.iter().map(|path| unknown_field(path)).collect();
    let deprecation = deprecation(resource).map(str::to_owned);
    match validation {
        FieldValidation::Strict if !warnings.is_empty() => {
            Err(format!("strict decoding error: {}", warnings.join(", ")))
        }
        FieldValidation::Ignore => {
            Ok(Decoded { object, warnings: deprecation.into_iter().collect() })
        }
        FieldValidation::Strict | FieldValidation::Warn => {
            let warnings = warnings.into_iter().chain(deprecation).collect();
            Ok(Decoded { object, warnings })
        }
    }
}

/// Returns the warning that writers of the kind get.
fn deprecation(resource: &Resource) -> Option<&str> {
    match &resource.body {
        Body::Builtin(kind) => (kind.kind == "Endpoints").then_some(ENDPOINTS),
        Body::Custom { version, .. } => version.deprecation.as_deref(),
    }
}

/// Checks `apiVersion` and `kind`; built-in kinds may leave them out.
fn check_kind(resource: &Resource, mut value: Value) -> Result<Value, Status> {
    let expected = resource.api_version();
    let text =
        |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (version, kind) = (text("apiVersion"), text("kind"));
    match &resource.body {
        Body::Builtin(_) => {
            let version = if version.is_empty() { expected.clone() } else { version };
            let kind = if kind.is_empty() { resource.kind.to_string() } else { kind };
            // Definitions are served by the same code as what they define.
            if rules::is_definition(resource) && version != expected && kind == *resource.kind {
                return Err(other_version(&version, &expected));
            }
            check_builtin(resource, &version, &kind)?;
        }
        Body::Custom { .. } => check_custom(resource, &value, (&version, &kind))?,
    }
    if let Some(map) = value.as_object_mut() {
        map.insert("apiVersion".to_owned(), json!(expected));
        map.insert("kind".to_owned(), json!(&*resource.kind));
    }
    Ok(value)
}

fn other_version(version: &str, expected: &str) -> Status {
    Status::bad_request(format!(
        "the API version in the data ({version}) does not match the expected API version ({expected})"
    ))
}

/// Makes of a decoded definition what Go's decoder makes of it; its schemas may have empty values.
fn complete_definition(before: &Value, definition: &mut Object) {
    definition.body.values_mut().for_each(whole_numbers);
    let versions = definition.body.get_mut("spec").and_then(|spec| spec.get_mut("versions"));
    if let Some(versions) = versions
        && before.pointer("/spec/versions").is_none()
    {
        *versions = Value::Null;
    }
}

fn check_custom(
    resource: &Resource,
    value: &Value,
    (version, kind): (&str, &str),
) -> Result<(), Status> {
    let expected = resource.api_version();
    let own = &*resource.kind;
    if kind.is_empty() {
        let shown = value.to_string();
        let head: String = shown.chars().take(30).collect();
        let problem = format!("Object 'Kind' is missing in '{shown}' ({head} ...)");
        let message =
            format!("the object provided is unrecognized (must be of type {own}): {problem}");
        return Err(Status::bad_request(message));
    }
    if version != expected {
        return Err(other_version(version, &expected));
    }
    if kind != own {
        let cause = Cause::invalid("kind", &json!(kind), &format!("must be {own}"));
        let name = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        return Err(Status::invalid((kind, &resource.group), name, &[cause]));
    }
    Ok(())
}

fn check_builtin(resource: &Resource, version: &str, kind: &str) -> Result<(), Status> {
    let own = &*resource.kind;
    if version == resource.api_version() && kind == own {
        return Ok(());
    }
    let (group, short) = version.rsplit_once('/').unwrap_or(("", version));
    let is_known = crate::builtin::KINDS
        .iter()
        .any(|known| known.group == group && known.version == short && known.kind == kind);
    let problem = if is_known {
        let from = if group.is_empty() { "v1" } else { short };
        let into = internal_package(&resource.group);
        format!("converting ({from}.{kind}) to ({into}.{own}): unknown conversion")
    } else {
        let (kind, version) = (quote(kind), quote(version));
        format!(
            "no kind {kind} is registered for version {version} in scheme \"pkg/runtime/scheme.go:110\""
        )
    };
    let version = quote(short);
    let message = format!("{kind} in version {version} cannot be handled as a {own}: {problem}");
    Err(Status::bad_request(message))
}

/// Returns the Go package of a group's internal types, which is what messages show.
fn internal_package(group: &str) -> &str {
    match group {
        "" | "events.k8s.io" => "core",
        _ => group.split('.').next().unwrap_or_default(),
    }
}

/// Returns the name under which objects of the kind are stored.
pub(crate) fn stored_as(resource: &Resource) -> String {
    // Both groups show the same events.
    if &*resource.group == "events.k8s.io" { "events".to_owned() } else { resource.qualified() }
}

/// Returns whether objects are shown as they are stored.
pub(crate) fn is_shown_as_stored(resource: &Resource) -> bool {
    match &resource.body {
        Body::Builtin(_) => &*resource.group != "events.k8s.io",
        Body::Custom { kind, .. } => kind.versions.len() == 1,
    }
}

/// Makes the stored form the form of a version.
pub(crate) fn show(resource: &Resource, object: &mut Object) {
    if is_shown_as_stored(resource) {
        return;
    }
    match &resource.body {
        Body::Builtin(_) => events::to_events(object),
        Body::Custom { .. } => {
            object.body.insert("apiVersion".to_owned(), json!(resource.api_version()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Registry;

    fn problem(value: Value, validation: FieldValidation) -> String {
        let registry = Registry::new([]);
        let resource = registry.get("", "v1", "configmaps").unwrap();
        decode(resource, value, validation).unwrap_err().message
    }

    #[test]
    fn names_a_wrong_kind_as_kubernetes() {
        let cases = [
            (
                json!({"apiVersion": "v1", "kind": "Secret"}),
                "Secret in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): unknown conversion",
            ),
            (
                json!({"apiVersion": "v2", "kind": "ConfigMap"}),
                "ConfigMap in version \"v2\" cannot be handled as a ConfigMap: no kind \"ConfigMap\" is registered for version \"v2\" in scheme \"pkg/runtime/scheme.go:110\"",
            ),
        ];
        for (value, expected) in cases {
            assert_eq!(problem(value, FieldValidation::Warn), expected);
        }
    }

    #[test]
    fn refuses_unknown_fields_when_strict() {
        let value = json!({"metadata": {"name": "a", "zoo": 1}, "foo": 1});
        let expected = "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"metadata.zoo\", unknown field \"foo\"";
        assert_eq!(problem(value, FieldValidation::Strict), expected);
    }
}
