//! One end of a packet's way: who the sender or the receiver of a rule is.

use model::id::NamespacedName;
use model::net::{Cidr, InterfaceAddr};
use model::policy::{EntityMatch, PortMatch};
use selector::Selector;
use serde_json::Value;

use super::rule::{EntityRuleSpec, ServiceAccountsSpec};
use crate::invalid::{Fault, parse, parse_some};

/// The label with the name of the namespace that an endpoint or network set is in.
const NAMESPACE: &str = "projectcalico.org/namespace";
/// The label with the name of an endpoint's service account.
const SERVICE_ACCOUNT: &str = "projectcalico.org/serviceaccount";

/// The most networks of a list.
const MAX_NETS: usize = 256;
/// The most ports of a list.
const MAX_PORTS: usize = 50;

/// Reads one end; `namespace` is the policy's own.
pub(super) fn entity(wire: &EntityRuleSpec, namespace: Option<&str>) -> Result<EntityMatch, Fault> {
    let not_nets = nets("notNets", wire.not_nets.as_deref())?;
    let not_ports = ports("notPorts", wire.not_ports.as_deref())?;
    Ok(EntityMatch {
        nets: some("nets", nets("nets", wire.nets.as_deref())?)?,
        not_nets: not_nets.unwrap_or_default(),
        selector: effective_selector(wire, namespace)?,
        not_selector: parse_some("notSelector", wire.not_selector.as_deref())?,
        service: service(wire, namespace)?,
        ports: some("ports", ports("ports", wire.ports.as_deref())?)?,
        not_ports: not_ports.unwrap_or_default(),
    })
}

/// Refuses a list that is there and empty: it would match nothing, or, read as absent, anything.
fn some<T>(field: &str, list: Option<Vec<T>>) -> Result<Option<Vec<T>>, Fault> {
    match list {
        // Differs from Calico: an empty list there means the same as none.
        Some(list) if list.is_empty() => {
            Err(Fault::new(field, "[]", "is empty: list something, or leave the field out"))
        }
        other => Ok(other),
    }
}

/// Returns the selector of objects in a namespace.
pub(crate) fn in_namespace(namespace: &str) -> Result<Selector, Fault> {
    if namespace.is_empty() {
        return Err(Fault::new("namespace", "", "is missing: say the namespace of the policy"));
    }
    parse("namespace", &format!("{NAMESPACE} == '{namespace}'"))
}

/// Returns the selector of objects in namespaces that `text` matches; `None` is no condition.
///
/// `all()` is any namespace, and `global()` is none: network sets and host
/// endpoints that are in no namespace.
pub(crate) fn namespaces(field: &str, text: Option<&str>) -> Result<Option<Selector>, Fault> {
    let Some(selector) = parse_some::<Selector>(field, text)? else { return Ok(None) };
    match selector.to_string().as_str() {
        "all()" => parse(field, &format!("has({NAMESPACE})")).map(Some),
        "global()" => parse(field, &format!("!has({NAMESPACE})")).map(Some),
        _ => Ok(Some(selector.prefixed("pcns."))),
    }
}

/// Returns what `selector`, `namespaceSelector` and `serviceAccounts` say together.
fn effective_selector(
    wire: &EntityRuleSpec,
    namespace: Option<&str>,
) -> Result<Option<Selector>, Fault> {
    let own = parse_some("selector", wire.selector.as_deref())?;
    let is_set = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.trim().is_empty());
    let accounts = match &wire.service_accounts {
        Some(accounts) => service_accounts(accounts)?,
        None => None,
    };
    let selects = own.is_some() || is_set(&wire.not_selector) || wire.service_accounts.is_some();
    let namespaces =
        match (namespaces("namespaceSelector", wire.namespace_selector.as_deref())?, namespace) {
            (Some(selector), _) => Some(selector),
            // Whoever selects in a namespaced policy, and says nothing of namespaces, means his own.
            (None, Some(namespace)) if selects => Some(in_namespace(namespace)?),
            (None, _) => None,
        };
    Ok([namespaces, own, accounts].into_iter().flatten().reduce(Selector::and))
}

fn service_accounts(wire: &ServiceAccountsSpec) -> Result<Option<Selector>, Fault> {
    let read = || {
        let names = wire.names.as_deref().unwrap_or_default();
        if let Some(name) = names.iter().find(|name| !model::id::is_dns_subdomain(name)) {
            let problem = "is no name of a service account: use its name, without quotes";
            return Err(Fault::new("names", name, problem));
        }
        let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
        let by_name = if quoted.is_empty() {
            None
        } else {
            Some(parse("names", &format!("{SERVICE_ACCOUNT} in {{{}}}", quoted.join(", ")))?)
        };
        let selected: Option<Selector> = parse_some("selector", wire.selector.as_deref())?;
        let selected = selected.map(|selector| selector.prefixed("pcsa."));
        Ok([by_name, selected].into_iter().flatten().reduce(Selector::and))
    };
    read().map_err(|fault: Fault| fault.under("serviceAccounts"))
}

/// Reads a list of networks; a bare address is a network of its own.
pub(crate) fn nets(field: &str, texts: Option<&[String]>) -> Result<Option<Vec<Cidr>>, Fault> {
    let Some(texts) = texts else { return Ok(None) };
    if texts.len() > MAX_NETS {
        let problem = format!("networks are too many: use a NetworkSet, or at most {MAX_NETS}");
        return Err(Fault::new(field, texts.len(), problem));
    }
    let nets = texts.iter().map(|text| net(field, text));
    nets.collect::<Result<_, _>>().map(Some)
}

/// Reads a network; host bits are cleared, as Calico and Kubernetes do for policies.
pub(crate) fn net(field: &str, text: &str) -> Result<Cidr, Fault> {
    match text.parse() {
        Ok(addr) => Ok(Cidr::host(addr)),
        Err(_) => parse::<InterfaceAddr>(field, text).map(|net| net.network()),
    }
}

fn ports(field: &str, wire: Option<&[Value]>) -> Result<Option<Vec<PortMatch>>, Fault> {
    let Some(wire) = wire else { return Ok(None) };
    if wire.len() > MAX_PORTS {
        let problem = format!("ports are too many: use ranges, or at most {MAX_PORTS}");
        return Err(Fault::new(field, wire.len(), problem));
    }
    wire.iter().map(|value| port(field, value)).collect::<Result<_, _>>().map(Some)
}

/// Reads a port: a number, `first:last`, or a name.
fn port(field: &str, wire: &Value) -> Result<PortMatch, Fault> {
    let text = wire.as_str().map_or_else(|| wire.to_string(), str::to_owned);
    let wrong = |problem: &str| Err(Fault::new(field, &text, problem));
    let (first, last) = text.split_once(':').unwrap_or((&text, &text));
    let is_numeric = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !(is_numeric(first) && is_numeric(last)) {
        return if is_port_name(&text) {
            Ok(PortMatch::Named(text))
        } else {
            wrong("is no port: use 0 to 65535, FIRST:LAST, or a name")
        };
    }
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok(PortMatch::Range(first, last)),
        (Ok(_), Ok(_)) => wrong("runs backwards: put the smaller port first"),
        _ => wrong("is no port: use 0 to 65535, FIRST:LAST, or a name"),
    }
}

/// Is `text` a port's name: at most 128 letters, digits, `-`, `_` and `.`?
pub(crate) fn is_port_name(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.len() <= 128
        && text.bytes().all(is_inner)
        && is_end(text.bytes().next())
        && is_end(text.bytes().last())
}

fn service(wire: &EntityRuleSpec, own: Option<&str>) -> Result<Option<NamespacedName>, Fault> {
    let Some(service) = &wire.services else { return Ok(None) };
    let name = service.name.clone().unwrap_or_default();
    if name.is_empty() {
        return Err(Fault::new("services.name", "", "is missing: say which Service"));
    }
    let excluded = [
        ("selector", wire.selector.is_some()),
        ("notSelector", wire.not_selector.is_some()),
        ("namespaceSelector", wire.namespace_selector.is_some()),
        ("serviceAccounts", wire.service_accounts.is_some()),
        ("nets", wire.nets.is_some()),
        ("notNets", wire.not_nets.is_some()),
    ];
    if let Some((field, _)) = excluded.iter().find(|(_, is_set)| *is_set) {
        let problem = format!("services and {field} exclude each other: leave one out");
        return Err(Fault::new("services", name, problem));
    }
    let given = service.namespace.as_deref().filter(|namespace| !namespace.is_empty());
    let missing = "is missing: a global policy must say the namespace of the Service";
    let namespace = given.or(own).ok_or_else(|| Fault::new("services.namespace", "", missing))?;
    Ok(Some(NamespacedName { namespace: namespace.to_owned(), name }))
}
