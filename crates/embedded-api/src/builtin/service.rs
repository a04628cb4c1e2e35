//! Services: types, cluster addresses and node ports.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::core::{default, items, list, one_of, port, section, text};
use super::{Rules, Trait};
use crate::Object;
use crate::cause::{Cause, Problem};
use crate::verb::names::{self, Rule};

pub(super) const fn service(rules: Rules) -> Rules {
    Rules {
        traits: &[Trait::CreatesOnUpdate, Trait::ReturnsDeleted],
        name: Rule::Label1035,
        default: default_service,
        on_create: |service| {
            service.body.insert("status".to_owned(), json!({"loadBalancer": {}}));
        },
        on_update: keep_addresses,
        on_status: |service| {
            if let Some(status) = section(service, "status") {
                default(status, "loadBalancer", json!({}));
            }
        },
        validate,
        validate_update,
        validate_status,
        ..rules
    }
}

pub(super) fn default_service(service: &mut Object) {
    let balancer = service.body.get_mut("status").and_then(|it| it.get_mut("loadBalancer"));
    if let Some(balancer) = balancer.and_then(Value::as_object_mut) {
        for address in items(balancer, "ingress").filter(|it| it.contains_key("ip")) {
            default(address, "ipMode", json!("VIP"));
        }
    }
    let Some(spec) = section(service, "spec") else { return };
    default(spec, "sessionAffinity", json!("None"));
    default(spec, "type", json!("ClusterIP"));
    if spec.get("sessionAffinity").and_then(Value::as_str) == Some("ClientIP") {
        let config = json!({"clientIP": {"timeoutSeconds": 10_800}});
        default(spec, "sessionAffinityConfig", config);
    }
    for port in items(spec, "ports") {
        default(port, "protocol", json!("TCP"));
        if let Some(number) = port.get("port").cloned() {
            default(port, "targetPort", number);
        }
    }
    let kind = spec.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    if kind == "LoadBalancer" {
        default(spec, "allocateLoadBalancerNodePorts", json!(true));
    }
    if matches!(kind.as_str(), "LoadBalancer" | "NodePort") {
        default(spec, "externalTrafficPolicy", json!("Cluster"));
    }
    if kind != "ExternalName" {
        default(spec, "internalTrafficPolicy", json!("Cluster"));
    }
    match (spec.get("clusterIP").cloned(), spec.get("clusterIPs").cloned()) {
        (Some(one), None) => default(spec, "clusterIPs", json!([one])),
        (None, Some(all)) => {
            if let Some(first) = all.get(0) {
                default(spec, "clusterIP", first.clone());
            }
        }
        _ => {}
    }
}

/// Keeps what was allocated, as long as the type has it.
fn keep_addresses(new: &mut Object, old: &Object) {
    let null = Value::Null;
    let before = old.body.get("spec").unwrap_or(&null);
    let Some(spec) = section(new, "spec") else { return };
    let kind = spec.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    if kind == "ExternalName" {
        for field in
            ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]
        {
            if spec.get(field) == before.get(field) {
                spec.remove(field);
            }
        }
        return;
    }
    // A client that changes one of the two means both.
    if spec.get("clusterIP").is_some()
        && spec.get("clusterIP") != before.get("clusterIP")
        && spec.get("clusterIPs") == before.get("clusterIPs")
    {
        let changed = spec.get("clusterIP").cloned();
        spec.insert("clusterIPs".to_owned(), json!([changed]));
    }
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if let Some(value) = before.get(field) {
            default(spec, field, value.clone());
        }
    }
    let ports = list(before, "ports").to_vec();
    if !has_node_ports(&kind) {
        return;
    }
    for port in items(spec, "ports") {
        let same = |other: &&Value| {
            other.get("port") == port.get("port") && other.get("protocol") == port.get("protocol")
        };
        let number = ports.iter().find(same).and_then(|port| port.get("nodePort")).cloned();
        if let Some(number) = number {
            default(port, "nodePort", number);
        }
    }
}

pub(super) fn has_node_ports(kind: &str) -> bool {
    matches!(kind, "NodePort" | "LoadBalancer")
}

fn validate(service: &Object) -> Vec<Cause> {
    let mut causes = Vec::new();
    let null = Value::Null;
    let spec = service.body.get("spec").unwrap_or(&null);
    let kind = text(spec, "type");
    let ports = list(spec, "ports");
    let is_headless = text(spec, "clusterIP") == "None";
    if ports.is_empty() && kind != "ExternalName" && !is_headless {
        causes.push(Cause::required("spec.ports", ""));
    }
    if kind == "ExternalName" && text(spec, "externalName").is_empty() {
        causes.push(Cause::required("spec.externalName", ""));
    }
    for (at, entry) in ports.iter().enumerate() {
        validate_port(&format!("spec.ports[{at}]"), entry, ports.len() > 1, &mut causes);
    }
    crate::verb::meta::labels("spec.selector", spec.get("selector"), &mut causes);
    if matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer") {
        validate_together(ports, kind, &mut causes);
    }
    for (at, address) in list(spec, "clusterIPs").iter().enumerate() {
        let text = address.as_str().unwrap_or_default();
        if text != "None" && text.parse::<std::net::IpAddr>().is_err() {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            causes.push(Cause::invalid(format!("spec.clusterIPs[{at}]"), address, detail));
        }
    }
    let affinity = text(spec, "sessionAffinity");
    one_of("spec.sessionAffinity", affinity, &["ClientIP", "None"], &mut causes);
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    one_of("spec.type", kind, &kinds, &mut causes);
    causes
}

/// Only a load balancer may have addresses of one.
fn validate_status(new: &Object, _: &Object) -> Vec<Cause> {
    let null = Value::Null;
    let kind = text(new.body.get("spec").unwrap_or(&null), "type");
    let balancer = new.body.get("status").and_then(|status| status.get("loadBalancer"));
    if kind == "LoadBalancer" || list(balancer.unwrap_or(&null), "ingress").is_empty() {
        return Vec::new();
    }
    let detail = "may only be used when `spec.type` is 'LoadBalancer'";
    vec![Cause::forbidden("status.loadBalancer.ingress", detail)]
}

/// Finds names and ports that are there twice, and node ports where none may be.
fn validate_together(ports: &[Value], kind: &str, causes: &mut Vec<Cause>) {
    let mut seen = BTreeSet::new();
    for (at, entry) in ports.iter().enumerate() {
        let name = text(entry, "name");
        if !name.is_empty() && !seen.insert(name) {
            causes.push(Cause::duplicate(format!("spec.ports[{at}].name"), &json!(name)));
        }
        if !has_node_ports(kind) && entry.get("nodePort").is_some() {
            let detail = format!("may not be used when `type` is '{kind}'");
            causes.push(Cause::forbidden(format!("spec.ports[{at}].nodePort"), &detail));
        }
    }
    let mut seen = BTreeSet::new();
    for (at, entry) in ports.iter().enumerate() {
        let number = entry.get("port").and_then(Value::as_i64).unwrap_or(0);
        if !seen.insert((text(entry, "protocol"), number)) {
            // The API server shows its internal type, without what does not matter.
            let shown = format!(
                r#"{{"Name":"","Protocol":"{}","AppProtocol":null,"Port":{number},"TargetPort":0,"NodePort":0}}"#,
                text(entry, "protocol"),
            );
            let message = format!("Duplicate value: {shown}");
            let field = format!("spec.ports[{at}]");
            causes.push(Cause::new(Problem::Duplicate, field, message));
        }
    }
}

fn validate_port(path: &str, entry: &Value, needs_name: bool, causes: &mut Vec<Cause>) {
    let name = text(entry, "name");
    if !name.is_empty() {
        causes.extend(names::causes(&format!("{path}.name"), name, &names::dns_label(name)));
    } else if needs_name {
        causes.push(Cause::required(format!("{path}.name"), ""));
    }
    let number = entry.get("port").and_then(Value::as_i64).unwrap_or(0);
    port(&format!("{path}.port"), number, causes);
    let field = format!("{path}.protocol");
    one_of(&field, text(entry, "protocol"), &["SCTP", "TCP", "UDP"], causes);
    let field = format!("{path}.targetPort");
    match entry.get("targetPort") {
        Some(Value::Number(number)) => port(&field, number.as_i64().unwrap_or(0), causes),
        Some(Value::String(name)) => {
            for problem in super::policy::port_name(name) {
                causes.push(Cause::invalid(&*field, &json!(name), problem));
            }
        }
        _ => {}
    }
}

fn validate_update(new: &Object, old: &Object) -> Vec<Cause> {
    let null = Value::Null;
    let spec = new.body.get("spec").unwrap_or(&null);
    let before = old.body.get("spec").unwrap_or(&null);
    let mut causes = Vec::new();
    let is_external = [spec, before].iter().any(|spec| text(spec, "type") == "ExternalName");
    if !is_external
        && !list(before, "clusterIPs").is_empty()
        && spec.get("clusterIPs") != before.get("clusterIPs")
    {
        let value = spec.get("clusterIPs").cloned().unwrap_or_default();
        causes.push(Cause::invalid("spec.clusterIPs[0]", &value, "may not change once set"));
    }
    causes.extend(validate(new));
    causes
}

#[cfg(test)]
mod tests {
    use super::super::allocate::{Taken, allocate};
    use super::*;

    fn service(spec: &Value) -> Object {
        let value = json!({"metadata": {"name": "s"}, "spec": spec});
        let mut service = Object::from_value(value).unwrap();
        default_service(&mut service);
        service
    }

    #[test]
    fn keeps_what_was_allocated() {
        let mut old = service(&json!({"type": "NodePort", "ports": [{"port": 80}]}));
        allocate(&mut old, &Taken::default(), 7);
        let mut new = service(&json!({"type": "NodePort", "ports": [{"port": 80}]}));
        keep_addresses(&mut new, &old);
        assert_eq!(new, old);
    }
}
