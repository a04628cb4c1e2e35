//! States, and the tables that they stand for.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::desired::policy::{
    CompiledRule, Direction, EndpointPath, HostInterface, HostPolicy, PolicyRules, PolicyState,
    Ports, SetId, SetKind, SetMember, TierPath, WorkloadPolicy,
};
use model::endpoint::{Control, Controls, Dscp, PacketRate};
use model::id::NamespacedName;
use model::net::{Cidr, Family, MacAddr};
use model::policy::{Action, IcmpMatch, PolicyId, PolicyKind, Protocol};
use model::tier::TierAction;
use model::vrf::Zone;

use super::golden;
use crate::tunnel::{self, Tunnels};
use crate::{
    Counting, Denial, HostAction, NatSettings, Pool, ServiceLoop, Settings, Spoofing, Tenants,
};

pub(super) fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

pub(super) fn net(text: &str) -> SetMember {
    SetMember::Net(cidr(text))
}

pub(super) fn port(addr: &str, protocol: Protocol, port: u16) -> SetMember {
    SetMember::Port(addr.parse().unwrap(), protocol, port)
}

pub(super) fn set_id(kind: SetKind, number: u8) -> SetId {
    SetId::new(kind, [number; 16])
}

pub(super) fn policy_id(name: &str) -> PolicyId {
    PolicyId {
        kind: PolicyKind::Network,
        namespace: Some("default".to_owned()),
        name: name.to_owned(),
    }
}

pub(super) fn rule(action: Action) -> CompiledRule {
    CompiledRule::of(action)
}

pub(super) fn tcp(action: Action) -> CompiledRule {
    CompiledRule { protocol: Some(Protocol::TCP), ..rule(action) }
}

pub(super) fn ranges(ranges: &[(u16, u16)]) -> Ports {
    Ports { ranges: ranges.to_vec(), named: Vec::new() }
}

pub(super) fn tier(name: &str, default_action: TierAction, policies: &[&str]) -> TierPath {
    let policies = policies.iter().map(|name| policy_id(name)).collect();
    TierPath { tier: name.to_owned(), default_action, policies }
}

pub(super) fn direction(tiers: Vec<TierPath>, profiles: &[&str]) -> Direction {
    let profiles = profiles.iter().map(|name| (*name).to_owned()).collect();
    Direction { tiers, profiles, ..Direction::default() }
}

pub(super) fn workload(addrs: &[&str], mac: Option<MacAddr>, path: EndpointPath) -> WorkloadPolicy {
    WorkloadPolicy {
        endpoint: NamespacedName { namespace: "default".to_owned(), name: "pod".to_owned() },
        addrs: addrs.iter().map(|addr| addr.parse().unwrap()).collect(),
        mac,
        allowed_sources: Vec::new(),
        controls: model::endpoint::Controls::default(),
        path: Arc::new(path),
    }
}

fn rules(ingress: Vec<CompiledRule>, egress: Vec<CompiledRule>) -> Arc<PolicyRules> {
    Arc::new(PolicyRules { ingress, egress })
}

/// A state with one policy for packets to one pod, and the usual profile for those from it.
fn one_policy(ingress: Vec<CompiledRule>) -> PolicyState {
    let path = EndpointPath {
        ingress: direction(vec![tier("default", TierAction::Deny, &["p"])], &[]),
        egress: direction(vec![], &["kns.default"]),
    };
    let mut state = PolicyState::default();
    let pod = workload(&["10.65.0.2", "fd00::2"], Some(MacAddr([2; 6])), path);
    state.workloads.insert("cali1".parse().unwrap(), pod);
    state.policies.insert(policy_id("p"), rules(ingress, vec![]));
    state.profiles.insert(
        "kns.default".to_owned(),
        rules(vec![rule(Action::Allow)], vec![rule(Action::Allow)]),
    );
    state
}

/// Only the tables of one family, so that the text stays short.
fn only(family: Family) -> Settings {
    Settings { families: [family].into(), ..Settings::default() }
}

#[test]
fn nothing_is_enforced() {
    golden("nothing_is_enforced", &PolicyState::default(), &Settings::default());
}

#[test]
fn addresses_and_networks_of_a_set_are_apart() {
    let id = set_id(SetKind::Selected, 1);
    let mut allow = tcp(Action::Allow);
    allow.source.in_sets = vec![id];
    let mut deny = rule(Action::Deny);
    deny.source.not_in_sets = vec![id];
    let mut state = one_policy(vec![allow, deny]);
    let members = ["10.0.0.1/32", "10.1.0.0/16", "10.1.2.0/24", "fd00::1/128"].map(net);
    state.sets.insert(id, members.into());
    golden("addresses_and_networks_of_a_set_are_apart", &state, &Settings::default());
}

#[test]
fn many_sets_share_one() {
    let ids = [1, 0x81].map(|number| set_id(SetKind::Selected, number));
    let mut allow = rule(Action::Allow);
    allow.source.in_sets = ids.to_vec();
    let mut state = one_policy(vec![allow]);
    state.sets.insert(ids[0], ["10.0.0.1/32"].map(net).into());
    state.sets.insert(ids[1], ["10.0.0.2/32", "10.1.0.0/16"].map(net).into());
    let settings = Settings { named_sets: 1, ..only(Family::V4) };
    golden("many_sets_share_one", &state, &settings);
}

#[test]
fn ports_are_numbers_or_names() {
    let id = set_id(SetKind::NamedPort, 2);
    let mut numbers = tcp(Action::Allow);
    numbers.destination.ports = Some(ranges(&[(80, 80)]));
    let mut both = tcp(Action::Allow);
    both.destination.ports = Some(Ports { ranges: vec![(1, 9), (443, 443)], named: vec![id] });
    let mut neither = tcp(Action::Allow);
    neither.source.not_ports = Ports { ranges: vec![(1, 1023)], named: vec![id] };
    let mut no_protocol = rule(Action::Deny);
    no_protocol.destination.ports = Some(ranges(&[(53, 53)]));
    let mut service = rule(Action::Allow);
    service.destination.service = Some(set_id(SetKind::ServicePorts, 3));
    let mut state = one_policy(vec![numbers, both, neither, no_protocol, service]);
    let named = [port("10.65.0.2", Protocol::TCP, 8080), port("fd00::2", Protocol::TCP, 8080)];
    state.sets.insert(id, named.into());
    state.sets.insert(set_id(SetKind::ServicePorts, 3), BTreeSet::new());
    golden("ports_are_numbers_or_names", &state, &only(Family::V4));
}

#[test]
fn networks_are_compared_in_their_family() {
    let mut one = rule(Action::Allow);
    one.source.nets = Some(vec![cidr("10.0.0.0/8")]);
    one.source.not_nets = vec![cidr("10.1.0.0/16"), cidr("10.2.0.0/16"), cidr("10.2.3.0/24")];
    let mut other = rule(Action::Allow);
    other.source.nets = Some(vec![cidr("fd00::/8")]);
    let mut none = rule(Action::Allow);
    none.source.nets = Some(vec![]);
    let mut v6 = rule(Action::Allow);
    v6.family = Some(Family::V6);
    let state = one_policy(vec![one, other, none, v6]);
    golden("networks_are_compared_in_their_family", &state, &only(Family::V4));
}

#[test]
fn icmp_is_compared_in_its_family() {
    let message = |code| Some(IcmpMatch { kind: 8, code });
    let with = |protocol| CompiledRule { protocol: Some(protocol), ..rule(Action::Allow) };
    let state = one_policy(vec![
        CompiledRule { icmp: message(None), ..with(Protocol::ICMP) },
        CompiledRule { icmp: message(Some(0)), ..with(Protocol::ICMP) },
        CompiledRule { icmp: message(None), ..with(Protocol::ICMP_V6) },
        CompiledRule { not_icmp: message(Some(0)), ..with(Protocol::ICMP) },
        CompiledRule { not_icmp: message(None), ..with(Protocol::ICMP_V6) },
        CompiledRule { not_protocol: Some(Protocol::SCTP), ..rule(Action::Deny) },
    ]);
    golden("icmp_is_compared_in_its_family", &state, &only(Family::V4));
}

#[test]
fn a_rule_that_cannot_be_followed_denies() {
    let mut never = tcp(Action::Deny);
    never.never = Some("http: no proxy is there".to_owned());
    let log = rule(Action::Log);
    let state = one_policy(vec![never, log, rule(Action::Pass)]);
    golden("a_rule_that_cannot_be_followed_denies", &state, &only(Family::V4));
}

#[test]
fn tiers_pass_to_each_other() {
    let mut state = one_policy(vec![rule(Action::Pass)]);
    let tiers = vec![
        tier("security", TierAction::Deny, &["a", "b"]),
        tier("platform", TierAction::Pass, &["p"]),
        tier("default", TierAction::Deny, &["c"]),
    ];
    let path = EndpointPath {
        ingress: direction(tiers, &["kns.default", "ksa.default.default"]),
        egress: direction(vec![], &[]),
    };
    for name in ["a", "b", "c"] {
        state.policies.insert(policy_id(name), rules(vec![rule(Action::Pass)], vec![]));
    }
    state.profiles.insert("ksa.default.default".to_owned(), rules(vec![], vec![]));
    for (name, addr) in [("cali2", "10.65.0.3"), ("cali3", "10.65.0.4")] {
        state.workloads.insert(name.parse().unwrap(), workload(&[addr], None, path.clone()));
    }
    golden("tiers_pass_to_each_other", &state, &only(Family::V4));
}

/// A host endpoint that lets nothing pass but what is always let.
pub(super) fn closed_host() -> HostPolicy {
    HostPolicy {
        endpoint: "node-eth0".to_owned(),
        addrs: Vec::new(),
        normal: EndpointPath::default(),
        forward: EndpointPath::default(),
        pre_dnat: Direction::default(),
        untracked: EndpointPath::default(),
    }
}

#[test]
fn host_endpoints_have_a_path_for_each_stage() {
    let mut state = one_policy(vec![rule(Action::Deny)]);
    let path = || direction(vec![tier("default", TierAction::Deny, &["p"])], &[]);
    let named = HostPolicy {
        forward: EndpointPath { ingress: path(), egress: path() },
        pre_dnat: path(),
        untracked: EndpointPath { ingress: path(), egress: Direction::default() },
        ..closed_host()
    };
    state.hosts.insert(HostInterface::Named("eth0".parse().unwrap()), Arc::new(named));
    state.hosts.insert(HostInterface::All, Arc::new(closed_host()));
    golden("host_endpoints_have_a_path_for_each_stage", &state, &only(Family::V4));
}

#[test]
fn denied_packets_are_refused_where_they_can_be() {
    let mut state = one_policy(vec![rule(Action::Deny)]);
    let path = || direction(vec![tier("default", TierAction::Deny, &["p"])], &["kns.default"]);
    let host = HostPolicy {
        normal: EndpointPath { ingress: path(), egress: path() },
        pre_dnat: path(),
        ..closed_host()
    };
    state.hosts.insert(HostInterface::All, Arc::new(host));
    let settings = Settings { denial: Denial::Reject, ..only(Family::V4) };
    golden("denied_packets_are_refused_where_they_can_be", &state, &settings);
}

#[test]
fn workloads_send_from_networks_that_they_are_allowed() {
    let mut state = one_policy(vec![rule(Action::Allow)]);
    let pod = state.workloads.values_mut().next().unwrap();
    let nets = ["10.9.0.0/16", "10.9.1.0/24", "192.0.2.7/32", "fd09::/64"];
    pod.allowed_sources = nets.map(cidr).to_vec();
    let settings = Settings { spoofing: Spoofing::Any, ..Settings::default() };
    golden("workloads_send_from_networks_that_they_are_allowed", &state, &settings);
}

#[test]
fn limits_are_before_and_behind_policy() {
    let mut state = one_policy(vec![rule(Action::Allow)]);
    let pod = state.workloads.values_mut().next().unwrap();
    let packets = Some(PacketRate { per_second: 100, burst: 5 });
    pod.controls = Controls {
        ingress: Control { packets, connections: Some(10) },
        egress: Control { packets: None, connections: Some(20) },
        dscp: Dscp::new(46),
    };
    golden("limits_are_before_and_behind_policy", &state, &Settings::default());
    let unknown = Settings { counting: Counting::Refused, ..Settings::default() };
    let with = crate::render(&state, &unknown);
    state.workloads.values_mut().for_each(|pod| pod.controls = Controls::default());
    assert_eq!(with, crate::render(&state, &unknown), "nothing that such a kernel refuses");
}

#[test]
fn host_endpoints_keep_neighbours() {
    let mut state = PolicyState::default();
    state.hosts.insert(HostInterface::All, Arc::new(closed_host()));
    golden("host_endpoints_keep_neighbours", &state, &only(Family::V6));
}

/// Pods with one path but for the zone, in none of the VRFs, in red, and in one that is gone.
fn tenants() -> (PolicyState, Settings) {
    let id = set_id(SetKind::Selected, 1);
    let mut allow = tcp(Action::Allow);
    allow.source.in_sets = vec![id];
    let mut state = one_policy(vec![allow]);
    let path = EndpointPath::clone(&state.workloads.values().next().unwrap().path);
    for (name, zone) in [("cali2", Zone::Vrfs(5001)), ("cali3", Zone::Nowhere)] {
        let mut path = path.clone();
        (path.ingress.zone, path.egress.zone) = (zone, zone);
        let pod = workload(&["10.65.0.2", "fd00::2"], None, path);
        state.workloads.insert(name.parse().unwrap(), pod);
    }
    state.sets.insert(id, ["10.65.0.3/32"].map(net).into());
    state.sets.insert(id.in_zone(Zone::Vrfs(5001)), ["10.65.0.4/32"].map(net).into());
    state.sets.insert(id.in_zone(Zone::Nowhere), [].into());
    let vrf = |name: &str, id: &str, zone| (name.parse().unwrap(), (id.parse().unwrap(), zone));
    let tenants = Tenants {
        vrfs: [
            vrf("red", "5001", Zone::Vrfs(5001)),
            vrf("blue", "5002", Zone::Vrfs(5001)),
            vrf("green", "5003", Zone::Default),
        ]
        .into(),
        links: [("eth1".parse().unwrap(), "red".parse().unwrap())].into(),
    };
    let tunnels = Tunnels { pools: [tunnel::Pool::Vrf(Family::V4)].into(), ..Tunnels::default() };
    (state, Settings { tenants, tunnels, ..only(Family::V4) })
}

#[test]
fn tenants_are_kept_apart() {
    let (state, settings) = tenants();
    golden("tenants_are_kept_apart", &state, &settings);
}

#[test]
fn tenants_pass_twice_and_meet_host_endpoints_once() {
    let (mut state, settings) = tenants();
    state.hosts.insert(HostInterface::All, Arc::new(closed_host()));
    state.hosts.insert(HostInterface::Named("eth1".parse().unwrap()), Arc::new(closed_host()));
    let floating = Some([("10.65.9.1".parse().unwrap(), "10.65.0.2".parse().unwrap())].into());
    let wireguard = crate::Wireguard {
        devices: [(Family::V4, ("wireguard.cali".parse().unwrap(), 51_820))].into(),
        incoming: None,
        is_strict: true,
    };
    let settings = Settings { floating, wireguard, ..settings };
    golden("tenants_pass_twice", &state, &settings);
}

#[test]
fn wireguard_is_marked_and_strict() {
    let mark = model::ruleset::Mark { mask: 0x20_0000, value: 0x20_0000 };
    let settings = Settings {
        pools: vec![Pool { net: cidr("10.244.0.0/16"), is_translated: true }],
        wireguard: crate::Wireguard {
            devices: [
                (Family::V4, ("wireguard.cali".parse().unwrap(), 51_820)),
                (Family::V6, ("wg-v6.cali".parse().unwrap(), 51_821)),
            ]
            .into(),
            incoming: Some(mark),
            is_strict: true,
        },
        ..only(Family::V4)
    };
    golden("wireguard_is_marked_and_strict", &PolicyState::default(), &settings);
}

#[test]
fn settings_reach_the_rules() {
    let pool = |net, is_translated| Pool { net: cidr(net), is_translated };
    let settings = Settings {
        families: [Family::V4].into(),
        workload_prefixes: vec!["cali".to_owned(), "tap".to_owned()],
        workload_to_host: HostAction::Accept,
        pools: vec![
            pool("10.244.0.0/16", true),
            pool("10.244.1.0/24", true),
            pool("10.9.0.0/16", false),
        ],
        nat: NatSettings {
            ports: Some((30_000, 40_000)),
            addr: Some("192.0.2.1".parse().unwrap()),
            is_kept_to_hosts: true,
            interface: Some(model::ruleset::InterfacePattern::Prefix("eth".to_owned())),
        },
        hosts: ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()].into(),
        refused_vxlan_port: None,
        is_ipip_allowed: true,
        is_invalid_dropped: false,
        service_ranges: vec![cidr("10.96.0.0/12"), cidr("fd00:96::/112")],
        service_loop: ServiceLoop::Reject,
        peering: ["169.254.1.2:179", "[fd00::179]:179"].map(|at| at.parse().unwrap()).into(),
        ..Settings::default()
    };
    golden("settings_reach_the_rules", &PolicyState::default(), &settings);
}

#[test]
fn floating_addresses_lead_to_their_workloads() {
    let lead = |addr: &str, to: &str| (addr.parse().unwrap(), to.parse().unwrap());
    let floating =
        [lead("10.9.0.1", "10.65.0.2"), lead("10.9.0.2", "10.65.0.2"), lead("fd09::1", "fd00::2")];
    let settings = Settings { floating: Some(floating.into()), ..Settings::default() };
    golden("floating_addresses_lead_to_their_workloads", &PolicyState::default(), &settings);
}

#[test]
fn tunnels_are_for_nodes_only() {
    let tunnels = Tunnels {
        external: vec![cidr("198.51.100.0/24")],
        pools: [
            tunnel::Pool::Ipip,
            tunnel::Pool::Vxlan(Family::V4),
            tunnel::Pool::Vxlan(Family::V6),
        ]
        .into(),
        ..Tunnels::default()
    };
    let hosts = ["192.0.2.1", "192.0.2.2", "2001:db8::1"].map(|addr| addr.parse().unwrap());
    let settings = Settings { tunnels, hosts: hosts.into(), ..Settings::default() };
    let mut state = PolicyState::default();
    state.hosts.insert(HostInterface::All, Arc::new(closed_host()));
    golden("tunnels_are_for_nodes_only", &state, &settings);
}
