//! What a request is about: verb, group, resource, namespace, name; as Kubernetes' `RequestInfo`.
//!
//! It is syntax only: authorization decides by it before anybody looks whether the resource exists.

use http::Method;

use super::query::{Query, decode};

/// A request's line, taken apart.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Info {
    /// The decoded path.
    pub(crate) path: String,
    /// `get`, `list`, `watch`, `create`, …; the method in small letters for other paths.
    pub(crate) verb: &'static str,
    /// What is asked for; `None` for paths such as `/version`.
    pub(crate) resource: Option<Resource>,
}

/// The resource of a request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Resource {
    /// The API group; empty is the core group.
    pub(crate) group: String,
    /// The version.
    pub(crate) version: String,
    /// The namespace; empty is none, or all of them.
    pub(crate) namespace: String,
    /// The plural.
    pub(crate) plural: String,
    /// The object's name, also if a field selector gives it; empty for collections.
    pub(crate) name: String,
    /// Such as `status`; empty is the object itself.
    pub(crate) subresource: String,
    /// Whether the path names an object, and not a collection.
    pub(crate) is_object: bool,
    /// Whether the path has parts behind the subresource; no resource here has those.
    pub(crate) has_rest: bool,
}

impl Info {
    /// Takes a request's line apart.
    pub(crate) fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let path = decode(path);
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => return Self { verb: lower(method), resource: None, path },
        };
        // The old form of watches: /api/v1/watch/pods.
        let (is_watch, rest) = match rest {
            ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
            _ => (false, rest),
        };
        let mut resource = Resource::of(rest);
        group.clone_into(&mut resource.group);
        version.clone_into(&mut resource.version);
        let verb = verb_of(method, is_watch || query.is_true("watch"), resource.is_object);
        let verb = if is_watch { "watch" } else { verb };
        if !resource.is_object && matches!(verb, "list" | "watch" | "deletecollection") {
            resource.name = selected_name(query).unwrap_or_default();
        }
        Self { verb, resource: Some(resource), path }
    }
}

impl Resource {
    /// Reads what follows group and version.
    fn of(parts: &[&str]) -> Self {
        let (namespace, parts) = match parts {
            ["namespaces", name, kind, rest @ ..] if !matches!(*kind, "status" | "finalize") => {
                (*name, [&[*kind], rest].concat())
            }
            ["namespaces", name, ..] => (*name, parts.to_vec()),
            _ => ("", parts.to_vec()),
        };
        let mut parts = parts.into_iter();
        let mut next = || parts.next().unwrap_or_default().to_owned();
        let (plural, name, subresource) = (next(), next(), next());
        let is_object = !name.is_empty();
        let has_rest = parts.next().is_some();
        let namespace = namespace.to_owned();
        Self { namespace, plural, name, subresource, is_object, has_rest, ..Self::default() }
    }

    /// Returns `pods`, or `networkpolicies.networking.k8s.io`.
    pub(crate) fn qualified(&self) -> String {
        let Self { plural, group, .. } = self;
        if group.is_empty() { plural.clone() } else { format!("{plural}.{group}") }
    }
}

fn verb_of(method: &Method, is_watch: bool, is_object: bool) -> &'static str {
    match (method.as_str(), is_object) {
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "delete",
        ("DELETE", false) => "deletecollection",
        ("GET" | "HEAD", true) => "get",
        ("GET" | "HEAD", false) if is_watch => "watch",
        ("GET" | "HEAD", false) => "list",
        _ => "",
    }
}

fn lower(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "get",
        "HEAD" => "head",
        "POST" => "post",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        "OPTIONS" => "options",
        _ => "",
    }
}

/// Returns the name that `fieldSelector=metadata.name=NAME` asks for: who may read one object
/// may then list and watch it.
fn selected_name(query: &Query) -> Option<String> {
    let mut terms = query.text("fieldSelector")?.split(',');
    let name = terms.find_map(|term| term.trim().strip_prefix("metadata.name="))?;
    let name = name.strip_prefix('=').unwrap_or(name);
    let is_segment = !name.is_empty() && name != "." && name != "..";
    (is_segment && !name.contains(['/', '%'])).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns verb, group, version, namespace, plural, name and subresource.
    fn parse(line: &str) -> String {
        let (method, target) = line.split_once(' ').unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let method = method.parse().unwrap();
        let info = Info::parse(&method, path, &Query::parse(query));
        let Some(resource) = info.resource else { return format!("{} {}", info.verb, info.path) };
        let Resource { group, version, namespace, plural, name, subresource, .. } = resource;
        let parts = [info.verb, &group, &version, &namespace, &plural, &name, &subresource];
        parts.join("|")
    }

    #[test]
    fn takes_lines_apart() {
        let cases = [
            ("GET /version", "get /version"),
            ("GET /api/v1", "get /api/v1"),
            ("GET /api/v1/", "get /api/v1/"),
            ("GET /apis/apps/v1", "get /apis/apps/v1"),
            ("POST /healthz", "post /healthz"),
            ("GET /api/v1/pods", "list||v1||pods||"),
            ("GET /api/v1/pods?watch=1", "watch||v1||pods||"),
            ("GET /api/v1/watch/pods", "watch||v1||pods||"),
            ("GET /api/v1/watch/namespaces/a/pods/x", "watch||v1|a|pods|x|"),
            ("GET /api/v1/namespaces", "list||v1||namespaces||"),
            ("GET /api/v1/namespaces/a", "get||v1|a|namespaces|a|"),
            ("PUT /api/v1/namespaces/a/finalize", "update||v1|a|namespaces|a|finalize"),
            ("PATCH /api/v1/namespaces/a/status", "patch||v1|a|namespaces|a|status"),
            ("GET /api/v1/namespaces/a/pods", "list||v1|a|pods||"),
            ("DELETE /api/v1/namespaces/a/pods", "deletecollection||v1|a|pods||"),
            ("DELETE /api/v1/namespaces/a/pods/x", "delete||v1|a|pods|x|"),
            ("PUT /api/v1/namespaces/a/pods/x/status", "update||v1|a|pods|x|status"),
            ("GET /api/v1/namespaces/a/pods/x?watch=1", "get||v1|a|pods|x|"),
            (
                "POST /apis/crd.projectcalico.org/v1/ippools",
                "create|crd.projectcalico.org|v1||ippools||",
            ),
            ("GET /api/v1/pods?fieldSelector=metadata.name%3Dx", "list||v1||pods|x|"),
            ("GET /api/v1/pods?fieldSelector=metadata.name!%3Dx", "list||v1||pods||"),
            ("GET /api/v1/nodes/%6e1", "get||v1||nodes|n1|"),
            ("OPTIONS /api/v1/nodes", "||v1||nodes||"),
        ];
        for (line, expected) in cases {
            assert_eq!(parse(line), expected, "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn survives_any_path(path in "(/(api|apis|watch|namespaces|status|%[0-9a-f]{2}|[a-z]{0,3})){0,9}", query in "\\PC{0,20}") {
            Info::parse(&Method::GET, &path, &Query::parse(&query));
        }
    }
}
