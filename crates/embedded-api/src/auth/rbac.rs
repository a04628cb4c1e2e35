//! Who may do what: the roles and bindings of rbac.authorization.k8s.io/v1, as Kubernetes reads them.
//!
//! Rules only ever allow; what no rule allows is forbidden.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::User;
use crate::http::info::{Info, Resource};
use crate::status::{Reason, Status};

/// Everything that is granted, as the store holds it at one revision.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    cluster_roles: BTreeMap<String, Vec<Rule>>,
    roles: BTreeMap<(String, String), Vec<Rule>>,
    cluster_bindings: Vec<Binding>,
    bindings: BTreeMap<String, Vec<Binding>>,
}

/// `PolicyRule`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Rule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
}

/// `ClusterRole` or `Role`.
#[derive(Deserialize)]
struct Role {
    metadata: Meta,
    #[serde(default)]
    rules: Option<Vec<Rule>>,
}

/// `ClusterRoleBinding` or `RoleBinding`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Binding {
    metadata: Meta,
    #[serde(default)]
    subjects: Option<Vec<Subject>>,
    role_ref: RoleRef,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Meta {
    name: String,
    namespace: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Subject {
    kind: String,
    #[serde(default, rename = "apiGroup")]
    api_group: String,
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Clone, Debug, Deserialize)]
struct RoleRef {
    #[serde(default, rename = "apiGroup")]
    api_group: String,
    kind: String,
    name: String,
}

/// What everybody with a valid token may read, as by the role `system:discovery`.
const PUBLIC: [&str; 11] = [
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/livez",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/version",
    "/version/",
];

/// The group of the four kinds.
pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";

impl Grants {
    /// Adds an object of one of the four kinds; what cannot be read grants nothing.
    pub(crate) fn add(&mut self, plural: &str, json: &[u8]) {
        match plural {
            "clusterroles" | "roles" => {
                let Ok(Role { metadata, rules }) = serde_json::from_slice(json) else { return };
                let rules = rules.unwrap_or_default();
                if plural == "roles" {
                    self.roles.insert((metadata.namespace, metadata.name), rules);
                } else {
                    self.cluster_roles.insert(metadata.name, rules);
                }
            }
            _ => {
                let Ok(binding) = serde_json::from_slice::<Binding>(json) else { return };
                if plural == "rolebindings" {
                    let namespace = binding.metadata.namespace.clone();
                    self.bindings.entry(namespace).or_default().push(binding);
                } else {
                    self.cluster_bindings.push(binding);
                }
            }
        }
    }

    /// Decides over a request.
    ///
    /// # Errors
    ///
    /// 403 in the words of a real server.
    pub(crate) fn authorize(&self, user: &User, request: &Info) -> Result<(), Status> {
        if user.is_master() {
            return Ok(());
        }
        let mut missing = Vec::new();
        if self.allows(user, request, &mut missing) {
            return Ok(());
        }
        Err(forbidden(user, request, &missing))
    }

    fn allows(&self, user: &User, request: &Info, missing: &mut Vec<String>) -> bool {
        let is_public = PUBLIC.iter().any(|url| covers(url, &request.path));
        let is_known = user.groups.iter().any(|group| group == User::AUTHENTICATED);
        if request.resource.is_none() && request.verb == "get" && is_public && is_known {
            return true;
        }
        for binding in self.cluster_bindings.iter().filter(|binding| binding.is_for(user, "")) {
            if self.rules(binding, missing).iter().any(|rule| rule.allows(request)) {
                return true;
            }
        }
        let namespace = request.resource.as_ref().map_or("", |resource| &resource.namespace);
        let bindings = self.bindings.get(namespace).filter(|_| !namespace.is_empty());
        for binding in bindings.into_iter().flatten() {
            let is_allowed = binding.is_for(user, namespace)
                && self.rules(binding, missing).iter().any(|rule| rule.allows(request));
            if is_allowed {
                return true;
            }
        }
        false
    }

    fn rules(&self, binding: &Binding, missing: &mut Vec<String>) -> &[Rule] {
        let RoleRef { api_group, kind, name } = &binding.role_ref;
        let namespace = &binding.metadata.namespace;
        let found = match kind.as_str() {
            _ if api_group != GROUP => None,
            "ClusterRole" => self.cluster_roles.get(name),
            "Role" => self.roles.get(&(namespace.clone(), name.clone())),
            _ => None,
        };
        let plural = if kind == "Role" { "role" } else { "clusterrole" };
        found.map_or_else(
            || {
                let text = format!("{plural}.{GROUP} {name:?} not found");
                if !missing.contains(&text) {
                    missing.push(text);
                }
                &[][..]
            },
            Vec::as_slice,
        )
    }
}

impl Binding {
    fn is_for(&self, user: &User, namespace: &str) -> bool {
        self.subjects.iter().flatten().any(|subject| subject.is(user, namespace))
    }
}

impl Subject {
    /// `namespace` is the binding's, which a service account's is without one of its own.
    fn is(&self, user: &User, namespace: &str) -> bool {
        let Self { kind, api_group, name, namespace: own } = self;
        match (kind.as_str(), api_group.as_str()) {
            ("User", GROUP) => user.name == *name,
            ("Group", GROUP) => user.groups.contains(name),
            ("ServiceAccount", "") => {
                let namespace = if own.is_empty() { namespace } else { own };
                let account = user.name.strip_prefix("system:serviceaccount:");
                !namespace.is_empty()
                    && account.and_then(|account| account.split_once(':'))
                        == Some((namespace, name.as_str()))
            }
            _ => false,
        }
    }
}

impl Rule {
    fn allows(&self, request: &Info) -> bool {
        let holds = |list: &[String], value: &str| list.iter().any(|it| it == "*" || it == value);
        if !holds(&self.verbs, request.verb) {
            return false;
        }
        let Some(resource) = &request.resource else {
            return self.non_resource_urls.iter().any(|url| covers(url, &request.path));
        };
        let Resource { group, plural, subresource, name, .. } = resource;
        let names = &self.resource_names;
        holds(&self.api_groups, group)
            && self.resources.iter().any(|rule| names_resource(rule, plural, subresource))
            && (names.is_empty() || names.contains(name))
    }
}

/// `*` is everything, `pods/log` one subresource, `*/scale` that subresource of all.
fn names_resource(rule: &str, plural: &str, subresource: &str) -> bool {
    match rule.split_once('/') {
        _ if rule == "*" => true,
        None => subresource.is_empty() && rule == plural,
        Some((of, sub)) => {
            !subresource.is_empty() && sub == subresource && (of == "*" || of == plural)
        }
    }
}

fn covers(rule: &str, path: &str) -> bool {
    rule == "*"
        || rule == path
        || rule.strip_suffix('*').is_some_and(|start| path.starts_with(start))
}

fn forbidden(user: &User, request: &Info, missing: &[String]) -> Status {
    let who = format!("User {:?} cannot {}", user.name, request.verb);
    let (prefix, what, details) = match &request.resource {
        None => (String::new(), format!("{who} path {:?}", request.path), Map::new()),
        Some(resource) => {
            let name = &resource.name;
            let quoted = if name.is_empty() { String::new() } else { format!(" {name:?}") };
            let prefix = format!("{}{quoted} is ", resource.qualified());
            (prefix, format!("{who} resource {}", described(resource)), details(resource))
        }
    };
    let what = what.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let why = match missing {
        [] => String::new(),
        [one] => format!(": RBAC: {one}"),
        several => format!(": RBAC: [{}]", several.join(", ")),
    };
    let message = format!("{prefix}forbidden: {what}{why}");
    Status { code: 403, reason: Reason::Forbidden, message, details: Some(details.into()) }
}

fn described(resource: &Resource) -> String {
    let Resource { group, plural, subresource, namespace, .. } = resource;
    let slash = if subresource.is_empty() { "" } else { "/" };
    let place = if namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {namespace:?}")
    };
    format!("\"{plural}{slash}{subresource}\" in API group {group:?} {place}")
}

fn details(resource: &Resource) -> Map<String, Value> {
    let Resource { name, group, plural, .. } = resource;
    let fields = [("name", name), ("group", group), ("kind", plural)];
    let fields = fields.into_iter().filter(|(_, value)| !value.is_empty());
    fields.map(|(key, value)| (key.to_owned(), value.as_str().into())).collect()
}

#[cfg(test)]
mod tests;
