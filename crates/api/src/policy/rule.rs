//! Rules of policies.

use std::collections::BTreeMap;

use model::net::Family;
use model::policy::{Action, HttpMatch, HttpPath, IcmpMatch, Protocol, Rule, Stage};
use serde_json::Value;

use super::entity::entity;
use crate::invalid::{Fault, parse, within, word};
use crate::wire::wire;

wire! {
    /// What happens to packets that have all the marks that are set here.
    pub struct RuleSpec {
        /// `Allow`, `Deny`, `Log` or `Pass`.
        action: String = "action",
        /// 4 or 6.
        ip_version: Option<i64> = "ipVersion",
        /// A name such as `TCP`, or a number.
        protocol: Option<Value> = "protocol",
        /// A protocol that it must not be.
        not_protocol: Option<Value> = "notProtocol",
        /// The message of ICMP.
        icmp: Option<IcmpSpec> = "icmp",
        /// A message that it must not be.
        not_icmp: Option<IcmpSpec> = "notICMP",
        /// The sender.
        source: Option<EntityRuleSpec> = "source",
        /// The receiver.
        destination: Option<EntityRuleSpec> = "destination",
        /// The request.
        http: Option<HttpSpec> = "http",
        /// Notes.
        metadata: Option<RuleMetadataSpec> = "metadata",
    }

    /// A message of ICMP.
    pub struct IcmpSpec {
        /// 0 to 254.
        kind: Option<i64> = "type",
        /// 0 to 255; needs a type.
        code: Option<i64> = "code",
    }

    /// One end of a packet's way.
    pub struct EntityRuleSpec {
        /// Networks that the address lies in.
        nets: Option<Vec<String>> = "nets",
        /// Networks that the address does not lie in.
        not_nets: Option<Vec<String>> = "notNets",
        /// Endpoints and network sets that it is one of.
        selector: Option<String> = "selector",
        /// Endpoints and network sets that it is none of.
        not_selector: Option<String> = "notSelector",
        /// The namespaces of those.
        namespace_selector: Option<String> = "namespaceSelector",
        /// A Service whose endpoints it is one of.
        services: Option<ServiceRefSpec> = "services",
        /// Ports: numbers, `first:last`, or names.
        ports: Option<Vec<Value>> = "ports",
        /// Ports that it must not be.
        not_ports: Option<Vec<Value>> = "notPorts",
        /// Service accounts of endpoints.
        service_accounts: Option<ServiceAccountsSpec> = "serviceAccounts",
    }

    /// A Service.
    pub struct ServiceRefSpec {
        /// Its name.
        name: Option<String> = "name",
        /// Its namespace; absent is the policy's.
        namespace: Option<String> = "namespace",
    }

    /// Service accounts.
    pub struct ServiceAccountsSpec {
        /// Their names.
        names: Option<Vec<String>> = "names",
        /// Their labels.
        selector: Option<String> = "selector",
    }

    /// A request.
    pub struct HttpSpec {
        /// Its method is one of these.
        methods: Option<Vec<String>> = "methods",
        /// Its path is one of these.
        paths: Option<Vec<HttpPathSpec>> = "paths",
    }

    /// A path: exactly one of these.
    pub struct HttpPathSpec {
        /// The whole path.
        exact: Option<String> = "exact",
        /// How it starts.
        prefix: Option<String> = "prefix",
    }

    /// Notes on a rule.
    pub struct RuleMetadataSpec {
        /// The notes.
        annotations: Option<BTreeMap<String, String>> = "annotations",
    }
}

/// Reads a rule of a policy in `namespace`.
pub(super) fn rule(
    wire: &RuleSpec,
    namespace: Option<&str>,
    is_ingress: bool,
) -> Result<Rule, Fault> {
    let action = action(&wire.action)?;
    let protocol = protocol("protocol", wire.protocol.as_ref())?;
    let end = |field: &str, wire: &Option<EntityRuleSpec>| match wire {
        Some(wire) => entity(wire, namespace).map_err(|fault| fault.under(field)),
        None => Ok(model::policy::EntityMatch::default()),
    };
    let rule = Rule {
        action,
        family: family(wire.ip_version)?,
        protocol,
        not_protocol: self::protocol("notProtocol", wire.not_protocol.as_ref())?,
        icmp: icmp("icmp", wire.icmp.as_ref())?,
        not_icmp: icmp("notICMP", wire.not_icmp.as_ref())?,
        source: end("source", &wire.source)?,
        destination: end("destination", &wire.destination)?,
        http: http(wire.http.as_ref())?,
        annotations: wire
            .metadata
            .as_ref()
            .and_then(|metadata| metadata.annotations.clone())
            .unwrap_or_default(),
        refused: None,
    };
    check_icmp(&rule)?;
    check_ports(&rule)?;
    check_families(&rule)?;
    check_services(&rule, is_ingress)?;
    if rule.http.is_some()
        && (action != Action::Allow || protocol.is_some_and(|p| p != Protocol::TCP))
    {
        let problem = "needs action Allow, and protocol TCP or none: change them or leave http out";
        return Err(Fault::new("http", "", problem));
    }
    Ok(Rule { family: rule.family.or_else(|| excepted_family(&rule)), ..rule })
}

/// Exceptions of one family alone make a rule one of that family, as in Calico: a rule for all
/// of IPv4 but a network would otherwise be one for all of IPv6, too.
fn excepted_family(rule: &Rule) -> Option<Family> {
    let ends = [&rule.source.not_nets, &rule.destination.not_nets];
    ends.into_iter().find_map(|nets| {
        let family = nets.first()?.family();
        nets.iter().all(|net| net.family() == family).then_some(family)
    })
}

fn action(text: &str) -> Result<Action, Fault> {
    let actions = [
        ("Allow", Action::Allow),
        ("Deny", Action::Deny),
        ("Log", Action::Log),
        ("Pass", Action::Pass),
    ];
    if text.is_empty() {
        return Err(Fault::new("action", "", "is missing: use Allow, Deny, Log or Pass"));
    }
    word("action", Some(text), &actions, Action::Deny)
}

fn family(version: Option<i64>) -> Result<Option<Family>, Fault> {
    match version {
        None => Ok(None),
        Some(4) => Ok(Some(Family::V4)),
        Some(6) => Ok(Some(Family::V6)),
        Some(other) => Err(Fault::new("ipVersion", other, "is no IP version: use 4 or 6")),
    }
}

fn protocol(field: &str, value: Option<&Value>) -> Result<Option<Protocol>, Fault> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => parse(field, text).map(Some),
        Some(other) => parse(field, &other.to_string()).map(Some),
    }
}

fn icmp(field: &str, wire: Option<&IcmpSpec>) -> Result<Option<IcmpMatch>, Fault> {
    let Some(wire) = wire else { return Ok(None) };
    let read = || {
        let kind = within("type", wire.kind, 0..=254_u8)?;
        let code = within("code", wire.code, 0..=u8::MAX)?;
        match (kind, code) {
            (Some(kind), code) => Ok(Some(IcmpMatch { kind, code })),
            (None, None) => Ok(None),
            (None, Some(code)) => {
                Err(Fault::new("code", code, "means nothing alone: say the type too"))
            }
        }
    };
    read().map_err(|fault: Fault| fault.under(field))
}

fn http(wire: Option<&HttpSpec>) -> Result<Option<HttpMatch>, Fault> {
    let Some(wire) = wire else { return Ok(None) };
    let path = |path: &HttpPathSpec| match (&path.exact, &path.prefix) {
        (Some(exact), None) => Ok(HttpPath::Exact(exact.clone())),
        (None, Some(prefix)) => Ok(HttpPath::Prefix(prefix.clone())),
        (exact, _) => {
            let value = exact.as_deref().unwrap_or_default();
            Err(Fault::new("http.paths", value, "one is needed: exact or prefix"))
        }
    };
    let paths: Result<_, _> = wire.paths.iter().flatten().map(path).collect();
    Ok(Some(HttpMatch { methods: wire.methods.clone().unwrap_or_default(), paths: paths? }))
}

/// ICMP's types mean nothing without its protocol.
fn check_icmp(rule: &Rule) -> Result<(), Fault> {
    let is_icmp = matches!(rule.protocol, Some(Protocol::ICMP | Protocol::ICMP_V6));
    if (rule.icmp.is_some() || rule.not_icmp.is_some()) && !is_icmp {
        let value = rule.protocol.map(|protocol| protocol.to_string()).unwrap_or_default();
        let problem = "does not go with icmp: use protocol ICMP or ICMPv6";
        return Err(Fault::new("protocol", value, problem));
    }
    let needed = match rule.protocol {
        Some(Protocol::ICMP) => Family::V4,
        Some(Protocol::ICMP_V6) => Family::V6,
        _ => return Ok(()),
    };
    match rule.family.filter(|family| *family != needed) {
        Some(family) => {
            let problem = format!("does not go with the protocol: use {}", needed.number());
            Err(Fault::new("ipVersion", family.number(), problem))
        }
        None => Ok(()),
    }
}

/// Ports mean nothing without a protocol that has them.
fn check_ports(rule: &Rule) -> Result<(), Fault> {
    let ends = [("source", &rule.source), ("destination", &rule.destination)];
    for (end, entity) in ends {
        let field = if entity.ports.is_some() {
            "ports"
        } else if entity.not_ports.is_empty() {
            continue;
        } else {
            "notPorts"
        };
        if !rule.protocol.is_some_and(Protocol::has_ports) {
            let value = rule.protocol.map(|protocol| protocol.to_string()).unwrap_or_default();
            let problem = format!("does not go with {end}.{field}: use protocol TCP, UDP or SCTP");
            return Err(Fault::new("protocol", value, problem));
        }
    }
    Ok(())
}

/// Networks of another family than the rule's would never match.
fn check_families(rule: &Rule) -> Result<(), Fault> {
    let Some(family) = rule.family else { return Ok(()) };
    let ends = [("source", &rule.source), ("destination", &rule.destination)];
    for (end, entity) in ends {
        if let Some(net) = entity.nets.iter().flatten().find(|net| net.family() != family) {
            let problem = format!("is not {family}, as ipVersion says: leave it out");
            return Err(Fault::new(format!("{end}.nets"), net, problem));
        }
    }
    Ok(())
}

/// Endpoints of a Service are known by address and port; ports may come from it at the receiver.
fn check_services(rule: &Rule, is_ingress: bool) -> Result<(), Fault> {
    let wrong = |field: &str, problem: &str| Err(Fault::new(field, "", problem));
    let has_ports = |entity: &model::policy::EntityMatch| {
        entity.ports.is_some() || !entity.not_ports.is_empty()
    };
    if rule.source.service.is_some() && !is_ingress {
        return wrong("source.services", "is for ingress rules: use destination.services");
    }
    if rule.destination.service.is_some() && is_ingress {
        return wrong("destination.services", "is for egress rules: use source.services");
    }
    if rule.destination.service.is_some() && has_ports(&rule.destination) {
        return wrong("destination.ports", "come from the Service: leave them out");
    }
    Ok(())
}

/// Rules before connection tracking know neither requests nor logs of connections.
pub(super) fn check_stage(wire: &RuleSpec, stage: Stage) -> Result<(), Fault> {
    if matches!(stage, Stage::Untracked | Stage::PreDnat) && wire.http.is_some() {
        let problem = "cannot be seen before connections are tracked: leave it out";
        return Err(Fault::new("http", "", problem));
    }
    Ok(())
}
