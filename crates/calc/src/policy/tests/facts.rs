//! What policies mean, case by case, as users of Calico and Kubernetes know it.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::desired::policy::HostInterface as Attached;
use model::endpoint::{NamedPort, WorkloadEndpoint};
use model::host_endpoint::{HostEndpoint, HostInterface};
use model::network_set::NetworkSet;
use model::policy::{
    Action, Enforcement, EntityMatch, HttpMatch, Order, Policy, PolicyId, PolicyKind, PortMatch,
    Profile, Protocol, Rule, Stage,
};
use model::pool::IpPool;
use model::service::{EndpointPort, EndpointSlice, ServiceEndpoint};
use model::tier::{Tier, TierAction};
use model::vrf::{PoolVrf, VrfName};

use super::cluster::{namespaced, this_node};
use crate::policy::enforced::{self, Attachment};
use crate::policy::why::{self, Probe};
use crate::policy::{Change, Decision, Endpoint, Inputs, NetworkSetId, Packet, Policies, Way};

/// Two namespaces with one client and one server each, all allowed by their profiles.
fn cluster() -> Vec<Change> {
    let mut changes = Vec::new();
    for (number, namespace) in ["a", "b"].into_iter().enumerate() {
        let labels = [("pcns.team".to_owned(), namespace.to_owned())];
        let name = format!("kns.{namespace}");
        let profile = Profile {
            name: name.clone(),
            labels_to_apply: labels.into(),
            ..Profile::default_allow()
        };
        changes.push(Change::Profile(name, Some(Arc::new(profile))));
        changes.push(pod(namespace, "client", &format!("10.0.{number}.1"), &[]));
        changes.push(pod(namespace, "server", &format!("10.0.{number}.2"), &[]));
    }
    changes
}

fn pod(namespace: &str, name: &str, addr: &str, extra: &[(&str, &str)]) -> Change {
    let system = [
        ("app", name),
        ("projectcalico.org/namespace", namespace),
        ("projectcalico.org/orchestrator", "k8s"),
    ];
    let labels = system.iter().chain(extra);
    let id = namespaced(namespace, name);
    let endpoint = WorkloadEndpoint {
        labels: labels.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        profiles: vec![format!("kns.{namespace}")],
        ports: vec![NamedPort { name: "http".to_owned(), protocol: 6, port: 80 }],
        ..WorkloadEndpoint::new(
            id.clone(),
            this_node(),
            format!("cali{namespace}{name}").parse().unwrap(),
            vec![addr.parse().unwrap()],
        )
    };
    Change::Workload(id, Some(Arc::new(endpoint)))
}

/// A policy for servers' ingress in the default tier.
pub(in crate::policy) fn policy(name: &str, rules: Vec<Rule>) -> Policy {
    Policy {
        id: PolicyId { kind: PolicyKind::Global, namespace: None, name: name.to_owned() },
        tier: "default".to_owned(),
        order: Order::LAST,
        selector: "app == 'server'".parse().unwrap(),
        ingress: Some(rules),
        egress: None,
        stage: Stage::Normal,
        enforcement: Enforcement::Enforced,
        is_needed_everywhere: false,
    }
}

fn put(policy: Policy) -> Change {
    Change::Policy(policy.id.clone(), Some(Arc::new(policy)))
}

fn tier(name: &str, order: f64, default_action: TierAction) -> Change {
    let order = Order::new(order).unwrap();
    Change::Tier(name.to_owned(), Some(Tier { name: name.to_owned(), order, default_action }))
}

fn from(selector: &str, action: Action) -> Rule {
    let selector = Some(selector.parse().unwrap());
    Rule { source: EntityMatch { selector, ..EntityMatch::default() }, ..Rule::of(action) }
}

/// Says what becomes of TCP from a/client to a/server:80, by all that can say so.
fn fate(changes: &[Change]) -> String {
    fate_of(changes, ("a", "client"), ("a", "server"), 80)
}

fn fate_of(changes: &[Change], source: (&str, &str), server: (&str, &str), port: u16) -> String {
    let mut inputs = Inputs::new(this_node());
    let mut policies = Policies::new(this_node());
    for change in cluster().iter().chain(changes) {
        inputs.apply(change.clone());
        policies.apply(change.clone());
    }
    policies.take_changes();
    let end = |(namespace, name)| Endpoint::Workload(namespaced(namespace, name));
    let probe = Probe { protocol: Protocol::TCP, port };
    let crossings = why::connection(&inputs, &end(source), &end(server), probe);
    for crossing in &crossings {
        let Endpoint::Workload(pod) = &crossing.endpoint else { panic!("{crossing}") };
        let if_name = format!("cali{}{}", pod.namespace, pod.name).parse().unwrap();
        let attachment = Attachment::Workload(if_name);
        let state = policies.state();
        let kernel = enforced::verdict(state, &attachment, &crossing.packet, crossing.way);
        assert_eq!(kernel.as_ref(), Some(&crossing.verdict.decision), "{crossing}");
    }
    let mut decisions = crossings.iter().map(|crossing| crossing.verdict.decision.to_string());
    decisions.next_back().unwrap()
}

#[test]
fn without_a_policy_the_namespace_allows() {
    assert_eq!(fate(&[]), "allowed by rule 0 of profile kns.a");
}

#[test]
fn a_policy_without_rules_isolates() {
    assert_eq!(fate(&[put(policy("p", vec![]))]), "denied by the default action of tier default");
    let egress_only = Policy { ingress: None, egress: Some(vec![]), ..policy("p", vec![]) };
    assert_eq!(fate(&[put(egress_only)]), "allowed by rule 0 of profile kns.a");
}

#[test]
fn staged_policies_do_nothing() {
    let staged = Policy { enforcement: Enforcement::Staged, ..policy("p", vec![]) };
    assert_eq!(fate(&[put(staged)]), "allowed by rule 0 of profile kns.a");
}

#[test]
fn policies_come_by_order_then_by_name() {
    let deny = |name| policy(name, vec![Rule::of(Action::Deny)]);
    let allow = |name| policy(name, vec![Rule::of(Action::Allow)]);
    assert_eq!(fate(&[put(deny("b")), put(allow("a"))]), "allowed by rule 0 of gnp/a");
    let first = Policy { order: Order::new(5.0).unwrap(), ..deny("b") };
    assert_eq!(fate(&[put(first), put(allow("a"))]), "denied by rule 0 of gnp/b");
}

#[test]
fn log_goes_on_and_pass_leaves_the_tier() {
    let rules = vec![Rule::of(Action::Log), Rule::of(Action::Pass), Rule::of(Action::Deny)];
    let passing = put(policy("a", rules));
    let next = put(policy("b", vec![Rule::of(Action::Deny)]));
    assert_eq!(fate(&[passing, next]), "allowed by rule 0 of profile kns.a");
}

#[test]
fn tiers_come_by_order_and_deny_or_pass() {
    let early = |rules| put(Policy { tier: "early".to_owned(), ..policy("e", rules) });
    let late = put(policy("l", vec![Rule::of(Action::Allow)]));
    let nothing = || early(vec![from("app == 'nobody'", Action::Allow)]);
    let deny = tier("early", 5.0, TierAction::Deny);
    let pass = tier("early", 5.0, TierAction::Pass);
    let said = fate(&[deny, nothing(), late.clone()]);
    assert_eq!(said, "denied by the default action of tier early");
    assert_eq!(fate(&[pass.clone(), nothing(), late.clone()]), "allowed by rule 0 of gnp/l");
    let denying = early(vec![Rule::of(Action::Deny)]);
    assert_eq!(fate(&[pass, denying, late]), "denied by rule 0 of gnp/e");
}

#[test]
fn a_missing_tier_comes_last_and_denies() {
    let lost = put(Policy { tier: "lost".to_owned(), ..policy("l", vec![]) });
    assert_eq!(fate(std::slice::from_ref(&lost)), "denied by the default action of tier lost");
    let first = put(policy("a", vec![Rule::of(Action::Allow)]));
    assert_eq!(fate(&[lost, first]), "allowed by rule 0 of gnp/a");
}

#[test]
fn selectors_find_namespaces_and_exclude() {
    let rules = vec![from("pcns.team == 'a'", Action::Allow)];
    let team = [put(policy("p", rules))];
    assert_eq!(fate(&team), "allowed by rule 0 of gnp/p");
    let stranger = fate_of(&team, ("b", "client"), ("a", "server"), 80);
    assert_eq!(stranger, "denied by the default action of tier default");
    let not_selector = Some("app == 'client'".parse().unwrap());
    let source = EntityMatch { not_selector, ..EntityMatch::default() };
    let excluded = put(policy("p", vec![Rule { source, ..Rule::of(Action::Allow) }]));
    assert_eq!(fate(&[excluded]), "denied by the default action of tier default");
}

#[test]
fn nobody_forges_the_labels_of_a_namespace() {
    let forger = pod("b", "client", "10.0.1.1", &[("pcns.team", "a")]);
    let team = put(policy("p", vec![from("pcns.team == 'a'", Action::Allow)]));
    let said = fate_of(&[forger, team], ("b", "client"), ("a", "server"), 80);
    assert_eq!(said, "denied by the default action of tier default");
}

#[test]
fn an_empty_set_is_not_an_absent_field() {
    let nobody = [put(policy("p", vec![from("app == 'nobody'", Action::Allow)]))];
    assert_eq!(fate(&nobody), "denied by the default action of tier default");
    let source = EntityMatch { nets: Some(Vec::new()), ..EntityMatch::default() };
    let nowhere = put(policy("p", vec![Rule { source, ..Rule::of(Action::Allow) }]));
    assert_eq!(fate(&[nowhere]), "denied by the default action of tier default");
}

#[test]
fn named_ports_are_each_receivers_own() {
    let ports = Some(vec![PortMatch::Named("http".to_owned())]);
    let destination = EntityMatch { ports, ..EntityMatch::default() };
    let rule = Rule { protocol: Some(Protocol::TCP), destination, ..Rule::of(Action::Allow) };
    let named = [put(policy("p", vec![rule]))];
    assert_eq!(fate(&named), "allowed by rule 0 of gnp/p");
    let other = fate_of(&named, ("a", "client"), ("a", "server"), 81);
    assert_eq!(other, "denied by the default action of tier default");
}

#[test]
fn named_ports_of_receivers_elsewhere_are_not_followed() {
    let ports = Some(vec![PortMatch::Named("http".to_owned())]);
    let end = || EntityMatch { ports: ports.clone(), ..EntityMatch::default() };
    let to = Rule { destination: end(), protocol: Some(Protocol::TCP), ..Rule::of(Action::Allow) };
    let both = |stage| {
        let (ingress, egress) = (Some(vec![to.clone()]), Some(vec![to.clone()]));
        Policy { ingress, egress, stage, ..policy("p", vec![]) }
    };
    let members = |stage| {
        let mut policies = Policies::new("elsewhere".parse().unwrap());
        let everywhere = Policy { is_needed_everywhere: true, ..both(stage) };
        cluster().into_iter().chain([put(everywhere)]).for_each(|one| policies.apply(one));
        policies.take_changes();
        policies.state().sets.values().map(BTreeSet::len).collect::<BTreeSet<_>>()
    };
    // None of those that receive here, four of those that are sent to.
    assert_eq!(members(Stage::Normal), BTreeSet::from([0, 4]));
    assert_eq!(members(Stage::Forward), BTreeSet::from([4]));
}

#[test]
fn network_sets_are_found_by_labels_of_their_namespace() {
    let id = NetworkSetId { namespace: Some("b".to_owned()), name: "s".to_owned() };
    let set = NetworkSet {
        namespace: id.namespace.clone(),
        name: id.name.clone(),
        labels: [("projectcalico.org/namespace".to_owned(), "b".to_owned())].into(),
        nets: vec!["10.0.0.0/31".parse().unwrap()],
    };
    let set = Change::NetworkSet(id, Some(Arc::new(set)));
    let rule = from("pcns.team == 'b'", Action::Allow);
    assert_eq!(fate(&[put(policy("p", vec![rule])), set]), "allowed by rule 0 of gnp/p");
}

#[test]
fn services_are_their_endpoints() {
    let slice = EndpointSlice {
        id: namespaced("a", "web-1"),
        service: Some("web".to_owned()),
        endpoints: vec![ServiceEndpoint {
            addrs: vec!["10.0.0.2".parse().unwrap()],
            node: None,
            is_ready: false,
            is_terminating: true,
        }],
        ports: vec![EndpointPort { name: String::new(), protocol: Protocol::TCP, port: Some(80) }],
    };
    let slice = Change::EndpointSlice(slice.id.clone(), Some(Arc::new(slice)));
    let service = Some(namespaced("a", "web"));
    let destination = EntityMatch { service, ..EntityMatch::default() };
    let rule = Rule { destination, ..Rule::of(Action::Allow) };
    let rules = put(policy("p", vec![rule]));
    let said =
        |port| fate_of(&[slice.clone(), rules.clone()], ("a", "client"), ("a", "server"), port);
    assert_eq!(said(80), "allowed by rule 0 of gnp/p");
    assert_eq!(said(81), "denied by the default action of tier default");
}

#[test]
fn what_cannot_be_followed_denies() {
    let http = Some(HttpMatch::default());
    let rules = vec![Rule { http, ..Rule::of(Action::Allow) }, Rule::of(Action::Allow)];
    let changes = [put(policy("p", rules))];
    assert_eq!(fate(&changes), "denied by rule 0 of gnp/p");
    let mut policies = Policies::new(this_node());
    for change in changes {
        policies.apply(change);
    }
    let problems = policies.problems();
    let said = "gnp/p: ingress[0] denies: http is only seen by proxies: leave it out";
    assert_eq!(problems[0].to_string(), said);
}

#[test]
fn traces_name_the_mark_that_is_missing() {
    let mut inputs = Inputs::new(this_node());
    let policy = put(policy("p", vec![from("app == 'nobody'", Action::Allow)]));
    cluster().into_iter().chain([policy]).for_each(|change| inputs.apply(change));
    let end = |name| Endpoint::Workload(namespaced("a", name));
    let probe = Probe { protocol: Protocol::TCP, port: 80 };
    let crossings = why::connection(&inputs, &end("client"), &end("server"), probe);
    let told: Vec<String> = crossings.iter().map(ToString::to_string).collect();
    assert_eq!(
        told.concat(),
        "TCP 10.0.0.1 -> 10.0.0.2 port 80, from pod a/client\n\
         profile kns.a\n  \
           rule 0 Allow: matches\n\
         allowed by rule 0 of profile kns.a\n\
         TCP 10.0.0.1 -> 10.0.0.2 port 80, to pod a/server\n\
         tier default: gnp/p applies by app == \"server\"\n  \
           rule 0 Allow: no, source 10.0.0.1 is nobody that selector app == \"nobody\" matches\n\
         denied by the default action of tier default\n"
    );
}

/// A pool of the VRF `red`, and pods of it with the addresses of a/client and a/server.
fn red(imports: &[Option<VrfName>]) -> Vec<Change> {
    let vrf = PoolVrf {
        name: "red".parse().unwrap(),
        id: "5001".parse().unwrap(),
        imports: imports.iter().cloned().collect(),
    };
    let pool = IpPool { vrf: Some(vrf), ..IpPool::plain("red", "10.0.0.0/24".parse().unwrap()) };
    let mut changes = vec![Change::Pool("red".to_owned(), Some(Arc::new(pool)))];
    for (name, addr) in [("client", "10.0.0.1"), ("server", "10.0.0.2")] {
        let Change::Workload(id, Some(endpoint)) = pod("red", name, addr, &[]) else {
            unreachable!()
        };
        let vrf = Some("red".parse().unwrap());
        let profiles = vec!["kns.a".to_owned()];
        let endpoint = WorkloadEndpoint { vrf, profiles, ..WorkloadEndpoint::clone(&endpoint) };
        changes.push(Change::Workload(id, Some(Arc::new(endpoint))));
    }
    changes
}

#[test]
fn an_equal_address_of_another_tenant_is_somebody_else() {
    let ours = "projectcalico.org/namespace == 'a'";
    let theirs = "projectcalico.org/namespace == 'red'";
    for (selector, in_default, in_red) in [(ours, true, false), (theirs, false, true)] {
        let rules = put(policy("p", vec![from(selector, Action::Allow)]));
        let changes = [red(&[]), vec![rules]].concat();
        let is_allowed = |namespace| {
            let said = fate_of(&changes, (namespace, "client"), (namespace, "server"), 80);
            said == "allowed by rule 0 of gnp/p"
        };
        assert_eq!((is_allowed("a"), is_allowed("red")), (in_default, in_red), "{selector}");
    }
}

#[test]
fn who_exchanges_routes_is_known_by_its_address() {
    let rules = put(policy("p", vec![from("projectcalico.org/namespace == 'b'", Action::Allow)]));
    let fates = |imports: &[Option<VrfName>]| {
        let changes = [red(imports), vec![rules.clone()]].concat();
        fate_of(&changes, ("b", "client"), ("red", "server"), 80)
    };
    assert_eq!(fates(&[]), "denied by the default action of tier default");
    assert_eq!(fates(&[None]), "allowed by rule 0 of gnp/p");
}

#[test]
fn nobody_is_known_where_no_pool_is() {
    let gone = [red(&[]), vec![Change::Pool("red".to_owned(), None)]].concat();
    let all = put(policy("p", vec![from("all()", Action::Allow)]));
    let changes = [gone, vec![all]].concat();
    let said = fate_of(&changes, ("red", "client"), ("red", "server"), 80);
    assert_eq!(said, "denied by the default action of tier default");
}

#[test]
fn services_endpoints_are_of_their_pods_zone() {
    let slice = EndpointSlice {
        id: namespaced("red", "web-1"),
        service: Some("web".to_owned()),
        endpoints: vec![ServiceEndpoint {
            addrs: vec!["10.0.0.2".parse().unwrap()],
            node: None,
            is_ready: true,
            is_terminating: false,
        }],
        ports: vec![EndpointPort { name: String::new(), protocol: Protocol::TCP, port: Some(80) }],
    };
    let slice = Change::EndpointSlice(slice.id.clone(), Some(Arc::new(slice)));
    let destination =
        EntityMatch { service: Some(namespaced("red", "web")), ..EntityMatch::default() };
    let rules = put(policy("p", vec![Rule { destination, ..Rule::of(Action::Allow) }]));
    let changes = [red(&[]), vec![slice, rules]].concat();
    let said = |namespace| fate_of(&changes, (namespace, "client"), (namespace, "server"), 80);
    assert_eq!(said("red"), "allowed by rule 0 of gnp/p");
    assert_eq!(said("a"), "denied by the default action of tier default");
}

#[test]
fn tenants_without_routes_to_each_other_are_told_so() {
    let mut inputs = Inputs::new(this_node());
    cluster().into_iter().chain(red(&[])).for_each(|change| inputs.apply(change));
    let end = |namespace| Endpoint::Workload(namespaced(namespace, "client"));
    let told = why::barrier(&inputs, &end("red"), &end("a"));
    assert_eq!(
        told.unwrap(),
        "pod red/client is in VRF red, pod a/client is in none: they exchange no routes, and \
         nothing passes"
    );
    assert_eq!(why::barrier(&inputs, &end("a"), &end("b")), None);
    inputs.apply(Change::Pool("red".to_owned(), None));
    let told = why::barrier(&inputs, &end("red"), &end("red")).unwrap();
    assert_eq!(told, "pod red/client is in VRF red, which no pool has: it reaches nobody");
}

#[test]
fn host_endpoints_forward_what_no_policy_is_for() {
    let host = HostEndpoint {
        name: "h".to_owned(),
        node: this_node(),
        interface: HostInterface::All,
        labels: [("app".to_owned(), "server".to_owned())].into(),
        expected_addrs: vec!["192.0.2.1".parse().unwrap()],
        profiles: Vec::new(),
        ports: Vec::new(),
    };
    let host = Change::Host("h".to_owned(), Some(Arc::new(host)));
    let stage = |stage| {
        let policy = Policy { stage, ..policy("p", vec![from("app == 'nobody'", Action::Allow)]) };
        put(policy)
    };
    let fates = |policy: Option<Change>| {
        let mut policies = Policies::new(this_node());
        [Some(host.clone()), policy].into_iter().flatten().for_each(|one| policies.apply(one));
        policies.take_changes();
        let packet = Packet {
            source: "192.0.2.9".parse().unwrap(),
            destination: "192.0.2.1".parse().unwrap(),
            protocol: Protocol::TCP,
            source_port: 1024,
            destination_port: 22,
            icmp: None,
        };
        let attachment = Attachment::Host(Attached::All);
        let ways = [Way::Ingress, Way::ForwardIngress, Way::PreDnat, Way::UntrackedIngress];
        ways.map(|way| {
            let decision = enforced::verdict(policies.state(), &attachment, &packet, way);
            matches!(decision, Some(Decision::Denied(_)))
        })
    };
    // Denied, in the order of the ways: the default action is for tracked packets only.
    assert_eq!(fates(None), [true, false, false, false]);
    assert_eq!(fates(Some(stage(Stage::Normal))), [true, false, false, false]);
    assert_eq!(fates(Some(stage(Stage::Forward))), [true, true, false, false]);
    assert_eq!(fates(Some(stage(Stage::PreDnat))), [true, false, false, false]);
    assert_eq!(fates(Some(stage(Stage::Untracked))), [true, false, false, false]);
}
