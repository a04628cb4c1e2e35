//! Results in every version of the specification.

use serde_json::json;

use super::*;

/// A dual-stack result that uses every field.
fn full() -> Success {
    Success {
        interfaces: vec![
            Interface {
                name: "cali0".into(),
                mac: "ee:ee:ee:ee:ee:ee".into(),
                ..Interface::default()
            },
            Interface {
                name: "eth0".into(),
                mac: "02:00:00:00:00:01".into(),
                mtu: Some(1450),
                sandbox: "/run/netns/a".into(),
                socket_path: "/run/vhost.sock".into(),
                pci_id: "0000:00:1f.6".into(),
            },
        ],
        ips: vec![
            Ip {
                address: "10.0.0.5/32".parse().unwrap(),
                gateway: Some("10.0.0.1".parse().unwrap()),
                interface: Some(1),
            },
            Ip { address: "fd00::5/128".parse().unwrap(), gateway: None, interface: Some(1) },
        ],
        routes: vec![
            Route {
                gateway: Some("169.254.1.1".parse().unwrap()),
                mtu: Some(1400),
                advmss: Some(1360),
                priority: Some(10),
                table: Some(100),
                scope: Some(253),
                ..Route::to("0.0.0.0/0".parse().unwrap())
            },
            Route::to("::/0".parse().unwrap()),
        ],
        dns: Dns {
            nameservers: vec!["10.96.0.10".into()],
            domain: "cluster.local".into(),
            search: vec!["svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
        },
    }
}

#[test]
fn each_version_has_its_own_form() {
    for version in Version::ALL {
        let actual = format!("{:#}\n", full().to_json(version));
        crate::golden::compare(&format!("result/{version}.json"), &actual);
    }
}

#[test]
fn the_newest_form_loses_nothing() {
    let written = full().to_json(Version::V1_1_0).to_string();
    assert_eq!(Success::parse(written.as_bytes(), Version::V0_1_0), Ok(full()));
}

#[test]
fn what_is_read_is_written_again() {
    for version in Version::ALL {
        let written = full().to_json(version);
        let read = Success::read(written.as_object().unwrap(), version).unwrap();
        assert_eq!(read.to_json(version), written, "{version}");
    }
}

#[test]
fn the_configuration_says_the_version_if_the_result_does_not() {
    let old = r#"{"ip4": {"ip": "10.0.0.5/24", "routes": [{"dst": "10.1.2.3/8"}]}}"#;
    let result = Success::parse(old.as_bytes(), Version::V0_2_0).unwrap();
    assert_eq!(result.ips[0].address.to_string(), "10.0.0.5/24");
    assert_eq!(result.routes[0].dst.to_string(), "10.0.0.0/8");
}

#[test]
fn wrong_results_are_told_so() {
    let cases = [
        ("[]", "result is no JSON object: the plugin that printed it is broken"),
        (r#"{"cniVersion":"7"}"#, "result has another cniVersion `7`: use one that VERSION lists"),
        (r#"{"ips":[{}]}"#, "result has `ips[0].address` = nothing: use ADDRESS/LENGTH"),
        (
            r#"{"ips":[{"address":"10.0.0.5"}]}"#,
            "result has `ips[0].address` = \"10.0.0.5\": use ADDRESS/LENGTH",
        ),
        (
            r#"{"ips":[{"address":"10.0.0.5/24","gateway":"x"}]}"#,
            "result has `ips[0].gateway` = \"x\": use an address",
        ),
        (r#"{"ips":{}}"#, "result has `ips` = {}: use a list of objects"),
        (r#"{"ips":[1]}"#, "result has `ips` = [1]: use a list of objects"),
        (r#"{"routes":[{"dst":"10"}]}"#, "result has `routes[0].dst` = \"10\": use ADDRESS/LENGTH"),
        (r#"{"interfaces":[{"name":1}]}"#, "result has `interfaces[0].name` = 1: use a text"),
        (
            r#"{"interfaces":[{"mtu":-1}]}"#,
            "result has `interfaces[0].mtu` = -1: use a whole number",
        ),
        (
            r#"{"interfaces":[{}],"ips":[{"address":"10.0.0.5/24","interface":1}]}"#,
            "result has `ips[].interface` = 1: use the index of a listed interface",
        ),
        (r#"{"dns":{"search":"x"}}"#, "result has `dns.search` = \"x\": use a list of texts"),
        (r#"{"dns":[]}"#, "result has `dns` = []: use an object"),
    ];
    for (text, message) in cases {
        let error = Success::parse(text.as_bytes(), Version::V1_0_0).unwrap_err();
        assert_eq!(error.to_string(), message, "{text}");
    }
}

#[test]
fn an_interface_of_minus_one_is_none() {
    let object = json!({"ips": [{"address": "10.0.0.5/24", "interface": -1}]});
    let result = Success::read(object.as_object().unwrap(), Version::V1_0_0).unwrap();
    assert_eq!(result.ips[0].interface, None);
}
