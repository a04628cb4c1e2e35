//! A kernel in memory that is brought to what it should have, whatever it had before.

use std::time::Duration;

use ::kernel::route_table::Change;
use model::desired::{
    Checksums, RouteProtocol, TunnelDeviceKind, TunnelEntry, TunnelEntryKey, VrfDevices, Vxlan,
};
use model::net::{MacAddr, Mtu};

use super::*;

const NOW: Timestamp = Timestamp::from_origin(Duration::from_secs(1000));
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn link(index: u32, text: &str, kind: &str) -> (IfName, Link) {
    let link = Link {
        index: IfIndex(index),
        name: name(text),
        mac: None,
        mtu: Mtu(1500),
        is_up: true,
        is_running: true,
        is_loopback: false,
        kind: Some(kind.to_owned()),
        peer: None,
        vxlan: None,
        master: None,
        vrf_table: None,
        alias: None,
    };
    (name(text), link)
}

fn vrf(index: u32, text: &str, table: u32, alias: Option<&str>) -> (IfName, Link) {
    let (name, link) = link(index, text, "vrf");
    (name, Link { vrf_table: Some(table), alias: alias.map(str::to_owned), ..link })
}

fn route(target: RouteTarget) -> Route {
    Route { target, protocol: RouteProtocol::CALICO }
}

fn to_pod(text: &str) -> Route {
    Route { target: RouteTarget::Link(name(text)), protocol: RouteProtocol::BOOT }
}

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

/// The VRF `red` with a block elsewhere and a pod here.
fn red(id: &str) -> (VrfName, VrfDevice) {
    let id: VrfId = id.parse().unwrap();
    let tunnel = id.tunnel(Family::V4).unwrap();
    let (local, checksums) = ("192.0.2.1".parse().unwrap(), Checksums::Offloaded);
    let vxlan = Vxlan { vni: id.vni(), port: 4789, local, mac: MAC, checksums };
    let spec = TunnelDevice { kind: TunnelDeviceKind::Vxlan(vxlan), mtu: Mtu(1450), addr: None };
    let far = "192.0.2.2".parse().unwrap();
    let device = VrfDevice {
        id,
        links: [name("cali1")].into(),
        tunnels: [(tunnel.clone(), spec)].into(),
        entries: [
            (TunnelEntryKey::Neighbour(tunnel.clone(), far), TunnelEntry::Mac(MAC)),
            (TunnelEntryKey::Forward(tunnel.clone(), MAC), TunnelEntry::Node(far)),
        ]
        .into(),
        routes: [
            (cidr("10.1.0.64/26"), route(RouteTarget::Tunnel(tunnel, far))),
            (cidr("10.1.0.5/32"), to_pod("cali1")),
        ]
        .into(),
    };
    ("red".parse().unwrap(), device)
}

fn wanted(devices: impl IntoIterator<Item = (VrfName, VrfDevice)>) -> Wanted {
    Wanted {
        devices: VrfDevices { by_name: devices.into_iter().collect(), ..VrfDevices::default() },
        device_route_protocol: RouteProtocol::BOOT,
    }
}

/// A kernel with these links, and an uplink; those that start with `cali` are workloads'.
fn kernel(links: impl IntoIterator<Item = (IfName, Link)>) -> Actual {
    let links: BTreeMap<IfName, Link> =
        [link(2, "eth0", "veth")].into_iter().chain(links).collect();
    let workloads = links.keys().filter(|name| name.as_str().starts_with("cali")).cloned();
    Actual {
        workloads: workloads.collect(),
        links,
        families: Family::ALL.into(),
        ..Actual::default()
    }
}

/// Does what the kernel would; a step that it would refuse is a failure.
#[expect(clippy::too_many_lines, reason = "a line or two for each step")]
fn apply(actual: &mut Actual, step: &Step) {
    let next = IfIndex(actual.links.values().map(|link| link.index.0).max().unwrap() + 1);
    match step {
        Step::AddVrf(name, table) => {
            let (name, made) = vrf(next.0, name.as_str(), *table, None);
            let made = Link { is_up: false, ..made };
            assert!(actual.links.insert(name, made).is_none());
        }
        Step::Mark(name, _) => {
            actual.links.get_mut(name).unwrap().alias = Some(ALIAS.to_owned());
        }
        Step::SetUp(name, _) => actual.links.get_mut(name).unwrap().is_up = true,
        Step::Guard(table, family) => {
            actual.tables.entry(*table).or_default().guarded.insert(*family);
        }
        Step::Unguard(table, family) => {
            assert!(actual.tables.get_mut(table).unwrap().guarded.remove(family));
        }
        Step::Tunnel(name, device) => {
            let TunnelDeviceKind::Vxlan(spec) = device.kind else { unreachable!() };
            let (vni, port, local) = (spec.vni, spec.port, Some(spec.local));
            let vxlan = ::kernel::netlink::VxlanLink { vni, port, local, learns: false };
            let (_, fresh) = link(next.0, name.as_str(), "vxlan");
            let found = actual.links.entry(name.clone()).or_insert(fresh);
            found.vxlan = Some(vxlan);
            actual.tunnels.devices.insert(name.clone(), *device);
        }
        Step::Enslave(name, _, vrf) => {
            let table = actual.links.values().find(|link| link.index == *vrf).unwrap();
            let guarded = &actual.tables[&table.vrf_table.unwrap()].guarded;
            assert_eq!(guarded.len(), 2, "nothing is under a device that leads on to elsewhere");
            actual.links.get_mut(name).unwrap().master = Some(*vrf);
            actual.tunnels.entries.retain(|key, _| key.device() != name);
            let leads = |route: &Route| matches!(&route.target, RouteTarget::Link(link) | RouteTarget::Tunnel(link, _) if link == name);
            for table in actual.tables.values_mut() {
                table.routes.retain(|_, route| !leads(route));
            }
        }
        Step::Entries(changes) => {
            for change in changes {
                match change {
                    EntryChange::Upsert(key, entry) => {
                        actual.tunnels.entries.insert(key.clone(), *entry);
                    }
                    EntryChange::Delete(key, _) => {
                        assert!(actual.tunnels.entries.remove(key).is_some());
                    }
                }
            }
        }
        Step::Routes(table, changes) => {
            let routes = &mut actual.tables.entry(*table).or_default().routes;
            for change in changes {
                match change {
                    Change::Upsert(key, route) => {
                        routes.insert(key.dst, route.clone());
                    }
                    Change::Delete(key, _) => assert!(routes.remove(&key.dst).is_some()),
                }
            }
        }
        Step::Delete(name) => {
            let gone = actual.links.remove(name).unwrap();
            actual.tunnels.devices.remove(name);
            actual.tunnels.entries.retain(|key, _| key.device() != name);
            for link in actual.links.values_mut().filter(|link| link.master == Some(gone.index)) {
                assert!(!link.name.as_str().starts_with("cali"), "no pod is let out");
                link.master = None;
            }
        }
        Step::Look => {}
    }
}

/// Brings the kernel to what is wanted; returns the faults, and every step.
fn settle(
    wanted: &Wanted,
    actual: &mut Actual,
    grace: &mut Grace,
    now: Timestamp,
) -> (Vec<Fault>, Vec<Step>) {
    let mut made = Vec::new();
    for _ in 0..8 {
        let mut faults = Vec::new();
        let mut all = leftovers(wanted, actual);
        for one in &wanted.devices.by_name {
            match steps(one, actual, (grace, now)) {
                Ok(steps) => all.extend(steps),
                Err(fault) => faults.push(fault),
            }
        }
        if all.is_empty() {
            return (faults, made);
        }
        for step in &all {
            apply(actual, step);
        }
        made.extend(all);
    }
    panic!("it does not settle: {made:?}");
}

fn settled(wanted: &Wanted, actual: &mut Actual) -> (Vec<Fault>, Vec<Step>) {
    settle(wanted, actual, &mut Grace::default(), NOW)
}

fn words(actual: &Actual) -> Vec<String> {
    let name_of = |index| actual.links.values().find(|link| Some(link.index) == index);
    let links = actual.links.iter().map(|(name, link)| {
        let master = name_of(link.master).map(|master| format!(" master {}", master.name));
        let table = link.vrf_table.map(|table| format!(" table {table}"));
        format!("{name}{}{}", table.unwrap_or_default(), master.unwrap_or_default())
    });
    let routes = actual.tables.iter().flat_map(|(number, table)| {
        let routes = table.routes.iter();
        let routes = routes.map(move |(dst, route)| format!("{number}: {dst} {route}"));
        let guards = table.guarded.iter().map(move |family| format!("{number}: guard {family:?}"));
        routes.chain(guards)
    });
    links.chain(routes).collect()
}

const UP: [&str; 8] = [
    "cali1 master vrf-red",
    "eth0",
    "vrf-red table 5001",
    "vxvrf5001 master vrf-red",
    "5001: 10.1.0.5/32 dev cali1 scope link proto 3",
    "5001: 10.1.0.64/26 via 192.0.2.2 dev vxvrf5001 onlink proto 80",
    "5001: guard V4",
    "5001: guard V6",
];

#[test]
fn a_vrf_is_made_kept_and_removed() {
    let mut actual = kernel([link(3, "cali1", "veth")]);
    let here = wanted([red("5001")]);
    assert_eq!(settled(&here, &mut actual).0, []);
    assert_eq!(words(&actual), UP);
    assert_eq!(actual.tunnels.entries, here.devices.by_name.values().next().unwrap().entries);
    assert_eq!(settled(&here, &mut actual).1, [], "what is right is not touched, as after a crash");

    let gone = wanted([]);
    assert_eq!(settled(&gone, &mut actual).1, [], "pods are still in it");
    let kept = VrfDevices { kept: ["red".parse().unwrap()].into(), ..VrfDevices::default() };
    actual.links.remove(&name("cali1"));
    actual.workloads.clear();
    let known = Wanted { devices: kept, ..wanted([]) };
    assert_eq!(settled(&known, &mut actual).1, [], "its pods are known");
    assert_eq!(settled(&gone, &mut actual).0, []);
    assert_eq!(words(&actual), ["eth0"]);
}

#[test]
fn a_crash_at_any_step_does_no_harm() {
    let here = wanted([red("5001")]);
    let all = settled(&here, &mut kernel([link(3, "cali1", "veth")])).1;
    for count in 0..all.len() {
        let mut actual = kernel([link(3, "cali1", "veth")]);
        for step in all.iter().take(count) {
            apply(&mut actual, step);
        }
        assert_eq!(settled(&here, &mut actual).0, [], "after {count} steps");
        assert_eq!(words(&actual), UP, "after {count} steps");
    }
    let mut full = kernel([]);
    let mut bare = red("5001");
    bare.1.links.clear();
    bare.1.routes.retain(|dst, _| !dst.is_host());
    settled(&wanted([bare]), &mut full);
    let removal = settled(&wanted([]), &mut full.clone()).1;
    for count in 0..removal.len() {
        let mut actual = full.clone();
        for step in removal.iter().take(count) {
            apply(&mut actual, step);
        }
        assert_eq!(settled(&wanted([]), &mut actual).0, []);
        assert_eq!(words(&actual), ["eth0"], "after {count} steps");
    }
}

#[test]
fn devices_of_others_are_left_alone() {
    let mine = vrf(9, "vrf-mine", 9, None);
    let (tunnel, other) = link(8, "vxvrf5001", "vxlan");
    let vxlan = ::kernel::netlink::VxlanLink { vni: 42, port: 4789, local: None, learns: true };
    let other = (tunnel, Link { vxlan: Some(vxlan), ..other });
    for (links, fault) in [
        (vec![vrf(9, "vrf-red", 5001, None)], Fault::Taken(name("vrf-red"))),
        (vec![vrf(9, "vrf-red", 7, Some("mine"))], Fault::Taken(name("vrf-red"))),
        (vec![link(9, "vrf-red", "dummy")], Fault::Taken(name("vrf-red"))),
        (vec![other, vrf(10, "vrf-red", 5001, Some(ALIAS))], Fault::Taken(name("vxvrf5001"))),
    ] {
        let mut actual = kernel(links.into_iter().chain([mine.clone()]));
        let before = words(&actual);
        assert_eq!(settled(&wanted([red("5001")]), &mut actual), (vec![fault], vec![]));
        assert_eq!(words(&actual), before);
    }
    let mut actual = kernel([mine, vrf(10, "vrf-red", 5001, None)]);
    assert_eq!(settled(&wanted([]), &mut actual).1, []);
}

#[test]
fn a_number_changes_when_no_pod_is_left() {
    let mut actual = kernel([link(3, "cali1", "veth")]);
    settled(&wanted([red("5001")]), &mut actual);
    let (faults, steps) = settled(&wanted([red("5002")]), &mut actual);
    assert_eq!(faults, [Fault::Occupied("red".parse().unwrap(), 5001)]);
    assert_eq!(steps, []);
    assert_eq!(words(&actual), UP);
    actual.links.remove(&name("cali1"));
    actual.workloads.clear();
    for table in actual.tables.values_mut() {
        table.routes.remove(&cidr("10.1.0.5/32"));
    }
    assert_eq!(settled(&wanted([red("5002")]), &mut actual).0, []);
    assert_eq!(words(&actual)[1], "vrf-red table 5002");
    assert!(!words(&actual).iter().any(|line| line.contains("5001")));
}

#[test]
fn a_pod_that_was_let_out_is_put_back() {
    let mut actual = kernel([link(3, "cali1", "veth")]);
    let here = wanted([red("5001")]);
    settled(&here, &mut actual);
    // As if an administrator had deleted the device.
    let red = actual.links.remove(&name("vrf-red")).unwrap();
    for link in actual.links.values_mut().filter(|link| link.master == Some(red.index)) {
        link.master = None;
    }
    assert_eq!(settled(&here, &mut actual).0, []);
    assert_eq!(words(&actual), UP);
}

#[test]
fn a_pods_route_waits_for_its_pod() {
    let mut actual = kernel([link(3, "cali1", "veth"), link(4, "cali2", "veth")]);
    let here = wanted([red("5001")]);
    let mut grace = Grace::default();
    settle(&here, &mut actual, &mut grace, NOW);
    let routes = |actual: &Actual| -> Vec<String> {
        actual.tables[&5001].routes.keys().map(ToString::to_string).collect()
    };
    assert_eq!(routes(&actual), ["10.1.0.5/32", "10.1.0.64/26"]);
    // The plugin has made a pod whose address is not in the datastore yet.
    let table = actual.tables.get_mut(&5001).unwrap();
    table.routes.insert(cidr("10.1.0.6/32"), to_pod("cali2"));
    table.routes.insert(cidr("10.1.0.7/32"), route(RouteTarget::Blackhole));
    settle(&here, &mut actual, &mut grace, NOW);
    assert_eq!(routes(&actual), ["10.1.0.5/32", "10.1.0.6/32", "10.1.0.64/26"]);
    assert_eq!(grace.next_deadline(), Some(NOW + ADD_GRACE));
    settle(&here, &mut actual, &mut grace, NOW + ADD_GRACE);
    assert_eq!(routes(&actual), ["10.1.0.5/32", "10.1.0.64/26"]);
    assert_eq!(grace.next_deadline(), None);
}
