//! What a node has of VRFs, in the words of ip(8); and what the others must not see of them.

use std::net::IpAddr;

use model::block::{AffinityState, Owner};
use model::net::Mtu;
use model::node::TunnelAddrs;
use model::pool::{Encapsulation, EncapsulationScope};
use model::vrf::PoolVrf;
use proptest::prelude::*;
use selector::Selector;

use super::*;
use crate::Change;

const THIS: &str = "n0";

fn node(name: &str, addr: &str, addr_v6: &str) -> Change {
    let (name, own): (NodeName, _) = (name.parse().unwrap(), format!("{addr}/24").parse().unwrap());
    let node = Node {
        labels: BTreeMap::from([("name".to_owned(), name.to_string())]),
        ipv4: Some(own),
        ipv6: Some(format!("{addr_v6}/64").parse().unwrap()),
        asn: None,
        route_reflector_cluster_id: None,
        tunnel_addrs: TunnelAddrs::default(),
        pod_cidrs: Vec::new(),
        name: name.clone(),
    };
    Change::Node(name, Some(Box::new(node)))
}

/// A pool of a VRF with its number and imports, or of nobody's.
fn pool(name: &str, cidr: &str, vrf: Option<(&str, &str, &[&str])>) -> IpPool {
    let vrf = vrf.map(|(vrf, id, imports)| PoolVrf {
        name: vrf.parse().unwrap(),
        id: id.parse().unwrap(),
        imports: imports.iter().map(|name| name.parse().ok()).collect(),
    });
    IpPool { vrf, ..IpPool::plain(name, cidr.parse().unwrap()) }
}

fn add(pool: IpPool) -> Change {
    Change::Pool(pool.name.clone(), Some(Box::new(pool)))
}

fn block(vrf: Option<&str>, cidr: &str, owner: &str) -> Change {
    let cidr: Cidr = cidr.parse().unwrap();
    let owner_name: NodeName = owner.parse().unwrap();
    let name = format!("{owner}-{}{}", vrf.unwrap_or_default(), cidr.object_name());
    let state = AffinityState::Confirmed;
    let affinity = Affinity { owner: Owner::Host(owner_name), cidr, state, is_deleted: false };
    match vrf {
        Some(vrf) => Change::VrfAffinity(name, vrf.parse().unwrap(), affinity),
        None => Change::Affinity(name, Some(affinity)),
    }
}

fn pod(vrf: Option<&str>, name: &str, node: &str, addrs: &[&str]) -> Change {
    let pod = NamespacedName { namespace: "default".to_owned(), name: name.to_owned() };
    let addrs = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
    let if_name = format!("cali{name}").parse().unwrap();
    let mut endpoint = WorkloadEndpoint::new(pod.clone(), node.parse().unwrap(), if_name, addrs);
    endpoint.vrf = vrf.map(|vrf| vrf.parse().unwrap());
    Change::Endpoint(pod, Some(Arc::new(endpoint)))
}

fn cluster(changes: impl IntoIterator<Item = Change>) -> Cluster {
    let mut cluster = Cluster::new(THIS.parse().unwrap());
    for change in changes {
        cluster.apply(change);
    }
    cluster
}

fn nodes() -> [Change; 3] {
    [
        node("n0", "192.0.2.1", "2001:db8::1"),
        node("n1", "192.0.2.2", "2001:db8::2"),
        node("n2", "192.0.2.3", "2001:db8::3"),
    ]
}

/// Two tenants with one range, and everybody else with the same.
fn overlapping() -> Vec<Change> {
    let red: Option<(&str, &str, &[&str])> = Some(("red", "5001", &[]));
    let blue: Option<(&str, &str, &[&str])> = Some(("blue", "5002", &[]));
    let mut all: Vec<Change> = nodes().into();
    all.extend([
        add(pool("red", "10.1.0.0/16", red)),
        add(pool("red-v6", "fd00:1::/64", red)),
        add(pool("blue", "10.1.0.0/16", blue)),
        add(pool("default", "10.1.0.0/16", None)),
        block(Some("red"), "10.1.0.0/26", "n0"),
        block(Some("red"), "10.1.0.64/26", "n1"),
        block(Some("red"), "fd00:1::40/122", "n1"),
        block(Some("blue"), "10.1.0.0/26", "n1"),
        block(None, "10.1.0.0/26", "n2"),
        pod(Some("red"), "r0", "n0", &["10.1.0.5", "fd00:1::5"]),
        pod(Some("red"), "lent", "n2", &["10.1.0.70"]),
        pod(Some("blue"), "b0", "n0", &["10.1.0.5"]),
        pod(None, "d0", "n0", &["10.1.0.5"]),
    ]);
    all
}

fn words<K: ToString, V: ToString>(map: &BTreeMap<K, V>) -> Vec<String> {
    map.iter().map(|(key, value)| format!("{} {}", key.to_string(), value.to_string())).collect()
}

fn told(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

fn of<'a>(devices: &'a VrfDevices, name: &str) -> &'a VrfDevice {
    &devices.by_name[&name.parse::<VrfName>().unwrap()]
}

#[test]
fn tenants_have_tables_of_their_own() {
    let (devices, problems) = cluster(overlapping()).vrfs();
    assert_eq!(told(&problems), [""; 0]);
    let red = of(&devices, "red");
    assert_eq!(
        words(&red.routes),
        [
            "10.1.0.0/26 blackhole proto 80",
            "10.1.0.5/32 dev calir0 scope link proto 3",
            "10.1.0.64/26 via 192.0.2.2 dev vxvrf5001 onlink proto 80",
            "10.1.0.70/32 via 192.0.2.3 dev vxvrf5001 onlink proto 80",
            "169.254.1.1/32 dev vxvrf5001 scope link proto 80",
            "fd00:1::5/128 dev calir0 scope link proto 3",
            "fd00:1::40/122 via 2001:db8::2 dev vx6vrf5001 onlink proto 80",
        ]
    );
    assert_eq!(red.links, ["calir0".parse().unwrap()].into());
    let (n0, n1, n2) = ("n0", "n1", "n2");
    let mac = |node: &str| mac(&node.parse().unwrap(), "5001".parse().unwrap());
    let tunnel = |family: &str, local: &str, mtu: u32| {
        format!("{family} vxlan id 5001 dstport 4789 local {local} address {} mtu {mtu}", mac(n0))
    };
    assert_eq!(
        words(&red.tunnels),
        [tunnel("vx6vrf5001", "2001:db8::1", 1430), tunnel("vxvrf5001", "192.0.2.1", 1450)]
    );
    let mut entries = vec![
        format!("neighbour 192.0.2.2 dev vxvrf5001 lladdr {}", mac(n1)),
        format!("neighbour 192.0.2.3 dev vxvrf5001 lladdr {}", mac(n2)),
        format!("neighbour 2001:db8::2 dev vx6vrf5001 lladdr {}", mac(n1)),
        format!("fdb {} dev vxvrf5001 dst 192.0.2.2", mac(n1)),
        format!("fdb {} dev vxvrf5001 dst 192.0.2.3", mac(n2)),
        format!("fdb {} dev vx6vrf5001 dst 2001:db8::2", mac(n1)),
    ];
    entries.sort();
    let mut found = words(&red.entries);
    found.sort();
    assert_eq!(found, entries);
    assert_eq!(
        words(&of(&devices, "blue").routes),
        [
            "10.1.0.0/26 via 192.0.2.2 dev vxvrf5002 onlink proto 80",
            "10.1.0.5/32 dev calib0 scope link proto 3",
            "169.254.1.1/32 dev vxvrf5002 scope link proto 80",
        ]
    );
    assert_eq!((devices.main_routes.len(), devices.kept.len()), (0, 0));
    assert_eq!(mac(n0).0[0] & 3, 2, "it is locally administered, and one machine's");
}

#[test]
fn nobody_else_sees_anything_of_a_vrf() {
    let plain = || {
        let is_vrfs = |change: &Change| {
            matches!(change, Change::Pool(_, Some(pool)) if pool.vrf.is_some())
                || matches!(change, Change::Endpoint(_, Some(pod)) if pod.vrf.is_some())
                || matches!(change, Change::VrfAffinity(..))
        };
        overlapping().into_iter().filter(move |change| !is_vrfs(change))
    };
    let vxlan = Encapsulation::Vxlan(EncapsulationScope::Always);
    let tunnelled = |mut change: Change| {
        if let Change::Pool(_, Some(pool)) = &mut change
            && pool.vrf.is_some()
        {
            pool.encapsulation = vxlan;
        }
        change
    };
    let with = cluster(overlapping().into_iter().map(tunnelled));
    let without = cluster(plain());
    assert_eq!(with.desired(), without.desired());
    assert_eq!(with.overlay(), without.overlay());
    assert_eq!(with.wireguard(), without.wireguard());
    assert_eq!(without.vrfs(), (VrfDevices::default(), Vec::new()));
    assert!(with.needs_all_blocks() && !without.needs_all_blocks());
    assert_eq!((with.local_workloads(), without.local_workloads()), (3, 1));
}

#[test]
fn pods_get_room_for_the_tunnel_of_their_vrf() {
    let mtu = |pools: &[IpPool]| {
        let pools: Vec<&IpPool> = pools.iter().collect();
        crate::TunnelSettings::default().pod_mtu(&pools)
    };
    let red: Option<(&str, &str, &[&str])> = Some(("red", "5001", &[]));
    assert_eq!(mtu(&[pool("a", "10.1.0.0/16", None)]), Mtu(1500));
    assert_eq!(mtu(&[pool("a", "10.1.0.0/16", red)]), Mtu(1450));
    assert_eq!(mtu(&[pool("a", "10.1.0.0/16", red), pool("b", "fd00::/64", red)]), Mtu(1430));
}

#[test]
fn a_vrf_is_where_its_pools_pods_and_partners_are() {
    let on = |pool: IpPool, node: &str| {
        let node_selector = format!("name == '{node}'").parse::<Selector>().unwrap();
        add(IpPool { node_selector, ..pool })
    };
    let red: Option<(&str, &str, &[&str])> = Some(("red", "5001", &[]));
    let mutual: Option<(&str, &str, &[&str])> = Some(("blue", "5002", &["red"]));
    let with_blue: Option<(&str, &str, &[&str])> = Some(("red", "5001", &["blue"]));
    let with_default: Option<(&str, &str, &[&str])> = Some(("red", "5001", &["default"]));
    let far = || on(pool("red", "10.1.0.0/16", red), "n1");
    let here = |changes: Vec<Change>| -> Vec<String> {
        let (devices, _) = cluster(nodes().into_iter().chain(changes)).vrfs();
        devices.by_name.keys().map(ToString::to_string).collect()
    };
    assert_eq!(here(vec![on(pool("red", "10.1.0.0/16", red), "n0")]), ["red"]);
    assert_eq!(here(vec![far()]), [""; 0]);
    assert_eq!(here(vec![far(), pod(Some("red"), "r0", "n0", &["10.1.0.5"])]), ["red"]);
    assert_eq!(here(vec![far(), pod(Some("red"), "r0", "n1", &["10.1.0.5"])]), [""; 0]);
    assert_eq!(here(vec![on(pool("red", "10.1.0.0/16", with_default), "n1")]), ["red"]);
    let both = |node| {
        vec![
            on(pool("red", "10.1.0.0/16", with_blue), "n1"),
            on(pool("blue", "10.2.0.0/16", mutual), node),
        ]
    };
    assert_eq!(here(both("n0")), ["blue", "red"]);
    assert_eq!(here(both("n2")), [""; 0]);
}

#[test]
fn partners_have_each_others_pods() {
    let red: Option<(&str, &str, &[&str])> = Some(("red", "5001", &["blue", "default"]));
    let blue: Option<(&str, &str, &[&str])> = Some(("blue", "5002", &["red"]));
    let changes = [
        add(pool("red", "10.1.0.0/16", red)),
        add(pool("blue", "10.2.0.0/16", blue)),
        add(pool("default", "10.3.0.0/16", None)),
        block(Some("red"), "10.1.0.0/26", "n0"),
        block(Some("red"), "10.1.0.64/26", "n1"),
        block(Some("blue"), "10.2.0.0/26", "n1"),
        pod(Some("red"), "r0", "n0", &["10.1.0.5"]),
        pod(Some("blue"), "b0", "n0", &["10.2.0.5"]),
        block(None, "10.3.0.64/26", "n2"),
        pod(None, "d0", "n0", &["10.3.0.5"]),
    ];
    let (devices, problems) = cluster(nodes().into_iter().chain(changes)).vrfs();
    assert_eq!(told(&problems), [""; 0]);
    // Each by its own tunnel, wherever they lead.
    let of_red = |id: u16| {
        [
            "10.1.0.0/26 blackhole proto 80".to_owned(),
            "10.1.0.5/32 dev calir0 scope link proto 3".to_owned(),
            format!("10.1.0.64/26 via 192.0.2.2 dev vxvrf{id} onlink proto 80"),
        ]
    };
    let of_blue = |id: u16| {
        [
            format!("10.2.0.0/26 via 192.0.2.2 dev vxvrf{id} onlink proto 80"),
            "10.2.0.5/32 dev calib0 scope link proto 3".to_owned(),
        ]
    };
    let of_default = [
        "10.3.0.5/32 dev calid0 scope link proto 3".to_owned(),
        "10.3.0.64/26 via 192.0.2.3 dev vxvrf5001 onlink proto 80".to_owned(),
    ];
    let gateway = |id: u16| [format!("169.254.1.1/32 dev vxvrf{id} scope link proto 80")];
    let all = [&of_red(5001)[..], &of_blue(5001), &of_default, &gateway(5001)].concat();
    assert_eq!(words(&of(&devices, "red").routes), all);
    assert_eq!(of(&devices, "red").entries.len(), 4, "two nodes with two entries each");
    let all = [&of_red(5002)[..], &of_blue(5002), &gateway(5002)].concat();
    assert_eq!(words(&of(&devices, "blue").routes), all);
    assert_eq!(words(&devices.main_routes), of_red(5001));
    assert_eq!(of(&devices, "blue").links, ["calib0".parse().unwrap()].into());
}

#[test]
fn numbers_of_others_and_what_pools_contradict_have_no_effect() {
    let vrf = |id: &'static str| -> Option<(&str, &str, &[&str])> { Some(("red", id, &[])) };
    let told_of = |id: &'static str, cidr: &str| {
        let mut cluster = cluster(nodes().into_iter().chain([add(pool("r", cidr, vrf(id)))]));
        cluster.table_ranges = vec![1..=250, 6000..=6010];
        let (devices, problems) = cluster.vrfs();
        (devices.by_name.len(), told(&problems).concat())
    };
    assert_eq!(told_of("5001", "10.1.0.0/16"), (1, String::new()));
    let taken = |id: &str, field: &str| {
        format!(
            "IPPool r: VRF red cannot have the number {id} (annotation vrf.projectcalico.org/id): \
             FelixConfiguration has it in {field}. Give the VRF another, or change {field}"
        )
    };
    assert_eq!(told_of("4096", "10.1.0.0/16"), (0, taken("4096", "vxlanVNI")));
    assert_eq!(told_of("6010", "10.1.0.0/16"), (0, taken("6010", "routeTableRanges")));
    let (count, message) = told_of("5001", "192.0.2.0/25");
    assert!(message.starts_with("IPPool r: node n0's own address 192.0.2.1 lies in"), "{message}");
    assert_eq!(count, 1);
}

#[test]
fn pods_outlive_the_pools_of_their_vrf_and_do_not_share_addresses() {
    let red: Option<(&str, &str, &[&str])> = Some(("red", "5001", &[]));
    let pods =
        || [pod(Some("red"), "a", "n0", &["10.1.0.5"]), pod(Some("red"), "b", "n0", &["10.1.0.5"])];
    let (devices, problems) = cluster(nodes().into_iter().chain(pods())).vrfs();
    assert_eq!(devices.kept, ["red".parse().unwrap()].into());
    assert!(told(&problems).concat().starts_with("VRF red: pods of node n0 are in it"));
    let pools = [add(pool("r", "10.1.0.0/16", red))];
    let (devices, problems) = cluster(nodes().into_iter().chain(pods()).chain(pools)).vrfs();
    let routes = words(&of(&devices, "red").routes);
    assert_eq!(routes[0], "10.1.0.5/32 dev calia scope link proto 3");
    let told = told(&problems);
    assert!(
        told[0].starts_with("pod default/b: address 10.1.0.5 already belongs to pod default/a"),
        "{told:?}"
    );
}

#[test]
fn nothing_leaves_in_clear_where_that_is_forbidden() {
    let mut cluster = cluster(overlapping());
    let device =
        crate::wireguard::DeviceSettings { name: "wg".parse().unwrap(), port: 51820, table: 1 };
    cluster.wireguard.devices.insert(Family::V4, device);
    assert_eq!(of(&cluster.vrfs().0, "blue").tunnels.len(), 1);
    cluster.wireguard.strictness = Strictness::Strict;
    let (devices, problems) = cluster.vrfs();
    assert_eq!(
        words(&of(&devices, "blue").routes),
        [
            "10.1.0.5/32 dev calib0 scope link proto 3",
            "169.254.1.1/32 dev vrf-blue scope link proto 80",
        ]
    );
    assert!(
        told(&problems)[0].starts_with("VRF blue: its packets between nodes would be in clear")
    );
    cluster.wireguard.host_encryption = HostEncryption::On;
    assert_eq!(cluster.vrfs().1, []);
}

#[test]
fn what_is_open_to_everybody_is_announced_with_its_number() {
    let open: Option<(&str, &str, &[&str])> = Some(("red", "5001", &["default"]));
    let shut: Option<(&str, &str, &[&str])> = Some(("blue", "5002", &[]));
    let changes = [
        add(pool("red", "10.1.0.0/16", open)),
        add(IpPool { is_bgp_export_disabled: true, ..pool("silent", "10.2.0.0/16", open) }),
        add(pool("blue", "10.1.0.0/16", shut)),
        block(Some("red"), "10.1.0.0/26", "n0"),
        block(Some("red"), "10.1.0.64/26", "n1"),
        block(Some("red"), "10.2.0.0/26", "n0"),
        block(Some("blue"), "10.1.0.128/26", "n0"),
        pod(Some("red"), "lent", "n0", &["10.1.0.70", "10.1.0.5"]),
    ];
    let told = cluster(nodes().into_iter().chain(changes)).desired().0.advertisements;
    let originated: Vec<String> = told
        .originated
        .iter()
        .map(|(dst, origination)| format!("{dst} {:?}", origination.communities))
        .collect();
    let target = "[RouteTarget(Asn(64512), 5001)]";
    assert_eq!(originated, [format!("10.1.0.0/26 {target}"), format!("10.1.0.70/32 {target}")]);
    assert_eq!(told.exportable, ["10.1.0.0/16".parse().unwrap()].into());
    assert_eq!(told.not_exported, ["10.2.0.0/16".parse().unwrap()].into());
}

/// Version `version` of object `object`; the first deletes it where it can be deleted.
fn version(object: u8, version: u8) -> Change {
    let vrf = [None, Some("red"), Some("blue")][usize::from(version % 3)];
    match object {
        0..=2 => nodes().into_iter().nth(object.into()).unwrap(),
        3 | 4 => {
            let name = format!("p{object}");
            let all = [("red", "5001"), ("blue", "5002")];
            let of = all.into_iter().find(|(name, _)| Some(*name) == vrf);
            let of = of.map(|(name, id)| (name, id, &[] as &[&str]));
            add(pool(&name, &format!("10.{object}.0.0/16"), of))
        }
        5 | 6 => {
            let owner = ["n0", "n1"][usize::from(object % 2)];
            let Change::Affinity(_, Some(affinity)) = block(None, "10.3.0.0/26", owner) else {
                unreachable!()
            };
            let name = format!("b{object}");
            match vrf {
                None => Change::Affinity(name, (version > 2).then_some(affinity)),
                Some(vrf) => Change::VrfAffinity(name, vrf.parse().unwrap(), affinity),
            }
        }
        _ => {
            let name = format!("x{object}");
            let at = ["n0", "n1"][usize::from(object % 2)];
            pod(vrf, &name, at, &[&format!("10.3.0.{}", version + 7)])
        }
    }
}

proptest! {
    #[test]
    fn history_and_order_do_not_matter(
        history in proptest::collection::vec((0_u8..11, 0_u8..6), 0..50),
        rotation in 0_usize..50,
    ) {
        let all = |history: &[(u8, u8)]| {
            let cluster = cluster(history.iter().map(|(object, number)| version(*object, *number)));
            (cluster.vrfs(), cluster.desired(), cluster.overlay())
        };
        let last: BTreeMap<u8, u8> = history.iter().copied().collect();
        let mut squashed: Vec<(u8, u8)> = last.into_iter().collect();
        if !squashed.is_empty() {
            let middle = rotation % squashed.len();
            squashed.rotate_left(middle);
        }
        prop_assert_eq!(all(&history), all(&squashed));
    }

    /// Each node knows every other's Ethernet address, and no two have the same.
    #[test]
    fn ethernet_addresses_differ(one in "[a-z]{1,8}", other in "[a-z]{1,8}", id in 1000_u16..) {
        let of = |name: &str| mac(&name.parse().unwrap(), id.to_string().parse().unwrap());
        prop_assert_eq!(of(&one) == of(&other), one == other);
    }
}

#[test]
fn addresses_of_nobody_lead_nowhere() {
    let unknown = block(Some("red"), "10.1.0.64/26", "gone");
    let red: Option<(&str, &str, &[&str])> = Some(("red", "5001", &[]));
    let changes = [add(pool("red", "10.1.0.0/16", red)), unknown];
    let (devices, _) = cluster(nodes().into_iter().chain(changes)).vrfs();
    let addr: IpAddr = "10.1.0.70".parse().unwrap();
    assert!(!of(&devices, "red").routes.keys().any(|dst| dst.contains(addr)));
}
