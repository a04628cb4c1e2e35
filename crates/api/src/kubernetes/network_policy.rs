//! The `NetworkPolicy` of Kubernetes, as a policy of the default tier.
//!
//! A rule of Kubernetes is a list of peers and a list of ports; ours has one
//! peer and one protocol, so that a rule becomes one for each pair.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use model::policy::{
    Action, Enforcement, EntityMatch, Order, Policy, PolicyId, PolicyKind, PortMatch, Protocol,
    Rule, Stage,
};
use model::tier::Tier;
use selector::Selector;

use super::faulty;
use super::service::protocol;
use crate::invalid::{Fault, parse};
use crate::policy::{PolicyObject, Reading, Salvage, in_namespace, namespaces, net};

/// Where policies of Kubernetes stand in the default tier.
const ORDER: f64 = 1000.0;

impl PolicyObject for NetworkPolicy {
    fn reading(&self) -> Reading {
        let mut salvage = Salvage::default();
        let spec = self.spec.clone().unwrap_or_default();
        let policy = policy_of(PolicyKind::Kubernetes, &self.metadata, &spec, &mut salvage);
        salvage
            .reading(policy, |fault| faulty("NetworkPolicy", &self.metadata, fault.under("spec")))
    }

    fn generation(&self) -> i64 {
        self.metadata.generation.unwrap_or_default()
    }
}

/// Reads a policy that has Kubernetes' spec; what cannot be read of it allows nothing.
pub(crate) fn policy_of(
    kind: PolicyKind,
    metadata: &ObjectMeta,
    spec: &NetworkPolicySpec,
    salvage: &mut Salvage,
) -> Policy {
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let name = metadata.name.clone().unwrap_or_default();
    let (is_ingress, is_egress) = directions(spec, salvage);
    let ingress = spec.ingress.iter().flatten().map(|rule| (&rule.from, &rule.ports));
    let ingress = ingress.map(|(peers, ports)| Ends {
        peers: peers.as_deref(),
        ports: ports.as_deref(),
        is_ingress: true,
    });
    let ingress = rules_of("ingress", ingress, &namespace, salvage);
    let egress = spec.egress.iter().flatten().map(|rule| (&rule.to, &rule.ports));
    let egress = egress.map(|(peers, ports)| Ends {
        peers: peers.as_deref(),
        ports: ports.as_deref(),
        is_ingress: false,
    });
    let egress = rules_of("egress", egress, &namespace, salvage);
    let pods = spec.pod_selector.clone().unwrap_or_default();
    let pods = salvage.condition(pod_selector("podSelector", &pods).map(Some));
    let place = salvage.condition(in_namespace(&namespace).map(Some));
    Policy {
        selector: salvage.bounded([pods, place, None]),
        id: PolicyId { kind, namespace: Some(namespace), name },
        tier: Tier::DEFAULT.to_owned(),
        order: Order::new(ORDER).unwrap_or(Order::LAST),
        ingress: is_ingress.then(|| salvage.allowing(ingress)),
        egress: is_egress.then(|| salvage.allowing(egress)),
        stage: Stage::Normal,
        enforcement: Enforcement::Enforced,
        is_needed_everywhere: false,
    }
}

/// Returns whether it says something about packets to, and from, its pods.
fn directions(spec: &NetworkPolicySpec, salvage: &mut Salvage) -> (bool, bool) {
    let types = spec.policy_types.as_deref().unwrap_or_default();
    if let Some(other) = types.iter().find(|name| !["Ingress", "Egress"].contains(&name.as_str())) {
        let fault = Fault::new("policyTypes", other, "is no direction: use Ingress or Egress");
        return salvage.needed(Err(fault), (true, true));
    }
    let says = |name: &str| types.iter().any(|found| found == name);
    let has_egress = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
    // Without types, every policy is for ingress (Kubernetes, "Network Policies").
    (says("Ingress") || types.is_empty(), says("Egress") || (types.is_empty() && has_egress))
}

/// Reads the rules of a direction; one that cannot be read allows nothing.
fn rules_of<'a>(
    field: &str,
    ends: impl Iterator<Item = Ends<'a>>,
    namespace: &str,
    salvage: &mut Salvage,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (index, ends) in ends.enumerate() {
        match ends.rules(namespace) {
            Ok(read) => rules.extend(read),
            Err(fault) => salvage.note(fault.under(format!("{field}[{index}]"))),
        }
    }
    rules
}

/// A rule of Kubernetes: any of the peers, on any of the ports.
struct Ends<'a> {
    peers: Option<&'a [NetworkPolicyPeer]>,
    ports: Option<&'a [NetworkPolicyPort]>,
    is_ingress: bool,
}

impl Ends<'_> {
    /// Returns a rule for each peer and protocol.
    fn rules(&self, namespace: &str) -> Result<Vec<Rule>, Fault> {
        let field = if self.is_ingress { "from" } else { "to" };
        let peers = self.peers.unwrap_or_default().iter().enumerate().map(|(index, wire)| {
            peer(wire, namespace).map_err(|fault| fault.under(format!("{field}[{index}]")))
        });
        let mut peers: Vec<EntityMatch> = peers.collect::<Result<_, _>>()?;
        if peers.is_empty() {
            // No peers, also an empty list of them, are all.
            peers.push(EntityMatch::default());
        }
        let protocols = ports_by_protocol(self.ports.unwrap_or_default())?;
        let pairs = peers.iter().flat_map(|peer| {
            protocols.iter().map(move |(protocol, ports)| (peer, protocol, ports))
        });
        Ok(pairs
            .map(|(peer, protocol, ports)| self.rule(peer, *protocol, ports.as_ref()))
            .collect())
    }

    fn rule(
        &self,
        peer: &EntityMatch,
        protocol: Option<Protocol>,
        ports: Option<&Vec<PortMatch>>,
    ) -> Rule {
        let mut rule = Rule { protocol, ..Rule::of(Action::Allow) };
        if self.is_ingress {
            rule.source = peer.clone();
        } else {
            rule.destination = peer.clone();
        }
        rule.destination.ports = ports.cloned();
        rule
    }
}

fn peer(wire: &NetworkPolicyPeer, namespace: &str) -> Result<EntityMatch, Fault> {
    if let Some(block) = &wire.ip_block {
        if wire.pod_selector.is_some() || wire.namespace_selector.is_some() {
            let problem = "excludes podSelector and namespaceSelector: make it a peer of its own";
            return Err(Fault::new("ipBlock", &block.cidr, problem));
        }
        return ip_block(block);
    }
    let pods = match &wire.pod_selector {
        Some(selector) => pod_selector("podSelector", selector)?,
        None => pod_selector("podSelector", &LabelSelector::default())?,
    };
    let place = match &wire.namespace_selector {
        Some(selector) => {
            let text = label_selector("namespaceSelector", selector)?;
            let text = if text.is_empty() { "all()".to_owned() } else { text };
            namespaces("namespaceSelector", Some(&text))?
        }
        None if wire.pod_selector.is_some() => Some(in_namespace(namespace)?),
        None => {
            let problem = "is missing: use podSelector, namespaceSelector or ipBlock";
            return Err(Fault::new("podSelector", "", problem));
        }
    };
    let selector = match place {
        Some(place) => place.and(pods),
        None => pods,
    };
    Ok(EntityMatch { selector: Some(selector), ..EntityMatch::default() })
}

fn ip_block(block: &IPBlock) -> Result<EntityMatch, Fault> {
    let cidr = net("ipBlock.cidr", &block.cidr)?;
    let except = block.except.iter().flatten().map(|text| {
        let inner = net("ipBlock.except", text)?;
        if cidr.covers(&inner) {
            return Ok(inner);
        }
        let problem = format!("does not lie in {cidr}: leave it out");
        Err(Fault::new("ipBlock.except", text, problem))
    });
    Ok(EntityMatch {
        nets: Some(vec![cidr]),
        not_nets: except.collect::<Result<_, _>>()?,
        ..EntityMatch::default()
    })
}

/// Returns the selector of pods, and only of pods, that have the labels.
pub(super) fn pod_selector(field: &str, wire: &LabelSelector) -> Result<Selector, Fault> {
    let pods = "projectcalico.org/orchestrator == 'k8s'".to_owned();
    let labels = label_selector(field, wire)?;
    parse(field, &if labels.is_empty() { pods } else { format!("{pods} && {labels}") })
}

/// Returns a label selector as text of ours, empty if it matches everything.
pub(super) fn label_selector(field: &str, wire: &LabelSelector) -> Result<String, Fault> {
    let labels = wire.match_labels.iter().flatten();
    let mut parts: Vec<String> = labels.map(|(key, value)| format!("{key} == '{value}'")).collect();
    for expression in wire.match_expressions.iter().flatten() {
        let key = &expression.key;
        let values = expression.values.as_deref().unwrap_or_default();
        let wrong = |problem: &str| {
            let field = format!("{field}.matchExpressions");
            Err(Fault::new(field, format!("{key} {}", expression.operator), problem))
        };
        let set: Vec<String> = values.iter().map(|value| format!("'{value}'")).collect();
        let set = set.join(", ");
        parts.push(match (expression.operator.as_str(), values.is_empty()) {
            ("In", false) => format!("{key} in {{ {set} }}"),
            ("NotIn", false) => format!("{key} not in {{ {set} }}"),
            ("Exists", true) => format!("has({key})"),
            ("DoesNotExist", true) => format!("! has({key})"),
            ("In" | "NotIn", true) => return wrong("needs values: list some"),
            ("Exists" | "DoesNotExist", false) => return wrong("has no values: leave them out"),
            _ => return wrong("is no operator: use In, NotIn, Exists or DoesNotExist"),
        });
    }
    Ok(parts.join(" && "))
}

/// Ports of one protocol: `None` is any port.
type Ports = Option<Vec<PortMatch>>;

/// Returns the ports of each protocol that is named, with neighbours joined to ranges.
///
/// No ports at all are any protocol, and a protocol without a port is any port of it.
fn ports_by_protocol(wire: &[NetworkPolicyPort]) -> Result<Vec<(Option<Protocol>, Ports)>, Fault> {
    let mut found: BTreeMap<Protocol, Ports> = BTreeMap::new();
    for (index, wire) in wire.iter().enumerate() {
        let read = || Ok((protocol(wire.protocol.as_deref())?, port(wire)?));
        let (protocol, port) =
            read().map_err(|fault: Fault| fault.under(format!("ports[{index}]")))?;
        let ports = found.entry(protocol).or_insert_with(|| Some(Vec::new()));
        match (ports.as_mut(), port) {
            (Some(ports), Some(port)) => ports.push(port),
            (_, None) => *ports = None,
            (None, Some(_)) => {}
        }
    }
    if found.is_empty() {
        return Ok(vec![(None, None)]);
    }
    let joined = found.into_iter().map(|(protocol, ports)| (Some(protocol), ports.map(joined)));
    Ok(joined.collect())
}

fn port(wire: &NetworkPolicyPort) -> Result<Option<PortMatch>, Fault> {
    let number = |field, number: i32| {
        let read = u16::try_from(number).ok().filter(|port| *port != 0);
        read.ok_or_else(|| Fault::new(field, number, "is no port: use 1 to 65535"))
    };
    match (&wire.port, wire.end_port) {
        (None, None) => Ok(None),
        (Some(IntOrString::String(name)), None) => Ok(Some(PortMatch::Named(name.clone()))),
        (Some(IntOrString::Int(port)), None) => {
            number("port", *port).map(|port| Some(PortMatch::Range(port, port)))
        }
        (Some(IntOrString::Int(first)), Some(last)) => {
            let (first, last) = (number("port", *first)?, number("endPort", last)?);
            if last < first {
                let problem = format!("is less than port: use {first} or more");
                return Err(Fault::new("endPort", last, problem));
            }
            Ok(Some(PortMatch::Range(first, last)))
        }
        (_, Some(last)) => Err(Fault::new("endPort", last, "needs a port that is a number")),
    }
}

/// Joins ranges that touch or overlap; names come last.
fn joined(mut ports: Vec<PortMatch>) -> Vec<PortMatch> {
    ports.sort();
    let mut joined: Vec<PortMatch> = Vec::with_capacity(ports.len());
    for port in ports {
        match (joined.last_mut(), &port) {
            (Some(PortMatch::Range(_, end)), PortMatch::Range(first, last))
                if *first <= end.saturating_add(1) =>
            {
                *end = (*end).max(*last);
            }
            (Some(PortMatch::Named(name)), PortMatch::Named(same)) if name == same => {}
            _ => joined.push(port),
        }
    }
    joined
}
