//! What a pod's annotations and the configuration together ask for.

use super::*;

const PREFIX: &str = "cni.projectcalico.org/";

/// Reads `name=value` pairs as annotations.
fn annotations(pairs: &[(&str, &str)]) -> Annotations {
    let pair = |(name, value): &(&str, &str)| (format!("{PREFIX}{name}"), (*value).to_owned());
    pairs.iter().map(pair).collect()
}

fn read(pod: &[(&str, &str)], namespace: &[(&str, &str)]) -> Result<Wishes, Error> {
    Wishes::read(&annotations(pod), &annotations(namespace), FeatureControl::default())
}

fn config(text: &str, wishes: &Wishes, pod_cidrs: &[&str]) -> Result<Value, Error> {
    let raw: Map<String, Value> = serde_json::from_str(text).unwrap();
    let pod_cidrs: Vec<_> = pod_cidrs.iter().map(|cidr| (*cidr).to_owned()).collect();
    wishes.delegate_config(&raw, &"node-1".parse().unwrap(), &pod_cidrs)
}

#[test]
fn a_pod_that_wishes_nothing_changes_nothing() {
    let wishes = read(&[], &[]).unwrap();
    assert_eq!(wishes, Wishes::default());
    let text = r#"{"name":"n","x":{"y":1},"ipam":{"type":"calico-ipam","z":[]}}"#;
    assert_eq!(
        config(text, &wishes, &[]).unwrap(),
        json!({"name":"n","x":{"y":1},"ipam":{"type":"calico-ipam","z":[]},"nodename":"node-1"})
    );
}

#[test]
fn the_pod_goes_before_its_namespace_and_both_before_the_configuration() {
    let wishes = read(
        &[("ipv4pools", r#"["pod"]"#)],
        &[("ipv4pools", r#"["namespace"]"#), ("ipv6pools", r#"["six"]"#)],
    );
    let text = r#"{"ipam":{"type":"calico-ipam","ipv4_pools":["a"],"ipv6_pools":["b"]}}"#;
    let config = config(text, &wishes.unwrap(), &[]).unwrap();
    assert_eq!(config["ipam"]["ipv4_pools"], json!(["pod"]));
    assert_eq!(config["ipam"]["ipv6_pools"], json!(["six"]));
}

#[test]
fn families_and_addresses_reach_the_delegate() {
    let wishes = read(&[("ipFamilies", r#"["IPv6"]"#)], &[]).unwrap();
    let ipam = &config(r#"{"ipam":{"type":"x"}}"#, &wishes, &[]).unwrap()["ipam"];
    assert_eq!(*ipam, json!({"type":"x","assign_ipv4":"false","assign_ipv6":"true"}));
    let wishes = read(&[("ipAddrs", r#"["10.0.0.5"]"#)], &[]).unwrap();
    let found = config(r#"{"ipam":{"type":"x"},"args":{"a":1}}"#, &wishes, &[]).unwrap();
    assert_eq!(found["args"], json!({"a":1,"cni":{"ips":["10.0.0.5"]}}));
    assert_eq!(found["ipam"]["assign_ipv6"], json!("false"));
}

#[test]
fn host_local_gets_the_nodes_own_cidrs() {
    let text = r#"{"ipam":{"type":"host-local","subnet":"usePodCidr",
                   "ranges":[[{"subnet":"usePodCidrIPv6"}],[{"subnet":"10.1.0.0/16"}]]}}"#;
    let raw: Map<String, Value> = serde_json::from_str(text).unwrap();
    assert!(needs_pod_cidrs(&raw));
    let found = config(text, &Wishes::default(), &["10.244.1.0/24", "fd00:1::/64"]).unwrap();
    assert_eq!(found["ipam"]["subnet"], json!("10.244.1.0/24"));
    assert_eq!(
        found["ipam"]["ranges"],
        json!([[{"subnet":"fd00:1::/64"}],[{"subnet":"10.1.0.0/16"}]])
    );
    let release = delegate_config_to_release(&raw);
    assert_eq!(release["ipam"]["subnet"], json!("0.0.0.0/0"));
    assert_eq!(release["ipam"]["ranges"][0], json!([{"subnet":"::/0"}]));
    let error = config(text, &Wishes::default(), &["10.244.1.0/24"]).unwrap_err();
    assert_eq!(error.code, ErrorCode::TryAgainLater);
}

#[test]
fn guarded_wishes_are_ignored_unless_allowed() {
    let asked = [("ipAddrsNoIpam", r#"["10.9.9.9"]"#), ("floatingIPs", r#"["10.9.9.8"]"#)];
    let refused = read(&asked[..1], &[]).unwrap();
    assert!(refused.addrs_without_ipam.is_empty());
    assert_eq!(
        refused.ignored,
        ["annotation `cni.projectcalico.org/ipAddrsNoIpam` is ignored: \
          feature_control.ip_addrs_no_ipam is off"]
    );
    let refused = read(&asked[1..], &[]).unwrap_err();
    assert!(refused.message.contains("feature_control.floating_ips of the network configuration"));
    let features = FeatureControl { allows_addrs_without_ipam: true, allows_floating_ips: true };
    let allowed = Wishes::read(&annotations(&asked), &Annotations::new(), features).unwrap();
    assert_eq!(allowed.addrs_without_ipam, ["10.9.9.9".parse::<IpAddr>().unwrap()]);
    assert_eq!(allowed.ignored, [""; 0]);
    let wrong = [("floatingIPs", r#"["10.9.9"]"#)];
    let wrong = Wishes::read(&annotations(&wrong), &Annotations::new(), features).unwrap_err();
    assert!(wrong.message.contains("use addresses"), "{}", wrong.message);
}

#[test]
fn guarded_wishes_of_a_namespace_never_count() {
    let wishes = read(&[], &[("ipAddrs", r#"["10.0.0.5"]"#), ("hwAddr", "02:00:00:00:00:01")]);
    assert_eq!(wishes, Ok(Wishes::default()));
}

#[test]
fn wrong_annotations_are_named() {
    let cases = [
        ("ipAddrs", "10.0.0.5", "is `10.0.0.5`: use a JSON list of texts such as [\"a\"]"),
        ("ipAddrs", r#"["x"]"#, "is `x`: use addresses"),
        (
            "ipAddrs",
            r#"["10.0.0.5","10.0.0.6"]"#,
            "is `10.0.0.5, 10.0.0.6`: use at most one address of each family",
        ),
        ("ipFamilies", r#"["IPX"]"#, "is `IPX`: use IPv4, IPv6 or both"),
        ("ipFamilies", "[]", "is ``: use IPv4, IPv6 or both"),
        ("ipv4pools", "[1]", "is `[1]`: use a JSON list of texts such as [\"a\"]"),
        ("hwAddr", "1", "is `1`: use an address such as 02:00:00:00:00:01"),
        (
            "hwAddr",
            "01:00:5e:00:00:01",
            "is `01:00:5e:00:00:01`: use an address such as 02:00:00:00:00:01",
        ),
    ];
    for (name, value, message) in cases {
        let error = read(&[(name, value)], &[]).unwrap_err();
        assert_eq!(error.message, format!("annotation `{PREFIX}{name}` {message}"));
    }
}

#[test]
fn only_the_namespace_says_which_vrf() {
    let name = |vrf: &str| Annotations::from([(VRF_NAME.to_owned(), vrf.to_owned())]);
    let features = FeatureControl { allows_addrs_without_ipam: true, ..FeatureControl::default() };
    let wishes = |pod: &Annotations, namespace| Wishes::read(pod, &namespace, features);
    let told = |it: &Wishes| {
        let text = r#"{"ipam":{"type":"calico-ipam","vrf":"forged"}}"#;
        config(text, it, &[]).unwrap()["ipam"]["vrf"].clone()
    };
    assert_eq!(told(&wishes(&name("blue"), Annotations::new()).unwrap()), Value::Null);
    let red = wishes(&name("blue"), name("red")).unwrap();
    assert_eq!(told(&red), json!("red"));
    assert_eq!(red.vrf.as_ref().map(VrfName::as_str), Some("red"));
    let other = config(r#"{"ipam":{"type":"host-local"}}"#, &red, &[]).unwrap_err();
    assert!(other.message.contains("calico-ipam"), "{other}");
    let wrong = wishes(&Annotations::new(), name("Red")).unwrap_err();
    assert_eq!(wrong.code, ErrorCode::InvalidConfig);
    let bare = annotations(&[("ipAddrsNoIpam", r#"["10.0.0.5"]"#)]);
    assert!(wishes(&bare, Annotations::new()).is_ok());
    assert!(wishes(&bare, name("red")).unwrap_err().message.contains("VRF red"));
}
