//! Rules without selectors: what they ask for becomes sets.

use std::collections::BTreeSet;

use model::desired::policy::{CompiledEntity, CompiledRule, PolicyRules, Ports, SetId};
use model::policy::{Action, EntityMatch, PortMatch, Protocol, Rule, Stage};
use selector::Selector;

use super::question::{Question, Reach};

/// Rules, and the questions whose sets they name.
#[derive(Clone, Debug, Default)]
pub(super) struct Compiled {
    pub(super) rules: PolicyRules,
    pub(super) questions: BTreeSet<Question>,
}

impl Compiled {
    /// Compiles the rules of both directions, as they are looked at in a stage.
    pub(super) fn of(ingress: &[Rule], egress: &[Rule], stage: Stage) -> Self {
        let mut questions = BTreeSet::new();
        let [to, from] = [End::Destination, End::Source].map(|end| own_end(end, stage));
        let ingress = ingress.iter().map(|wanted| rule(wanted, to, &mut questions)).collect();
        let egress = egress.iter().map(|wanted| rule(wanted, from, &mut questions)).collect();
        Self { rules: PolicyRules { ingress, egress }, questions }
    }
}

/// Returns why the kernel cannot follow a rule, if it cannot; it denies then.
pub(super) fn obstacle(rule: &Rule) -> Option<String> {
    if rule.refused.is_some() {
        return rule.refused.clone();
    }
    if rule.http.is_some() {
        return Some("http is only seen by proxies: leave it out".to_owned());
    }
    if rule.protocol.is_some_and(Protocol::has_ports) {
        return None;
    }
    let mut ends = [&rule.source, &rule.destination].into_iter();
    ends.find(|end| end.ports.is_some() || !end.not_ports.is_empty()).map(|_| {
        let given = rule.protocol.map_or_else(|| "none".to_owned(), |given| given.to_string());
        format!("ports need protocol TCP, UDP or SCTP, not {given}: say one of them")
    })
}

/// Returns the protocol whose ports a rule compares, if it can compare them.
pub(super) fn port_protocol(rule: &Rule) -> Option<Protocol> {
    rule.protocol.filter(|protocol| protocol.has_ports())
}

/// Returns which end of a packet's way is the endpoint itself, if that is sure:
/// what is forwarded has both ends elsewhere.
pub(super) fn own_end(end: End, stage: Stage) -> Option<End> {
    (stage == Stage::Normal).then_some(end)
}

fn rule(rule: &Rule, own: Option<End>, questions: &mut BTreeSet<Question>) -> CompiledRule {
    let never = obstacle(rule);
    let protocol = port_protocol(rule);
    let mut ask = |question: Question| {
        let id = question.id();
        questions.insert(question);
        id
    };
    CompiledRule {
        action: if never.is_some() { Action::Deny } else { rule.action },
        family: rule.family,
        protocol: rule.protocol,
        not_protocol: rule.not_protocol,
        icmp: rule.icmp,
        not_icmp: rule.not_icmp,
        source: entity(&rule.source, protocol, (End::Source, own), &mut ask),
        destination: entity(&rule.destination, protocol, (End::Destination, own), &mut ask),
        never,
    }
}

/// Which end of a packet's way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    Source,
    Destination,
}

fn entity(
    wanted: &EntityMatch,
    protocol: Option<Protocol>,
    (end, own): (End, Option<End>),
    ask: &mut impl FnMut(Question) -> SetId,
) -> CompiledEntity {
    let mut in_sets = Vec::new();
    in_sets.extend(wanted.selector.clone().map(|selector| ask(Question::Selected(selector))));
    let mut service = None;
    match (&wanted.service, end) {
        (Some(name), End::Source) => in_sets.push(ask(Question::ServiceAddrs(name.clone()))),
        (Some(name), End::Destination) => {
            service = Some(ask(Question::ServicePorts(name.clone())));
        }
        (None, _) => {}
    }
    let not_selector = wanted.not_selector.clone();
    let reach = if own == Some(end) { Reach::Node } else { Reach::Cluster };
    // Whose ports are meant: those of whom the rule is about anyway.
    let whose = wanted.selector.clone().unwrap_or_else(Selector::all);
    let mut ports = |list: &[PortMatch]| {
        let Some(protocol) = protocol else { return Ports::default() };
        let mut ask = |name: &str| {
            ask(Question::NamedPort {
                selector: whose.clone(),
                name: name.to_owned(),
                protocol,
                reach,
            })
        };
        self::ports(list, &mut ask)
    };
    let positive = wanted.ports.as_deref().map(&mut ports);
    let negative = ports(&wanted.not_ports);
    CompiledEntity {
        nets: wanted.nets.clone(),
        not_nets: wanted.not_nets.clone(),
        in_sets,
        not_in_sets: not_selector
            .map(|selector| ask(Question::Selected(selector)))
            .into_iter()
            .collect(),
        ports: positive.filter(|_| protocol.is_some()),
        not_ports: negative,
        service,
    }
}

/// Returns ports with ranges that are sorted and disjoint.
fn ports(wanted: &[PortMatch], ask: &mut impl FnMut(&str) -> SetId) -> Ports {
    let mut ports = Ports::default();
    let mut sorted: Vec<&PortMatch> = wanted.iter().collect();
    sorted.sort();
    sorted.dedup();
    for port in sorted {
        match port {
            PortMatch::Named(name) => ports.named.push(ask(name)),
            PortMatch::Range(low, high) => match ports.ranges.last_mut() {
                Some((_, end)) if *low <= end.saturating_add(1) => *end = (*end).max(*high),
                _ => ports.ranges.push((*low, *high)),
            },
        }
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(rule: Rule) -> (CompiledRule, BTreeSet<Question>) {
        let compiled = Compiled::of(&[rule], &[], Stage::Normal);
        (compiled.rules.ingress[0].clone(), compiled.questions)
    }

    fn to_ports(protocol: Option<Protocol>, ports: Vec<PortMatch>) -> Rule {
        let destination = EntityMatch { ports: Some(ports), ..EntityMatch::default() };
        Rule { protocol, destination, ..Rule::of(Action::Allow) }
    }

    #[test]
    fn ranges_are_joined_and_names_become_sets() {
        let ports = vec![
            PortMatch::Named("http".into()),
            PortMatch::Range(90, 95),
            PortMatch::Range(80, 89),
            PortMatch::Range(443, 443),
        ];
        let (rule, questions) = compiled(to_ports(Some(Protocol::TCP), ports));
        let (selector, name) = (Selector::all(), "http".to_owned());
        let (protocol, reach) = (Protocol::TCP, Reach::Node);
        let question = Question::NamedPort { selector, name, protocol, reach };
        let expected = Ports { ranges: vec![(80, 95), (443, 443)], named: vec![question.id()] };
        assert_eq!(rule.destination.ports, Some(expected));
        assert_eq!(questions, BTreeSet::from([question]));
    }

    #[test]
    fn empty_lists_match_nothing() {
        let (rule, _) = compiled(to_ports(Some(Protocol::TCP), Vec::new()));
        assert_eq!(rule.destination.ports, Some(Ports::default()));
        let source = EntityMatch { nets: Some(Vec::new()), ..EntityMatch::default() };
        let (rule, _) = compiled(Rule { source, ..Rule::of(Action::Allow) });
        assert_eq!(rule.source.nets, Some(Vec::new()));
    }

    #[test]
    fn what_cannot_be_compared_denies_and_says_why() {
        let (rule, questions) = compiled(to_ports(None, vec![PortMatch::Named("http".into())]));
        assert_eq!((rule.action, rule.destination.ports), (Action::Deny, None));
        assert!(rule.never.unwrap().contains("say one of them") && questions.is_empty());
        let http = Some(model::policy::HttpMatch::default());
        let (rule, _) = compiled(Rule { http, ..Rule::of(Action::Allow) });
        assert_eq!(rule.action, Action::Deny);
    }

    #[test]
    fn services_are_addresses_for_senders_and_ports_for_receivers() {
        let name = model::id::NamespacedName { namespace: "a".into(), name: "b".into() };
        let end = EntityMatch { service: Some(name.clone()), ..EntityMatch::default() };
        let rule = Rule { source: end.clone(), destination: end, ..Rule::of(Action::Allow) };
        let (rule, _) = compiled(rule);
        assert_eq!(rule.source.in_sets, [Question::ServiceAddrs(name.clone()).id()]);
        assert_eq!(rule.destination.service, Some(Question::ServicePorts(name).id()));
    }
}
