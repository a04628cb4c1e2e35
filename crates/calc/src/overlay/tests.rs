//! Where packets to each address of a small cluster must go, and where the routes lead them.

use std::sync::Arc;

use model::block::{Affinity, AffinityState, Owner};
use model::endpoint::WorkloadEndpoint;
use model::id::{NamespacedName, NodeName};
use model::net::MacAddr;
use model::node::TunnelAddrs;
use proptest::prelude::*;

use super::*;
use crate::Change;

const MODES: [Encapsulation; 5] = [
    Encapsulation::None,
    Encapsulation::Ipip(EncapsulationScope::Always),
    Encapsulation::Ipip(EncapsulationScope::CrossSubnet),
    Encapsulation::Vxlan(EncapsulationScope::Always),
    Encapsulation::Vxlan(EncapsulationScope::CrossSubnet),
];
const VXLAN: Encapsulation = MODES[3];

fn name(node: u8) -> NodeName {
    format!("n{node}").parse().unwrap()
}

/// Nodes 0 and 1 share a subnet, 2 and 3 another; `tunnel` is the last byte of their addresses in
/// the tunnels.
fn node(node: u8, tunnel: Option<u8>) -> Change {
    let addr = |text: String| Some(text.parse().unwrap());
    let tunnel_v4 = tunnel.map(|byte| format!("10.244.0.{byte}").parse().unwrap());
    let tunnel_v6 = tunnel.map(|byte| format!("fd00::{byte:x}").parse().unwrap());
    let found = Node {
        name: name(node),
        labels: BTreeMap::new(),
        ipv4: addr(format!("10.0.{}.{}/24", node / 2, node + 1)),
        ipv6: addr(format!("2001:db8:{}::{}/64", node / 2, node + 1)),
        asn: None,
        route_reflector_cluster_id: None,
        tunnel_addrs: TunnelAddrs {
            ipip: tunnel_v4,
            vxlan_v4: tunnel_v4,
            vxlan_v6: tunnel_v6,
            vxlan_mac_v4: Some(MacAddr([0x66, 0, 0, 0, 4, node])),
            vxlan_mac_v6: Some(MacAddr([0x66, 0, 0, 0, 6, node])),
            ..TunnelAddrs::default()
        },
        pod_cidrs: Vec::new(),
    };
    Change::Node(name(node), Some(Box::new(found)))
}

fn pool(cidr: &str, encapsulation: Encapsulation) -> Change {
    let pool = IpPool {
        block_len: 29,
        encapsulation,
        nat_outgoing: true,
        ..IpPool::plain(cidr, cidr.parse().unwrap())
    };
    Change::Pool(pool.name.clone(), Some(Box::new(pool)))
}

fn block(cidr: &str, owner: u8, state: AffinityState) -> Change {
    let cidr: Cidr = cidr.parse().unwrap();
    let affinity = Affinity { owner: Owner::Host(name(owner)), cidr, state, is_deleted: false };
    Change::Affinity(format!("n{owner}-{}", cidr.object_name()), Some(affinity))
}

fn pod(addr: &str, node: Option<u8>) -> Change {
    let pod = NamespacedName { namespace: "default".to_owned(), name: addr.to_owned() };
    let endpoint = node.map(|node| {
        WorkloadEndpoint::new(
            pod.clone(),
            name(node),
            "cali1".parse().unwrap(),
            vec![addr.parse().unwrap()],
        )
    });
    Change::Endpoint(pod, endpoint.map(Arc::new))
}

fn cluster(changes: impl IntoIterator<Item = Change>) -> Cluster {
    let mut cluster = Cluster::new(name(0));
    for change in changes {
        cluster.apply(change);
    }
    cluster
}

fn overlay(changes: impl IntoIterator<Item = Change>) -> Overlay {
    let (overlay, problems) = cluster(changes).overlay();
    assert_eq!(problems, []);
    overlay
}

fn words<K: ToString, V: ToString>(map: &BTreeMap<K, V>) -> Vec<String> {
    map.iter().map(|(key, value)| format!("{} {}", key.to_string(), value.to_string())).collect()
}

fn nodes() -> Vec<Change> {
    vec![node(0, Some(0)), node(1, Some(8)), node(2, Some(16))]
}

fn blocks() -> Vec<Change> {
    let confirmed = AffinityState::Confirmed;
    let v4 = [0, 1, 2].map(|at| block(&format!("10.244.0.{}/29", at * 8), at, confirmed));
    let v6 = [0, 1, 2].map(|at| block(&format!("fd00::{:x}/125", at * 8), at, confirmed));
    v4.into_iter().chain(v6).collect()
}

#[test]
fn each_mode_has_its_routes() {
    let routes = |mode| {
        let pools = [pool("10.244.0.0/24", mode)];
        words(&overlay(nodes().into_iter().chain(blocks()).chain(pools)).routes)
    };
    assert_eq!(routes(MODES[0]), [""; 0]);
    assert_eq!(
        routes(MODES[1]),
        [
            "10.244.0.8/29 via 10.0.0.2 dev tunl0 onlink proto 80",
            "10.244.0.16/29 via 10.0.1.3 dev tunl0 onlink proto 80",
        ]
    );
    assert_eq!(
        routes(MODES[2]),
        [
            "10.244.0.8/29 via 10.0.0.2 proto 80",
            "10.244.0.16/29 via 10.0.1.3 dev tunl0 onlink proto 80",
        ]
    );
    assert_eq!(
        routes(MODES[3]),
        [
            "10.244.0.8/29 via 10.244.0.8 dev vxlan.calico onlink proto 80",
            "10.244.0.16/29 via 10.244.0.16 dev vxlan.calico onlink proto 80",
        ]
    );
    assert_eq!(
        routes(MODES[4]),
        [
            "10.244.0.8/29 via 10.0.0.2 proto 80",
            "10.244.0.16/29 via 10.244.0.16 dev vxlan.calico onlink proto 80",
        ]
    );
}

#[test]
fn vxlan_is_for_both_families() {
    let pools = [pool("10.244.0.0/24", VXLAN), pool("fd00::/64", MODES[4])];
    let overlay = overlay(nodes().into_iter().chain(blocks()).chain(pools));
    assert_eq!(
        words(&overlay.devices),
        [
            "vxlan-v6.calico vxlan id 4096 dstport 4789 local 2001:db8::1 \
             address 66:00:00:00:06:00 mtu 1430 addr fd00::",
            "vxlan.calico vxlan id 4096 dstport 4789 local 10.0.0.1 \
             address 66:00:00:00:04:00 mtu 1450 addr 10.244.0.0",
        ]
    );
    assert_eq!(
        words(&overlay.entries),
        [
            "neighbour fd00::8 dev vxlan-v6.calico lladdr 66:00:00:00:06:01",
            "neighbour fd00::10 dev vxlan-v6.calico lladdr 66:00:00:00:06:02",
            "neighbour 10.244.0.8 dev vxlan.calico lladdr 66:00:00:00:04:01",
            "neighbour 10.244.0.16 dev vxlan.calico lladdr 66:00:00:00:04:02",
            "fdb 66:00:00:00:06:01 dev vxlan-v6.calico dst 2001:db8::2",
            "fdb 66:00:00:00:06:02 dev vxlan-v6.calico dst 2001:db8:1::3",
            "fdb 66:00:00:00:04:01 dev vxlan.calico dst 10.0.0.2",
            "fdb 66:00:00:00:04:02 dev vxlan.calico dst 10.0.1.3",
        ]
    );
    let v6 = words(&overlay.routes).into_iter().filter(|route| route.starts_with("fd00"));
    assert_eq!(
        v6.collect::<Vec<_>>(),
        [
            "fd00::8/125 via 2001:db8::2 proto 80",
            "fd00::10/125 via fd00::10 dev vxlan-v6.calico onlink proto 80",
            "fd00::10/128 dev vxlan-v6.calico scope link proto 80",
        ]
    );
}

#[test]
fn lent_addresses_have_routes_of_their_own() {
    let pools = [pool("10.244.0.0/24", VXLAN)];
    // Node 2's tunnel has an address of node 1, a pod of node 1 one of node 0, another one of nobody.
    let lent = [node(2, Some(9)), pod("10.244.0.3", Some(1)), pod("10.244.0.77", Some(2))];
    let changes = nodes().into_iter().chain(blocks()).chain(pools).chain(lent);
    assert_eq!(
        words(&overlay(changes).routes),
        [
            "10.244.0.3/32 via 10.244.0.8 dev vxlan.calico onlink proto 80",
            "10.244.0.8/29 via 10.244.0.8 dev vxlan.calico onlink proto 80",
            "10.244.0.9/32 via 10.244.0.9 dev vxlan.calico onlink proto 80",
            "10.244.0.16/29 via 10.244.0.9 dev vxlan.calico onlink proto 80",
            "10.244.0.77/32 via 10.244.0.9 dev vxlan.calico onlink proto 80",
        ]
    );
}

#[test]
fn two_nodes_with_one_tunnel_address_are_reported_and_one_keeps_it() {
    let pools = [pool("10.244.0.0/24", VXLAN)];
    let twins = [node(0, Some(0)), node(1, Some(8)), node(2, Some(8))];
    let (overlay, problems) = cluster(twins.into_iter().chain(pools)).overlay();
    assert_eq!(overlay.entries.len(), 3, "one neighbour, and both nodes by their own addresses");
    assert!(problems[0].to_string().starts_with("node n2: another node's neighbour 10.244.0.8"));
}

#[test]
fn routes_that_bgp_learns_follow_the_pools_mode() {
    let learned = |mode, changes: Vec<Change>, dst: &str, hop: &str| {
        let pools = [pool("10.244.0.0/24", mode)];
        let overlay = overlay(nodes().into_iter().chain(pools).chain(changes));
        let hops = BTreeSet::from([hop.parse().unwrap()]);
        match overlay.learned(&dst.parse().unwrap(), &hops) {
            Learned::Plain => "plain".to_owned(),
            Learned::Refused => "refused".to_owned(),
            Learned::Tunnel(device, gateway) => format!("{gateway} by {device}"),
        }
    };
    let inside = "10.244.0.64/29";
    assert_eq!(learned(MODES[1], vec![], inside, "10.0.0.2"), "10.0.0.2 by tunl0");
    assert_eq!(learned(MODES[2], vec![], inside, "10.0.0.2"), "plain", "the same subnet");
    assert_eq!(learned(MODES[2], vec![], inside, "10.0.1.3"), "10.0.1.3 by tunl0");
    assert_eq!(learned(MODES[1], vec![], inside, "192.0.2.1"), "plain", "no node");
    assert_eq!(learned(MODES[1], vec![], "10.9.0.0/24", "10.0.0.2"), "plain", "no pool");
    assert_eq!(learned(VXLAN, vec![], inside, "10.0.0.2"), "refused");
    assert_eq!(learned(VXLAN, vec![], inside, "192.0.2.1"), "refused");
    let without = vec![node(1, None)];
    assert_eq!(learned(VXLAN, without, inside, "10.0.0.2"), "plain", "no tunnel address yet");
    assert_eq!(learned(MODES[0], vec![], inside, "10.0.0.2"), "plain");
}

/// What an address is to be reached by, without looking at routes: who has it, and how is he
/// reached? If nobody can reach who has it, its block's owner may know more.
fn oracle(cluster: &Cluster, addr: IpAddr) -> Option<RouteTarget> {
    let others = || cluster.nodes.values().filter(|node| node.name != cluster.this_node);
    let by_tunnel = others().find(|node| node.tunnel_addrs.iter().any(|own| own == addr));
    let by_tunnel = by_tunnel.map(|node| node.name.clone());
    let pods = cluster.remote.values().filter(|pod| pod.addrs.contains(&addr));
    let by_pod = pods.map(|pod| pod.node.clone()).next();
    let is_in = |affinity: &&Affinity| {
        affinity.state == AffinityState::Confirmed && affinity.cidr.contains(addr)
    };
    let by_block = cluster.affinities.values().find(is_in).map(|affinity| match &affinity.owner {
        Owner::Host(node) => node.clone(),
        Owner::Virtual(_) => unreachable!(),
    });
    let mut holders = [by_tunnel, by_pod, by_block].into_iter().flatten();
    holders.find_map(|holder| expected(cluster, &holder, addr))
}

fn expected(cluster: &Cluster, holder: &NodeName, addr: IpAddr) -> Option<RouteTarget> {
    let holder = cluster.nodes.get(holder).filter(|node| node.name != cluster.this_node)?;
    let this = cluster.nodes.get(&cluster.this_node)?;
    let pool = cluster.pools.values().find(|pool| pool.cidr.contains(addr))?;
    let near = this.ipv4?.network() == holder.ipv4?.network();
    let own = holder.ipv4?.addr();
    let tunnel = |name: &str, to| Some(RouteTarget::Tunnel(name.parse().unwrap(), to));
    match (pool.encapsulation, near) {
        (Encapsulation::None, _) => None,
        (
            Encapsulation::Ipip(EncapsulationScope::CrossSubnet)
            | Encapsulation::Vxlan(EncapsulationScope::CrossSubnet),
            true,
        ) => Some(RouteTarget::Via(BTreeSet::from([own]))),
        (Encapsulation::Ipip(_), _) => tunnel("tunl0", own),
        (Encapsulation::Vxlan(_), _) => tunnel("vxlan.calico", holder.tunnel_addrs.vxlan_v4?),
    }
}

/// The route that the kernel would take.
fn longest(routes: &BTreeMap<Cidr, Route>, addr: IpAddr) -> Option<&RouteTarget> {
    let matching = routes.iter().filter(|(dst, _)| dst.contains(addr));
    matching.max_by_key(|(dst, _)| dst.prefix_len()).map(|(_, route)| &route.target)
}

/// Version `version` of object `object`.
fn version(object: u8, version: u8) -> Change {
    let states = [AffinityState::Pending, AffinityState::Confirmed, AffinityState::PendingDeletion];
    match object {
        0 => node(0, (version > 0).then_some(version)),
        // Tunnel addresses are unique: 64 and on, in nobody's block or in block 8.
        1..=3 if version == 4 => Change::Node(name(object), None),
        1..=3 => node(object, (version > 0).then(|| 60 + object * 4 + version)),
        4 => pool("10.244.0.0/25", MODES[usize::from(version)]),
        5 => pool("10.244.0.128/25", MODES[usize::from(4 - version)]),
        6..=13 => {
            let cidr = format!("10.244.0.{}/29", (object - 6) * 24);
            block(&cidr, object % 4, states[usize::from(version % 3)])
        }
        _ => {
            let addr = format!("10.244.0.{}", object * 7);
            pod(&addr, (version < 4).then_some(version))
        }
    }
}

proptest! {
    #[test]
    fn every_address_is_reached_where_it_is(
        history in proptest::collection::vec((0_u8..30, 0_u8..5), 0..90),
    ) {
        let cluster = cluster(history.iter().map(|(object, number)| version(*object, *number)));
        let (overlay, _) = cluster.overlay();
        for byte in 0..=255_u8 {
            let addr: IpAddr = [10, 244, 0, byte].into();
            let expected = oracle(&cluster, addr);
            // An address that another node has lent to this one may have that node's block's route:
            // the pod's own wins.
            let is_own = cluster.endpoints.values().any(|pod| pod.addrs.contains(&addr));
            if !is_own {
                prop_assert_eq!(longest(&overlay.routes, addr), expected.as_ref(), "{}", addr);
            }
        }
        let mut last: BTreeMap<u8, u8> = BTreeMap::new();
        last.extend(history.iter().copied());
        let short = super::tests::cluster(last.into_iter().rev().map(|(object, at)| version(object, at)));
        prop_assert_eq!(overlay, short.overlay().0);
    }
}
