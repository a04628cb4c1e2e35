//! Facts about the node's identity.

use config::{Sources, StartupConfig};
use model::net::Mtu;

use super::*;
use crate::startup::host::Interface;

fn node(name: &str, ipv4: &str, ipv6: &str) -> Node {
    Node {
        name: name.parse().unwrap(),
        labels: BTreeMap::new(),
        ipv4: ipv4.parse().ok(),
        ipv6: ipv6.parse().ok(),
        asn: None,
        route_reflector_cluster_id: None,
        tunnel_addrs: model::node::TunnelAddrs::default(),
        pod_cidrs: Vec::new(),
    }
}

fn settings(variables: &str) -> NodeSettings {
    let pairs = variables.split_whitespace().filter_map(|pair| pair.split_once('='));
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let (config, problems) = StartupConfig::resolve(&Sources::from_environment(pairs));
    assert_eq!(problems, []);
    config.node
}

fn host() -> Host {
    let interface = Interface {
        name: "eth0".parse().unwrap(),
        mtu: Mtu(1500),
        is_up: true,
        addrs: vec!["10.0.0.1/24".parse().unwrap(), "fd00::1/64".parse().unwrap()],
    };
    Host { interfaces: vec![interface], ..Host::default() }
}

fn no_answers(_: Family) -> Answers {
    Answers::default()
}

#[test]
fn settings_and_the_present_make_the_future() {
    for (variables, has_v4, has_v6, v4, v6) in [
        ("", "", "", "10.0.0.1/24", ""),
        ("", "10.9.9.9/16", "fd09::9/64", "10.9.9.9/16", "fd09::9/64"),
        ("IP=autodetect", "10.9.9.9/16", "", "10.0.0.1/24", ""),
        ("IP=autodetect IP6=autodetect", "", "", "10.0.0.1/24", "fd00::1/64"),
        ("IP=none IP6=autodetect", "10.9.9.9/16", "", "", "fd00::1/64"),
        ("IP=10.0.0.1", "", "", "10.0.0.1/24", ""),
        ("IP=10.0.0.1/20", "", "", "10.0.0.1/20", ""),
        ("IP=10.0.0.7", "", "", "10.0.0.7/32", ""),
        ("IP6=fd00::1", "10.9.9.9/16", "", "10.9.9.9/16", "fd00::1/64"),
        ("IP6=none", "", "fd09::9/64", "10.0.0.1/24", ""),
        ("IP=none CALICO_NETWORKING_BACKEND=none", "10.9.9.9/16", "", "", ""),
    ] {
        let current = node("a", has_v4, has_v6);
        let identity = decide(&settings(variables), &current, &host(), no_answers).unwrap();
        assert_eq!(
            (identity.ipv4, identity.ipv6),
            (v4.parse().ok(), v6.parse().ok()),
            "{variables}"
        );
    }
}

#[test]
fn refusals_name_cause_and_remedy() {
    for (variables, expected) in [
        ("IP=fd00::1", "IP=fd00::1 is not an IPv4 address; use the variable of the other family"),
        (
            "IP6=10.0.0.1",
            "IP6=10.0.0.1 is not an IPv6 address; use the variable of the other family",
        ),
        (
            "IP=autodetect IP_AUTODETECTION_METHOD=interface=eth7",
            "this node has no address (IPv4: eth0: its name does not match); set IP or IP6, choose \
             another IP_AUTODETECTION_METHOD, or set CALICO_NETWORKING_BACKEND=none if something \
             else brings the routes",
        ),
    ] {
        let refusal = decide(&settings(variables), &node("a", "", ""), &host(), no_answers);
        assert_eq!(refusal.unwrap_err().to_string(), expected);
    }
}

#[test]
fn two_nodes_cannot_have_one_address() {
    let identity = decide(&settings(""), &node("a", "", ""), &host(), no_answers).unwrap();
    let own = "a".parse().unwrap();
    let check = |nodes: &[Node]| identity.check_conflict(&own, nodes);
    assert_eq!(check(&[node("a", "10.0.0.1/24", ""), node("b", "10.0.0.2/24", "")]), Ok(()));
    let refusal = check(&[node("b", "10.0.0.1/16", "")]).unwrap_err();
    assert!(refusal.to_string().starts_with("node b has the address 10.0.0.1 too; "), "{refusal}");
}

#[test]
fn only_what_differs_is_patched_and_what_is_gone_is_removed() {
    let identity = decide(&settings("AS=64513"), &node("a", "", ""), &host(), no_answers).unwrap();
    let annotations = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let right = [(annotations::NODE_IPV4, "10.0.0.1/24"), (annotations::NODE_ASN, "64513")];
    assert_eq!(identity.patch(&annotations(&right)), None);
    let old = [(annotations::NODE_IPV4, "10.0.0.1/24"), (annotations::NODE_IPV6, "fd00::1/64")];
    let expected = json!({"metadata": {"annotations": {
        annotations::NODE_IPV6: null, annotations::NODE_ASN: "64513",
    }}});
    assert_eq!(identity.patch(&annotations(&old)), Some(expected));
}
