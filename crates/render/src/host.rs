//! Host endpoints: policy for the machine's own interfaces.

use model::desired::policy::{Direction, HostInterface, HostPolicy};
use model::net::{Family, IfName};
use model::policy::Protocol;
use model::ruleset::{
    BaseKind, Hook, InterfacePattern, Is, Match, Rule, Side, Statement, Verdict, Way,
};

use crate::fragment::Part;
use crate::frame::{ALL_HOSTS, accept_known, base, no_workload, no_workload_inside};
use crate::name::{self, Toward};
use crate::path::{self, Denials, Ending};
use crate::renderer::Context;
use crate::settings::{Denial, Failsafe, Settings};

/// One use of host endpoints' policy.
struct Use {
    /// The chain that finds an interface's chain.
    dispatch: &'static str,
    /// How the interfaces' chains start.
    prefix: &'static str,
    toward: Toward,
    ending: Ending,
    /// Can the kernel tell senders there that their packets are refused?
    can_reject: bool,
    /// Do packets of VRFs seem to have come by these' devices there?
    is_inside: bool,
    /// What passes before policy.
    failsafe: Option<&'static str>,
    path: fn(&HostPolicy) -> &Direction,
}

const FAILSAFE_IN: &str = "cali-failsafe-in";
const FAILSAFE_OUT: &str = "cali-failsafe-out";
const RAW_FAILSAFE_IN: &str = "cali-failsafe-in-raw";
const RAW_FAILSAFE_OUT: &str = "cali-failsafe-out-raw";

const INPUT: Use = Use {
    dispatch: "cali-from-host-endpoint",
    prefix: "cali-fh-",
    toward: Toward::Ingress,
    ending: Ending::Closed,
    can_reject: true,
    is_inside: true,
    failsafe: Some(FAILSAFE_IN),
    path: |host| &host.normal.ingress,
};
const OUTPUT: Use = Use {
    dispatch: "cali-to-host-endpoint",
    prefix: "cali-th-",
    toward: Toward::Egress,
    ending: Ending::Closed,
    can_reject: true,
    is_inside: false,
    failsafe: Some(FAILSAFE_OUT),
    path: |host| &host.normal.egress,
};
/// The same where packets leave: they can be dropped there, and not refused.
const TRANSLATED: Use =
    Use { dispatch: "cali-to-hep-translated", prefix: "cali-thtr-", can_reject: false, ..OUTPUT };
const FORWARD_IN: Use = Use {
    dispatch: "cali-from-hep-forward",
    prefix: "cali-fhfw-",
    toward: Toward::Ingress,
    ending: Ending::Open,
    can_reject: true,
    is_inside: true,
    failsafe: None,
    path: |host| &host.forward.ingress,
};
const FORWARD_OUT: Use = Use {
    dispatch: "cali-to-hep-forward",
    prefix: "cali-thfw-",
    toward: Toward::Egress,
    ending: Ending::Open,
    can_reject: true,
    is_inside: false,
    failsafe: None,
    path: |host| &host.forward.egress,
};
const PRE_DNAT: Use = Use {
    dispatch: "cali-from-hep-pre-dnat",
    prefix: "cali-fhpre-",
    toward: Toward::Ingress,
    ending: Ending::Undecided,
    can_reject: false,
    is_inside: false,
    failsafe: Some(FAILSAFE_IN),
    path: |host| &host.pre_dnat,
};
const RAW_IN: Use = Use {
    dispatch: "cali-from-hep-raw",
    prefix: "cali-fhraw-",
    toward: Toward::Ingress,
    ending: Ending::Undecided,
    can_reject: false,
    is_inside: false,
    failsafe: Some(RAW_FAILSAFE_IN),
    path: |host| &host.untracked.ingress,
};
const RAW_OUT: Use = Use {
    dispatch: "cali-to-hep-raw",
    prefix: "cali-thraw-",
    toward: Toward::Egress,
    ending: Ending::Undecided,
    can_reject: false,
    is_inside: false,
    failsafe: Some(RAW_FAILSAFE_OUT),
    path: |host| &host.untracked.egress,
};
const USES: [Use; 7] = [INPUT, OUTPUT, FORWARD_IN, FORWARD_OUT, PRE_DNAT, RAW_IN, RAW_OUT];

/// Returns how packets are led to policy that leave with a translated destination.
const fn translated(settings: &Settings) -> &Use {
    match settings.denial {
        Denial::Drop => &OUTPUT,
        Denial::Reject => &TRANSLATED,
    }
}

/// Adds the chains of every use, and where packets enter only because of them.
pub(crate) fn add(part: &mut Part<'_>, context: &Context<'_>) {
    let settings = context.settings;
    if context.state.hosts.is_empty() {
        return;
    }
    for one in &USES {
        dispatch(part, context, one);
    }
    if translated(settings).prefix != OUTPUT.prefix {
        dispatch(part, context, translated(settings));
    }
    failsafes(part, settings);
    let accept = accept_allowed(settings);
    let pre_dnat = vec![accept_known(), accept.clone(), jump(settings, &PRE_DNAT, vec![])];
    let pre_dnat = [settings.tenants.pass(Way::In), pre_dnat].concat();
    part.base("mangle-PREROUTING", base(BaseKind::Filter, Hook::Prerouting, -150), pre_dnat);
    // Packets of this machine whose destination was translated: their interface is known only later.
    let plain = vec![Match::Translated(Is::NotIn)];
    let mut output = settings.tenants.pass(Way::Out);
    output.extend(settings.tunnels.output(part.family, ALL_HOSTS));
    output.extend(settings.wireguard.exchanged(part.family, (Side::Destination, ALL_HOSTS)));
    output.extend([accept_known(), accept.clone(), jump(settings, &OUTPUT, plain)]);
    part.base("filter-OUTPUT", base(BaseKind::Filter, Hook::Output, 0), output);
    let late = jump(settings, translated(settings), vec![Match::Translated(Is::In)]);
    let postrouting = vec![accept_known(), accept, late];
    let postrouting = [settings.tenants.pass(Way::Out), postrouting].concat();
    part.base("mangle-POSTROUTING", base(BaseKind::Filter, Hook::Postrouting, -150), postrouting);
}

/// Before anything else: no mark that comes with a packet is a verdict.
///
/// Packets of workloads lose theirs before they meet policy.
pub(crate) fn marks_are_ours(context: &Context<'_>) -> Vec<Rule> {
    let clear = Statement::SetMark(context.settings.marks.none());
    when_used(context, || vec![Rule::new(vec![], vec![clear])])
}

/// In the base chain before connections are tracked.
pub(crate) fn raw_prerouting(context: &Context<'_>) -> Vec<Rule> {
    let settings = context.settings;
    when_used(context, || vec![jump(settings, &RAW_IN, vec![]), keep_untracked(settings)])
}

/// Before connections of this machine are tracked.
pub(crate) fn raw_output(context: &Context<'_>) -> Vec<Rule> {
    let settings = context.settings;
    let clear = || Rule::new(vec![], vec![Statement::SetMark(settings.marks.none())]);
    when_used(context, || vec![clear(), jump(settings, &RAW_OUT, vec![]), keep_untracked(settings)])
}

/// For packets to this machine.
pub(crate) fn input(context: &Context<'_>) -> Vec<Rule> {
    let settings = context.settings;
    when_used(context, || vec![accept_allowed(settings), jump(settings, &INPUT, vec![])])
}

/// For forwarded packets, before workloads' policy.
pub(crate) fn forward_in(context: &Context<'_>) -> Vec<Rule> {
    let settings = context.settings;
    let undecided = Match::Marked(Is::In, settings.marks.no_accept());
    when_used(context, || vec![jump(settings, &FORWARD_IN, vec![undecided])])
}

/// For forwarded packets, after workloads' policy.
pub(crate) fn forward_out(context: &Context<'_>) -> Vec<Rule> {
    when_used(context, || vec![jump(context.settings, &FORWARD_OUT, vec![])])
}

/// Forwarded packets have met all their policy: mangle-POSTROUTING leaves them alone.
pub(crate) fn forward_end(context: &Context<'_>) -> Vec<Rule> {
    let mark = Statement::SetMark(context.settings.marks.accept());
    when_used(context, || vec![Rule::new(vec![], vec![mark])])
}

fn when_used(context: &Context<'_>, rules: impl FnOnce() -> Vec<Rule>) -> Vec<Rule> {
    if context.state.hosts.is_empty() { Vec::new() } else { rules() }
}

/// Leads packets of interfaces that are no workload's, and not the loopback, to policy.
fn jump(settings: &Settings, one: &Use, more: Vec<Match>) -> Rule {
    let way = way_of(one.toward);
    let no_workload = if one.is_inside { no_workload_inside } else { no_workload };
    let loopback = "lo".parse::<IfName>().into_iter();
    let loopback =
        loopback.map(|name| Match::Interface(way, Is::NotIn, InterfacePattern::Name(name)));
    let matches = no_workload(settings, way).into_iter().chain(loopback).chain(more).collect();
    Rule::new(matches, vec![Verdict::Jump(one.dispatch.to_owned()).into()])
}

const fn way_of(toward: Toward) -> Way {
    match toward {
        Toward::Ingress => Way::In,
        Toward::Egress => Way::Out,
    }
}

/// What earlier policy allowed, nothing later refuses.
fn accept_allowed(settings: &Settings) -> Rule {
    let allowed = Match::Marked(Is::In, settings.marks.accept());
    Rule::new(vec![allowed], vec![Verdict::Accept.into()])
}

/// What policy without tracking allowed is not tracked.
fn keep_untracked(settings: &Settings) -> Rule {
    let allowed = Match::Marked(Is::In, settings.marks.accept());
    Rule::new(vec![allowed], vec![Statement::NoTrack, Verdict::Accept.into()])
}

/// Adds the chain that finds an interface's chain, and those chains.
///
/// A machine has few interfaces: rules find them as fast as a map, and while the
/// table changes, no packet misses them.
fn dispatch(part: &mut Part<'_>, context: &Context<'_>, one: &Use) {
    let mut rules = Vec::new();
    let mut all = None;
    for (interface, host) in &context.state.hosts {
        let chain = path_chain(part, context.settings, one, host);
        let goto = Statement::from(Verdict::Goto(chain));
        match interface {
            HostInterface::Named(name) => {
                let name = InterfacePattern::Name(name.clone());
                let way = way_of(one.toward);
                let inside = one.is_inside && way == Way::In;
                let ways = if inside { context.settings.tenants.ways_in() } else { &[way] };
                for way in ways {
                    let mark = Match::Interface(*way, Is::In, name.clone());
                    rules.push(Rule::new(vec![mark], vec![goto.clone()]));
                }
            }
            HostInterface::All => all = Some(Rule::new(vec![], vec![goto])),
        }
    }
    rules.extend(all);
    part.chain(one.dispatch, rules);
}

fn path_chain(part: &mut Part<'_>, settings: &Settings, one: &Use, host: &HostPolicy) -> String {
    let direction = (one.path)(host);
    let failsafe = one.failsafe.map(|chain| Verdict::Jump(chain.to_owned()).into());
    let failsafe = failsafe.map(|jump| Rule::new(vec![], vec![jump]));
    let clear = Rule::new(vec![], vec![Statement::SetMark(settings.marks.none())]);
    let here = if one.can_reject { settings.denial } else { Denial::Drop };
    let denials = Denials { of_rules: settings.denial, here };
    let path = path::rules(direction, one.toward, one.ending, (settings.marks, denials));
    let rules = failsafe.into_iter().chain([clear]).chain(path).collect();
    let name = name::path(one.prefix, direction);
    part.chain(name.clone(), rules);
    name
}

/// What no policy of host endpoints cuts off.
fn failsafes(part: &mut Part<'_>, settings: &Settings) {
    let (inward, outward) = (&settings.failsafe_in, &settings.failsafe_out);
    let to = |side, list| passes(part.family, (side, Side::Destination), list);
    let incoming = to(Side::Source, inward);
    let outgoing = to(Side::Destination, outward);
    // Without tracking, answers are known only by their ports.
    let answers = |side, list| passes(part.family, (side, Side::Source), list);
    let answers_in = answers(Side::Source, outward);
    let answers_out = answers(Side::Destination, inward);
    let discovery = discovery(part.family);
    part.chain(RAW_FAILSAFE_IN, [incoming.clone(), answers_in].concat());
    part.chain(RAW_FAILSAFE_OUT, [outgoing.clone(), answers_out].concat());
    part.chain(FAILSAFE_IN, [incoming, discovery.clone()].concat());
    part.chain(FAILSAFE_OUT, [outgoing, discovery].concat());
}

/// Returns rules for packets whose other end, and whose port, are on these sides.
fn passes(family: Family, (other, port): (Side, Side), list: &[Failsafe]) -> Vec<Rule> {
    let is_ours = |one: &&Failsafe| one.net.is_none_or(|net| net.family() == family);
    let rule = |one: &Failsafe| {
        let mut matches = vec![Match::Protocol(Is::In, one.protocol)];
        matches.push(Match::Ports(port, Is::In, (one.port, one.port)));
        matches.extend(one.net.map(|net| Match::Net(other, Is::In, net)));
        Rule::new(matches, vec![Verdict::Accept.into()]).noted("failsafe")
    };
    list.iter().filter(is_ours).map(rule).collect()
}

/// Without neighbour discovery (RFC 4861) and routers nothing else works.
fn discovery(family: Family) -> Vec<Rule> {
    let icmp = Match::Protocol(Is::In, Protocol::ICMP_V6);
    let matches = vec![icmp, Match::IcmpTypes(130, 137)];
    let rule = Rule::new(matches, vec![Verdict::Accept.into()]).noted("neighbour discovery");
    if family == Family::V6 { vec![rule] } else { Vec::new() }
}
