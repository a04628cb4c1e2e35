//! Who may do what with the API server, who did, and who was refused.
//!
//! What is granted is read from a manifest, what was done from the API server's audit log
//! (audit.k8s.io/v1), so that least privilege is a fact that a test can look at.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use http::Method;
use serde_json::{Value, json};

use crate::Error;
use crate::api_access::Api;
use crate::control_plane::kubernetes::AUDIT_LOG;
use crate::rest::Request;

/// The namespace of our service accounts.
const NAMESPACE: &str = "kube-system";
/// How the API server calls a service account.
const PREFIX: &str = "system:serviceaccount:kube-system:";
/// Our service accounts, whose requests are written down.
pub const ACCOUNTS: [&str; 3] = ["calico-node", "calico-cni-plugin", "calico-kube-controllers"];

/// Somebody may do something with a kind of objects.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Permission {
    /// The service account.
    pub account: String,
    /// The resource with its group and subresource: `pods/status`, `ippools.crd.projectcalico.org`.
    pub resource: String,
    /// `get`, `list` and so on.
    pub verb: String,
}

impl fmt::Display for Permission {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {}", self.account, self.verb, self.resource)
    }
}

/// What the audit log tells.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Done {
    /// What was done, each kind of request once.
    pub permitted: BTreeSet<Permission>,
    /// What was refused.
    pub refused: BTreeSet<Permission>,
}

/// Returns what the roles of a manifest grant; each is called like the account that has it.
///
/// # Errors
///
/// [`Error::Wrong`] if it is no YAML.
pub fn granted(manifest: &str) -> Result<BTreeSet<Permission>, Error> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(manifest).map_err(Error::wrong)?;
    let roles = objects.iter().filter(|object| {
        matches!(object.get("kind").and_then(Value::as_str), Some("ClusterRole" | "Role"))
    });
    let mut granted = BTreeSet::new();
    for role in roles {
        let account = role.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        for rule in role.get("rules").and_then(Value::as_array).into_iter().flatten() {
            for group in words(rule, "apiGroups") {
                for resource in words(rule, "resources") {
                    granted.extend(words(rule, "verbs").map(|verb| Permission {
                        account: account.to_owned(),
                        resource: named(resource, group),
                        verb: verb.to_owned(),
                    }));
                }
            }
        }
    }
    Ok(granted)
}

/// Reads what was done from the audit log of the control plane in a directory.
///
/// # Errors
///
/// [`Error::File`] if it cannot be read.
pub fn done_in(control_plane: &Path) -> Result<Done, Error> {
    let path = control_plane.join(AUDIT_LOG);
    std::fs::read_to_string(&path).map(|log| done(&log)).map_err(Error::file(&path))
}

/// Reads an audit log, a line of JSON for each request.
#[must_use]
pub fn done(log: &str) -> Done {
    let mut done = Done::default();
    for line in log.lines() {
        let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
        let account = text("/user/username").and_then(|user| user.strip_prefix(PREFIX));
        let (Some(account), Some(resource)) = (account, text("/objectRef/resource")) else {
            continue;
        };
        let resource = match text("/objectRef/subresource") {
            Some(part) => format!("{resource}/{part}"),
            None => resource.to_owned(),
        };
        let permission = Permission {
            account: account.to_owned(),
            resource: named(&resource, text("/objectRef/apiGroup").unwrap_or_default()),
            verb: text("/verb").unwrap_or_default().to_owned(),
        };
        let code = event.pointer("/responseStatus/code").and_then(Value::as_u64);
        if code == Some(403) {
            done.refused.insert(permission);
        } else {
            done.permitted.insert(permission);
        }
    }
    done
}

/// Returns what the API server is to write down: each request of ours, without what is in it.
#[must_use]
pub fn audit_policy() -> String {
    let users: Vec<String> =
        ACCOUNTS.iter().map(|name| format!("system:serviceaccount:{NAMESPACE}:{name}")).collect();
    let policy = serde_json::json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata", "users": users}, {"level": "None"}],
    });
    policy.to_string()
}

fn words<'a>(rule: &'a Value, field: &str) -> impl Iterator<Item = &'a str> {
    rule.get(field).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn named(resource: &str, group: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

/// Returns the permissions of the golden file, each with its reason if it has one.
pub fn golden(text: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.filter(|line| !line.starts_with('#')).map(|line| match line.split_once('#') {
        Some((name, reason)) => (name.trim(), Some(reason.trim())),
        None => (line, None),
    })
}

/// Returns the scenario that uses a permission, if its reason says so: `in NAME: why`.
#[must_use]
pub fn scenario(reason: &str) -> Option<&str> {
    reason.strip_prefix("in ")?.split(':').next()
}

/// Fails unless the API server permits one of our accounts something, or does not, as `is_permitted`
/// says (authorization.k8s.io/v1); `attributes` are those of a resource.
///
/// # Errors
///
/// [`Error`] with the server's answer.
pub fn require(
    api: &Api,
    account: &str,
    attributes: &Value,
    is_permitted: bool,
) -> Result<(), Error> {
    let question = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": format!("{PREFIX}{account}"),
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "resourceAttributes": attributes,
        },
    });
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let answer = api.send(Request::json(Method::POST, path, &question))?.success()?;
    let says = answer.pointer("/status/allowed") == Some(&Value::Bool(true));
    if says == is_permitted { Ok(()) } else { Err(Error::wrong(answer.to_string())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::manifest;

    /// Every permission, and for those that a cluster's life does not use the reason.
    const GOLDEN: &str = include_str!("../../testdata/lab/permissions.txt");

    #[test]
    fn what_is_granted_is_written_down() {
        let text = std::fs::read_to_string(manifest("parts/rbac.yaml")).unwrap();
        let granted: BTreeSet<String> =
            granted(&text).unwrap().iter().map(ToString::to_string).collect();
        let written: BTreeSet<String> = golden(GOLDEN).map(|(name, _)| name.to_owned()).collect();
        let more: Vec<_> = granted.difference(&written).collect();
        let less: Vec<_> = written.difference(&granted).collect();
        assert!(more.is_empty() && less.is_empty(), "not written: {more:#?}\ngone: {less:#?}");
    }

    #[test]
    fn requests_are_read_with_their_outcome() {
        let event = |verb: &str, resource: &str, code: u16| {
            serde_json::json!({
                "verb": verb,
                "user": {"username": "system:serviceaccount:kube-system:calico-node"},
                "objectRef": {"resource": resource, "subresource": "status"},
                "responseStatus": {"code": code},
            })
        };
        let log = format!("{}\n{}\nnoise", event("patch", "pods", 200), event("get", "pods", 403));
        let done = done(&log);
        let names = |set: &BTreeSet<Permission>| {
            set.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        assert_eq!(names(&done.permitted), "calico-node patch pods/status");
        assert_eq!(names(&done.refused), "calico-node get pods/status");
    }
}
