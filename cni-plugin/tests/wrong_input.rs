//! Wrong input through the real program: the code, and that nothing secret is said.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod common;

use common::{Answer, Call};
use serde_json::{Value, json};

const CANARY: &str = "canary-9c41";
/// The same in base64, as keys are in a kubeconfig.
const CANARY_KEY: &str = "Y2FuYXJ5LTljNDE=";

fn config() -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "n", "type": "calico", "log_level": "debug",
        "nodename_file_optional": true, "nodename": "node-1",
        "ipam": {"type": "calico-ipam"},
        "kubernetes": {"kubeconfig": "/nonexistent/kubeconfig"},
        "policy": {"type": "k8s", "k8s_auth_token": CANARY},
        "etcd_password": CANARY,
    })
}

/// Calls with `path` = `value` in the configuration.
fn with(command: &'static str, path: &str, value: Value) -> Answer {
    let mut config = config();
    *config.pointer_mut(path).unwrap_or_else(|| panic!("no {path}")) = value;
    let mut call = Call::new(command, &config);
    call.netns = "/nonexistent/netns".into();
    call.run()
}

fn call(change: impl FnOnce(&mut Call)) -> Answer {
    let mut call = Call::new("ADD", &config());
    call.netns = "/nonexistent/netns".into();
    change(&mut call);
    call.run()
}

#[test]
fn each_wrong_input_has_its_code() {
    let environment = [
        (4, call(|call| call.command = "")),
        (4, call(|call| call.command = "PUT")),
        (4, call(|call| call.container_id.clear())),
        (4, call(|call| call.container_id = "../x".into())),
        (4, call(|call| call.netns.clear())),
        (4, call(|call| call.netns = "relative".into())),
        (4, call(|call| call.if_name = "a/b".into())),
        (4, call(|call| call.if_name = "0123456789abcdef".into())),
        (4, call(|call| call.args = "K8S_POD_NAMESPACE=..;K8S_POD_NAME=a".into())),
        (4, call(|call| call.extra.push(("FELIX_INTERFACEPREFIX", "much-too-long".into())))),
        (6, call(|call| call.stdin.clear())),
        (6, call(|call| call.stdin = b"{".into())),
        (6, call(|call| call.stdin = b"[]".into())),
        (6, call(|call| call.stdin = vec![b' '; (1 << 20) + 1])),
        (8, call(|_| {})),
        (8, call(|call| call.netns = "/proc/self/ns/net".into())),
        (8, call(|call| call.netns = "/etc/passwd".into())),
        (1, call(|call| (call.command, call.path) = ("GC", "/x".into()))),
        (1, call(|call| call.command = "STATUS")),
        (7, call(|call| call.command = "CHECK")),
    ];
    for (number, (code, answer)) in environment.into_iter().enumerate() {
        assert_eq!(answer.code(), code, "case {number}: {answer:?}");
    }
    let configuration = [
        (1, with("ADD", "/cniVersion", json!("3.0.0"))),
        (1, with("CHECK", "/cniVersion", json!("0.3.1"))),
        (7, with("ADD", "/name", json!("../n"))),
        (7, with("ADD", "/type", json!(null))),
        (7, with("ADD", "/ipam/type", json!("../../bin/sh"))),
        (7, with("ADD", "/nodename", json!("NODE"))),
        (7, with("ADD", "/ipam", json!(7))),
        (7, with("ADD", "/kubernetes/kubeconfig", json!(["x"]))),
        (115, with("ADD", "/nodename_file_optional", json!(false))),
    ];
    for (number, (code, answer)) in configuration.into_iter().enumerate() {
        assert_eq!(answer.code(), code, "case {number}: {answer:?}");
    }
}

#[test]
fn errors_are_in_the_callers_version() {
    let answer = with("ADD", "/cniVersion", json!("0.3.1"));
    assert_eq!(answer.stdout["cniVersion"], json!("0.3.1"));
    let answer = with("ADD", "/cniVersion", json!("3.0.0"));
    assert_eq!(answer.stdout["cniVersion"], json!("1.1.0"));
}

#[test]
fn what_is_not_done_is_refused() {
    let answer = call(|call| {
        let mut config = config();
        config["device_type"] = json!("netkit");
        call.stdin = config.to_string().into_bytes();
    });
    assert_eq!(answer.code(), 2, "{answer:?}");
    assert!(answer.message().contains("device_type"), "{answer:?}");
}

#[test]
fn an_absent_nodename_file_says_who_must_act() {
    let answer = call(|call| {
        let mut config = config();
        config["nodename_file_optional"] = json!(false);
        config["nodename_file"] = json!("/nonexistent/nodename");
        call.stdin = config.to_string().into_bytes();
    });
    assert_eq!(answer.code(), 115);
    assert_eq!(
        answer.message(),
        "the node name file /nonexistent/nodename cannot be read: check that the calico/node \
         container is running and has mounted /var/lib/calico/ | No such file or directory (os error 2); \
         code 115"
    );
}

#[test]
fn version_needs_no_configuration() {
    let mut version = Call::new("VERSION", &json!({"cniVersion": "0.4.0"}));
    let supported = json!(["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    let answer = version.run();
    assert!(answer.is_success);
    assert_eq!(answer.stdout, json!({"cniVersion": "0.4.0", "supportedVersions": supported}));
    version.stdin.clear();
    assert_eq!(version.run().stdout["cniVersion"], json!("1.1.0"));
}

#[test]
fn secrets_are_told_to_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("cni.log");
    let kubeconfig = directory.path().join("kubeconfig");
    let token = format!("{{token: {CANARY}, password: {CANARY}}}");
    let key = format!("{{client-certificate-data: {CANARY_KEY}, client-key-data: {CANARY_KEY}}}");
    for user in [token, key] {
        std::fs::write(
            &kubeconfig,
            format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
                 clusters: [{{name: c, cluster: {{server: \"https://127.0.0.1:1\"}}}}]\n\
                 users: [{{name: c, user: {user}}}]\n\
                 contexts: [{{name: c, context: {{cluster: c, user: c}}}}]\n"
            ),
        )
        .unwrap();
        for command in ["ADD", "DEL", "CHECK", "STATUS", "VERSION"] {
            for level in ["debug", "trace"] {
                let mut config = config();
                config["log_level"] = json!(level);
                config["log_file_path"] = json!(log);
                config["kubernetes"]["kubeconfig"] = json!(kubeconfig);
                config["cniVersion"] = json!("1.1.0");
                let mut call = Call::new(command, &config);
                call.netns = "/nonexistent/netns".into();
                call.extra.push(("RUST_LOG", "trace".into()));
                let answer = call.run();
                let said = format!("{} {}", answer.stdout, answer.stderr);
                assert!(!is_told(&said), "{command}: {said}");
            }
        }
    }
    let logged = std::fs::read_to_string(log).unwrap();
    assert!(logged.contains("call finished"), "{logged}");
    assert!(!is_told(&logged));
}

fn is_told(text: &str) -> bool {
    text.contains(CANARY) || text.contains(CANARY_KEY)
}
