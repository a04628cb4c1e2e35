//! Clusters, and the devices, peers and routes that follow from them.

use std::net::IpAddr;
use std::sync::Arc;

use model::block::{Affinity, AffinityState, Owner};
use model::endpoint::WorkloadEndpoint;
use model::id::NamespacedName;
use model::node::TunnelAddrs;
use model::pool::IpPool;
use proptest::prelude::*;

use super::*;
use crate::Change;

fn name(number: u8) -> NodeName {
    format!("n{number}").parse().unwrap()
}

fn node(number: u8, key: Option<u8>) -> Node {
    Node {
        name: name(number),
        labels: BTreeMap::new(),
        ipv4: Some(format!("192.0.2.{number}/24").parse().unwrap()),
        ipv6: Some(format!("2001:db8::{number}/64").parse().unwrap()),
        asn: None,
        route_reflector_cluster_id: None,
        tunnel_addrs: TunnelAddrs {
            wireguard_key_v4: key.map(|byte| PublicKey([byte; 32])),
            wireguard_v4: Some(format!("10.244.{number}.1").parse().unwrap()),
            ..TunnelAddrs::default()
        },
        pod_cidrs: Vec::new(),
    }
}

fn put(cluster: &mut Cluster, node: Node) {
    cluster.apply(Change::Node(node.name.clone(), Some(Box::new(node))));
}

fn block(cluster: &mut Cluster, owner: u8, cidr: &str) {
    let cidr: Cidr = cidr.parse().unwrap();
    let object = format!("{}-{}", name(owner), cidr.object_name());
    let state = AffinityState::Confirmed;
    let affinity = Affinity { owner: Owner::Host(name(owner)), cidr, state, is_deleted: false };
    cluster.apply(Change::Affinity(object, Some(affinity)));
}

fn pod(cluster: &mut Cluster, on: u8, addr: &str) {
    let pod = NamespacedName { namespace: "default".to_owned(), name: addr.to_owned() };
    let endpoint = WorkloadEndpoint::new(
        pod.clone(),
        name(on),
        "cali1".parse().unwrap(),
        vec![addr.parse().unwrap()],
    );
    cluster.apply(Change::Endpoint(pod, Some(Arc::new(endpoint))));
}

fn pool(cluster: &mut Cluster) {
    let pool =
        IpPool { nat_outgoing: true, ..IpPool::plain("default", "10.244.0.0/16".parse().unwrap()) };
    cluster.apply(Change::Pool(pool.name.clone(), Some(Box::new(pool))));
}

/// Three nodes with a block each; the third has no key.
fn cluster(strictness: Strictness, host_encryption: HostEncryption) -> Cluster {
    let mut cluster = Cluster::new(name(1));
    let device = DeviceSettings { name: "wireguard.cali".parse().unwrap(), port: 51_820, table: 1 };
    cluster.wireguard = WireguardSettings {
        devices: [(Family::V4, device)].into(),
        host_encryption,
        strictness,
        keepalive: Duration::ZERO,
        rule_priority: 99,
        mark: 0x20_0000,
    };
    pool(&mut cluster);
    for (number, key) in [(1, Some(1)), (2, Some(2)), (3, None)] {
        put(&mut cluster, node(number, key));
        block(&mut cluster, number, &format!("10.244.{number}.0/26"));
    }
    cluster
}

fn routes(cluster: &Cluster) -> Vec<String> {
    let (devices, _) = cluster.wireguard();
    let routes = devices.values().flat_map(|device| &device.routes);
    routes.map(|(cidr, route)| format!("{cidr} {route}")).collect()
}

fn allowed(cluster: &Cluster) -> Vec<String> {
    let (devices, _) = cluster.wireguard();
    let peers = devices.values().flat_map(|device| device.peers.values());
    let line = |peer: &WireguardPeer| {
        let cidrs: Vec<String> = peer.allowed.iter().map(ToString::to_string).collect();
        format!("{} {}", peer.peer_addr, cidrs.join(" "))
    };
    peers.map(line).collect()
}

#[test]
fn peers_blocks_are_encrypted_and_others_are_left_to_the_main_table() {
    let cluster = cluster(Strictness::Lenient, HostEncryption::Off);
    assert_eq!(
        routes(&cluster),
        ["10.244.1.0/26 throw", "10.244.2.0/26 encrypted", "10.244.3.0/26 throw"]
    );
    assert_eq!(allowed(&cluster), ["192.0.2.2:51820 10.244.2.0/26"]);
}

#[test]
fn in_strict_mode_no_address_of_a_pool_is_left_to_the_main_table_but_our_own() {
    let cluster = cluster(Strictness::Strict, HostEncryption::Off);
    assert_eq!(
        routes(&cluster),
        [
            "10.244.0.0/16 blackhole",
            "10.244.1.0/26 throw",
            "10.244.2.0/26 encrypted",
            "10.244.3.0/26 blackhole",
        ]
    );
}

#[test]
fn addresses_outside_their_nodes_block_have_their_own_routes() {
    let mut cluster = cluster(Strictness::Lenient, HostEncryption::Off);
    // Lent by the second node to ours, by ours to the second, and by the third to the second.
    pod(&mut cluster, 1, "10.244.2.9");
    pod(&mut cluster, 2, "10.244.1.9");
    pod(&mut cluster, 2, "10.244.3.9");
    pod(&mut cluster, 2, "10.244.2.5");
    assert_eq!(
        routes(&cluster),
        [
            "10.244.1.0/26 throw",
            "10.244.1.9/32 encrypted",
            "10.244.2.0/26 encrypted",
            "10.244.2.9/32 throw",
            "10.244.3.0/26 throw",
            "10.244.3.9/32 encrypted",
        ]
    );
    assert_eq!(allowed(&cluster), ["192.0.2.2:51820 10.244.1.9/32 10.244.2.0/26 10.244.3.9/32"]);
}

#[test]
fn hosts_are_encrypted_where_wanted_but_for_the_control_plane() {
    let mut cluster = cluster(Strictness::Lenient, HostEncryption::On);
    assert_eq!(allowed(&cluster), ["192.0.2.2:51820 10.244.2.0/26 192.0.2.2/32"]);
    assert!(routes(&cluster).contains(&"192.0.2.2/32 encrypted".to_owned()));
    let mut second = node(2, Some(2));
    second.labels.insert(CONTROL_PLANE[0].to_owned(), String::new());
    put(&mut cluster, second);
    assert_eq!(allowed(&cluster), ["192.0.2.2:51820 10.244.2.0/26"]);
}

#[test]
fn a_key_that_two_nodes_have_is_nobodys() {
    let mut cluster = cluster(Strictness::Strict, HostEncryption::Off);
    put(&mut cluster, node(3, Some(2)));
    assert!(allowed(&cluster).is_empty());
    let (_, problems) = cluster.wireguard();
    let objects: Vec<&str> = problems.iter().map(|problem| problem.object.as_str()).collect();
    assert_eq!(objects, ["node n2", "node n3"]);
    assert!(routes(&cluster).contains(&"10.244.2.0/26 blackhole".to_owned()));
    put(&mut cluster, node(3, Some(3)));
    assert_eq!(allowed(&cluster).len(), 2);
}

/// Looks an address up as the kernel does.
fn look_up(routes: &BTreeMap<Cidr, WireguardRoute>, addr: IpAddr) -> Option<WireguardRoute> {
    let found = routes.iter().filter(|(cidr, _)| cidr.contains(addr));
    found.max_by_key(|(cidr, _)| cidr.prefix_len()).map(|(_, route)| *route)
}

proptest! {
    /// Whatever the cluster is: in strict mode an address of the pool is a peer's, ours, or
    /// nobody's; and what is a peer's, one peer may send from.
    #[test]
    fn strict_mode_holds_for_every_address(
        keys in proptest::collection::vec(proptest::option::of(1_u8..4), 4),
        blocks in proptest::collection::btree_map(0_u8..6, 1_u8..5, 0..6),
        pods in proptest::collection::btree_map((0_u8..6, 0_u8..64), 1_u8..5, 0..8),
        probe in (0_u8..6, 0_u8..64),
    ) {
        let mut cluster = cluster(Strictness::Strict, HostEncryption::Off);
        for (number, key) in (1..).zip(&keys) {
            put(&mut cluster, node(number, *key));
        }
        for (third, owner) in &blocks {
            block(&mut cluster, *owner, &format!("10.244.{third}.0/26"));
        }
        for ((third, fourth), on) in &pods {
            pod(&mut cluster, *on, &format!("10.244.{third}.{fourth}"));
        }
        let (devices, _) = cluster.wireguard();
        let device = devices.get(&Family::V4).unwrap();
        let addr: IpAddr = format!("10.244.{}.{}", probe.0, probe.1).parse().unwrap();
        let owners = device.peers.values().filter(|peer| peer.allowed.iter().any(|cidr| {
            cidr.contains(addr) && look_up(&device.routes, addr) == Some(WireguardRoute::Encrypted)
        }));
        match look_up(&device.routes, addr) {
            None => prop_assert!(false, "{addr} is left to the main table"),
            Some(WireguardRoute::Encrypted) => prop_assert!(owners.count() >= 1),
            Some(WireguardRoute::Blackhole) => {}
            Some(WireguardRoute::Throw) => {
                let own_block = probe.0 == 1 || blocks.get(&probe.0) == Some(&1);
                let own_pod = pods.get(&probe) == Some(&1);
                let own_tunnel = addr.to_string() == "10.244.1.1";
                prop_assert!(own_block || own_pod || own_tunnel, "{addr} is not ours");
            }
        }
    }
}
