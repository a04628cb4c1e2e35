//! The order of changes does not matter, only the state that they lead to.

use model::block::{Affinity, AffinityState, Owner};
use model::desired::Route;
use model::endpoint::{Floating, WorkloadEndpoint};
use model::id::NamespacedName;
use model::net::Cidr;
use model::node::{Node, TunnelAddrs};
use model::pool::IpPool;
use proptest::prelude::*;

use super::*;

const THIS_NODE: &str = "n0";

fn node(index: u8, is_present: bool) -> Change {
    let name: NodeName = format!("n{index}").parse().unwrap();
    let node = Node {
        name: name.clone(),
        labels: BTreeMap::new(),
        ipv4: Some(format!("10.0.0.{}/24", index + 1).parse().unwrap()),
        ipv6: None,
        asn: None,
        route_reflector_cluster_id: None,
        tunnel_addrs: TunnelAddrs::default(),
        pod_cidrs: Vec::new(),
    };
    Change::Node(name, is_present.then(|| Box::new(node)))
}

fn pool(is_export_disabled: bool) -> Change {
    let pool = IpPool {
        nat_outgoing: true,
        is_bgp_export_disabled: is_export_disabled,
        ..IpPool::plain("default", "10.244.0.0/16".parse().unwrap())
    };
    Change::Pool(pool.name.clone(), Some(Box::new(pool)))
}

fn affinity(block: u8, owner: u8, state: AffinityState) -> Change {
    let owner_name: NodeName = format!("n{owner}").parse().unwrap();
    let cidr: Cidr = format!("10.244.{block}.0/26").parse().unwrap();
    let name = format!("{owner_name}-{}", cidr.object_name());
    let owner = Owner::Host(owner_name);
    Change::Affinity(name, Some(Affinity { owner, cidr, state, is_deleted: false }))
}

fn endpoint(name: &str, addr: &str) -> Change {
    let pod = NamespacedName { namespace: "default".to_owned(), name: name.to_owned() };
    let endpoint = WorkloadEndpoint::new(
        pod.clone(),
        THIS_NODE.parse().unwrap(),
        format!("cali{name}").parse().unwrap(),
        vec![addr.parse().unwrap()],
    );
    Change::Endpoint(pod, Some(Arc::new(endpoint)))
}

fn after(changes: impl IntoIterator<Item = Change>) -> (Desired, Vec<Problem>) {
    let mut cluster = Cluster::new(THIS_NODE.parse().unwrap());
    for change in changes {
        cluster.apply(change);
    }
    cluster.desired()
}

fn words(routes: &BTreeMap<Cidr, Route>) -> Vec<String> {
    routes.iter().map(|(dst, route)| format!("{dst} {route}")).collect()
}

#[test]
fn only_confirmed_blocks_of_this_node_count() {
    let (desired, problems) = after([
        node(0, true),
        pool(false),
        affinity(0, 0, AffinityState::Confirmed),
        affinity(1, 0, AffinityState::Pending),
        affinity(2, 0, AffinityState::PendingDeletion),
        affinity(3, 1, AffinityState::Confirmed),
        endpoint("own", "10.244.0.5"),
        endpoint("borrowed", "10.244.3.7"),
        endpoint("foreign", "192.0.2.1"),
    ]);
    assert_eq!(
        words(&desired.routes),
        [
            "10.244.0.0/26 blackhole proto 80",
            "10.244.0.5/32 dev caliown scope link proto 3",
            "10.244.3.7/32 dev caliborrowed scope link proto 3",
            "192.0.2.1/32 dev califoreign scope link proto 3",
        ]
    );
    let originated: Vec<String> =
        desired.advertisements.originated.keys().map(ToString::to_string).collect();
    assert_eq!(originated, ["10.244.0.0/26", "10.244.3.7/32"]);
    assert!(problems.is_empty());
}

#[test]
fn a_pool_that_stays_out_of_bgp_announces_nothing_but_keeps_its_routes() {
    let (desired, _) = after([
        node(0, true),
        pool(true),
        affinity(0, 0, AffinityState::Confirmed),
        endpoint("own", "10.244.0.5"),
    ]);
    assert!(desired.advertisements.originated.is_empty());
    assert!(desired.advertisements.exportable.is_empty());
    let kept: Vec<String> =
        desired.advertisements.not_exported.iter().map(ToString::to_string).collect();
    assert_eq!(kept, ["10.244.0.0/16"]);
    assert_eq!(desired.routes.len(), 2);
}

#[test]
fn a_tunnels_address_in_another_nodes_block_is_announced() {
    let Change::Node(name, Some(mut this)) = node(0, true) else { unreachable!() };
    this.tunnel_addrs.vxlan_v4 = Some("10.244.0.5".parse().unwrap());
    this.tunnel_addrs.ipip = Some("10.244.1.5".parse().unwrap());
    let blocks = [0, 1].map(|node| affinity(node, node, AffinityState::Confirmed));
    let this = Change::Node(name, Some(this));
    let (desired, _) = after([this, pool(false)].into_iter().chain(blocks));
    let announced: Vec<String> =
        desired.advertisements.originated.keys().map(ToString::to_string).collect();
    assert_eq!(announced, ["10.244.0.0/26", "10.244.1.5/32"]);
}

#[test]
fn two_pods_with_one_address_are_reported_and_one_keeps_it() {
    let (desired, problems) = after([endpoint("a", "10.244.0.5"), endpoint("b", "10.244.0.5")]);
    assert_eq!(words(&desired.routes), ["10.244.0.5/32 dev calia scope link proto 3"]);
    assert_eq!(problems.len(), 1);
    assert!(problems[0].to_string().starts_with("pod default/b: address 10.244.0.5"));
}

fn floating(name: &str, own: &str, wanted: &[&str]) -> Change {
    let Change::Endpoint(pod, Some(endpoint)) = endpoint(name, own) else { unreachable!() };
    let to = endpoint.addrs[0];
    let wanted = wanted.iter().map(|addr| Floating { addr: addr.parse().unwrap(), to });
    let endpoint = WorkloadEndpoint { floating: wanted.collect(), ..(*endpoint).clone() };
    Change::Endpoint(pod, Some(Arc::new(endpoint)))
}

#[test]
fn floating_addresses_are_announced_and_take_nobodys_place() {
    let Change::Endpoint(_, Some(remote)) = endpoint("far", "10.244.9.9") else { unreachable!() };
    let remote = WorkloadEndpoint { node: "n1".parse().unwrap(), ..(*remote).clone() };
    let wanted = ["10.244.7.7", "10.244.9.9", "10.244.0.6", "10.0.0.1", "192.0.2.9"];
    let mut cluster = Cluster::new(THIS_NODE.parse().unwrap());
    for change in [
        node(0, true),
        pool(false),
        affinity(0, 0, AffinityState::Confirmed),
        endpoint("b", "10.244.0.6"),
        floating("a", "10.244.0.5", &wanted),
        floating("c", "10.244.0.7", &["10.244.7.7"]),
        Change::Endpoint(remote.pod.clone(), Some(Arc::new(remote))),
    ] {
        cluster.apply(change);
    }
    let announced = |cluster: &Cluster| -> Vec<String> {
        cluster.desired().0.advertisements.originated.keys().map(ToString::to_string).collect()
    };
    assert_eq!(announced(&cluster), ["10.244.0.0/26"], "not unless administrators say so");
    cluster.has_floating = true;
    assert_eq!(announced(&cluster), ["10.244.0.0/26", "10.244.7.7/32"]);
    let (desired, problems) = cluster.desired();
    let route = desired.routes.get(&"10.244.7.7/32".parse().unwrap()).unwrap();
    assert_eq!(route.to_string(), "dev calia scope link proto 3");
    assert_eq!(desired.routes.len(), 5);
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let of = |pod: &str, addr: &str, reason: &str| {
        format!("pod default/{pod}: floating address {addr} {reason}")
    };
    let outside = "lies in no pool, and leads nowhere: make an IPPool for it";
    let taken = "is a pod's or a node's own, and leads there: choose another";
    assert_eq!(
        told,
        [
            of("a", "10.0.0.1", outside),
            of("a", "10.244.0.6", taken),
            of("a", "10.244.9.9", taken),
            of("a", "192.0.2.9", outside),
            of("c", "10.244.7.7", "belongs to another pod of this node already: choose another"),
        ]
    );
    let gone = NamespacedName { namespace: "default".to_owned(), name: "far".to_owned() };
    assert!(cluster.apply(Change::Endpoint(gone, None)).desired, "another pod's end matters");
    assert_eq!(announced(&cluster), ["10.244.0.0/26", "10.244.7.7/32", "10.244.9.9/32"]);
}

/// Every version that an object may have had; the last of each object is its final one.
fn histories() -> impl Strategy<Value = Vec<(u8, u8)>> {
    proptest::collection::vec((0_u8..12, 0_u8..3), 0..60)
}

/// Version `version` of object `object`; `None` deletes it.
fn version(object: u8, version: u8) -> Change {
    let states = [AffinityState::Pending, AffinityState::Confirmed, AffinityState::PendingDeletion];
    match object {
        0..=3 => node(object, version > 0),
        4 => pool(version == 1),
        5..=8 => affinity(object - 5, object % 2, states[usize::from(version)]),
        _ => match version {
            0 => {
                let name = format!("p{object}");
                let pod = NamespacedName { namespace: "default".to_owned(), name };
                Change::Endpoint(pod, None)
            }
            _ => endpoint(&format!("p{object}"), &format!("10.244.{}.{version}", object - 9)),
        },
    }
}

proptest! {
    #[test]
    fn history_and_order_do_not_matter(history in histories(), rotation in 0_usize..60) {
        let full = after(history.iter().map(|(object, number)| version(*object, *number)));
        let mut last: BTreeMap<u8, u8> = BTreeMap::new();
        last.extend(history.iter().copied());
        let mut squashed: Vec<(u8, u8)> = last.into_iter().collect();
        if !squashed.is_empty() {
            let middle = rotation % squashed.len();
            squashed.rotate_left(middle);
        }
        let short = after(squashed.into_iter().map(|(object, number)| version(object, number)));
        prop_assert_eq!(full, short);
    }
}
