//! Kubeconfigs, right and wrong.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a failing test should stop at once"
)]

mod common;

use std::path::{Path, PathBuf};

use common::kubeconfig;
use datastore::{Client, Error, Inline, Options, Source};

const SECRET: &str = "canary-of-the-test";

fn written(directory: &Path, text: &str) -> PathBuf {
    let path = directory.join("kubeconfig");
    std::fs::write(&path, text).unwrap();
    path
}

/// Returns the error for a kubeconfig with this text.
fn refusal(text: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("empty"), "").unwrap();
    let path = written(directory.path(), text);
    let error = Client::connect(&Options::kubeconfig(&path)).unwrap_err();
    assert!(matches!(error, Error::Config { .. }), "{error:?}");
    assert!(!error.is_retryable());
    let text = format!("{error} {error:?}");
    assert!(text.contains(&path.display().to_string()), "the file is not named: {text}");
    assert!(!text.contains(SECRET), "a secret is quoted: {text}");
    text
}

#[test]
fn a_wrong_cluster_or_user_is_refused_with_the_remedy() {
    let server = "server: \"http://127.0.0.1:1\"";
    let token = "{token: canary-of-the-test}";
    for (cluster, user, expected) in [
        ("", token, "cluster url is missing"),
        ("server: \"127.0.0.1:6443\"", token, "write https://HOST:PORT"),
        ("server: \"ftp://127.0.0.1\"", token, "write https://HOST:PORT"),
        ("server: \"https://\"", token, "correct the kubeconfig or its path"),
        ("server: \"https://a b\"", token, "correct the kubeconfig or its path"),
        ("server: \"https://a\", certificate-authority: none", token, "none"),
        ("server: \"https://a\", certificate-authority: empty", token, "no PEM certificate"),
        ("server: \"https://a\", certificate-authority-data: '!'", token, "base64"),
        (&format!("{server}, tls-server-name: 'a b'"), token, "neither a DNS name nor an address"),
        (&format!("{server}, proxy-url: 'http://proxy:3128'"), token, "proxy-url is not supported"),
        (server, "{token: ''}", "the token is empty"),
        (server, "{token: \"a\\x01canary-of-the-test\"}", "no HTTP header may hold"),
        (server, "{tokenFile: missing}", "correct tokenFile"),
        (
            server,
            "{exec: {command: aws, apiVersion: client.authentication.k8s.io/v1}}",
            "not supported",
        ),
        (server, "{auth-provider: {name: gcp}}", "use token, tokenFile or a client certificate"),
        (server, "{client-certificate: none, client-key: none}", "none"),
        (server, "{as: \"a\\x01\"}", "cannot be impersonated"),
        (
            "server: \"https://a\", insecure-skip-tls-verify: true",
            "{client-certificate: empty, client-key: empty}",
            "correct the certificates and the key",
        ),
    ] {
        let text = refusal(&kubeconfig(cluster, user));
        assert!(text.contains(expected), "{cluster} {user}: {text}");
    }
}

#[test]
fn a_wrong_file_is_refused_without_quoting_it() {
    let right = kubeconfig("server: \"http://127.0.0.1:1\"", "{token: canary-of-the-test}");
    for (text, expected) in [
        (right.replace("canary-of-the-test}", "canary-of-the-test"), "not valid YAML"),
        (right.replace("token:", "token: [1]\n token:"), "not valid YAML"),
        (right.replace("current-context: c", ""), "current-context is not set"),
        (right.replace("current-context: c", "current-context: d"), "context: d"),
        (right.replace("cluster: c, user", "cluster: d, user"), "cluster of context: d"),
        (String::new(), "current-context is not set"),
    ] {
        let error = refusal(&text);
        assert!(error.contains(expected), "{text}: {error}");
    }
    let error = Client::connect(&Options::kubeconfig("/nonexistent/kubeconfig")).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/kubeconfig"), "{error}");
}

#[test]
fn a_context_that_is_asked_for_goes_before_the_current_one() {
    let text = kubeconfig("server: \"http://127.0.0.1:1\"", "{token: canary-of-the-test}");
    let other = text
        .replace("clusters: [", "clusters: [{name: d, cluster: {server: \"http://127.0.0.2:1\"}}, ")
        .replace("contexts: [", "contexts: [{name: d, context: {cluster: d, user: u}}, ");
    let inline = |context: Option<&str>| Options {
        source: Source::Inline(Inline::new(other.clone())),
        context: context.map(str::to_owned),
        ..Options::default()
    };
    let server = |context| Client::connect(&inline(context)).unwrap().server();
    assert_eq!(server(None), "http://127.0.0.1:1");
    assert_eq!(server(Some("d")), "http://127.0.0.2:1");
    let error = Client::connect(&inline(Some("e"))).unwrap_err().to_string();
    assert!(error.contains("given inline") && error.contains("context: e"), "{error}");
    assert!(!format!("{:?}", inline(None)).contains(SECRET));
}

#[test]
fn every_kind_of_credential_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    std::fs::write(path.join("token"), SECRET).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    std::fs::write(path.join("key"), key.serialize_pem()).unwrap();
    std::fs::write(path.join("crt"), certificate.pem()).unwrap();
    let verified = "server: \"https://a\", certificate-authority: crt, tls-server-name: kubernetes";
    let unverified = "server: \"https://[fd00::1]:6443/k8s/a\", insecure-skip-tls-verify: true";
    for (cluster, user) in [
        (verified, "{token: canary-of-the-test}"),
        (verified, "{tokenFile: token}"),
        (verified, "{client-certificate: crt, client-key: key}"),
        (unverified, "{username: a, password: canary-of-the-test}"),
        (unverified, "{token: canary-of-the-test, as: someone, as-groups: [some, more]}"),
        ("server: \"http://127.0.0.1:1\"", "{}"),
    ] {
        let file = written(path, &kubeconfig(cluster, user));
        let client = Client::connect(&Options::kubeconfig(file)).unwrap();
        let shown = format!("{client:?}");
        assert!(shown.contains(&client.server()) && !shown.contains(SECRET), "{shown}");
    }
}
