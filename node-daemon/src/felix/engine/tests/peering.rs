//! Workloads that peer with their node: where its address for that is, and where their routes lead.

use model::peer::{BgpConfiguration, BgpPeer, PeerNodes, PeerRemote};

use super::*;
use crate::felix::event::PeeringAddrChange;

const ADDR: &str = "169.254.200.1";

fn configuration(addrs: &[&str]) -> Event {
    let workload_peering_addrs = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
    let bgp = BgpConfiguration { workload_peering_addrs, ..BgpConfiguration::default() };
    Event::Store(Change::Bgp(Some(Box::new(bgp)), Vec::new()))
}

fn workloads_are_peers() -> Event {
    let remote = PeerRemote::Workloads { selector: Selector::all(), asn: model::net::Asn(65_009) };
    let peer = BgpPeer::new("pods".to_owned(), PeerNodes::All, remote);
    Event::Store(Change::Peer("pods".to_owned(), Some(Ok(Box::new(peer)))))
}

/// A kernel with the interface calione and these addresses on it, which are ours or not.
fn kernel_with(addrs: &[(&str, bool)]) -> Event {
    let Event::Kernel(state) = kernel(&["10.244.0.5/32 dev calione"], &["calione"]) else {
        unreachable!("it is one")
    };
    let on_it = |(addr, is_ours): &(&str, bool)| (key(addr), *is_ours);
    let workload_link_addrs = addrs.iter().map(on_it).collect();
    Event::Kernel(Box::new(KernelState { workload_link_addrs, ..*state }))
}

fn key(addr: &str) -> (IfName, IpAddr) {
    ("calione".parse().unwrap(), addr.parse().unwrap())
}

/// The changes of addresses of a flush; `result` comes of all of them.
fn addrs(engine: &mut Engine, now: Timestamp, result: &Result<(), String>) -> Vec<String> {
    let mut words = Vec::new();
    for effect in engine.flush(now) {
        if let Effect::PeeringAddrs(changes) = effect {
            words.extend(changes.iter().map(|change| match change {
                PeeringAddrChange::Upsert((name, addr), ()) => format!("+ {addr} {name}"),
                PeeringAddrChange::Delete((name, addr), ()) => format!("- {addr} {name}"),
            }));
            let results = changes.into_iter().map(|change| (change, result.clone()));
            engine.handle(Event::PeeringAddrsApplied(results.collect()), now);
        }
    }
    words
}

fn peering(found: &[(&str, bool)]) -> Engine {
    let pod = pod("one", "10.244.0.5");
    engine(vec![pod, configuration(&[ADDR]), workloads_are_peers(), kernel_with(found)])
}

#[test]
fn the_address_is_where_a_workload_peers_and_goes_with_that() {
    let mut engine = peering(&[]);
    assert_eq!(addrs(&mut engine, NOW, &Ok(())), ["+ 169.254.200.1 calione"]);
    assert_eq!(addrs(&mut engine, NOW, &Ok(())), [""; 0]);
    engine.handle(configuration(&["169.254.200.2"]), NOW);
    let moved = ["- 169.254.200.1 calione", "+ 169.254.200.2 calione"];
    assert_eq!(addrs(&mut engine, NOW, &Ok(())), moved);
    engine.handle(Event::Store(Change::Peer("pods".to_owned(), None)), NOW);
    assert_eq!(addrs(&mut engine, NOW, &Ok(())), ["- 169.254.200.2 calione"]);
}

#[test]
fn only_what_is_ours_goes() {
    let mut engine = peering(&[("169.254.200.7", true), ("169.254.200.9", false)]);
    let changes = ["- 169.254.200.7 calione", "+ 169.254.200.1 calione"];
    assert_eq!(addrs(&mut engine, NOW, &Ok(())), changes);
}

#[test]
fn an_address_that_shows_no_mark_is_not_written_again() {
    let mut engine = peering(&[(ADDR, false)]);
    assert_eq!(addrs(&mut engine, NOW, &Ok(())), [""; 0]);
}

#[test]
fn an_address_that_was_refused_is_tried_again() {
    let mut engine = peering(&[]);
    let refused = Err("no".to_owned());
    assert_eq!(addrs(&mut engine, NOW, &refused), ["+ 169.254.200.1 calione"]);
    assert_eq!(engine.failing_routes(), 1);
    assert_eq!(addrs(&mut engine, NOW, &Ok(())), [""; 0]);
    let due = engine.next_deadline().unwrap();
    assert!(due < later(60), "{due:?}");
    assert_eq!(addrs(&mut engine, due, &Ok(())), ["+ 169.254.200.1 calione"]);
    assert_eq!(engine.failing_routes(), 0);
}

#[test]
fn what_a_workload_announces_leads_to_it() {
    let mut engine = peering(&[(ADDR, true)]);
    engine.handle(Event::BgpConverged, NOW);
    changes(&mut engine, NOW);
    engine.handle(learned("10.99.0.0/24", &["10.244.0.5"]), NOW);
    assert_eq!(changes(&mut engine, NOW), ["+ 10.99.0.0/24 via 10.244.0.5 proto 80"]);
}
