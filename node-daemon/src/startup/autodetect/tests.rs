//! Facts about the detection of addresses, as a table over one machine.

use config::value::Setting;
use model::net::Mtu;

use super::*;

/// A machine as text: a word for each interface, `name(!)=address,address…`, `!` if it is down.
fn host(text: &str) -> Host {
    let interface = |word: &str| {
        let (name, addrs) = word.split_once('=').unwrap();
        Interface {
            name: name.trim_end_matches('!').parse().unwrap(),
            mtu: Mtu(1500),
            is_up: !name.ends_with('!'),
            addrs: addrs.split(',').filter_map(|addr| addr.parse().ok()).collect(),
        }
    };
    Host { interfaces: text.split_whitespace().map(interface).collect(), ..Host::default() }
}

const MACHINE: &str = "lo=127.0.0.1/8,::1/128 docker0=172.17.0.1/16 eth9!=10.9.0.1/24 \
    eth0=169.254.3.4/16,10.0.0.1/24,10.0.0.9/24,fe80::1/64,fd00::1/64 \
    eth1=192.168.5.1/24,fd00:1::1/64 bond0= cali123=10.244.0.1/32 flow0=10.7.0.1/24";

fn found(method: &str, family: Family, answers: &Answers) -> Option<String> {
    let method = AddressMethod::from_text(method).unwrap();
    detect(&method, family, &host(MACHINE), answers).found.map(|addr| addr.to_string())
}

#[test]
fn each_method_finds_its_address() {
    for (method, ipv4, ipv6) in [
        ("first-found", Some("10.0.0.1/24"), Some("fd00::1/64")),
        ("interface=eth1", Some("192.168.5.1/24"), Some("fd00:1::1/64")),
        ("interface=eth", Some("10.0.0.1/24"), Some("fd00::1/64")),
        ("interface=nothing,eth1,eth0", Some("192.168.5.1/24"), Some("fd00:1::1/64")),
        ("interface=docker0", Some("172.17.0.1/16"), None),
        ("interface=lo$", None, None),
        ("interface=^flow", Some("10.7.0.1/24"), None),
        ("interface=eth9", None, None),
        ("skip-interface=eth0", Some("192.168.5.1/24"), Some("fd00:1::1/64")),
        ("skip-interface=^eth,bond.*", Some("10.7.0.1/24"), None),
        ("skip-interface=.*", None, None),
        ("cidr=192.168.0.0/16", Some("192.168.5.1/24"), None),
        ("cidr=10.0.0.8/29,fd00:1::/32", Some("10.0.0.9/24"), Some("fd00:1::1/64")),
        ("cidr=172.17.0.0/16", None, None),
    ] {
        let answers = Answers::default();
        let expected = (ipv4.map(str::to_owned), ipv6.map(str::to_owned));
        let actual = (found(method, Family::V4, &answers), found(method, Family::V6, &answers));
        assert_eq!(actual, expected, "{method}");
    }
}

#[test]
fn what_reaches_the_target_must_be_on_the_host() {
    for (from, expected) in [
        (Some("10.0.0.9"), Some("10.0.0.9/24")),
        (Some("10.0.0.77"), None),
        (Some("fd00::1"), None),
        (None, None),
    ] {
        let reaching_from = from.map(|addr| addr.parse().unwrap());
        let answers = Answers { reaching_from, ..Answers::default() };
        assert_eq!(found("can-reach=8.8.8.8", Family::V4, &answers).as_deref(), expected);
    }
}

#[test]
fn kubernetes_is_believed_even_if_no_interface_has_the_address() {
    for (internal, family, expected) in [
        ("10.0.0.9", Family::V4, Some("10.0.0.9/24")),
        ("34.1.2.3", Family::V4, Some("34.1.2.3/32")),
        ("fd00::1 34.1.2.3", Family::V6, Some("fd00::1/64")),
        ("fd00::1", Family::V4, None),
        ("", Family::V4, None),
    ] {
        let internal = internal.split_whitespace().map(|addr| addr.parse().unwrap()).collect();
        let answers = Answers { internal, ..Answers::default() };
        assert_eq!(found("kubernetes-internal-ip", family, &answers).as_deref(), expected);
    }
}

#[test]
fn every_default_exclusion_holds_and_nothing_like_it() {
    for name in [
        "docker0",
        "cbr0",
        "dummy1",
        "podman0",
        "virbr0",
        "lxcbr0",
        "veth12",
        "lo",
        "br-1234",
        "cali0123",
        "tunl0",
        "flannel.1",
        "kube-ipvs0",
        "cni0",
        "vxlan.calico",
        "vxlan-v6.calico",
        "wireguard.cali",
        "wg-v6.cali",
        "nodelocaldns",
    ] {
        assert_eq!(by_default(name), Some(Verdict::ExcludedByDefault), "{name}");
    }
    for name in ["eth0", "enp3s0", "br0", "flow0", "mycali0", "wlan0", "vxlan0", "bond0", "lo1"] {
        assert_eq!(by_default(name), None, "{name}");
    }
}

#[test]
fn the_log_says_what_became_of_each_candidate() {
    let detection =
        detect(&AddressMethod::FirstFound, Family::V4, &host(MACHINE), &Answers::default());
    let expected = "lo: its name is left out by default; docker0: its name is left out by default; \
        eth9: is down; eth0 169.254.3.4/16: is valid on its link only; eth0 10.0.0.1/24: chosen";
    assert_eq!(detection.to_string(), expected);
    let nothing =
        detect(&AddressMethod::FirstFound, Family::V6, &Host::default(), &Answers::default());
    assert_eq!(nothing.to_string(), "nothing to choose from");
}
