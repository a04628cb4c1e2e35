//! How many packets and connections workloads may have, and how their packets are marked.
//!
//! Few workloads have limits, so that all of this is there only with the first of them. Packets are
//! counted before policy, as what it drops has been sent, too. Connections are counted behind it:
//! what is denied takes nobody's place.

use model::endpoint::{Control, Controls};
use model::net::{Family, IfName};
use model::policy::Protocol;
use model::ruleset::{
    BaseKind, CtStates, Element, ElementKind, Hook, Is, Match, Reject, Rule, Side, Statement,
    Verdict, Way,
};

use crate::fragment::Part;
use crate::frame::{ALL_HOSTS, ALL_POOLS, DISCOVERY, base, map_of};
use crate::tenants::Tenants;

/// Where packets are counted and marked, and where connections are.
const BEFORE_POLICY: i32 = -150;
const BEHIND_POLICY: i32 = 10;
/// What happens to a connection that is one too many.
const REFUSE: &str = "cali-refuse-connection";

/// One thing that is looked at, each way.
struct Stage {
    /// Where forwarded packets come in, and those to this machine.
    bases: [&'static str; 2],
    priority: i32,
    /// What is left out at once.
    matches: Vec<Match>,
    /// The chains, with a map each, that find a workload's chain: from it, and to it.
    dispatch: [&'static str; 2],
    /// How workloads' chains start.
    prefixes: [&'static str; 2],
}

/// Adds what `controls` say of the workload at `if_name`.
pub(crate) fn add(
    part: &mut Part<'_>,
    tenants: &Tenants,
    (if_name, controls): (&IfName, Controls),
) {
    let Controls { ingress, egress, dscp } = controls;
    let mark = dscp.map(|dscp| {
        let leaves = [ALL_POOLS, ALL_HOSTS]
            .map(|set| Match::InSet(Side::Destination, Is::NotIn, set.to_owned()));
        Rule::new(leaves.to_vec(), vec![Statement::SetDscp(dscp)]).noted("dscp")
    });
    let from = packets(egress, "egressPacketRate").into_iter().chain(mark).collect();
    let to = packets(ingress, "ingressPacketRate").into_iter().collect();
    let packets = Stage {
        bases: ["mangle-FORWARD", "mangle-INPUT"],
        priority: BEFORE_POLICY,
        matches: Vec::new(),
        dispatch: ["cali-from-wl-packets", "cali-to-wl-packets"],
        prefixes: ["cali-fp-", "cali-tp-"],
    };
    stage(part, tenants, (if_name, &packets), [from, to]);
    let from = connections(egress, "egressMaxConnections");
    let to = connections(ingress, "ingressMaxConnections");
    if from.is_some() || to.is_some() {
        let tcp = Match::Protocol(Is::In, Protocol::TCP);
        let reset = Rule::new(vec![tcp], vec![Statement::Reject(Reject::Reset)]);
        part.chain(REFUSE, vec![reset, Rule::new(vec![], vec![Verdict::Drop.into()])]);
    }
    let connections = Stage {
        bases: ["connections-FORWARD", "connections-INPUT"],
        priority: BEHIND_POLICY,
        matches: vec![Match::Ct(CtStates::NEW)],
        dispatch: ["cali-from-wl-connections", "cali-to-wl-connections"],
        prefixes: ["cali-fc-", "cali-tc-"],
    };
    let rules = [from.into_iter().collect(), to.into_iter().collect()];
    stage(part, tenants, (if_name, &connections), rules);
}

/// Without neighbour discovery (RFC 4861) a workload reaches nothing: it does not count.
fn neighbours(family: Family) -> Option<Rule> {
    let (first, last) = DISCOVERY;
    let matches = vec![Match::Protocol(Is::In, Protocol::ICMP_V6), Match::IcmpTypes(first, last)];
    (family == Family::V6).then(|| Rule::new(matches, vec![Verdict::Accept.into()]))
}

fn packets(control: Control, name: &str) -> Option<Rule> {
    let rate = control.packets?;
    Some(Rule::new(vec![Match::Faster(rate)], vec![Verdict::Drop.into()]).noted(name))
}

fn connections(control: Control, name: &str) -> Option<Rule> {
    let more = Match::MoreConnections(control.connections?);
    Some(Rule::new(vec![more], vec![Verdict::Goto(REFUSE.to_owned()).into()]).noted(name))
}

/// Adds a workload's chains for one stage, and the way to them, which all workloads add alike.
///
/// A chain is the workload's own: what its rules have counted stays when others change.
fn stage(
    part: &mut Part<'_>,
    tenants: &Tenants,
    (if_name, stage): (&IfName, &Stage),
    rules: [Vec<Rule>; 2],
) {
    if rules.iter().all(Vec::is_empty) {
        return;
    }
    let ways = [tenants.ways_in(), &[Way::Out]];
    let [forward, input] = stage.bases;
    let jump = |chain: &str| {
        Rule::new(stage.matches.clone(), vec![Verdict::Jump(chain.to_owned()).into()])
    };
    let [from, _] = stage.dispatch;
    let to_host = neighbours(part.family).into_iter().chain([jump(from)]).collect();
    for (name, hook, rules) in
        [(forward, Hook::Forward, stage.dispatch.map(jump).to_vec()), (input, Hook::Input, to_host)]
    {
        part.base(name, base(BaseKind::Filter, hook, stage.priority), rules);
    }
    let all = stage.dispatch.iter().zip(ways).zip(stage.prefixes).zip(rules);
    for (((dispatch, ways), prefix), rules) in all {
        let map = map_of(dispatch);
        part.set(map.clone(), ElementKind::Dispatch, []);
        let by = |way: &Way| Rule::new(vec![], vec![Statement::Dispatch(*way, map.clone())]);
        part.chain(*dispatch, ways.iter().map(by).collect());
        if !rules.is_empty() {
            let chain = format!("{prefix}{if_name}");
            part.chain(chain.clone(), rules);
            part.element(map, Element::Dispatch(if_name.clone(), chain));
        }
    }
}
