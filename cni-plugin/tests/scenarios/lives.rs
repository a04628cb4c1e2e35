//! Containers without Kubernetes: ADD, CHECK, DEL.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::json;

use crate::common::node::Namespace;
use crate::{World, configure, succeeded};

/// How long a packet may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs CHECK with `result` as the result of the ADD, and returns the answer.
fn check(world: &World, container: &Namespace, result: &serde_json::Value) -> crate::Answer {
    let mut call = world.call("CHECK", "c1", Some(container));
    configure(&mut call, |config| {
        config["cniVersion"] = result["cniVersion"].clone();
        config["prevResult"] = result.clone();
    });
    call.run()
}

pub(crate) fn attaches_each_mix_of_families(world: &World) {
    for addrs in [&["10.65.0.5/26"][..], &["fd00:65::5/122"], &["10.65.0.5/26", "fd00:65::5/122"]] {
        let before = world.node.state();
        let container = Namespace::new("c1");
        world.fake.gives(addrs);
        let result = succeeded(world.call("ADD", "c1", Some(&container)).run());
        let alone: Vec<_> = addrs.iter().map(|addr| addr.split('/').next().unwrap()).collect();
        for (index, addr) in alone.iter().enumerate() {
            let len = if addr.contains(':') { 128 } else { 32 };
            assert_eq!(
                result["ips"][index],
                json!({"address": format!("{addr}/{len}"), "interface": 1})
            );
            let family = if len == 32 { "-4" } else { "-6" };
            let route = world.node.ip(&format!("{family} route show {addr}"));
            assert!(route.contains("dev calic1"), "{route}");
            let inside = container.ip(&format!("{family} route show default"));
            assert!(inside.contains("dev eth0"), "{inside}");
        }
        assert_eq!(result["interfaces"][0], json!({"name": "calic1", "mac": "ee:ee:ee:ee:ee:ee"}));
        assert_eq!(result["interfaces"][1]["sandbox"], json!(container.path()));
        assert!(container.ip("link show eth0").contains("mtu 1440"));
        assert!(world.node.ip("link show calic1").contains("mtu 1440"));
        let checked = check(world, &container, &result);
        assert!(checked.is_success, "{checked:?}");
        let del = world.call("DEL", "c1", Some(&container)).run();
        assert!(succeeded(del).is_null());
        assert_eq!(world.node.state(), before);
        assert_eq!(world.fake.calls(), ["ADD", "CHECK", "DEL"]);
    }
}

pub(crate) fn packets_go_both_ways(world: &World) {
    let container = Namespace::new("c1");
    world.fake.gives(&["10.65.0.5/26", "fd00:65::5/122"]);
    succeeded(world.call("ADD", "c1", Some(&container)).run());
    for addr in ["10.65.0.5", "fd00:65::5"] {
        let addr = SocketAddr::from((addr.parse::<IpAddr>().unwrap(), 0));
        let listener = container.netns.run(|| TcpListener::bind(addr).unwrap()).unwrap();
        let listens_at = listener.local_addr().unwrap();
        let mut from_host = TcpStream::connect_timeout(&listens_at, PATIENCE).unwrap();
        from_host.set_read_timeout(Some(PATIENCE)).unwrap();
        let (mut inside, _) = listener.accept().unwrap();
        inside.write_all(b"here").unwrap();
        let mut text = [0; 4];
        from_host.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"here");
    }
    succeeded(world.call("DEL", "c1", Some(&container)).run());
}

pub(crate) fn follows_the_configuration(world: &World) {
    let container = Namespace::new("c1");
    world.fake.gives(&["10.65.0.5/26"]);
    let mut call = world.call("ADD", "c1", Some(&container));
    call.extra.push(("FELIX_INTERFACEPREFIX", "eni,cali".into()));
    call.args = "A=b".into();
    configure(&mut call, |config| {
        config["x-unknown"] = json!({"deep": [1, 2]});
        config["cniVersion"] = json!("0.2.0");
        config["ipam"]["routes"] = json!([{"dst": "10.0.0.0/8"}]);
        config["container_settings"] = json!({"allow_ip_forwarding": true});
    });
    let result = succeeded(call.run());
    assert_eq!(result["ip4"]["ip"], json!("10.65.0.5/32"));
    let stdin = world.fake.stdin("ADD");
    assert_eq!(
        (&stdin["x-unknown"], &stdin["nodename"]),
        (&json!({"deep": [1, 2]}), &json!("node-1"))
    );
    let routes = container.ip("-4 route show");
    assert!(routes.contains("10.0.0.0/8 via 169.254.1.1 dev eth0"), "{routes}");
    assert!(!routes.contains("default"), "{routes}");
    let forwards = container.netns.run(|| kernel::sysctl::read("net/ipv4/ip_forward")).unwrap();
    assert_eq!(forwards.unwrap(), "1");
    for (name, value) in [("proxy_arp", "1"), ("route_localnet", "1"), ("forwarding", "1")] {
        let found = kernel::sysctl::read(&format!("net/ipv4/conf/enic1/{name}")).unwrap();
        assert_eq!(found, value, "{name}");
    }
    call.command = "DEL";
    succeeded(call.run());
    world.fake.calls();
}

pub(crate) async fn follows_the_runtime(world: &World) {
    let before = world.node.state();
    let container = Namespace::new("c1");
    world.fake.gives(&["10.65.0.5/26"]);
    let mut call = world.call("ADD", "c1", Some(&container));
    configure(&mut call, |config| {
        let bandwidth = json!({"ingressRate": 8_000_000, "ingressBurst": 800_000,
            "egressRate": 16_000_000, "egressBurst": 800_000});
        config["runtimeConfig"] = json!({"mac": "02:00:00:00:00:07", "bandwidth": bandwidth});
    });
    let result = succeeded(call.run());
    assert_eq!(result["interfaces"][1]["mac"], json!("02:00:00:00:00:07"));
    let limits = kernel::Netlink::open().unwrap().limits().await.unwrap();
    let mut rates: Vec<_> = limits.values().map(|limit| limit.rate).collect();
    rates.sort_unstable();
    assert_eq!(rates, [1_000_000, 2_000_000]);
    call.command = "DEL";
    succeeded(call.run());
    assert_eq!(world.node.state(), before, "the link that limits goes too");
    world.fake.calls();
}

pub(crate) fn works_with_host_local(world: &World) {
    let is_installed = std::path::Path::new("/usr/lib/cni/host-local").exists();
    assert!(is_installed, "host-local is missing: `cargo xtask setup` installs it");
    let before = world.node.state();
    let container = Namespace::new("c1");
    let mut call = world.call("ADD", "c1", Some(&container));
    call.path = "/usr/lib/cni".into();
    configure(&mut call, |config| {
        let ranges = json!([[{"subnet": "10.66.0.0/24"}], [{"subnet": "fd00:66::/64"}]]);
        let directory = world.directory.path().join("host-local");
        config["ipam"] = json!({"type": "host-local", "ranges": ranges, "dataDir": directory});
    });
    let result = succeeded(call.run());
    assert_eq!(result["ips"].as_array().unwrap().len(), 2);
    // An ADD of the same container starts anew; host-local alone would refuse it.
    let again = succeeded(call.run());
    call.command = "CHECK";
    let mut check = call.clone();
    configure(&mut check, |config| config["prevResult"] = again);
    assert!(succeeded(check.run()).is_null());
    call.command = "DEL";
    succeeded(call.run());
    assert_eq!(world.node.state(), before);
    let held = world.directory.path().join("host-local/net");
    let held = std::fs::read_dir(held).unwrap().map(|entry| entry.unwrap().file_name());
    let held: Vec<_> = held.filter(|name| name.to_string_lossy().contains("66")).collect();
    assert!(held.is_empty(), "{held:?}");
}

pub(crate) fn adds_twice(world: &World) {
    let container = Namespace::new("c1");
    world.fake.gives(&["10.65.0.5/26"]);
    let call = world.call("ADD", "c1", Some(&container));
    succeeded(call.run());
    succeeded(call.run());
    assert_eq!(world.fake.calls(), ["ADD", "DEL", "ADD"]);
    // A host's side that an earlier container has left is in nobody's way.
    let next = Namespace::new("c2");
    drop(container);
    succeeded(world.call("ADD", "c1", Some(&next)).run());
    succeeded(world.call("DEL", "c1", Some(&next)).run());
    world.fake.calls();
}

pub(crate) fn deletes_whatever_there_is(world: &World) {
    let before = world.node.state();
    let container = Namespace::new("c1");
    world.fake.gives(&["10.65.0.5/26"]);
    let del = world.call("DEL", "c1", Some(&container));
    assert!(succeeded(del.run()).is_null(), "a container that never was");
    succeeded(world.call("ADD", "c1", Some(&container)).run());
    succeeded(del.run());
    succeeded(del.run());
    succeeded(world.call("ADD", "c1", Some(&container)).run());
    succeeded(world.call("DEL", "c1", None).run());
    assert_eq!(world.node.state(), before, "without CNI_NETNS");
    succeeded(world.call("ADD", "c1", Some(&container)).run());
    drop(container);
    succeeded(del.run());
    assert_eq!(world.node.state(), before, "after the namespace has gone");
    assert_eq!(world.fake.calls().iter().filter(|call| *call == "DEL").count(), 5);
}

pub(crate) fn check_finds_each_difference(world: &World) {
    let container = Namespace::new("c1");
    world.fake.gives(&["10.65.0.5/26"]);
    let differences: [(&str, &str, &str); 9] = [
        ("container", "addr del 10.65.0.5/32 dev eth0", "eth0 lacks 10.65.0.5/32"),
        ("container", "route del default", "the container lacks route 0.0.0.0/0"),
        ("node", "route del 10.65.0.5/32", "the host lacks route 10.65.0.5/32 dev calic1"),
        ("node", "link set calic1 down", "calic1 is down"),
        ("node", "link set calic1 mtu 1400", "calic1 has MTU 1400 and not 1440"),
        ("container", "link set eth0 address 02:00:00:00:00:99", "eth0 has MAC address 02:00"),
        (
            "container",
            "neigh replace 169.254.1.1 lladdr 02:00:00:00:00:99 dev eth0",
            "eth0 takes 02:00:00:00:00:99 for the neighbour 169.254.1.1",
        ),
        (
            "node",
            "neigh replace 10.65.0.5 lladdr 02:00:00:00:00:99 dev calic1",
            "calic1 takes 02:00:00:00:00:99 for the neighbour 10.65.0.5",
        ),
        ("node", "link del calic1", "veth calic1 with peer eth0 is gone"),
    ];
    for (place, change, message) in differences {
        let mut add = world.call("ADD", "c1", Some(&container));
        // Results of older versions do not tell the MTU.
        configure(&mut add, |config| config["cniVersion"] = json!("1.1.0"));
        let result = succeeded(add.run());
        let place = if place == "node" { &world.node } else { &container };
        place.ip(change);
        let answer = check(world, &container, &result);
        assert_eq!(answer.code(), 104, "{change}: {answer:?}");
        assert!(answer.message().contains(message), "{change}: {answer:?}");
        succeeded(world.call("DEL", "c1", Some(&container)).run());
    }
    let result = succeeded(world.call("ADD", "c1", Some(&container)).run());
    kernel::sysctl::write("net/ipv4/conf/calic1/proxy_arp", "0").unwrap();
    let answer = check(world, &container, &result);
    assert!(answer.message().contains("proxy_arp is 0 and not 1"), "{answer:?}");
    kernel::sysctl::write("net/ipv4/conf/calic1/proxy_arp", "1").unwrap();
    world.fake.fails("CHECK");
    assert_eq!(check(world, &container, &result).code(), 102);
    world.fake.works("CHECK");
    succeeded(world.call("DEL", "c1", Some(&container)).run());
    world.fake.calls();
}
