//! What the engine does, told as events and the effects that follow.

mod peering;
mod priorities;
mod tunnels;
mod vrf;

use std::sync::Arc;

use ::bgp::rib::GatewaySet;
use calc::next_hop::{Underlay, UnderlayTable};
use model::block::{Affinity, AffinityState, Owner};
use model::desired::RouteProtocol;
use model::endpoint::WorkloadEndpoint;
use model::id::NamespacedName;
use model::node::{Node, TunnelAddrs};
use model::pool::{Encapsulation, IpPool};
use selector::Selector;

use super::*;

const NOW: Timestamp = Timestamp::ZERO;
const HOUR: Duration = Duration::from_secs(3600);

fn later(seconds: u64) -> Timestamp {
    NOW + Duration::from_secs(seconds)
}

fn node(name: &str, addr: &str) -> Event {
    let node = Node {
        name: name.parse().unwrap(),
        labels: BTreeMap::new(),
        ipv4: Some(addr.parse().unwrap()),
        ipv6: None,
        asn: None,
        route_reflector_cluster_id: None,
        tunnel_addrs: TunnelAddrs::default(),
        pod_cidrs: Vec::new(),
    };
    Event::Store(Change::Node(node.name.clone(), Some(Box::new(node))))
}

fn pool() -> Event {
    let pool =
        IpPool { nat_outgoing: true, ..IpPool::plain("default", "10.244.0.0/16".parse().unwrap()) };
    Event::Store(Change::Pool(pool.name.clone(), Some(Box::new(pool))))
}

fn block(cidr: &str) -> Event {
    let affinity = Affinity {
        owner: Owner::Host("a".parse().unwrap()),
        cidr: cidr.parse().unwrap(),
        state: AffinityState::Confirmed,
        is_deleted: false,
    };
    Event::Store(Change::Affinity(format!("a-{}", affinity.cidr.object_name()), Some(affinity)))
}

fn pod(name: &str, addr: &str) -> Event {
    let pod = NamespacedName { namespace: "default".to_owned(), name: name.to_owned() };
    let endpoint = WorkloadEndpoint::new(
        pod.clone(),
        "a".parse().unwrap(),
        format!("cali{name}").parse().unwrap(),
        vec![addr.parse().unwrap()],
    );
    Event::Store(Change::Endpoint(pod, Some(Arc::new(endpoint))))
}

/// Reads a route; its metric is the ordinary one if it names none.
fn route(text: &str) -> (RouteKey, Route) {
    let (text, metric) = text.split_once(" metric ").unwrap_or((text, "1024"));
    let (dst, target) = text.split_once(' ').unwrap();
    let (target, protocol) = match target.split_once(' ') {
        None => (RouteTarget::Blackhole, RouteProtocol::CALICO),
        Some(("dev", name)) => (RouteTarget::Link(name.parse().unwrap()), RouteProtocol::BOOT),
        Some((_, gateways)) => {
            let gateways = gateways.split(' ').map(|gateway| gateway.parse().unwrap()).collect();
            (RouteTarget::Via(gateways), RouteProtocol::CALICO)
        }
    };
    let key = RouteKey { dst: dst.parse().unwrap(), metric: metric.parse().unwrap() };
    (key, Route { target, protocol })
}

/// A kernel with the fabric 10.0.0.0/24, these of our routes and these workload interfaces.
fn kernel(routes: &[&str], links: &[&str]) -> Event {
    Event::Kernel(Box::new(KernelState {
        routes: routes.iter().map(|text| route(text)).collect(),
        underlay: UnderlayTable::new([("10.0.0.0/24".parse().unwrap(), Underlay::OnLink)]),
        workload_links: links.iter().map(|name| name.parse().unwrap()).collect(),
        ..KernelState::default()
    }))
}

fn learned(dst: &str, next_hops: &[&str]) -> Event {
    learned_at(dst, next_hops, 1024)
}

fn learned_at(dst: &str, next_hops: &[&str], metric: u32) -> Event {
    let addrs: BTreeSet<_> = next_hops.iter().map(|hop| hop.parse().unwrap()).collect();
    Event::Learned(vec![(dst.parse().unwrap(), GatewaySet { addrs, metric }.into())])
}

/// Says a change; the ordinary metric is not worth a word.
fn words(change: &RouteChange) -> String {
    let (sign, key, route) = match change {
        RouteChange::Delete(key, route) => ("-", key, route),
        RouteChange::Upsert(key, route) => ("+", key, route),
    };
    let metric = match key.metric {
        1024 => String::new(),
        metric => format!(" metric {metric}"),
    };
    format!("{sign} {} {route}{metric}", key.dst)
}

fn settings(priority: RoutePriority) -> RouteSettings {
    let (wireguard, wireguard_places) = Default::default();
    RouteSettings {
        device_route_protocol: RouteProtocol::BOOT,
        priority,
        has_floating: false,
        table_ranges: Vec::new(),
        tunnels: calc::TunnelSettings::default(),
        wireguard,
        wireguard_places,
    }
}

fn synced() -> Vec<Event> {
    Kind::ROUTES.map(Event::Synced).into()
}

/// An engine of node `a` at 10.0.0.1 that has seen `events` and is in sync.
fn engine(events: Vec<Event>) -> Engine {
    let mut engine = Engine::new("a".parse().unwrap(), HOUR);
    let base = [node("a", "10.0.0.1/24"), pool()];
    for event in base.into_iter().chain(events).chain(synced()) {
        engine.handle(event, NOW);
    }
    engine
}

/// The route changes of a flush in words; all of them succeed.
fn changes(engine: &mut Engine, now: Timestamp) -> Vec<String> {
    changes_that(engine, now, &Ok(()))
}

/// The route changes of a flush in words; `result` comes of all of them.
fn changes_that(engine: &mut Engine, now: Timestamp, result: &Result<(), String>) -> Vec<String> {
    let mut said = Vec::new();
    for effect in engine.flush(now) {
        if let Effect::Routes(changes) = effect {
            said.extend(changes.iter().map(words));
            let results = changes.into_iter().map(|change| (change, result.clone()));
            engine.handle(Event::Applied(results.collect()), now);
        }
    }
    said
}

#[test]
fn nothing_is_done_before_every_kind_is_in_sync() {
    let mut engine = Engine::new("a".parse().unwrap(), HOUR);
    engine.handle(node("a", "10.0.0.1/24"), NOW);
    engine.handle(pool(), NOW);
    engine.handle(block("10.244.0.0/26"), NOW);
    engine.handle(kernel(&["10.244.9.0/26 blackhole"], &[]), NOW);
    for kind in Kind::ROUTES {
        assert_eq!(engine.flush(NOW), Vec::new(), "{kind:?} is not in sync");
        engine.handle(Event::Synced(kind), NOW);
    }
    assert_eq!(
        changes(&mut engine, NOW),
        ["- 10.244.9.0/26 blackhole proto 80", "+ 10.244.0.0/26 blackhole proto 80"]
    );
}

#[test]
fn the_kernel_is_listed_before_it_is_changed() {
    let mut engine = engine(vec![block("10.244.0.0/26")]);
    assert!(engine.flush(NOW).contains(&Effect::ListKernel));
}

#[test]
fn what_is_right_already_is_not_touched() {
    let mut engine = engine(vec![
        block("10.244.0.0/26"),
        pod("web", "10.244.0.5"),
        kernel(&["10.244.0.0/26 blackhole", "10.244.0.5/32 dev caliweb"], &["caliweb"]),
    ]);
    assert_eq!(changes(&mut engine, NOW), Vec::<String>::new());
}

#[test]
fn a_pods_route_waits_for_its_interface() {
    let mut engine = engine(vec![pod("web", "10.244.0.5"), kernel(&[], &[])]);
    assert_eq!(changes(&mut engine, NOW), Vec::<String>::new());
    engine.handle(kernel(&[], &["caliweb"]), NOW);
    assert_eq!(changes(&mut engine, NOW), ["+ 10.244.0.5/32 dev caliweb scope link proto 3"]);
    assert_eq!(changes(&mut engine, NOW), Vec::<String>::new(), "it is done once");
}

#[test]
fn a_route_that_the_plugin_has_just_made_is_left_to_it() {
    let mut engine = engine(vec![kernel(&["10.244.0.5/32 dev calinew"], &["calinew"])]);
    assert_eq!(changes(&mut engine, NOW), Vec::<String>::new());
    assert_eq!(engine.next_deadline(), Some(NOW + ADD_GRACE));
    assert_eq!(changes(&mut engine, later(119)), Vec::<String>::new());
    assert_eq!(
        changes(&mut engine, later(120)),
        ["- 10.244.0.5/32 dev calinew scope link proto 3"],
        "no pod came: it is stale"
    );
}

#[test]
fn routes_of_an_earlier_life_stay_until_bgp_has_converged() {
    let old = ["10.244.1.0/26 via 10.0.0.2", "10.244.2.0/26 via 10.0.0.3"];
    let mut engine = engine(vec![kernel(&old, &[])]);
    assert_eq!(changes(&mut engine, NOW), Vec::<String>::new());
    engine.handle(learned("10.244.1.0/26", &["10.0.0.2"]), NOW);
    assert_eq!(changes(&mut engine, NOW), Vec::<String>::new(), "it is there already");
    engine.handle(Event::BgpConverged, NOW);
    assert_eq!(changes(&mut engine, NOW), ["- 10.244.2.0/26 via 10.0.0.3 proto 80"]);
}

#[test]
fn a_learned_route_changes_and_goes_with_its_next_hops() {
    let mut engine = engine(vec![kernel(&[], &[]), Event::BgpConverged]);
    engine.handle(learned("10.244.1.0/26", &["10.0.0.2"]), NOW);
    assert_eq!(changes(&mut engine, NOW), ["+ 10.244.1.0/26 via 10.0.0.2 proto 80"]);
    engine.handle(learned("10.244.1.0/26", &["10.0.0.2", "10.0.0.3"]), NOW);
    assert_eq!(
        changes(&mut engine, NOW),
        ["+ 10.244.1.0/26 via 10.0.0.2 via 10.0.0.3 proto 80"],
        "equal paths are used together"
    );
    engine.handle(learned("10.244.1.0/26", &["192.0.2.1"]), NOW);
    assert_eq!(
        changes(&mut engine, NOW),
        ["- 10.244.1.0/26 via 10.0.0.2 via 10.0.0.3 proto 80"],
        "a next hop that cannot be reached is none"
    );
}

#[test]
fn nobody_can_take_over_our_own_block_by_bgp() {
    let mut engine = engine(vec![block("10.244.0.0/26"), kernel(&[], &[])]);
    engine.handle(learned("10.244.0.0/26", &["10.0.0.66"]), NOW);
    assert_eq!(changes(&mut engine, NOW), ["+ 10.244.0.0/26 blackhole proto 80"]);
}

#[test]
fn a_refused_route_is_tried_again_later_and_later() {
    let mut engine = engine(vec![pod("web", "10.244.0.5"), kernel(&[], &["caliweb"])]);
    let wanted = "+ 10.244.0.5/32 dev caliweb scope link proto 3";
    let refused = Err("no such device".to_owned());
    assert_eq!(changes_that(&mut engine, NOW, &refused), [wanted]);
    assert_eq!(engine.flush(NOW), [Effect::ListKernel], "who knows what the kernel holds now");
    engine.handle(kernel(&[], &["caliweb"]), NOW);
    assert_eq!(changes(&mut engine, NOW), Vec::<String>::new());
    assert_eq!(engine.failing_routes(), 1);

    let due = engine.next_deadline().unwrap();
    assert_eq!(due, NOW + Duration::from_millis(100));
    assert_eq!(changes_that(&mut engine, due, &refused), [wanted]);
    engine.handle(kernel(&[], &["caliweb"]), due);
    assert_eq!(engine.next_deadline(), Some(due + Duration::from_millis(200)));
}

#[test]
fn the_kernel_is_listed_again_after_a_while() {
    let mut engine = engine(vec![kernel(&[], &[])]);
    engine.flush(NOW);
    assert_eq!(engine.flush(later(3599)), Vec::new());
    assert_eq!(engine.flush(later(3600)), [Effect::ListKernel]);
}

#[test]
fn peers_hear_of_everything_before_sessions_open() {
    let mut engine =
        engine(vec![node("b", "10.0.0.2/24"), block("10.244.0.0/26"), kernel(&[], &[])]);
    let effects: Vec<&str> = engine
        .flush(NOW)
        .iter()
        .map(|effect| match effect {
            Effect::Demand(_) => "demand",
            Effect::Listen(_) => "listen",
            Effect::ListKernel => "list",
            Effect::Routes(_) => "routes",
            Effect::Advertise(_) => "advertise",
            Effect::Sessions(_) => "sessions",
            Effect::Ways(_) => "ways",
            Effect::Problems(_) => "problems",
            Effect::Devices(_) | Effect::Entries(_) => "tunnels",
            Effect::PeeringAddrs(_) => "peering",
            Effect::TunnelAddrs(_) => "tunnels' addresses",
            Effect::PodMtu(_) => "MTU",
            Effect::Wireguard(_) => "encryption",
            Effect::Vrfs(_) => "VRFs",
        })
        .collect();
    let expected =
        ["routes", "VRFs", "tunnels' addresses", "MTU", "advertise", "listen", "sessions"];
    assert_eq!(effects, expected);
}

#[test]
fn sessions_are_left_alone_when_only_a_pod_changes() {
    let mut engine = engine(vec![block("10.244.0.0/26"), kernel(&[], &[])]);
    changes(&mut engine, NOW);
    engine.handle(pod("web", "10.244.0.5"), NOW);
    assert_eq!(engine.flush(NOW), Vec::new());
}

#[test]
fn nothing_happens_before_the_passwords_of_peers_are_known() {
    let place = model::peer::SecretKey { secret: "bgp".to_owned(), key: "tor".to_owned() };
    let remote = model::peer::PeerRemote::Router {
        addr: "10.0.0.9".parse().unwrap(),
        port: 179,
        asn: model::net::Asn(65_001),
    };
    let peer = model::peer::BgpPeer {
        password: Some(place),
        ..model::peer::BgpPeer::new("tor".to_owned(), model::peer::PeerNodes::All, remote)
    };
    let peer = Event::Store(Change::Peer("tor".to_owned(), Some(Ok(Box::new(peer)))));
    let mut engine = engine(vec![peer]);
    let wanted =
        Demand { secrets: ["bgp".to_owned()].into(), has_services: false, has_all_blocks: false };
    assert_eq!(engine.flush(NOW), [Effect::Demand(wanted)]);
    assert_eq!(engine.flush(NOW), []);
    engine.handle(Event::Store(Change::Secret("bgp".to_owned(), None)), NOW);
    let effects = engine.flush(NOW);
    assert!(effects.contains(&Effect::Sessions(Vec::new())), "{effects:?}");
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Problems(_))), "{effects:?}");
}

#[test]
fn the_speaker_hears_of_interfaces_while_a_filter_asks_for_them() {
    let rule = model::bgp_filter::FilterRule {
        is_accepted: false,
        prefix: None,
        from_peers_only: false,
        interface: Some("eth*".to_owned()),
        session: None,
        communities: Vec::new(),
        as_path_prefix: Vec::new(),
        priority: None,
        operations: Vec::new(),
    };
    let by_eth = BgpFilter {
        name: "by-eth".to_owned(),
        export_v4: vec![rule],
        import_v4: Vec::new(),
        export_v6: Vec::new(),
        import_v6: Vec::new(),
    };
    let filter = |filter: Option<BgpFilter>| {
        let known = filter.map(|filter| Ok(Box::new(filter)));
        Event::Store(Change::Filter("by-eth".to_owned(), known))
    };
    let ways: BTreeMap<Cidr, IfName> =
        [("10.0.0.0/24".parse().unwrap(), "eth0".parse().unwrap())].into();
    let seen =
        Event::Kernel(Box::new(KernelState { ways: ways.clone(), ..KernelState::default() }));
    let mut engine = engine(vec![seen]);
    let told = |engine: &mut Engine| {
        let effects = engine.flush(NOW).into_iter();
        let ways = effects
            .filter_map(|effect| if let Effect::Ways(ways) = effect { Some(ways) } else { None });
        ways.collect::<Vec<_>>()
    };
    assert_eq!(told(&mut engine), []);
    engine.handle(filter(Some(by_eth)), NOW);
    assert_eq!(told(&mut engine), [ways]);
    assert_eq!(told(&mut engine), []);
    engine.handle(filter(None), NOW);
    assert_eq!(told(&mut engine), [BTreeMap::new()]);
}

#[test]
fn service_addresses_are_announced_and_never_learned() {
    let mut bgp = model::peer::BgpConfiguration::default();
    bgp.services.cluster = vec!["10.96.0.0/12".parse().unwrap()];
    let bgp = Event::Store(Change::Bgp(Some(Box::new(bgp)), Vec::new()));
    let mut engine = engine(vec![bgp]);
    assert!(matches!(engine.flush(NOW)[..], [Effect::Demand(_)]));
    engine.handle(Event::Synced(Kind::Services), NOW);
    let is_announced = |effect: &Effect| {
        let range: Cidr = "10.96.0.0/12".parse().unwrap();
        matches!(effect, Effect::Advertise(all) if all.originated.contains_key(&range))
    };
    assert!(engine.flush(NOW).iter().any(is_announced));
    engine.handle(kernel(&[], &[]), NOW);
    engine.handle(learned("10.96.0.0/12", &["10.0.0.2"]), NOW);
    engine.handle(learned("10.244.9.0/26", &["10.0.0.2"]), NOW);
    assert_eq!(changes(&mut engine, NOW), ["+ 10.244.9.0/26 via 10.0.0.2 proto 80"]);
}

#[test]
fn next_hops_behind_a_gateway_of_ours_lead_to_it() {
    let remote = model::peer::PeerRemote::Router {
        addr: "192.0.2.9".parse().unwrap(),
        port: 179,
        asn: model::net::Asn(65_001),
    };
    let peer = model::peer::BgpPeer {
        reachable_by: "10.0.0.7".parse().ok(),
        ..model::peer::BgpPeer::new("far".to_owned(), model::peer::PeerNodes::All, remote)
    };
    let peer = Event::Store(Change::Peer("far".to_owned(), Some(Ok(Box::new(peer)))));
    let mut engine = engine(vec![peer]);
    engine.flush(NOW);
    engine.handle(kernel(&[], &[]), NOW);
    engine.handle(learned("198.51.100.0/24", &["192.0.2.9"]), NOW);
    assert_eq!(
        changes(&mut engine, NOW),
        ["+ 192.0.2.9/32 via 10.0.0.7 proto 80", "+ 198.51.100.0/24 via 10.0.0.7 proto 80"]
    );
}
