//! Roles and bindings.

use serde_json::{Value, json};

use super::core::{default, items, list, one_of, section, text};
use super::{Rules, Trait};
use crate::Object;
use crate::cause::Cause;
use crate::verb::names::Rule;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) const fn role(rules: Rules) -> Rules {
    Rules {
        traits: &[Trait::CreatesOnUpdate],
        name: Rule::Segment,
        default: |role| default(&mut role.body, "rules", Value::Null),
        validate: validate_role,
        validate_update: |new, _| validate_role(new),
        ..rules
    }
}

pub(super) const fn binding(rules: Rules) -> Rules {
    Rules {
        traits: &[Trait::CreatesOnUpdate],
        name: Rule::Segment,
        default: default_binding,
        validate: |binding| validate_binding(binding, &["Role", "ClusterRole"]),
        validate_update: |new, old| {
            compare_bindings(new, old, validate_binding(new, &["Role", "ClusterRole"]))
        },
        ..rules
    }
}

pub(super) const fn cluster_binding(rules: Rules) -> Rules {
    Rules {
        validate: |binding| validate_binding(binding, &["ClusterRole"]),
        validate_update: |new, old| {
            compare_bindings(new, old, validate_binding(new, &["ClusterRole"]))
        },
        ..self::binding(rules)
    }
}

fn default_binding(binding: &mut Object) {
    if let Some(role) = section(binding, "roleRef") {
        default(role, "apiGroup", json!(GROUP));
    }
    for subject in items(&mut binding.body, "subjects") {
        if matches!(subject.get("kind").and_then(Value::as_str), Some("User" | "Group")) {
            default(subject, "apiGroup", json!(GROUP));
        }
    }
}

fn validate_role(role: &Object) -> Vec<Cause> {
    let mut causes = Vec::new();
    let body = Value::Object(role.body.clone());
    let is_namespaced = role.namespace().is_some();
    for (at, rule) in list(&body, "rules").iter().enumerate() {
        let path = format!("rules[{at}]");
        if list(rule, "verbs").is_empty() {
            let detail = "verbs must contain at least one value";
            causes.push(Cause::required(format!("{path}.verbs"), detail));
        }
        let urls = list(rule, "nonResourceURLs");
        if !urls.is_empty() {
            let resources = ["apiGroups", "resources", "resourceNames"];
            if is_namespaced {
                let detail = "namespaced rules cannot apply to non-resource URLs";
                causes.push(Cause::invalid(
                    format!("{path}.nonResourceURLs"),
                    &json!(urls),
                    detail,
                ));
            }
            if resources.iter().any(|field| !list(rule, field).is_empty()) {
                let detail = "rules cannot apply to both regular resources and non-resource URLs";
                causes.push(Cause::invalid(
                    format!("{path}.nonResourceURLs"),
                    &json!(urls),
                    detail,
                ));
            }
            continue;
        }
        if list(rule, "apiGroups").is_empty() {
            let detail = "resource rules must supply at least one api group";
            causes.push(Cause::required(format!("{path}.apiGroups"), detail));
        }
        if list(rule, "resources").is_empty() {
            let detail = "resource rules must supply at least one resource";
            causes.push(Cause::required(format!("{path}.resources"), detail));
        }
    }
    causes
}

fn validate_binding(binding: &Object, kinds: &[&str]) -> Vec<Cause> {
    let mut causes = Vec::new();
    let null = Value::Null;
    let role = binding.body.get("roleRef").unwrap_or(&null);
    one_of("roleRef.apiGroup", text(role, "apiGroup"), &[GROUP], &mut causes);
    one_of("roleRef.kind", text(role, "kind"), kinds, &mut causes);
    if text(role, "name").is_empty() {
        causes.push(Cause::required("roleRef.name", ""));
    }
    let body = Value::Object(binding.body.clone());
    for (at, subject) in list(&body, "subjects").iter().enumerate() {
        let path = format!("subjects[{at}]");
        if text(subject, "name").is_empty() {
            causes.push(Cause::required(format!("{path}.name"), ""));
        }
        let kind = text(subject, "kind");
        one_of(&format!("{path}.kind"), kind, &["ServiceAccount", "User", "Group"], &mut causes);
        if kind == "ServiceAccount" && text(subject, "namespace").is_empty() {
            causes.push(Cause::required(format!("{path}.namespace"), ""));
        }
    }
    causes
}

fn compare_bindings(new: &Object, old: &Object, mut causes: Vec<Cause>) -> Vec<Cause> {
    let role = |binding: &Object| binding.body.get("roleRef").cloned().unwrap_or_default();
    let now = role(new);
    if now != role(old) {
        let field = |name: &str| text(&now, name).to_owned();
        // The API server shows its internal type, whose fields have capitals.
        let shown =
            json!({"APIGroup": field("apiGroup"), "Kind": field("kind"), "Name": field("name")});
        causes.push(Cause::invalid("roleRef", &shown, "cannot change roleRef"));
    }
    causes
}
