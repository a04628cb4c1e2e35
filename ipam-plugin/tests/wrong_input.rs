//! What a caller can do wrong, and what it is told; no datastore is needed.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// One call: the environment, standard input, the code and the beginning of the message.
type Case = (&'static str, &'static str, u64, &'static str);

const ADD: &str = "CNI_COMMAND=ADD CNI_CONTAINERID=c1 CNI_NETNS=/run/netns/a CNI_IFNAME=eth0";
const CHECK: &str = "CNI_COMMAND=CHECK CNI_CONTAINERID=c1 CNI_NETNS=/run/netns/a CNI_IFNAME=eth0";

/// A configuration that is right up to the datastore, which is not there.
macro_rules! config {
    ($more:literal) => {
        concat!(
            r#"{"cniVersion":"1.0.0","name":"net","type":"calico","nodename":"node-1","#,
            r#""nodename_file_optional":true,"nodename_file":"/nonexistent/nodename","#,
            r#""log_level":"error","ipam_lock_file":"/nonexistent/ipam.lock""#,
            $more,
            "}"
        )
    };
}

const CASES: &[Case] = &[
    ("", config!(""), 4, "every call needs CNI_COMMAND"),
    ("CNI_COMMAND=ATTACH", config!(""), 4, "CNI_COMMAND `ATTACH` is unknown"),
    ("CNI_COMMAND=ADD", config!(""), 4, "ADD needs CNI_CONTAINERID, CNI_NETNS"),
    (
        "CNI_COMMAND=GC CNI_PATH=/opt/cni/bin",
        config!(""),
        7,
        "GC needs `cni.dev/valid-attachments`",
    ),
    ("CNI_COMMAND=STATUS", config!(""), 50, "cannot use the datastore configuration"),
    (ADD, "", 6, "network configuration is no JSON object"),
    (ADD, "[]", 6, "network configuration is no JSON object"),
    (ADD, r#"{"cniVersion":"9.9.9","name":"net","type":"calico"}"#, 1, "cniVersion `9.9.9`"),
    (ADD, r#"{"cniVersion":"1.0.0","type":"calico"}"#, 7, "network configuration has no `name`"),
    (ADD, config!(""), 7, "network configuration has no `ipam`: add {\"type\""),
    (
        ADD,
        config!(r#","ipam":{"type":"calico-ipam","assign_ipv4":"false"}"#),
        7,
        "network configuration wants no address: set `ipam.assign_ipv4`",
    ),
    (ADD, config!(r#","ipam":{"type":"calico-ipam","assign_ipv4":"perhaps"}"#), 7, ""),
    (ADD, config!(r#","ipam":{"type":"../calico-ipam"}"#), 7, ""),
    (ADD, config!(r#","datastore_type":"etcdv3","ipam":{"type":"calico-ipam"}"#), 2, ""),
    (
        ADD,
        r#"{"cniVersion":"1.0.0","name":"net","type":"calico","nodename_file":"/nonexistent/nodename","ipam":{"type":"calico-ipam"}}"#,
        115,
        "the node name file /nonexistent/nodename cannot be read: check that the calico/node",
    ),
    (
        ADD,
        config!(r#","kubernetes":{"kubeconfig":"/nonexistent/kc"},"ipam":{"type":"calico-ipam"}"#),
        108,
        "cannot use the datastore configuration /nonexistent/kc",
    ),
    (
        CHECK,
        config!(r#","kubernetes":{"kubeconfig":"/nonexistent/kc"},"ipam":{"type":"calico-ipam"}"#),
        7,
        "CHECK needs `prevResult` in the network configuration",
    ),
    (CHECK, config!(r#","prevResult":{"ips":[{"address":"10.0.0.999/32"}]}"#), 6, ""),
];

#[test]
fn every_mistake_has_its_code_and_remedy() {
    for (environment, config, code, message) in CASES {
        let output = call(environment, config);
        let answer: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| unreachable!("{environment} {config}: {error}: {output:?}"));
        let text = answer["msg"].as_str().unwrap_or_default();
        let context = format!("{environment} {config}: {answer}");
        assert_eq!(output.status.code(), Some(1), "{context}");
        assert_eq!(answer["code"].as_u64(), Some(*code), "{context}");
        assert!(text.starts_with(message), "{context}");
        // A remedy follows a colon or a semicolon, in the message or in its details.
        let details = answer["details"].as_str().unwrap_or_default();
        let (details, told) = details.rsplit_once("code ").unwrap();
        assert!(told.parse::<u32>().is_ok(), "{context}");
        let details = details.trim_end_matches("; ");
        assert!(format!("{text}{details}").contains([':', ';']), "{context}");
    }
}

#[test]
fn arguments_that_are_none_are_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_calico-ipam")).arg("--what").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("unknown argument `what`: use -v"));
}

#[test]
fn tells_its_versions() {
    let output = Command::new(env!("CARGO_BIN_EXE_calico-ipam")).arg("-v").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), concat!(env!("CARGO_PKG_VERSION"), "\n"));
    let output = call("CNI_COMMAND=VERSION", r#"{"cniVersion":"0.4.0"}"#);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["cniVersion"], "0.4.0");
    assert_eq!(answer["supportedVersions"].as_array().map(Vec::len), Some(7));
}

fn call(environment: &str, stdin: &str) -> Output {
    let variables = environment.split_whitespace().filter_map(|pair| pair.split_once('='));
    let mut child = Command::new(env!("CARGO_BIN_EXE_calico-ipam"))
        .env_clear()
        .envs(variables)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The program may answer and end without reading everything.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}
