//! The chains that are always there: where packets enter, and what they meet
//! before and after policy.

use std::net::{IpAddr, SocketAddr};

use model::desired::policy::WorkloadPolicy;
use model::net::{Cidr, Family, IfName};
use model::policy::Protocol;
use model::ruleset::{
    Base, BaseKind, CtStates, Element, ElementKind, Hook, InterfacePattern, Is, Match, Reject,
    Rule, Side, Statement, Verdict, Way,
};
use model::vrf::Zone;

use crate::fragment::{Fragment, Part};
use crate::host;
use crate::renderer::Context;
use crate::set;
use crate::settings::{HostAction, ServiceLoop, Settings, Spoofing};

/// The map from workloads' interfaces to chains for packets from them, and the
/// chain that looks into it; both have Calico's name.
pub const FROM_WORKLOAD: &str = "cali-from-wl-dispatch";
/// The same for packets to workloads.
pub const TO_WORKLOAD: &str = "cali-to-wl-dispatch";
/// The sets of addresses that workloads may send from, with and without an Ethernet address.
pub const SOURCES_WITH_MAC: &str = "cali-wl-sources-mac";
/// Those of workloads whose Ethernet address is not known.
pub const SOURCES: &str = "cali-wl-sources";

const CHECK_SOURCE: &str = "cali-wl-source";
const NEIGHBOURS: &str = "cali-wl-neighbours";
/// What else workloads may send from, as Calico calls it.
const ALLOWED_SOURCES: &str = "cali-rpf-skip";
const TO_HOST: &str = "cali-wl-to-host";
const SERVICE_LOOP: &str = "cali-cidr-block";
/// As Calico calls it.
const FLOATING: &str = "cali-fip-dnat";
const TRANSLATED_POOLS: &str = "cali-masq-ipam-pools";
pub(crate) const ALL_POOLS: &str = "cali-all-ipam-pools";
pub(crate) const ALL_HOSTS: &str = "cali-all-hosts";

/// `ICMPv6` (RFC 4861, RFC 2710): listener messages and neighbour discovery.
pub(crate) const DISCOVERY: (u8, u8) = (130, 136);
const LISTENER_REPORT_V2: u8 = 143;
const ROUTER_ADVERTISEMENT: u8 = 134;
const REDIRECT: u8 = 137;

/// Returns the chains and sets that do not depend on workloads and policies.
pub(crate) fn fragment(context: &Context<'_>) -> Fragment {
    let mut fragment = Fragment::default();
    for family in &context.settings.families {
        let mut part = fragment.part(*family);
        sources(&mut part, context);
        dispatch(&mut part, context.settings);
        filter(&mut part, context);
        context.settings.tenants.add(&mut part);
        nat(&mut part, context.settings);
        strict(&mut part, context.settings);
        host::add(&mut part, context);
        raw_output(&mut part, context);
        if context.sharing.is_used() {
            set::add_shared(&mut part);
        }
    }
    fragment
}

/// Makes a base chain's place.
pub(crate) const fn base(kind: BaseKind, hook: Hook, priority: i32) -> Base {
    Base { kind, hook, priority }
}

/// What connections already do goes on, whatever policy says now, as in Calico.
pub(crate) fn accept_known() -> Rule {
    Rule::new(vec![Match::Ct(CtStates::KNOWN)], vec![Verdict::Accept.into()])
}

/// What policy no longer allows ends with a reset to whoever sends next.
///
/// Not by forgetting the connection: the kernel would take its next packet for a new one's,
/// and one of the answers could open it again.
fn ended(settings: &Settings) -> Option<Rule> {
    let matches =
        vec![Match::Protocol(Is::In, Protocol::TCP), Match::CtMarked(settings.marks.ended())];
    let reset = Statement::Reject(Reject::Reset);
    let rule = || Rule::new(matches, vec![reset]).noted("policy no longer allows it");
    settings.ends_denied.then(rule)
}

/// Returns the mark of each kind of workload's interface.
fn workloads(settings: &Settings, way: Way) -> Vec<Match> {
    let mark =
        |prefix: &String| Match::Interface(way, Is::In, InterfacePattern::Prefix(prefix.clone()));
    settings.workload_prefixes.iter().map(mark).collect()
}

/// Returns the marks of an interface that is no workload's.
pub(crate) fn no_workload(settings: &Settings, way: Way) -> Vec<Match> {
    let mark = |prefix: &String| {
        Match::Interface(way, Is::NotIn, InterfacePattern::Prefix(prefix.clone()))
    };
    settings.workload_prefixes.iter().map(mark).collect()
}

/// Returns the marks of an interface that is no workload's, where packets have found out whether
/// they are for this machine: those of workloads in VRFs seem to have come by a VRF's device.
pub(crate) fn no_workload_inside(settings: &Settings, way: Way) -> Vec<Match> {
    let ways = if way == Way::In { settings.tenants.ways_in() } else { &[Way::Out] };
    ways.iter().flat_map(|way| no_workload(settings, *way)).collect()
}

/// Returns a rule for each kind of workload's interface.
fn for_workloads(settings: &Settings, way: Way, verdict: &Verdict) -> Vec<Rule> {
    let rule = |mark| Rule::new(vec![mark], vec![verdict.clone().into()]);
    workloads(settings, way).into_iter().map(rule).collect()
}

fn drop_noted(matches: Vec<Match>, note: &str) -> Rule {
    Rule::new(matches, vec![Verdict::Drop.into()]).noted(note)
}

/// Before connections are tracked: workloads send only from their own addresses.
///
/// Every packet of theirs comes here, so that what most of them are is looked at first.
fn sources(part: &mut Part<'_>, context: &Context<'_>) {
    let settings = context.settings;
    let mut rules = settings.tenants.zones(Way::In);
    rules.extend(host::marks_are_ours(context));
    rules.extend(for_workloads(settings, Way::In, &Verdict::Goto(CHECK_SOURCE.to_owned())));
    rules.extend(settings.wireguard.incoming(part.family, no_workload(settings, Way::In)));
    rules.extend(host::raw_prerouting(context));
    rules.extend(settings.tunnels.untracked(part.family));
    part.base("raw-PREROUTING", base(BaseKind::Filter, Hook::Prerouting, -300), rules);

    part.set(SOURCES, ElementKind::Source, []);
    part.set(SOURCES_WITH_MAC, ElementKind::SourceWithMac, []);
    let pass = |mark| Rule::new(vec![mark], vec![Verdict::Accept.into()]);
    let jump = |chain: &str| Verdict::Jump(chain.to_owned()).into();
    let mut rules = Vec::new();
    if part.family == Family::V6 {
        let icmp = Match::Protocol(Is::In, Protocol::ICMP_V6);
        rules.push(Rule::new(vec![icmp], vec![jump(NEIGHBOURS)]));
        part.chain(NEIGHBOURS, neighbours_of_workloads());
    }
    rules.push(pass(Match::Source(Is::In, SOURCES.to_owned())));
    rules.push(pass(Match::SourceWithMac(Is::In, SOURCES_WITH_MAC.to_owned())));
    if settings.spoofing == Spoofing::Any {
        rules.push(Rule::new(vec![], vec![jump(ALLOWED_SOURCES)]));
        let allowed = allowed_sources(part.family, context);
        part.chain(ALLOWED_SOURCES, allowed);
    }
    rules.push(drop_noted(vec![], "the source address is not the workload's"));
    part.chain(CHECK_SOURCE, rules);
}

/// Of what this machine sends some is not tracked.
fn raw_output(part: &mut Part<'_>, context: &Context<'_>) {
    let mut rules = context.settings.tenants.zones(Way::Out);
    rules.extend(host::raw_output(context));
    rules.extend(context.settings.tunnels.untracked(part.family));
    if !rules.is_empty() {
        part.base("raw-OUTPUT", base(BaseKind::Filter, Hook::Output, -300), rules);
    }
}

/// Neighbour discovery uses addresses that are nobody's; routers' messages are
/// not for workloads to send.
fn neighbours_of_workloads() -> Vec<Rule> {
    let types = |first, last| {
        vec![Match::Protocol(Is::In, Protocol::ICMP_V6), Match::IcmpTypes(first, last)]
    };
    let mut rules = vec![
        drop_noted(types(ROUTER_ADVERTISEMENT, ROUTER_ADVERTISEMENT), "router advertisement"),
        drop_noted(types(REDIRECT, REDIRECT), "redirect"),
    ];
    let link_local = Cidr::containing(std::net::Ipv6Addr::from(0xfe80_u128 << 112).into(), 10);
    let unspecified = Cidr::host(std::net::Ipv6Addr::UNSPECIFIED.into());
    for net in link_local.into_iter().chain([unspecified]) {
        for (first, last) in [DISCOVERY, (LISTENER_REPORT_V2, LISTENER_REPORT_V2)] {
            let from = Match::Net(Side::Source, Is::In, net);
            let matches = [types(first, last), vec![from]].concat();
            rules.push(Rule::new(matches, vec![Verdict::Accept.into()]));
        }
    }
    rules
}

/// What administrators let workloads send from beside their own addresses; few have that.
fn allowed_sources(family: Family, context: &Context<'_>) -> Vec<Rule> {
    let of = |(name, workload): (&IfName, &WorkloadPolicy)| {
        let nets = workload.allowed_sources.iter().copied();
        let nets = crate::disjoint(nets.filter(|net| net.family() == family));
        let by = Match::Interface(Way::In, Is::In, InterfacePattern::Name(name.clone()));
        let rule = move |net| {
            let matches = vec![by.clone(), Match::Net(Side::Source, Is::In, net)];
            Rule::new(matches, vec![Verdict::Accept.into()]).noted("allowedSourcePrefixes")
        };
        nets.into_iter().map(rule).collect::<Vec<_>>()
    };
    let workloads = context.state.workloads.iter();
    // Who is in a VRF that no pool has sends nothing at all.
    workloads.filter(|(_, workload)| workload.zone() != Zone::Nowhere).flat_map(of).collect()
}

/// From an interface to the chain of its path.
fn dispatch(part: &mut Part<'_>, settings: &Settings) {
    let mut from = Vec::new();
    let is = |protocol| Match::Protocol(Is::In, protocol);
    if let Some(port) = settings.refused_vxlan_port {
        let to = Match::Ports(Side::Destination, Is::In, (port, port));
        from.push(drop_noted(vec![is(Protocol::UDP), to], "VXLAN from a workload"));
    }
    if !settings.is_ipip_allowed {
        from.push(drop_noted(vec![is(Protocol(4))], "IP in IP from a workload"));
    }
    for (name, way, mut rules) in
        [(FROM_WORKLOAD, Way::In, from), (TO_WORKLOAD, Way::Out, Vec::new())]
    {
        part.set(map_of(name), ElementKind::Dispatch, []);
        let ways = if way == Way::In { settings.tenants.ways_in() } else { &[Way::Out] };
        let dispatch = |way: &Way| Statement::Dispatch(*way, map_of(name));
        rules.extend(ways.iter().map(|way| Rule::new(vec![], vec![dispatch(way)])));
        rules.push(drop_noted(vec![], "unknown workload interface"));
        part.chain(name, rules);
    }
}

/// Returns the name of the map that the chain `name` looks into.
pub(crate) fn map_of(name: &str) -> String {
    format!("{name}-map")
}

fn filter(part: &mut Part<'_>, context: &Context<'_>) {
    let settings = context.settings;
    let mut input = settings.tunnels.input(part.family, ALL_HOSTS);
    input.extend(settings.wireguard.exchanged(part.family, (Side::Source, ALL_HOSTS)));
    input.extend(ended(settings).into_iter().chain([accept_known()]));
    for way in settings.tenants.ways_in() {
        input.extend(for_workloads(settings, *way, &Verdict::Goto(TO_HOST.to_owned())));
    }
    input.extend(host::input(context));
    part.base("filter-INPUT", base(BaseKind::Filter, Hook::Input, 0), input);
    part.chain(TO_HOST, to_host(part.family, settings));

    let mut forward = settings.tenants.guard();
    forward.extend(ended(settings).into_iter().chain([accept_known()]));
    forward.extend(host::forward_in(context));
    let ways = settings.tenants.ways_in().iter().map(|way| (*way, FROM_WORKLOAD));
    for (way, chain) in ways.chain([(Way::Out, TO_WORKLOAD)]) {
        if settings.is_invalid_dropped {
            let invalid = |mark| vec![mark, Match::Ct(CtStates::INVALID)];
            let rule = |mark| drop_noted(invalid(mark), "impossible connection");
            forward.extend(workloads(settings, way).into_iter().map(rule));
        }
        for mark in workloads(settings, way) {
            forward.extend(through_policy(&[mark], chain, settings));
        }
    }
    forward.extend(host::forward_out(context));
    forward.extend(service_loop(part, settings));
    forward.extend(host::forward_end(context));
    part.base("filter-FORWARD", base(BaseKind::Filter, Hook::Forward, 0), forward);
}

/// Leads packets to policy, and drops what comes back without the accept mark.
///
/// A map shows its new elements to packets that came before them, and these see
/// the chains that are new, too, without rules: no verdict must not let them pass.
fn through_policy(marks: &[Match], chain: &str, settings: &Settings) -> [Rule; 2] {
    let clear = Statement::SetMark(settings.marks.none());
    let jump = Verdict::Jump(chain.to_owned()).into();
    let unseen = [marks, &[Match::Marked(Is::In, settings.marks.no_accept())]].concat();
    [Rule::new(marks.to_vec(), vec![clear, jump]), drop_noted(unseen, "no policy has seen it")]
}

/// What workloads send to this machine.
fn to_host(family: Family, settings: &Settings) -> Vec<Rule> {
    let mut rules = Vec::new();
    if family == Family::V6 {
        let (first, last) = DISCOVERY;
        let icmp = Match::Protocol(Is::In, Protocol::ICMP_V6);
        let matches = vec![icmp, Match::IcmpTypes(first, last)];
        rules.push(Rule::new(matches, vec![Verdict::Accept.into()]));
    }
    if settings.is_invalid_dropped {
        rules.push(drop_noted(vec![Match::Ct(CtStates::INVALID)], "impossible connection"));
    }
    rules.extend(through_policy(&[], FROM_WORKLOAD, settings));
    rules.extend(peering(family, settings));
    let action = match settings.workload_to_host {
        HostAction::Drop => Verdict::Drop,
        HostAction::Accept => Verdict::Accept,
        HostAction::Return => Verdict::Return,
    };
    rules.push(Rule::new(vec![], vec![action.into()]).noted("DefaultEndpointToHostAction"));
    rules
}

/// What policy lets out may reach BGP at the addresses that are there for it, whatever becomes of
/// the rest.
fn peering(family: Family, settings: &Settings) -> Vec<Rule> {
    let at = |to: &&SocketAddr| Family::of(to.ip()) == family;
    let rule = |to: &SocketAddr| {
        let matches = vec![
            Match::Protocol(Is::In, Protocol::TCP),
            Match::Net(Side::Destination, Is::In, Cidr::host(to.ip())),
            Match::Ports(Side::Destination, Is::In, (to.port(), to.port())),
        ];
        Rule::new(matches, vec![Verdict::Accept.into()]).noted("BGP of workloads")
    };
    settings.peering.iter().filter(at).map(rule).collect()
}

/// What is still for a Service's address when it is to be forwarded would come back for ever.
fn service_loop(part: &mut Part<'_>, settings: &Settings) -> Option<Rule> {
    let statement = match settings.service_loop {
        ServiceLoop::Drop => Verdict::Drop.into(),
        ServiceLoop::Reject => Statement::Reject(Reject::Unreachable),
        ServiceLoop::Forward => return None,
    };
    let family = part.family;
    let ranges = crate::disjoint(
        settings.service_ranges.iter().copied().filter(|net| net.family() == family),
    );
    if ranges.is_empty() {
        return None;
    }
    let rule = |net: &Cidr| {
        let to = Match::Net(Side::Destination, Is::In, *net);
        Rule::new(vec![to], vec![statement.clone()]).noted("no Service has this address")
    };
    part.chain(SERVICE_LOOP, ranges.iter().map(rule).collect());
    let matches = settings.tenants.default_only().into_iter().collect();
    Some(Rule::new(matches, vec![Verdict::Jump(SERVICE_LOOP.to_owned()).into()]))
}

/// In strict mode packets to pods of other nodes leave encrypted or not at all.
fn strict(part: &mut Part<'_>, settings: &Settings) {
    let rule = settings.wireguard.strict(no_workload(settings, Way::Out), ALL_POOLS);
    if let Some(rule) = rule {
        let tenants = &settings.tenants;
        let rules = [tenants.pass(Way::Out), tenants.strict(part.family), vec![rule]].concat();
        part.base("filter-POSTROUTING", base(BaseKind::Filter, Hook::Postrouting, 0), rules);
    }
}

/// Packets that leave all pools get this machine's address.
fn nat(part: &mut Part<'_>, settings: &Settings) {
    let family = part.family;
    let nets = |is_wanted: &dyn Fn(&crate::Pool) -> bool| {
        let pools = settings.pools.iter().filter(|pool| is_wanted(pool)).map(|pool| pool.net);
        let nets = crate::disjoint(pools.filter(|net| net.family() == family));
        nets.into_iter().map(Element::Net).collect::<Vec<_>>()
    };
    part.set(TRANSLATED_POOLS, ElementKind::Net, nets(&|pool| pool.is_translated));
    part.set(ALL_POOLS, ElementKind::Net, nets(&|_| true));
    let hosts = settings.hosts.iter().filter(|addr| Family::of(**addr) == family);
    part.set(ALL_HOSTS, ElementKind::Addr, hosts.map(|addr| Element::Addr(*addr)));

    let nat = &settings.nat;
    let mut matches = vec![
        Match::InSet(Side::Source, Is::In, TRANSLATED_POOLS.to_owned()),
        Match::InSet(Side::Destination, Is::NotIn, ALL_POOLS.to_owned()),
    ];
    if nat.is_kept_to_hosts {
        matches.push(Match::InSet(Side::Destination, Is::NotIn, ALL_HOSTS.to_owned()));
    }
    if let Some(pattern) = &nat.interface {
        matches.push(Match::Interface(Way::Out, Is::In, pattern.clone()));
    }
    let addr = nat.addr.filter(|addr| Family::of(*addr) == family);
    let statement = match addr {
        Some(addr) => Statement::SourceNat { addr, ports: nat.ports },
        None => Statement::Masquerade { ports: nat.ports },
    };
    // Ports exist only in these; other protocols keep theirs by having none.
    let mut rules = Vec::new();
    if nat.ports.is_some() {
        for protocol in [Protocol::TCP, Protocol::UDP] {
            let matches = [vec![Match::Protocol(Is::In, protocol)], matches.clone()].concat();
            rules.push(Rule::new(matches, vec![statement.clone()]).noted("natOutgoing"));
        }
    }
    let plain = match addr {
        Some(addr) => Statement::SourceNat { addr, ports: None },
        None => Statement::Masquerade { ports: None },
    };
    rules.push(Rule::new(matches, vec![plain]).noted("natOutgoing"));
    rules.extend(settings.tunnels.translated(family, &ALL_HOSTS.to_owned()));
    rules.extend(settings.wireguard.translated(family, ALL_HOSTS));
    let rules = [settings.tenants.untranslated(), floating(part, settings), rules].concat();
    part.base("nat-POSTROUTING", base(BaseKind::Nat, Hook::Postrouting, 110), rules);
}

/// Leads floating addresses to their workloads, whoever calls them, and returns what has a workload
/// that calls itself see the floating address, as it could not answer otherwise.
fn floating(part: &mut Part<'_>, settings: &Settings) -> Vec<Rule> {
    let of_family = |addr: &IpAddr| Family::of(*addr) == part.family;
    let all: Vec<_> =
        { settings.floating.iter().flatten() }.filter(|(addr, _)| of_family(addr)).collect();
    if all.is_empty() {
        return Vec::new();
    }
    let is = |side, addr: IpAddr| Match::Net(side, Is::In, Cidr::host(addr));
    let lead = |(addr, to): &(&IpAddr, &IpAddr)| {
        let to = Statement::DestinationNat(**to);
        Rule::new(vec![is(Side::Destination, **addr)], vec![to]).noted("floatingIPs")
    };
    let hide = |(addr, to): &(&IpAddr, &IpAddr)| {
        let itself = vec![is(Side::Source, **to), is(Side::Destination, **to)];
        let statement = Statement::SourceNat { addr: **addr, ports: None };
        Rule::new(itself, vec![statement]).noted("floatingIPs")
    };
    part.chain(FLOATING, all.iter().map(lead).collect());
    for (name, hook) in [("nat-PREROUTING", Hook::Prerouting), ("nat-OUTPUT", Hook::Output)] {
        let jump = Rule::new(vec![], vec![Verdict::Jump(FLOATING.to_owned()).into()]);
        let rules = [settings.tenants.untranslated(), vec![jump]].concat();
        part.base(name, base(BaseKind::Nat, hook, -100), rules);
    }
    all.iter().map(hide).collect()
}
