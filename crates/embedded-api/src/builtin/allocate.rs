//! Cluster addresses and node ports of services: each has one owner.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::core::{default, items, list, section};
use super::service::has_node_ports;
use crate::Object;
use crate::cause::Cause;

/// The range of cluster addresses: 10.96.0.0/16, as kubeadm has it.
const RANGE: (Ipv4Addr, u32) = (Ipv4Addr::new(10, 96, 0, 0), 16);
/// The range of node ports, as the API server has it.
const NODE_PORTS: std::ops::RangeInclusive<u64> = 30_000..=32_767;

/// What other services have.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Taken {
    addresses: BTreeSet<Ipv4Addr>,
    node_ports: BTreeSet<u64>,
}

impl Taken {
    /// Collects what the services have, except the one that is being written.
    pub(crate) fn by<'a>(services: impl IntoIterator<Item = &'a Object>) -> Self {
        let mut taken = Self::default();
        for service in services {
            let null = Value::Null;
            let spec = service.body.get("spec").unwrap_or(&null);
            let addresses = list(spec, "clusterIPs").iter().filter_map(Value::as_str);
            taken.addresses.extend(addresses.filter_map(|text| text.parse::<Ipv4Addr>().ok()));
            let ports = list(spec, "ports").iter();
            let ports = ports.filter_map(|port| port.get("nodePort").and_then(Value::as_u64));
            taken.node_ports.extend(ports);
        }
        taken
    }

    /// Returns a free cluster address, from `start` on and around.
    fn address(&self, start: u32) -> Option<Ipv4Addr> {
        // Neither the network's own address nor its last one, which looks like a broadcast.
        let size = 1_u32.checked_shl(32_u32.saturating_sub(RANGE.1))?.checked_sub(2)?;
        let nth = |at: u32| {
            let offset = start.wrapping_add(at).checked_rem(size)?.checked_add(1)?;
            RANGE.0.to_bits().checked_add(offset).map(Ipv4Addr::from_bits)
        };
        (0..size).filter_map(nth).find(|address| !self.addresses.contains(address))
    }

    fn node_port(&self, start: u32) -> Option<u64> {
        let size = NODE_PORTS.end().saturating_sub(*NODE_PORTS.start()).saturating_add(1);
        let nth = |at: u64| {
            let offset = u64::from(start).wrapping_add(at).checked_rem(size)?;
            NODE_PORTS.start().checked_add(offset)
        };
        (0..size).filter_map(nth).find(|port| !self.node_ports.contains(port))
    }
}

/// Gives a service its addresses and node ports; `start` is random.
pub(crate) fn allocate(service: &mut Object, taken: &Taken, start: u32) -> Vec<Cause> {
    let mut causes = Vec::new();
    let Some(spec) = section(service, "spec") else { return causes };
    let kind = spec.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    if kind == "ExternalName" {
        return causes;
    }
    let chosen = spec.get("clusterIP").and_then(Value::as_str).map(str::to_owned);
    match chosen.as_deref() {
        Some("None") => {}
        Some(text) => causes.extend(check_address(text, taken)),
        None => {
            if let Some(address) = taken.address(start) {
                spec.insert("clusterIP".to_owned(), json!(address.to_string()));
                spec.insert("clusterIPs".to_owned(), json!([address.to_string()]));
            } else {
                let detail = "failed to allocate a serviceIP: range is full";
                causes.push(Cause::invalid("spec.clusterIPs", &json!([]), detail));
            }
        }
    }
    let is_headless = chosen.as_deref() == Some("None");
    let has_selector = spec.get("selector").is_some();
    if is_headless && !has_selector {
        default(spec, "ipFamilies", json!(["IPv4", "IPv6"]));
        default(spec, "ipFamilyPolicy", json!("RequireDualStack"));
    } else {
        default(spec, "ipFamilies", json!(["IPv4"]));
        default(spec, "ipFamilyPolicy", json!("SingleStack"));
    }
    if has_node_ports(&kind) {
        causes.extend(allocate_ports(spec, taken, start));
    }
    causes
}

fn check_address(text: &str, taken: &Taken) -> Option<Cause> {
    let address: Ipv4Addr = text.parse().ok()?;
    let host_bits = 32_u32.saturating_sub(RANGE.1);
    let network = |address: Ipv4Addr| address.to_bits().checked_shr(host_bits);
    let why = if network(address) != network(RANGE.0) {
        "the provided network does not match the current range"
    } else if taken.addresses.contains(&address) {
        "provided IP is already allocated"
    } else {
        return None;
    };
    let detail = format!("failed to allocate IP {text}: {why}");
    Some(Cause::invalid("spec.clusterIPs", &json!([text]), &detail))
}

fn allocate_ports(
    spec: &mut serde_json::Map<String, Value>,
    taken: &Taken,
    start: u32,
) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut taken = taken.clone();
    for (at, port) in items(spec, "ports").enumerate() {
        let field = format!("spec.ports[{at}].nodePort");
        match port.get("nodePort").and_then(Value::as_u64) {
            None => {
                if let Some(number) = taken.node_port(start) {
                    port.insert("nodePort".to_owned(), json!(number));
                    taken.node_ports.insert(number);
                }
            }
            Some(number) if !NODE_PORTS.contains(&number) => {
                let detail = "provided port is not in the valid range. The range of valid ports is 30000-32767";
                causes.push(Cause::invalid(field, &json!(number), detail));
            }
            Some(number) => {
                if !taken.node_ports.insert(number) {
                    let detail = "provided port is already allocated";
                    causes.push(Cause::invalid(field, &json!(number), detail));
                }
            }
        }
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::super::core::text;
    use super::super::service::default_service;
    use super::*;

    fn service(spec: &Value) -> Object {
        let value = json!({"metadata": {"name": "s"}, "spec": spec});
        let mut service = Object::from_value(value).unwrap();
        default_service(&mut service);
        service
    }

    fn address(service: &Object) -> &str {
        text(&service.body["spec"], "clusterIP")
    }

    #[test]
    fn gives_no_address_twice() {
        let mut services: Vec<Object> = Vec::new();
        for _ in 0..300 {
            let mut new = service(&json!({"ports": [{"port": 80}]}));
            assert!(allocate(&mut new, &Taken::by(&services), 65_400).is_empty());
            services.push(new);
        }
        let all: BTreeSet<&str> = services.iter().map(address).collect();
        assert_eq!(all.len(), 300);
        assert!(all.contains("10.96.0.1") && !all.contains("10.96.0.0"));
    }

    #[test]
    fn refuses_addresses_of_others() {
        let mut first = service(&json!({"clusterIP": "10.96.3.3", "ports": [{"port": 80}]}));
        assert!(allocate(&mut first, &Taken::default(), 0).is_empty());
        let taken = Taken::by([&first]);
        let problem = |ip: &str| {
            let mut second = service(&json!({"clusterIP": ip, "ports": [{"port": 80}]}));
            allocate(&mut second, &taken, 0).first().map(|cause| cause.message.clone())
        };
        let taken_text = "Invalid value: [\"10.96.3.3\"]: failed to allocate IP 10.96.3.3: provided IP is already allocated";
        assert_eq!(problem("10.96.3.3").unwrap(), taken_text);
        let range = "Invalid value: [\"10.99.3.3\"]: failed to allocate IP 10.99.3.3: the provided network does not match the current range";
        assert_eq!(problem("10.99.3.3").unwrap(), range);
        assert_eq!(problem("10.96.3.4"), None);
        assert_eq!(problem("None"), None);
    }
}
