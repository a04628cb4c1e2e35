//! Plans, and what comes of them.

use std::collections::BTreeSet;
use std::time::Duration;

use ::kernel::wireguard::Peer;
use model::desired::WireguardPeer;

use super::*;

const LINK: IfIndex = IfIndex(7);

fn place() -> Place {
    Place { name: "wireguard.cali".parse().unwrap(), table: 1, rule_priority: 99, mark: 0x20_0000 }
}

fn key(number: u8) -> PublicKey {
    PublicKey([number; 32])
}

fn wanted() -> OfFamily {
    let block: Cidr = "10.244.1.0/26".parse().unwrap();
    let peer = WireguardPeer {
        peer_addr: "192.0.2.12:51820".parse().unwrap(),
        keepalive: Duration::ZERO,
        allowed: BTreeSet::from([block]),
    };
    let device = WireguardDevice {
        name: place().name,
        family: Family::V4,
        port: 51_820,
        mtu: Mtu(1440),
        mark: 0x20_0000,
        addr: Some("10.244.0.1".parse().unwrap()),
        peers: [(key(2), peer)].into(),
        table: 1,
        rule_priority: 99,
        routes: [
            (block, WireguardRoute::Encrypted),
            ("10.244.0.0/26".parse().unwrap(), WireguardRoute::Throw),
            ("10.244.0.0/16".parse().unwrap(), WireguardRoute::Blackhole),
        ]
        .into(),
    };
    OfFamily { place: place(), device: Some(device), published: None }
}

/// Does what the kernel would.
fn apply(actual: &mut Actual, step: &Step) {
    match step {
        Step::AddLink(mtu) => {
            actual.link = Some(Link {
                index: LINK,
                name: place().name,
                mac: None,
                mtu: *mtu,
                is_up: false,
                is_running: false,
                is_loopback: false,
                kind: Some("wireguard".to_owned()),
                vxlan: None,
                master: None,
                vrf_table: None,
                alias: None,
                peer: None,
            });
        }
        Step::SetMtu(_, mtu) => actual.link.as_mut().unwrap().mtu = *mtu,
        Step::MakeKey => actual.device.public_key = Some(key(1)),
        Step::SetMark(mark) => actual.device.mark = *mark,
        Step::SetPort(port) => actual.device.listen_port = *port,
        Step::Peers(changes) => {
            for change in changes {
                match change {
                    PeerChange::Remove(key) => drop(actual.device.peers.remove(key)),
                    PeerChange::Update { key, peer_addr, keepalive, allow } => {
                        let peer = actual.device.peers.entry(*key).or_default();
                        peer.peer_addr = peer_addr.or(peer.peer_addr);
                        peer.keepalive = keepalive.unwrap_or(peer.keepalive);
                        peer.allowed.extend(allow);
                    }
                }
            }
        }
        Step::AddAddr(_, addr) => actual.addrs.push(*addr),
        Step::DeleteAddr(_, addr) => actual.addrs.retain(|found| found != addr),
        Step::SetUp(_) => actual.link.as_mut().unwrap().is_up = true,
        Step::Routes(changes) => {
            for change in changes {
                match change {
                    RouteChange::Upsert(route) => {
                        actual.routes.insert(route.dst, route.clone());
                    }
                    RouteChange::Delete(route) => drop(actual.routes.remove(&route.dst)),
                }
            }
        }
        Step::AddRule(rule) => actual.rules.push(*rule),
        Step::DeleteRule(rule) => actual.rules.retain(|found| found != rule),
        Step::DeleteLink => {
            actual.link = None;
            actual.device = Device::default();
            actual.addrs.clear();
        }
        Step::Look => {}
    }
}

/// Looks and changes until there is nothing to change; returns all that was done.
fn bring(wanted: &OfFamily, actual: &mut Actual) -> Vec<Step> {
    let mut done = Vec::new();
    for _ in 0..5 {
        let told = wanted.device.iter().flat_map(|device| &device.peers);
        let told = told.map(|(key, peer)| (*key, peer.peer_addr)).collect();
        let steps = steps(wanted, actual, &told);
        if steps.is_empty() {
            return done;
        }
        for step in steps {
            apply(actual, &step);
            done.push(step);
        }
    }
    panic!("it never ends: {done:?}");
}

#[test]
fn a_new_device_is_complete_before_packets_are_led_to_it() {
    let mut actual = Actual::default();
    let done = bring(&wanted(), &mut actual);
    assert!(matches!(done.last(), Some(Step::AddRule(_))), "{done:?}");
    let place = |is_it: &dyn Fn(&Step) -> bool| done.iter().position(is_it).unwrap();
    assert!(
        place(&|step| matches!(step, Step::MakeKey))
            < place(&|step| matches!(step, Step::SetUp(_)))
    );
    assert!(
        place(&|step| matches!(step, Step::Peers(_)))
            < place(&|step| matches!(step, Step::Routes(_)))
    );
    assert_eq!(actual.device.peers.len(), 1);
    assert_eq!(actual.routes.len(), 3);
    assert_eq!(actual.addrs.len(), 1);
}

#[test]
fn what_calico_has_made_is_taken_over() {
    let mut actual = Actual::default();
    bring(&wanted(), &mut actual);
    // Calico's rule does not say whose it is, and it has heard the peer elsewhere.
    actual.rules[0].protocol = RouteProtocol(0);
    actual.device.peers.get_mut(&key(2)).unwrap().peer_addr = "192.0.2.99:4".parse().ok();
    let mut same = actual.clone();
    assert_eq!(bring(&wanted(), &mut same), []);
    // A rule of an earlier table goes when ours is there.
    actual.rules[0].table = 5;
    let done = bring(&wanted(), &mut actual);
    assert!(matches!(done.as_slice(), [Step::AddRule(_), Step::DeleteRule(_)]), "{done:?}");
}

#[test]
fn a_device_that_is_not_wanted_goes_behind_its_rule() {
    let mut actual = Actual::default();
    let none = OfFamily { device: None, ..wanted() };
    assert_eq!(bring(&none, &mut actual), []);
    bring(&wanted(), &mut actual);
    let done = bring(&none, &mut actual);
    assert!(
        matches!(done.as_slice(), [Step::DeleteRule(_), Step::Routes(_), Step::DeleteLink]),
        "{done:?}"
    );
    assert_eq!(actual, Actual::default());
}

#[test]
fn a_peer_goes_behind_what_leads_to_him() {
    let mut actual = Actual::default();
    bring(&wanted(), &mut actual);
    actual.device.peers.insert(key(3), Peer::default());
    let mut fewer = wanted();
    let device = fewer.device.as_mut().unwrap();
    device.peers.clear();
    device.routes.remove(&"10.244.1.0/26".parse::<Cidr>().unwrap());
    let done = bring(&fewer, &mut actual);
    assert!(matches!(done.as_slice(), [Step::Routes(_), Step::Peers(_)]), "{done:?}");
}
