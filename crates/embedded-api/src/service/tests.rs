//! The verbs on a real store.

use serde_json::{Value, json};

use super::*;
use crate::store::Options;
use crate::verb::{DeleteOptions, ListOptions, WriteOptions};

struct Fixture {
    service: Service,
    _dir: tempfile::TempDir,
}

async fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store"), Options::default()).unwrap();
    Fixture { service: Service::open(store).await.unwrap(), _dir: dir }
}

impl Fixture {
    /// `configmaps/name`, `networkpolicies.networking.k8s.io/name`; all in the namespace `default`.
    fn target(&self, path: &str) -> Target {
        let (resource, name) = path.split_once('/').unwrap_or((path, ""));
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
        let (name, subresource) = name.split_once('/').unwrap_or((name, ""));
        let resource = self.service.registry().get(group, "v1", plural).unwrap().clone();
        let namespace = if resource.namespaced { "default" } else { "" }.to_owned();
        let subresource = resource.subresource(subresource);
        Target { resource, namespace, name: name.to_owned(), subresource }
    }

    async fn create(&self, path: &str, body: Value) -> Result<Value, Status> {
        let answer = self.service.create(self.target(path), WriteOptions::default(), body).await?;
        assert_eq!(answer.code, 201);
        Ok(serde_json::from_slice(&answer.json).unwrap())
    }

    async fn update(&self, path: &str, body: Value) -> Result<Value, Status> {
        let answer = self.service.update(self.target(path), WriteOptions::default(), body).await?;
        Ok(serde_json::from_slice(&answer.json).unwrap())
    }

    async fn merge(&self, at: &str, body: Value) -> Result<Value, Status> {
        let patch = Patch { kind: PatchKind::Merge, body };
        let answer = self.service.patch(self.target(at), WriteOptions::default(), patch).await?;
        Ok(serde_json::from_slice(&answer.json).unwrap())
    }

    async fn get(&self, path: &str) -> Result<Value, Status> {
        let answer = self.service.get(&self.target(path), None).await?;
        Ok(serde_json::from_slice(&answer.json).unwrap())
    }

    async fn delete(&self, path: &str) -> Result<Value, Status> {
        let answer = self.service.delete(self.target(path), DeleteOptions::default()).await?;
        Ok(serde_json::from_slice(&answer.json).unwrap())
    }
}

fn config_map(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

#[tokio::test]
async fn begins_with_what_every_cluster_has() {
    let fixture = fixture().await;
    let list = fixture.service.list(&fixture.target("namespaces"), &ListOptions::default()).await;
    let names: Vec<Value> = list
        .unwrap()
        .items
        .iter()
        .map(|json| serde_json::from_slice::<Value>(json).unwrap()["metadata"]["name"].clone())
        .collect();
    assert_eq!(names, ["default", "kube-node-lease", "kube-public", "kube-system"]);
    let service = fixture.get("services/kubernetes").await.unwrap();
    assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");
}

#[tokio::test]
async fn creates_once() {
    let fixture = fixture().await;
    let created = fixture.create("configmaps", config_map("a")).await.unwrap();
    assert_eq!(created, fixture.get("configmaps/a").await.unwrap());
    let status = fixture.create("configmaps", config_map("a")).await.unwrap_err();
    assert_eq!((status.code, &*status.message), (409, r#"configmaps "a" already exists"#));
}

#[tokio::test]
async fn one_of_two_writers_wins() {
    let fixture = fixture().await;
    let mut first = fixture.create("configmaps", config_map("a")).await.unwrap();
    let second = first.clone();
    first["data"] = json!({"by": "first"});
    fixture.update("configmaps/a", first).await.unwrap();
    let status = fixture.update("configmaps/a", second).await.unwrap_err();
    let expected = r#"Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again"#;
    assert_eq!((status.code, &*status.message), (409, expected));
}

#[tokio::test]
async fn writes_nothing_if_nothing_changes() {
    let fixture = fixture().await;
    let created = fixture.create("configmaps", config_map("a")).await.unwrap();
    let same = fixture.merge("configmaps/a", json!({"foo": 1})).await.unwrap();
    assert_eq!(same, created);
}

#[tokio::test]
async fn waits_for_finalizers() {
    let fixture = fixture().await;
    let body = json!({"metadata": {"name": "a", "finalizers": ["x.org/f"]}});
    fixture.create("configmaps", body).await.unwrap();
    let marked = fixture.delete("configmaps/a").await.unwrap();
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    assert_eq!(fixture.delete("configmaps/a").await.unwrap(), marked, "the second changes nothing");
    let status = fixture.create("configmaps", config_map("a")).await.unwrap_err();
    assert_eq!(status.message, r#"object is being deleted: configmaps "a" already exists"#);
    fixture.merge("configmaps/a", json!({"metadata": {"finalizers": null}})).await.unwrap();
    assert_eq!(fixture.get("configmaps/a").await.unwrap_err().code, 404);
}

#[tokio::test]
async fn a_namespace_takes_its_contents_along() {
    let fixture = fixture().await;
    fixture.create("namespaces", config_map("n")).await.unwrap();
    let target = |name: &str| Target {
        namespace: "n".to_owned(),
        name: name.to_owned(),
        ..fixture.target("configmaps")
    };
    let held = json!({"metadata": {"name": "held", "finalizers": ["x.org/f"]}});
    for body in [config_map("free"), held] {
        fixture.service.create(target(""), WriteOptions::default(), body).await.unwrap();
    }
    let deleted = fixture.delete("namespaces/n").await.unwrap();
    assert_eq!(deleted["status"]["phase"], "Terminating");
    assert_eq!(fixture.service.get(&target("free"), None).await.unwrap_err().code, 404);
    fixture.get("namespaces/n").await.expect("a finalizer holds it");
    let late = fixture.service.create(target(""), WriteOptions::default(), config_map("late"));
    assert_eq!(late.await.unwrap_err().code, 403);
    let body = json!({"metadata": {"finalizers": null}});
    let patch = Patch { kind: PatchKind::Merge, body };
    fixture.service.patch(target("held"), WriteOptions::default(), patch).await.unwrap();
    assert_eq!(fixture.get("namespaces/n").await.unwrap_err().code, 404);
}

#[tokio::test]
async fn pods_get_their_defaults_and_end_gracefully() {
    let fixture = fixture().await;
    let spec = json!({"nodeName": "n1", "containers": [{"name": "a", "image": "x"}]});
    let pod = json!({"metadata": {"name": "p"}, "spec": spec});
    let pod = fixture.create("pods", pod).await.unwrap();
    assert_eq!(pod["spec"]["dnsPolicy"], "ClusterFirst");
    assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    let marked = fixture.delete("pods/p").await.unwrap();
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(marked["metadata"]["generation"], 2);
    let options = DeleteOptions { grace_period: Some(0), ..DeleteOptions::default() };
    fixture.service.delete(fixture.target("pods/p"), options).await.unwrap();
    assert_eq!(fixture.get("pods/p").await.unwrap_err().code, 404);
}

#[tokio::test]
async fn the_status_is_written_apart() {
    let fixture = fixture().await;
    let spec = json!({"containers": [{"name": "a", "image": "x"}]});
    let pod = json!({"metadata": {"name": "p"}, "spec": spec});
    fixture.create("pods", pod).await.unwrap();
    let status = json!({"status": {"podIP": "10.0.0.9"}, "spec": {"nodeName": "n"}});
    let pod = fixture.merge("pods/p/status", status.clone()).await.unwrap();
    assert_eq!(pod["status"]["podIPs"], json!([{"ip": "10.0.0.9"}]));
    assert_eq!(pod["spec"].get("nodeName"), None);
    assert_eq!(pod["metadata"]["generation"], 1);
}

#[tokio::test]
async fn pages_show_one_revision() {
    let fixture = fixture().await;
    for name in ["a", "b", "c"] {
        fixture.create("configmaps", config_map(name)).await.unwrap();
    }
    let options = ListOptions { limit: Some(2), ..ListOptions::default() };
    let target = fixture.target("configmaps");
    let first = fixture.service.list(&target, &options).await.unwrap();
    assert_eq!((first.items.len(), first.remaining), (2, Some(1)));
    fixture.create("configmaps", config_map("d")).await.unwrap();
    let options = ListOptions { continue_token: first.continue_token, ..options };
    let second = fixture.service.list(&target, &options).await.unwrap();
    assert_eq!((second.items.len(), second.continue_token), (1, None));
    assert_eq!(second.resource_version, first.resource_version);
}

#[tokio::test]
async fn selects_while_paging() {
    let fixture = fixture().await;
    for at in 0..7 {
        let app = if at % 2 == 0 { "x" } else { "y" };
        let metadata = json!({"name": format!("c{at}"), "labels": {"app": app}});
        fixture.create("configmaps", json!({"metadata": metadata})).await.unwrap();
    }
    let target = fixture.target("configmaps");
    let mut options = ListOptions {
        limit: Some(3),
        label_selector: "app=x".to_owned(),
        ..ListOptions::default()
    };
    let first = fixture.service.list(&target, &options).await.unwrap();
    assert_eq!((first.items.len(), first.remaining), (3, None));
    options.continue_token = first.continue_token;
    assert_eq!(fixture.service.list(&target, &options).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn watches_what_there_is_and_then_changes() {
    let fixture = fixture().await;
    fixture.create("configmaps", config_map("a")).await.unwrap();
    let target = fixture.target("configmaps");
    let mut stream = fixture.service.watch(&target, &ListOptions::default()).await.unwrap();
    let added = stream.next().await.unwrap();
    assert_eq!(added.kind.as_str(), "ADDED");
    fixture.merge("configmaps/a", json!({"data": {"x": "y"}})).await.unwrap();
    assert_eq!(stream.next().await.unwrap().kind.as_str(), "MODIFIED");
    fixture.delete("configmaps/a").await.unwrap();
    assert_eq!(stream.next().await.unwrap().kind.as_str(), "DELETED");
}

#[tokio::test]
async fn a_watch_may_end_its_beginning_with_a_bookmark() {
    let fixture = fixture().await;
    fixture.create("configmaps", config_map("a")).await.unwrap();
    let options = ListOptions {
        send_initial_events: Some(true),
        allow_bookmarks: true,
        timeout: Some(1),
        ..ListOptions::default()
    };
    let target = fixture.target("configmaps");
    let mut stream = fixture.service.watch(&target, &options).await.unwrap();
    assert_eq!(stream.next().await.unwrap().kind.as_str(), "ADDED");
    let bookmark = stream.next().await.unwrap();
    let bookmark: Value = serde_json::from_slice(&bookmark.json).unwrap();
    assert_eq!(bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(stream.next().await.unwrap().kind.as_str(), "BOOKMARK");
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn a_watch_of_forgotten_revisions_ends_with_410() {
    let fixture = fixture().await;
    let store = fixture.service.store().clone();
    store.compact(store.revision()).await.unwrap();
    let options = ListOptions { resource_version: Some("1".to_owned()), ..ListOptions::default() };
    let target = fixture.target("configmaps");
    let mut stream = fixture.service.watch(&target, &options).await.unwrap();
    let event = stream.next().await.unwrap();
    let status: Value = serde_json::from_slice(&event.json).unwrap();
    assert_eq!((event.kind.as_str(), &status["code"]), ("ERROR", &json!(410)));
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn a_dry_run_writes_nothing() {
    let fixture = fixture().await;
    let options = WriteOptions { is_dry_run: true, ..WriteOptions::default() };
    let target = fixture.target("configmaps");
    fixture.service.create(target, options, config_map("a")).await.unwrap();
    assert_eq!(fixture.get("configmaps/a").await.unwrap_err().code, 404);
}

#[tokio::test]
async fn generates_names() {
    let fixture = fixture().await;
    let body = json!({"metadata": {"generateName": "gen-"}});
    let created = fixture.create("configmaps", body).await.unwrap();
    let name = created["metadata"]["name"].as_str().unwrap();
    assert_eq!((name.len(), name.starts_with("gen-")), (9, true));
}

#[tokio::test]
async fn events_are_the_same_in_both_groups() {
    let fixture = fixture().await;
    let body = json!({
        "metadata": {"name": "e"},
        "involvedObject": {"namespace": "default", "kind": "Pod", "name": "p"},
        "message": "m",
    });
    fixture.create("events", body).await.unwrap();
    let shown = fixture.get("events.events.k8s.io/e").await.unwrap();
    assert_eq!((&shown["note"], &shown["apiVersion"]), (&json!("m"), &json!("events.k8s.io/v1")));
}

struct Plain;

impl Signer for Plain {
    fn default_audiences(&self) -> Vec<String> {
        vec!["here".to_owned()]
    }

    fn sign(&self, grant: &Grant) -> Result<String, Status> {
        Ok(format!("{}/{}", grant.namespace, grant.name))
    }
}

#[tokio::test]
async fn gives_tokens_to_service_accounts_that_exist() {
    let fixture = fixture().await;
    fixture.create("serviceaccounts", config_map("sa")).await.unwrap();
    let ask = async |name: &str, seconds: i64| {
        let target = fixture.target(&format!("serviceaccounts/{name}/token"));
        let body = json!({"spec": {"expirationSeconds": seconds}});
        fixture.service.token_request(target, WriteOptions::default(), body, &Plain).await
    };
    let answer: Value = serde_json::from_slice(&ask("sa", 600).await.unwrap().json).unwrap();
    assert_eq!(answer["status"]["token"], "default/sa");
    assert_eq!(ask("sa", 60).await.unwrap_err().code, 422);
    assert_eq!(ask("none", 600).await.unwrap_err().code, 404);
}

fn gadgets() -> Value {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"a": {"type": "integer", "default": 3}}},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }});
    json!({
        "metadata": {"name": "gadgets.x.org"},
        "spec": {
            "group": "x.org",
            "names": {"plural": "gadgets", "kind": "Gadget"},
            "scope": "Namespaced",
            "versions": [{
                "name": "v1",
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": schema},
            }],
        },
    })
}

fn gadget(spec: &Value) -> Value {
    json!({"apiVersion": "x.org/v1", "kind": "Gadget", "metadata": {"name": "g"}, "spec": spec})
}

const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

#[tokio::test]
async fn a_definition_is_served_as_soon_as_it_is_written() {
    let fixture = fixture().await;
    fixture.create(DEFINITIONS, gadgets()).await.unwrap();
    let created = fixture.create("gadgets.x.org", gadget(&json!({"b": 1}))).await.unwrap();
    assert_eq!(
        (&created["spec"], &created["metadata"]["generation"]),
        (&json!({"a": 3}), &json!(1))
    );
    let status = fixture.merge("gadgets.x.org/g", json!({"spec": {"a": "x"}})).await.unwrap_err();
    let expected = r#"Gadget.x.org "g" is invalid: spec.a: Invalid value: "string": spec.a in body must be of type integer: "string""#;
    assert_eq!(status.message, expected);
    let both = json!({"spec": {"a": 7}, "status": {"y": 1}});
    let status = fixture.merge("gadgets.x.org/g/status", both).await.unwrap();
    assert_eq!((&status["spec"]["a"], &status["status"]), (&json!(3), &json!({"y": 1})));
    assert_eq!(status["metadata"]["generation"], 1);
}

#[tokio::test]
async fn a_definition_takes_its_objects_along() {
    let fixture = fixture().await;
    fixture.create(DEFINITIONS, gadgets()).await.unwrap();
    fixture.create("gadgets.x.org", gadget(&json!({}))).await.unwrap();
    let target = fixture.target("gadgets.x.org/g");
    fixture.delete(&format!("{DEFINITIONS}/gadgets.x.org")).await.unwrap();
    assert!(fixture.service.registry().get("x.org", "v1", "gadgets").is_none());
    let late = fixture.service.create(
        Target { name: String::new(), ..target.clone() },
        WriteOptions::default(),
        gadget(&json!({})),
    );
    assert_eq!(late.await.unwrap_err().code, 405);
    fixture.create(DEFINITIONS, gadgets()).await.unwrap();
    assert_eq!(fixture.service.get(&target, None).await.unwrap_err().code, 404);
}

#[tokio::test]
async fn kinds_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    {
        let store = Store::open(&path, Options::default()).unwrap();
        let service = Service::open(store).await.unwrap();
        let resource = service
            .registry()
            .get("apiextensions.k8s.io", "v1", "customresourcedefinitions")
            .unwrap()
            .clone();
        let target =
            Target { resource, namespace: String::new(), name: String::new(), subresource: None };
        service.create(target, WriteOptions::default(), gadgets()).await.unwrap();
    }
    let service = Service::open(Store::open(&path, Options::default()).unwrap()).await.unwrap();
    assert!(service.registry().get("x.org", "v1", "gadgets").is_some());
}

#[tokio::test]
async fn a_patch_makes_nothing_else_of_an_object() {
    let fixture = fixture().await;
    fixture.create(DEFINITIONS, gadgets()).await.unwrap();
    fixture.create("gadgets.x.org", gadget(&json!({}))).await.unwrap();
    for patch in [json!({"apiVersion": "x.org/v2"}), json!({"kind": "Other"})] {
        assert_eq!(fixture.merge("gadgets.x.org/g", patch).await.unwrap_err().code, 422);
    }
    fixture.create("configmaps", config_map("a")).await.unwrap();
    let status = fixture.merge("configmaps/a", json!({"kind": "Secret"})).await.unwrap_err();
    assert_eq!(status.code, 422);
}
