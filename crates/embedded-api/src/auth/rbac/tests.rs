//! The texts of refusals are those of kube-apiserver 1.34.

use super::*;
use crate::http::query::Query;
use serde_json::json;

fn grants() -> Grants {
    let account = |name: &str| json!({"kind": "ServiceAccount", "name": name, "namespace": "ns"});
    let user = json!({"kind": "User", "apiGroup": GROUP, "name": "eve"});
    let everybody = json!({"kind": "Group", "apiGroup": GROUP, "name": "system:authenticated"});
    let binding =
        |name: &str, namespace: &str, kind: &str, role: &str, subject: &serde_json::Value| {
            json!({"metadata": {"name": name, "namespace": namespace}, "subjects": [subject],
            "roleRef": {"apiGroup": GROUP, "kind": kind, "name": role}})
        };
    let rule = |groups: &[&str], resources: &[&str], verbs: &[&str]| json!({"apiGroups": groups, "resources": resources, "verbs": verbs});
    let named = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "update"], "resourceNames": ["mine"]});
    let objects = [
        (
            "clusterroles",
            json!({"metadata": {"name": "reader"}, "rules": [rule(&[""], &["pods", "nodes"], &["get", "list"]), rule(&["*"], &["*/status"], &["update"])]}),
        ),
        (
            "clusterroles",
            json!({"metadata": {"name": "paths"}, "rules": [{"nonResourceURLs": ["/version", "/healthz/*"], "verbs": ["get"]}]}),
        ),
        (
            "clusterroles",
            json!({"metadata": {"name": "everything"}, "rules": [rule(&["*"], &["*"], &["*"])]}),
        ),
        ("clusterroles", json!({"metadata": {"name": "nothing"}, "rules": null})),
        (
            "roles",
            json!({"metadata": {"name": "editor", "namespace": "ns"}, "rules": [named, rule(&["crd.projectcalico.org"], &["ippools"], &["*"]), rule(&[""], &["pods/log"], &["get"])]}),
        ),
        ("clusterrolebindings", binding("r", "", "ClusterRole", "reader", &account("reader"))),
        ("clusterrolebindings", binding("n", "", "ClusterRole", "nothing", &account("reader"))),
        ("clusterrolebindings", binding("p", "", "ClusterRole", "paths", &everybody)),
        (
            "rolebindings",
            binding(
                "e",
                "ns",
                "Role",
                "editor",
                &json!({"kind": "ServiceAccount", "name": "editor"}),
            ),
        ),
        ("rolebindings", binding("a", "ns", "ClusterRole", "everything", &user)),
        (
            "clusterrolebindings",
            binding("dangling", "", "ClusterRole", "gone", &account("dangling")),
        ),
        (
            "clusterrolebindings",
            binding(
                "foreign",
                "",
                "ClusterRole",
                "everything",
                &json!({"kind": "ServiceAccount", "name": "wrong", "namespace": "other"}),
            ),
        ),
    ];
    let mut grants = Grants::default();
    for (plural, object) in objects {
        grants.add(plural, object.to_string().as_bytes());
    }
    grants.add("clusterroles", b"not json");
    grants
}

fn ask(user: &User, line: &str) -> Result<(), Status> {
    let (method, target) = line.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    grants().authorize(user, &Info::parse(&method.parse().unwrap(), path, &Query::parse(query)))
}

fn account(name: &str) -> User {
    User::service_account("ns", name, "uid")
}

#[test]
fn allows_what_a_rule_allows_and_nothing_else() {
    let eve = User { name: "eve".to_owned(), uid: String::new(), groups: Vec::new() };
    let cases = [
        (account("reader"), "GET /api/v1/pods", true),
        (account("reader"), "GET /api/v1/namespaces/x/pods/p", true),
        (account("reader"), "GET /api/v1/nodes/n", true),
        (account("reader"), "GET /api/v1/pods?watch=1", false),
        (account("reader"), "GET /apis/apps/v1/pods", false),
        (account("reader"), "GET /api/v1/namespaces/x/pods/p/log", false),
        (account("reader"), "PUT /api/v1/nodes/n/status", true),
        (account("reader"), "PUT /api/v1/nodes/n", false),
        (account("reader"), "DELETE /api/v1/pods", false),
        (account("editor"), "GET /api/v1/namespaces/ns/configmaps/mine", true),
        (account("editor"), "GET /api/v1/namespaces/ns/configmaps/other", false),
        (account("editor"), "GET /api/v1/namespaces/ns/configmaps", false),
        (
            account("editor"),
            "GET /api/v1/namespaces/ns/configmaps?fieldSelector=metadata.name=mine",
            true,
        ),
        (account("editor"), "GET /api/v1/namespaces/other/configmaps/mine", false),
        (account("editor"), "DELETE /apis/crd.projectcalico.org/v1/namespaces/ns/ippools", true),
        (account("editor"), "GET /apis/crd.projectcalico.org/v1/ippools", false),
        (account("editor"), "GET /api/v1/namespaces/ns/pods/p/log", true),
        (account("editor"), "GET /api/v1/namespaces/ns/pods/p", false),
        (account("editor"), "GET /version", true),
        (account("editor"), "GET /healthz/ping", true),
        (account("editor"), "GET /metrics", false),
        (account("wrong"), "GET /apis/apps/v1", true),
        (account("wrong"), "GET /healthz", true),
        (account("wrong"), "POST /apis", false),
        (account("editor"), "POST /version", false),
        (eve.clone(), "DELETE /api/v1/namespaces/ns/secrets/s", true),
        (eve.clone(), "GET /api/v1/secrets", false),
        (eve, "GET /version", false),
        (account("wrong"), "GET /api/v1/pods", false),
        (User::service_account("other", "wrong", ""), "GET /api/v1/pods", true),
        (User::admin(), "DELETE /api/v1/nodes", true),
        (User::admin(), "GET /anything", true),
    ];
    for (user, line, is_allowed) in cases {
        assert_eq!(ask(&user, line).is_ok(), is_allowed, "{} {line}", user.name);
    }
}

#[test]
fn refuses_in_the_words_of_a_real_server() {
    let who = "User \"system:serviceaccount:ns:x\" cannot";
    let cases = [
        (
            "GET /api/v1/pods",
            format!(
                "pods is forbidden: {who} list resource \"pods\" in API group \"\" at the cluster scope"
            ),
        ),
        (
            "GET /api/v1/namespaces/a/pods/p",
            format!(
                "pods \"p\" is forbidden: {who} get resource \"pods\" in API group \"\" in the namespace \"a\""
            ),
        ),
        (
            "PUT /apis/crd.projectcalico.org/v1/ippools/p/status",
            format!(
                "ippools.crd.projectcalico.org \"p\" is forbidden: {who} update resource \"ippools/status\" in API group \"crd.projectcalico.org\" at the cluster scope"
            ),
        ),
        ("GET /foo<b>", format!("forbidden: {who} get path \"/foo&lt;b&gt;\"")),
    ];
    for (line, expected) in cases {
        let refused = ask(&account("x"), line).unwrap_err();
        assert_eq!((refused.code, refused.message), (403, expected));
    }
    let refused = ask(&account("dangling"), "GET /api/v1/pods").unwrap_err();
    let end = ": RBAC: clusterrole.rbac.authorization.k8s.io \"gone\" not found";
    assert!(refused.message.ends_with(end), "{}", refused.message);
}
