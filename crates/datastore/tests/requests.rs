//! Single requests to a server that misbehaves.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a failing test should stop at once"
)]

mod common;

use std::time::Duration;

use common::{Reply, Server, broken_map, config_map, list, page, status};
use datastore::{Client, Error, Filter, Options};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;

fn read_map(name: &str) -> ConfigMap {
    serde_json::from_value(config_map(name, 7)).unwrap()
}

/// Returns what each of our verbs makes of an answer.
async fn outcome(verb: &str, code: u16, reason: &'static str) -> Result<(), Error> {
    let server = Server::start(move |_, _| Reply::Answer(code, "", status(code, reason))).await;
    let client = server.client();
    match verb {
        "get" => client.get_in::<ConfigMap>("a", "b").await.map(|_| ()),
        "list" => client.list::<ConfigMap>(&Filter::default()).await.map(|_| ()),
        "create" => client.create(&read_map("b")).await.map(|_| ()),
        "update" => client.update(&read_map("b")).await.map(|_| ()),
        "delete" => client.delete(&read_map("b")).await,
        _ => client.patch_status::<ConfigMap>(Some("a"), "b", &json!({})).await.map(|_| ()),
    }
}

#[tokio::test]
async fn answers_become_errors_that_say_what_to_do() {
    for (verb, code, reason, expected, is_retryable, may_be_applied) in [
        ("get", 404, "NotFound", "", false, false),
        ("update", 404, "NotFound", "cannot update ConfigMap a/b at http://", false, false),
        ("create", 409, "AlreadyExists", "read it and decide again", false, false),
        ("update", 409, "Conflict", "changed by somebody else", false, false),
        ("delete", 409, "Conflict", "cannot delete ConfigMap a/b", false, false),
        ("list", 401, "Unauthorized", "check the token or client certificate", false, false),
        ("patch", 403, "Forbidden", "grant this verb in the ClusterRole", false, false),
        ("create", 422, "Invalid", "correct the object", false, false),
        ("list", 410, "Expired", "list again", true, false),
        ("get", 429, "TooManyRequests", "overloaded", true, false),
        ("create", 500, "InternalError", "logs of kube-apiserver", true, true),
        ("get", 503, "ServiceUnavailable", "logs of kube-apiserver", true, true),
    ] {
        match outcome(verb, code, reason).await {
            Ok(()) => assert_eq!(expected, "", "{verb} {code}"),
            Err(error) => {
                let text = error.to_string();
                assert!(!expected.is_empty() && text.contains(expected), "{verb} {code}: {text}");
                assert_eq!(error.is_retryable(), is_retryable, "{text}");
                assert_eq!(error.may_be_applied(), may_be_applied, "{text}");
            }
        }
    }
}

#[tokio::test]
async fn an_unknown_kind_is_not_a_missing_object() {
    let server = Server::start(|_, _| Reply::Answer(404, "", json!("404 page not found"))).await;
    let error = server.client().get::<ConfigMap>("a").await.unwrap_err();
    assert!(matches!(error, Error::UnknownKind { .. }), "{error}");
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_neither_good_nor_bad() {
    for reply in [|| Reply::Cut, || Reply::Silence] {
        let server = Server::start(move |_, _| reply()).await;
        let error = server.impatient_client().create(&read_map("b")).await.unwrap_err();
        assert!(matches!(error, Error::LostResponse { .. }), "{error}");
        assert!(error.may_be_applied() && error.is_retryable());
        assert_eq!(server.asked().len(), 1, "a write is never repeated behind the caller's back");
    }
}

#[tokio::test]
async fn a_write_whose_answer_cannot_be_read_is_not_a_refusal() {
    let server = Server::start(|_, _| Reply::Answer(201, "", broken_map("b", 7))).await;
    let error = server.client().create(&read_map("b")).await.unwrap_err();
    assert!(error.may_be_applied(), "{error}");
}

#[tokio::test]
async fn a_read_whose_answer_is_lost_is_repeated_once() {
    let server = Server::start(|number, _| match number {
        0 => Reply::Cut,
        _ => Reply::Answer(200, "", config_map("b", 7)),
    })
    .await;
    let client = server.client();
    assert!(client.get_in::<ConfigMap>("a", "b").await.unwrap().is_some());
    assert_eq!((server.asked().len(), client.requests()), (2, 2));

    let server = Server::start(|_, _| Reply::Cut).await;
    let error = server.client().get_in::<ConfigMap>("a", "b").await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_silent_server_fails_a_read_in_time() {
    let server = Server::start(|_, _| Reply::Silence).await;
    let error = server.impatient_client().get_in::<ConfigMap>("a", "b").await.unwrap_err();
    assert!(error.to_string().contains("no answer within 1 s"), "{error}");
}

#[tokio::test]
async fn a_server_that_asks_for_patience_gets_it() {
    let server = Server::start(|number, _| match number {
        0 => Reply::Answer(429, "retry-after: 0\r\n", status(429, "TooManyRequests")),
        _ => Reply::Answer(201, "", config_map("b", 7)),
    })
    .await;
    server.client().create(&read_map("b")).await.unwrap();
    assert_eq!(server.asked().len(), 2);

    let long = |_: usize, _: &common::Asked| {
        Reply::Answer(429, "retry-after: 60\r\n", status(429, "TooManyRequests"))
    };
    let server = Server::start(long).await;
    let error = server.client().create(&read_map("b")).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(60)));
}

#[tokio::test]
async fn a_refused_token_is_read_again_from_its_file() {
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "old").unwrap();
    let server = Server::start(|_, asked| match asked.authorization.as_deref() {
        Some("Bearer new") => Reply::Answer(200, "", config_map("b", 7)),
        _ => Reply::Answer(401, "", status(401, "Unauthorized")),
    })
    .await;
    let path = server.kubeconfig(&format!("{{tokenFile: {}}}", token.path().display()));
    let client = Client::connect(&Options::kubeconfig(&path)).unwrap();
    std::fs::write(token.path(), "new\n").unwrap();
    client.get_in::<ConfigMap>("a", "b").await.unwrap();
    assert_eq!(server.asked().len(), 2);
    // A kubelet does not hear that a token is refused.
    std::fs::write(token.path(), "old").unwrap();
    let client = Client::connect(&Options::kubeconfig(path)).unwrap();
    let error = client.get_in::<ConfigMap>("a", "b").await.unwrap_err().to_string();
    assert!(error.contains("the kubelet renews the token") && error.contains("delete the pod"));
}

#[tokio::test]
async fn a_closed_port_says_where_and_what_to_check() {
    let server = Server::start(|_, _| Reply::Cut).await;
    let path = server.kubeconfig("{}");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace(&server.address.port().to_string(), "1")).unwrap();
    let client = Client::connect(&Options::kubeconfig(path)).unwrap();
    let error = client.create(&read_map("b")).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Unreachable { .. }), "{text}");
    assert!(!error.may_be_applied(), "nothing was sent");
    assert!(text.contains("http://127.0.0.1:1:") && text.contains("refused"), "{text}");
    assert!(text.contains("check that kube-apiserver runs there"), "{text}");
}

#[tokio::test]
async fn nothing_is_written_without_the_version_that_was_read() {
    let server = Server::start(|_, _| Reply::Cut).await;
    let client = server.client();
    let mut map = read_map("b");
    map.metadata.resource_version = None;
    for result in [client.update(&map).await.map(|_| ()), client.delete(&map).await] {
        let text = result.unwrap_err().to_string();
        assert!(text.contains("no resourceVersion; read it from the server first"), "{text}");
    }
    assert_eq!(server.asked(), []);
}

#[tokio::test]
async fn a_delete_is_for_the_version_and_the_object_that_was_read() {
    let server = Server::start(|_, _| Reply::Answer(200, "", status(200, ""))).await;
    let mut map = read_map("b");
    map.metadata.uid = Some("u-1".to_owned());
    server.client().delete(&map).await.unwrap();
    let asked = server.asked();
    let body: serde_json::Value = serde_json::from_str(&asked[0].body).unwrap();
    assert_eq!(body["preconditions"], json!({"resourceVersion": "7", "uid": "u-1"}));
}

#[tokio::test]
async fn a_name_cannot_leave_its_path() {
    let server = Server::start(|_, _| Reply::Cut).await;
    for name in ["", "../secrets", "a/b", "a?b", "a%2fb", "..", "a b"] {
        let error = server.client().get_in::<ConfigMap>("a", name).await.unwrap_err();
        assert!(matches!(error, Error::Unwritable { .. }), "{name}: {error}");
    }
    assert_eq!(server.asked(), []);
}

#[tokio::test]
async fn a_list_is_read_page_by_page_without_what_cannot_be_read() {
    let server = Server::start(|_, asked| match asked.parameter("continue") {
        None => page(9, "more", &[config_map("a", 1), broken_map("b", 2)]),
        Some(_) => list(9, &[config_map("c", 3)]),
    })
    .await;
    let filter = Filter {
        namespace: Some("a".to_owned()),
        labels: Some("app=web".to_owned()),
        fields: None,
    };
    let maps: Vec<ConfigMap> = server.client().list(&filter).await.unwrap();
    let names: Vec<_> = maps.iter().filter_map(|map| map.metadata.name.as_deref()).collect();
    assert_eq!(names, ["a", "c"]);
    let asked = server.asked();
    assert!(asked[0].target.starts_with("/api/v1/namespaces/a/configmaps?"), "{asked:?}");
    assert_eq!(asked[0].parameter("labelSelector"), Some("app%3Dweb"));
    assert_eq!(asked[1].parameter("continue"), Some("more"));
}

#[tokio::test]
async fn a_list_whose_pages_expired_is_read_at_once() {
    let server = Server::start(|number, _| match number {
        0 => page(9, "more", &[config_map("a", 1)]),
        1 => Reply::Answer(410, "", status(410, "Expired")),
        _ => list(10, &[config_map("a", 1), config_map("b", 2)]),
    })
    .await;
    let maps: Vec<ConfigMap> = server.client().list(&Filter::default()).await.unwrap();
    assert_eq!(maps.len(), 2);
    assert_eq!(server.asked()[2].parameter("limit"), None);
}

#[tokio::test]
async fn custom_kinds_get_a_json_merge_patch() {
    let server = Server::start(|_, _| Reply::Answer(200, "", config_map("b", 8))).await;
    let patch = json!({"metadata": {"annotations": {"a": "b"}}});
    let client = server.client();
    client.patch_status::<ConfigMap>(Some("a"), "b", &patch).await.unwrap();
    let asked = server.asked();
    assert_eq!(asked[0].method, "PATCH");
    assert!(asked[0].target.starts_with("/api/v1/namespaces/a/configmaps/b/status?"));
}
