//! What is wrong with a definition, in Kubernetes' words and order.

mod version;

use serde_json::{Value, json};

use super::{Part, Spec, is_set, text, texts};
use crate::selector::name;
use crate::{Cause, Object};

const APPROVED: &str = "api-approved.kubernetes.io";
const APPROVAL_URL: &str = "https://github.com/kubernetes/enhancements/pull/1111";

/// Returns what is wrong with a [`prepare`](super::prepare)d definition; `old` is what an update
/// replaces. General rules about metadata are not checked here.
#[must_use]
pub fn validate(definition: &Object, old: Option<&Object>) -> Vec<Cause> {
    let spec = Spec::of(definition);
    let mut causes = Vec::new();
    let (plural, group) = (text(spec.names, "plural"), text(spec.fields, "group"));
    let own_name = definition.name().unwrap_or_default();
    if old.is_none() && own_name != format!("{plural}.{group}") {
        let rule = r#"must be spec.names.plural+"."+spec.group"#;
        causes.push(Cause::invalid("metadata.name", &json!(own_name), rule));
    }
    check_group(group, &mut causes);
    choice("spec.scope", text(spec.fields, "scope"), &["Cluster", "Namespaced"], &mut causes);
    version::check_all(&spec, &mut causes);
    check_names(&spec, &mut causes);
    version::check_shared(&spec, &mut causes);
    check_conversion(&spec, &mut causes);
    if let Some(old) = old {
        check_unchanged(&spec, old, &mut causes);
    }
    check_stored(definition, &spec, &mut causes);
    if old.is_none() {
        check_approval(definition, group, &mut causes);
    }
    if is_set(spec.fields, "preserveUnknownFields") {
        let rule = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
                    spec.versions[*].schema instead";
        causes.push(Cause::invalid("spec.preserveUnknownFields", &json!(true), rule));
    }
    causes
}

fn check_group(group: &str, causes: &mut Vec<Cause>) {
    let problems = name::subdomain(group).join(",");
    if group.is_empty() {
        causes.push(Cause::required("spec.group", ""));
    } else if !problems.is_empty() {
        causes.push(Cause::invalid("spec.group", &json!(group), &problems));
    } else if !group.contains('.') {
        let rule = "should be a domain with at least one dot";
        causes.push(Cause::invalid("spec.group", &json!(group), rule));
    }
}

fn choice(field: &str, value: &str, choices: &[&str], causes: &mut Vec<Cause>) {
    if value.is_empty() {
        causes.push(Cause::required(field, ""));
    } else if !choices.contains(&value) {
        causes.push(Cause::unsupported(field, &json!(value), choices));
    }
}

fn check_names(spec: &Spec<'_>, causes: &mut Vec<Cause>) {
    for name in ["plural", "singular", "kind", "listKind"] {
        if text(spec.names, name).is_empty() {
            causes.push(Cause::required(format!("spec.names.{name}"), ""));
        }
    }
    let mut check = |field: String, value: &str, prefix: &str| {
        let label = if prefix.is_empty() { value.to_owned() } else { value.to_lowercase() };
        let problems = name::dns_1035_label(&label).join(",");
        if !value.is_empty() && !problems.is_empty() {
            causes.push(Cause::invalid(field, &json!(value), &format!("{prefix}{problems}")));
        }
    };
    for (name, prefix) in [
        ("plural", ""),
        ("singular", ""),
        ("kind", "may have mixed case, but should otherwise match: "),
        ("listKind", "may have mixed case, but should otherwise match: "),
    ] {
        check(format!("spec.names.{name}"), text(spec.names, name), prefix);
    }
    for list in ["shortNames", "categories"] {
        for (index, name) in texts(spec.names, list).iter().enumerate() {
            check(format!("spec.names.{list}[{index}]"), name, "");
        }
    }
    let (kind, list_kind) = (text(spec.names, "kind"), text(spec.names, "listKind"));
    if !kind.is_empty() && kind == list_kind {
        let rule = "kind and listKind may not be the same";
        causes.push(Cause::invalid("spec.names.listKind", &json!(list_kind), rule));
    }
}

/// Differs from Kubernetes: webhooks are not called, so a definition that needs one is refused.
fn check_conversion(spec: &Spec<'_>, causes: &mut Vec<Cause>) {
    let Some(Value::Object(conversion)) = spec.fields.get("conversion") else { return };
    let strategy = text(conversion, "strategy");
    choice("spec.conversion.strategy", strategy, &["None", "Webhook"], causes);
    let webhook = conversion.get("webhook").filter(|webhook| !webhook.is_null());
    if strategy == "Webhook" {
        let rule = "this server does not call webhooks to convert objects; use the strategy None";
        causes.push(Cause::invalid("spec.conversion.strategy", &json!(strategy), rule));
    } else if webhook.is_some() {
        let rule = "should not be set when strategy is not set to Webhook";
        causes.push(Cause::forbidden("spec.conversion.webhookClientConfig", rule));
    }
}

fn check_unchanged(spec: &Spec<'_>, old: &Object, causes: &mut Vec<Cause>) {
    let before = Spec::of(old);
    let conditions = old.body.get("status").and_then(|status| status.get("conditions"));
    let mut conditions = conditions.and_then(Value::as_array).into_iter().flatten();
    let is_established = conditions
        .any(|condition| condition["type"] == "Established" && condition["status"] == "True");
    let fields = [
        ("spec.scope", spec.fields, before.fields, "scope", is_established),
        ("spec.names.kind", spec.names, before.names, "kind", is_established),
        ("spec.group", spec.fields, before.fields, "group", true),
        ("spec.names.plural", spec.names, before.names, "plural", true),
    ];
    for (field, new, old, name, is_fixed) in fields {
        if is_fixed && text(new, name) != text(old, name) {
            causes.push(Cause::invalid(field, &json!(text(new, name)), "field is immutable"));
        }
    }
}

fn check_stored(definition: &Object, spec: &Spec<'_>, causes: &mut Vec<Cause>) {
    let status = definition.body.get("status").and_then(Value::as_object);
    let stored = status.map(|status| texts(status, "storedVersions")).unwrap_or_default();
    let field = "status.storedVersions";
    if stored.is_empty() {
        let rule = "must have at least one stored version";
        causes.push(Cause::invalid(field, &Value::Null, rule));
        return;
    }
    for version in spec.versions.iter().filter(|version| is_set(version, "storage")) {
        let name = text(version, "name");
        if !stored.iter().any(|stored| stored == name) {
            let rule = format!("must have the storage version {name}");
            causes.push(Cause::invalid(field, &json!(stored), &rule));
        }
    }
    for (index, name) in stored.iter().enumerate() {
        if !spec.versions.iter().any(|version| text(version, "name") == name) {
            let rule = format!(
                "missing from spec.versions; {name} was previously a storage version, and must \
                 remain in spec.versions until a storage migration ensures no data remains \
                 persisted in {name} and removes {name} from status.storedVersions"
            );
            causes.push(Cause::invalid(format!("{field}[{index}]"), &json!(name), &rule));
        }
    }
}

/// The groups of Kubernetes itself need an annotation.
fn check_approval(definition: &Object, group: &str, causes: &mut Vec<Cause>) {
    let is_in = |domain: &str| {
        group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    if !is_in("k8s.io") && !is_in("kubernetes.io") {
        return;
    }
    let annotations = definition.metadata.get("annotations").and_then(Value::as_object);
    let annotation = annotations.map(|all| text(all, APPROVED)).unwrap_or_default();
    let field = format!("metadata.annotations[{APPROVED}]");
    let is_url = annotation.split_once("://").is_some_and(|(scheme, host)| {
        !scheme.is_empty() && !host.is_empty() && !host.starts_with('/')
    });
    if annotation.is_empty() {
        let rule = format!(
            "protected groups must have approval annotation {APPROVED:?}, see {APPROVAL_URL}"
        );
        causes.push(Cause::required(field, &rule));
    } else if !annotation.starts_with("unapproved") && !is_url {
        let rule = format!(
            "protected groups must have approval annotation {APPROVED:?} with either a URL or a \
             reason starting with \"unapproved\", see {APPROVAL_URL}"
        );
        causes.push(Cause::invalid(field, &json!(annotation), &rule));
    }
}

/// Returns the versions as messages show them.
fn show_versions(spec: &Spec<'_>) -> Value {
    spec.fields.get("versions").cloned().unwrap_or_default()
}

/// Returns whether a part is reported at its version, not once for all.
fn is_apart(spec: &Spec<'_>, part: Part) -> bool {
    !spec.is_shared(part)
}
