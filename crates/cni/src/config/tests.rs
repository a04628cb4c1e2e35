//! Configurations that are read, and those that are refused.

use std::net::IpAddr;

use serde_json::json;

use super::*;
use crate::golden;

const CANARY: &str = "canary-5f2a";

/// Parses a right configuration with `keys` added.
fn parse(keys: &str) -> Result<NetworkConfig, InvalidConfig> {
    let comma = if keys.is_empty() { "" } else { "," };
    let text = format!(r#"{{"cniVersion":"1.0.0","name":"n","type":"calico"{comma}{keys}}}"#);
    NetworkConfig::parse(text.as_bytes())
}

#[test]
fn the_default_configuration_is_understood() {
    let text = include_bytes!("../../../../testdata/cni/config/manifest.json");
    let config = NetworkConfig::parse(text).unwrap();
    assert_eq!(config.version, Version::V0_3_1);
    assert_eq!(config.name, "k8s-pod-network");
    assert_eq!(config.ipam.as_ref().unwrap().plugin_type, "calico-ipam");
    assert!(config.has_kubernetes_policy);
    assert_eq!(config.mtu, None);
    assert_eq!(config.nodename.configured.as_deref(), Some("node-1"));
    assert_eq!(config.kubernetes.kubeconfig, Some("/etc/cni/net.d/calico-kubeconfig".into()));
    assert_eq!(config.logging.level, LogLevel::Info);
    assert_eq!(config.logging.file, Some("/var/log/calico/cni/cni.log".into()));
}

#[test]
fn absent_keys_have_calicos_defaults() {
    let config = parse(r#""ipam":{"type":"calico-ipam"}"#).unwrap();
    assert_eq!(config.nodename.file, PathBuf::from("/var/lib/calico/nodename"));
    assert_eq!(config.ipam_lock_file, PathBuf::from("/var/run/calico/ipam.lock"));
    assert_eq!(config.endpoint_status_dir, PathBuf::from("/var/run/calico/endpoint-status"));
    assert_eq!((config.logging.max_size, config.logging.max_count), (100, 10));
    assert_eq!(config.policy_setup_timeout, None);
    let ipam = config.ipam.unwrap();
    assert!(ipam.assigns_ipv4 && !ipam.assigns_ipv6);
    assert!(!config.has_kubernetes_policy);
}

#[test]
fn an_absent_version_is_an_old_one() {
    let config = NetworkConfig::parse(br#"{"name":"n","type":"calico"}"#).unwrap();
    assert_eq!(config.version, Version::V0_2_0);
}

#[test]
fn unknown_keys_reach_the_delegate() {
    let config = parse(r#""x":{"y":[1]},"ipam":{"type":"host-local","ranges":[]}"#).unwrap();
    assert_eq!(config.raw().expose().get("x"), Some(&json!({"y": [1]})));
    assert_eq!(config.raw().expose().get("ipam"), Some(&json!({"type":"host-local","ranges":[]})));
}

#[test]
fn arguments_win_over_the_runtimes_values() {
    let keys = r#""args":{"cni":{"ips":["10.0.0.5"]}},"runtimeConfig":{"ips":["10.0.0.6/24"]}"#;
    let addrs = |keys| parse(keys).unwrap().runtime.addrs;
    assert_eq!(addrs(keys), ["10.0.0.5".parse::<IpAddr>().unwrap()]);
    assert_eq!(addrs(&keys[36..]), ["10.0.0.6".parse::<IpAddr>().unwrap()]);
}

#[test]
fn the_runtimes_values_are_read() {
    let keys = r#""runtimeConfig":{"mac":"02-00-00-00-00-0A","ipRanges":[[{"subnet":"10.0.0.0/8"}]],
        "portMappings":[],"bandwidth":{"ingressRate":1000,"ingressBurst":8000,"egressRate":0}}"#;
    let runtime = parse(keys).unwrap().runtime;
    assert_eq!(runtime.mac, Some("02:00:00:00:00:0a".parse().unwrap()));
    assert!(runtime.has_ranges && !runtime.has_port_mappings);
    let ingress = Some(Rate { rate: 1000, burst: 8000 });
    assert_eq!(runtime.bandwidth, Bandwidth { ingress, egress: None });
}

#[test]
fn every_key_that_calico_takes_is_taken() {
    golden::check("config/accepted.txt", |keys| match parse(keys) {
        Ok(config) => format!("ok {}", config.ignored().join("; ")).trim_end().to_owned(),
        Err(error) => format!("{} {error}", error.code().number()),
    });
}

#[test]
fn a_configuration_may_do_without_a_kubeconfig() {
    let policy = format!(
        r#""policy":{{"k8s_api_root":"https://10.0.0.1","k8s_auth_token":"{CANARY}","k8s_certificate_authority":"/ca"}}"#
    );
    let kubernetes = parse(&policy).unwrap().kubernetes;
    assert!(kubernetes.is_written_out());
    let text = kubernetes.to_kubeconfig();
    assert!(!format!("{text:?}").contains(CANARY));
    let config: Value = serde_json::from_str(text.expose()).unwrap();
    let cluster = json!({"server": "https://10.0.0.1", "certificate-authority": "/ca"});
    assert_eq!(config["clusters"][0]["cluster"], cluster);
    assert_eq!(config["users"][0]["user"]["token"], CANARY);
    assert!(!parse("").unwrap().kubernetes.is_written_out());
}

#[test]
fn secrets_are_never_printed() {
    let config = parse(&format!(
        r#""policy":{{"type":"k8s","k8s_auth_token":"{CANARY}"}},"etcd_password":"{CANARY}""#
    ));
    let config = config.unwrap();
    assert_eq!(config.kubernetes.token.as_ref().unwrap().expose(), CANARY);
    assert!(!format!("{config:?}").contains(CANARY));
    for keys in [
        format!(r#""policy":{{"k8s_auth_token":["{CANARY}"]}}"#),
        format!(r#""policy":{{"k8s_auth_token":{{"a":"{CANARY}"}}}}"#),
        format!(r#""x":"{CANARY}"#),
        format!(r#""etcd_password":"{CANARY}","mtu":"x""#),
        format!(r#""policy":"{CANARY}","mtu":"x""#),
    ] {
        let error = parse(&keys).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(CANARY), "{error}");
    }
}

#[test]
fn wrong_configurations_are_told_so() {
    golden::check("config/wrong.txt", |keys| {
        let error = parse(keys).unwrap_err();
        format!("{} {error}", error.code().number())
    });
}

#[test]
fn what_is_no_configuration_is_told_so() {
    let message = |text: &[u8]| NetworkConfig::parse(text).unwrap_err().to_string();
    let no_object = |why: &str| {
        format!(
            "network configuration is no JSON object ({why}): the caller must send one on standard input"
        )
    };
    assert_eq!(message(b""), no_object("it is empty"));
    assert_eq!(message(b"[]"), no_object("it is another kind of value"));
    assert_eq!(message(b"{\n x"), no_object("syntax error at line 2 column 2"));
    assert_eq!(message(b"{\"name\":\"\xff\"}"), no_object("syntax error at line 1 column 10"));
    assert_eq!(message(b"{}"), "network configuration has no `name`: add it");
    let long = vec![b' '; MAX_LEN + 1];
    assert!(message(&long).starts_with("network configuration is longer than 1048576 bytes"));
}

#[test]
fn wrong_input_is_answered_in_its_own_version_if_it_has_one() {
    assert_eq!(version_to_answer(br#"{"cniVersion":"0.3.1","mtu":"x"}"#), Version::V0_3_1);
    assert_eq!(version_to_answer(br#"{"name":"n"}"#), Version::V0_2_0);
    assert_eq!(version_to_answer(br#"{"cniVersion":"9"}"#), Version::NEWEST);
    assert_eq!(version_to_answer(b"nonsense"), Version::NEWEST);
}

#[test]
fn plugin_types_cannot_leave_their_directory() {
    for right in ["calico", "host-local", "calico-ipam.v2"] {
        assert!(is_plugin_type(right), "{right}");
    }
    for wrong in ["", ".", "..", "../x", "a/b", "a\\b", "a\0", "a b", "x..y"] {
        assert!(!is_plugin_type(wrong), "{wrong}");
    }
}
