//! The `ClusterNetworkPolicy` of Kubernetes (`policy.networking.k8s.io/v1alpha2`).
//!
//! Policies of the cluster's administrators, before and after those of its
//! users: tier `Admin` is ours `kube-admin`, `Baseline` is `kube-baseline`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use model::policy::{
    Action, Enforcement, EntityMatch, Order, Policy, PolicyId, PolicyKind, PortMatch, Protocol,
    Rule, Stage,
};
use model::tier::Tier;
use selector::Selector;
use serde::{Deserialize, Serialize};

use super::faulty;
use super::network_policy::{label_selector, pod_selector};
use crate::invalid::{Fault, within, word};
use crate::policy::{PolicyObject, Reading, Salvage, is_port_name, namespaces, net};

/// Rules of an administrator for pods of all namespaces.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ClusterNetworkPolicy {
    /// The name and the rest.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What the object says.
    #[serde(default)]
    pub spec: ClusterNetworkPolicySpec,
}

/// The spec of a [`ClusterNetworkPolicy`].
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterNetworkPolicySpec {
    /// `Admin` or `Baseline`.
    pub tier: String,
    /// The place in the tier; smaller ones first.
    pub priority: i64,
    /// The pods that it applies to.
    pub subject: ClusterSubject,
    /// Rules for packets to the pods.
    pub ingress: Vec<ClusterRule>,
    /// Rules for packets from the pods.
    pub egress: Vec<ClusterRule>,
}

/// The pods that a policy applies to: exactly one of these.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterSubject {
    /// All pods of namespaces.
    pub namespaces: Option<LabelSelector>,
    /// Some pods of namespaces.
    pub pods: Option<NamespacedPods>,
}

/// Pods by their labels and those of their namespaces.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NamespacedPods {
    /// The namespaces.
    pub namespace_selector: LabelSelector,
    /// The pods in them.
    pub pod_selector: LabelSelector,
}

/// A rule.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterRule {
    /// `Accept`, `Deny` or `Pass`.
    pub action: String,
    /// Senders, of ingress rules.
    pub from: Vec<ClusterPeer>,
    /// Receivers, of egress rules.
    pub to: Vec<ClusterPeer>,
    /// The protocols; absent is any.
    pub protocols: Option<Vec<ClusterProtocol>>,
}

/// Somebody at the other end: exactly one of these.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterPeer {
    /// All pods of namespaces.
    pub namespaces: Option<LabelSelector>,
    /// Some pods of namespaces.
    pub pods: Option<NamespacedPods>,
    /// Networks, of egress rules.
    pub networks: Option<Vec<String>>,
}

/// A protocol, with its ports: exactly one of these.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterProtocol {
    /// TCP.
    pub tcp: Option<PortOfProtocol>,
    /// UDP.
    pub udp: Option<PortOfProtocol>,
    /// SCTP.
    pub sctp: Option<PortOfProtocol>,
    /// What receivers call so, of any of these protocols.
    pub destination_named_port: Option<String>,
}

/// Ports of a protocol.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PortOfProtocol {
    /// The receiver's; absent is any.
    pub destination_port: Option<PortNumbers>,
}

/// One port or some: exactly one of these.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PortNumbers {
    /// One port.
    pub number: Option<i64>,
    /// Several in a row.
    pub range: Option<PortRange>,
}

/// Ports from the first to the last, both included.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PortRange {
    /// The first.
    pub start: i64,
    /// The last.
    pub end: i64,
}

impl k8s_openapi::Resource for ClusterNetworkPolicy {
    const API_VERSION: &'static str = "policy.networking.k8s.io/v1alpha2";
    const GROUP: &'static str = "policy.networking.k8s.io";
    const KIND: &'static str = "ClusterNetworkPolicy";
    const VERSION: &'static str = "v1alpha2";
    const URL_PATH_SEGMENT: &'static str = "clusternetworkpolicies";
    type Scope = k8s_openapi::ClusterResourceScope;
}

impl k8s_openapi::Metadata for ClusterNetworkPolicy {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Rules that cannot be followed are not followed in part: an Accept rule is left out, a Deny or
/// Pass rule denies everything, so that neither lets pass what nobody wanted to.
impl PolicyObject for ClusterNetworkPolicy {
    fn reading(&self) -> Reading {
        let mut salvage = Salvage::default();
        let policy = read(self, &mut salvage);
        salvage.reading(policy, |fault| {
            faulty("ClusterNetworkPolicy", &self.metadata, fault.under("spec"))
        })
    }

    fn generation(&self) -> i64 {
        self.metadata.generation.unwrap_or_default()
    }
}

fn read(object: &ClusterNetworkPolicy, salvage: &mut Salvage) -> Policy {
    let spec = &object.spec;
    let tiers = [("Admin", Tier::KUBE_ADMIN), ("Baseline", Tier::KUBE_BASELINE)];
    let tier = if spec.tier.is_empty() {
        Err(Fault::new("tier", "", "is missing: use Admin or Baseline"))
    } else {
        word("tier", Some(&spec.tier), &tiers, Tier::KUBE_ADMIN)
    };
    let tier = salvage.needed(tier, Tier::KUBE_ADMIN);
    let priority = within("priority", Some(spec.priority), 0..=1000_u16);
    let priority = salvage.needed(priority, None).map(f64::from);
    let order = priority.and_then(|number| Order::new(number).ok()).unwrap_or(Order::LAST);
    let subject = subject(&spec.subject).map_err(|fault| fault.under("subject"));
    let subject = salvage.condition(subject.map(Some));
    let ingress = rules("ingress", &spec.ingress, salvage);
    let egress = rules("egress", &spec.egress, salvage);
    let name = object.metadata.name.clone().unwrap_or_default();
    Policy {
        id: PolicyId { kind: PolicyKind::KubernetesCluster, namespace: None, name },
        tier: tier.to_owned(),
        order,
        selector: salvage.bounded([subject, None, None]),
        ingress: (!spec.ingress.is_empty()).then(|| salvage.rules(ingress)),
        egress: (!spec.egress.is_empty()).then(|| salvage.rules(egress)),
        stage: Stage::Normal,
        enforcement: Enforcement::Enforced,
        is_needed_everywhere: false,
    }
}

fn subject(wire: &ClusterSubject) -> Result<Selector, Fault> {
    match (&wire.namespaces, &wire.pods) {
        (Some(namespaces), None) => pods_of(namespaces, &LabelSelector::default()),
        (None, Some(pods)) => pods_of(&pods.namespace_selector, &pods.pod_selector),
        _ => Err(Fault::new("namespaces", "", "or pods is needed: say exactly one")),
    }
}

/// Returns the selector of pods by their own and their namespaces' labels.
fn pods_of(places: &LabelSelector, pods: &LabelSelector) -> Result<Selector, Fault> {
    let text = label_selector("namespaceSelector", places)?;
    let text = if text.is_empty() { "all()".to_owned() } else { text };
    let pods = pod_selector("podSelector", pods)?;
    let places = namespaces("namespaceSelector", Some(&text))?;
    Ok(places.map_or_else(|| pods.clone(), |places| places.and(pods.clone())))
}

/// Reads the rules of a direction.
fn rules(field: &str, wire: &[ClusterRule], salvage: &mut Salvage) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (index, wire) in wire.iter().enumerate() {
        match rules_of(wire, field == "ingress") {
            Ok(read) => rules.extend(read),
            Err(fault) => {
                let fault = fault.under(format!("{field}[{index}]"));
                if wire.action != "Accept" {
                    rules.push(Rule::refused(fault.clone().of(String::new()).detail()));
                }
                salvage.note(fault);
            }
        }
    }
    rules
}

/// Returns a rule for each peer and protocol.
fn rules_of(wire: &ClusterRule, is_ingress: bool) -> Result<Vec<Rule>, Fault> {
    let actions = [("Accept", Action::Allow), ("Deny", Action::Deny), ("Pass", Action::Pass)];
    if wire.action.is_empty() {
        return Err(Fault::new("action", "", "is missing: use Accept, Deny or Pass"));
    }
    let action = word("action", Some(&wire.action), &actions, Action::Deny)?;
    let (field, peers) = if is_ingress { ("from", &wire.from) } else { ("to", &wire.to) };
    if peers.is_empty() {
        return Err(Fault::new(field, "", "is empty: say at least one peer"));
    }
    let protocols = match &wire.protocols {
        None => vec![(None, None)],
        Some(protocols) => {
            let read = protocols.iter().enumerate().map(|(index, wire)| {
                protocol(wire).map_err(|fault| fault.under(format!("protocols[{index}]")))
            });
            read.collect::<Result<Vec<_>, _>>()?.concat()
        }
    };
    let mut rules = Vec::new();
    for (index, wire) in peers.iter().enumerate() {
        let peer =
            peer(wire, is_ingress).map_err(|fault| fault.under(format!("{field}[{index}]")))?;
        for (protocol, port) in &protocols {
            let mut rule = Rule { protocol: *protocol, ..Rule::of(action) };
            if is_ingress {
                rule.source = peer.clone();
            } else {
                rule.destination = peer.clone();
            }
            rule.destination.ports = port.clone().map(|port| vec![port]);
            rules.push(rule);
        }
    }
    Ok(rules)
}

fn peer(wire: &ClusterPeer, is_ingress: bool) -> Result<EntityMatch, Fault> {
    let selected = |selector| EntityMatch { selector: Some(selector), ..EntityMatch::default() };
    match (&wire.namespaces, &wire.pods, &wire.networks) {
        (Some(namespaces), None, None) => {
            pods_of(namespaces, &LabelSelector::default()).map(selected)
        }
        (None, Some(pods), None) => {
            pods_of(&pods.namespace_selector, &pods.pod_selector).map(selected)
        }
        (None, None, Some(networks)) if !is_ingress && !networks.is_empty() => {
            let nets = networks.iter().map(|text| net("networks", text));
            let nets = nets.collect::<Result<_, _>>()?;
            Ok(EntityMatch { nets: Some(nets), ..EntityMatch::default() })
        }
        // Nodes and domain names are not followed: they end here, too.
        _ => {
            let known =
                if is_ingress { "namespaces or pods" } else { "namespaces, pods or networks" };
            let problem =
                format!("or another peer is needed that can be followed: use one of {known}");
            Err(Fault::new("namespaces", "", problem))
        }
    }
}

/// A protocol and a port; `None` is any.
type ProtocolPort = (Option<Protocol>, Option<PortMatch>);

/// Reads a protocol; a port's name is that of any protocol that has ports.
fn protocol(wire: &ClusterProtocol) -> Result<Vec<ProtocolPort>, Fault> {
    let of = |protocol, wire: &PortOfProtocol| {
        let port = wire.destination_port.as_ref().map(port).transpose()?;
        Ok(vec![(Some(protocol), port)])
    };
    match (&wire.tcp, &wire.udp, &wire.sctp, &wire.destination_named_port) {
        (Some(ports), None, None, None) => of(Protocol::TCP, ports),
        (None, Some(ports), None, None) => of(Protocol::UDP, ports),
        (None, None, Some(ports), None) => of(Protocol::SCTP, ports),
        (None, None, None, Some(name)) if is_port_name(name) => {
            let protocols = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];
            let named = || Some(PortMatch::Named(name.clone()));
            Ok(protocols.into_iter().map(|protocol| (Some(protocol), named())).collect())
        }
        _ => {
            let problem = "or another protocol is needed: say exactly one of tcp, udp, sctp and \
                           destinationNamedPort";
            Err(Fault::new("tcp", "", problem))
        }
    }
}

fn port(wire: &PortNumbers) -> Result<PortMatch, Fault> {
    let (first, last) = match (wire.number, &wire.range) {
        (Some(number), None) => (number, number),
        (None, Some(range)) => (range.start, range.end),
        _ => {
            let problem = "or range is needed: say exactly one";
            return Err(Fault::new("destinationPort.number", "", problem));
        }
    };
    let read = |field, number| within(field, Some(number), 1..=u16::MAX);
    let first = read("destinationPort.start", first)?.unwrap_or_default();
    let last = read("destinationPort.end", last)?.unwrap_or_default();
    if last < first {
        let problem = format!("is less than the start: use {first} or more");
        return Err(Fault::new("destinationPort.end", last, problem));
    }
    Ok(PortMatch::Range(first, last))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(spec: &Value) -> (Policy, Vec<String>) {
        let object = json!({"metadata": {"name": "p"}, "spec": spec});
        let object: ClusterNetworkPolicy = serde_json::from_value(object).unwrap();
        let Reading { policy, faults } = object.reading();
        (policy, faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn rules_are_one_for_each_peer_and_protocol() {
        let (policy, faults) = read(&json!({
            "tier": "Admin", "priority": 7,
            "subject": {"namespaces": {"matchLabels": {"team": "x"}}},
            "ingress": [{"action": "Accept", "name": "n",
                "from": [{"namespaces": {}},
                         {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "a"}}}}],
                "protocols": [{"tcp": {"destinationPort": {"number": 80}}},
                              {"udp": {"destinationPort": {"range": {"start": 5, "end": 9}}}}]}],
            "egress": [{"action": "Pass", "to": [{"networks": ["10.0.0.0/8"]}],
                "protocols": [{"destinationNamedPort": "http"}, {"sctp": {}}]}],
        }));
        assert_eq!(faults, Vec::<String>::new());
        assert_eq!((policy.tier.as_str(), policy.order.number()), ("kube-admin", 7.0));
        assert_eq!(policy.id.to_string(), "kcnp/p");
        let pods = r#"projectcalico.org/orchestrator == "k8s""#;
        assert_eq!(policy.selector.to_string(), format!(r#"(pcns.team == "x" && {pods})"#));
        let ingress = policy.ingress.unwrap();
        let sources: Vec<String> =
            ingress.iter().map(|rule| rule.source.selector.as_ref().unwrap().to_string()).collect();
        let all = format!("(has(projectcalico.org/namespace) && {pods})");
        let some = format!(r#"(has(projectcalico.org/namespace) && ({pods} && app == "a"))"#);
        assert_eq!(sources, [all.clone(), all, some.clone(), some]);
        let port = |low, high| Some(vec![PortMatch::Range(low, high)]);
        assert_eq!(ingress[0].destination.ports, port(80, 80));
        assert_eq!(ingress[1].destination.ports, port(5, 9));
        let egress = policy.egress.unwrap();
        assert_eq!(egress.len(), 4);
        assert_eq!((egress[3].protocol, egress[3].action), (Some(Protocol::SCTP), Action::Pass));
    }

    #[test]
    fn rules_that_cannot_be_followed_never_open() {
        let nodes = json!([{"nodes": {}}]);
        let (policy, faults) = read(&json!({
            "tier": "Baseline", "subject": {"namespaces": {}},
            "egress": [
                {"action": "Accept", "to": nodes},
                {"action": "Deny", "to": nodes},
                {"action": "Pass", "to": [{"networks": ["nonsense"]}]},
                {"action": "Accept", "to": [{"domainNames": ["a.example"]}]},
                {"action": "Accept", "to": []},
            ],
        }));
        let egress = policy.egress.unwrap();
        assert!(egress.iter().all(|rule| rule.action == Action::Deny && rule.refused.is_some()));
        assert_eq!(egress.len(), 2);
        assert_eq!((policy.ingress, faults.len()), (None, 5));
        assert_eq!(policy.tier, "kube-baseline");
    }

    #[test]
    fn objects_that_cannot_be_read_deny_whom_they_choose() {
        let subject = json!({"namespaces": {}});
        let deny = |field: &str| json!([{"action": "Accept", field: [{"namespaces": {}}]}]);
        for (spec, field) in [
            (json!({"subject": subject}), "spec.tier"),
            (json!({"tier": "User", "subject": subject}), "spec.tier"),
            (json!({"tier": "Admin", "priority": 1001, "subject": subject}), "spec.priority"),
            (json!({"tier": "Admin"}), "spec.subject.namespaces"),
        ] {
            let mut spec = spec;
            spec["ingress"] = deny("from");
            let (policy, faults) = read(&spec);
            let expected = format!("ClusterNetworkPolicy p: {field}");
            assert!(faults[0].starts_with(&expected), "{faults:?}");
            let ingress = policy.ingress.unwrap();
            assert_eq!(ingress.len(), 1);
            assert!(ingress[0].refused.is_some() && ingress[0].action == Action::Deny);
            assert_eq!(policy.egress, None);
            assert_eq!(policy.selector == Selector::none(), field.contains("subject"));
        }
    }
}
