//! `NetworkPolicy` of networking.k8s.io/v1.

use serde_json::{Value, json};

use super::core::{default, items, list, one_of, port, section, text};
use super::node::{bad_cidr, is_cidr};
use super::{Rules, Trait};
use crate::Object;
use crate::cause::Cause;
use crate::verb::meta;

pub(super) const fn network_policy(rules: Rules) -> Rules {
    Rules {
        traits: &[Trait::Generation],
        default: default_policy,
        validate,
        // The API server judges the spec twice here.
        validate_update: |new, _| [validate(new), validate(new)].concat(),
        ..rules
    }
}

fn default_policy(policy: &mut Object) {
    let Some(spec) = section(policy, "spec") else { return };
    default(spec, "podSelector", json!({}));
    for direction in ["ingress", "egress"] {
        for rule in items(spec, direction) {
            items(rule, "ports").for_each(|port| default(port, "protocol", json!("TCP")));
        }
    }
    let mut types = vec!["Ingress"];
    if spec.contains_key("egress") {
        types.push("Egress");
    }
    default(spec, "policyTypes", json!(types));
}

fn validate(policy: &Object) -> Vec<Cause> {
    let mut causes = Vec::new();
    let null = Value::Null;
    let spec = policy.body.get("spec").unwrap_or(&null);
    selector("spec.podSelector", spec.get("podSelector"), &mut causes);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (at, rule) in list(spec, direction).iter().enumerate() {
            let path = format!("spec.{direction}[{at}]");
            for (at, port) in list(rule, "ports").iter().enumerate() {
                validate_port(&format!("{path}.ports[{at}]"), port, &mut causes);
            }
            for (at, peer) in list(rule, peers).iter().enumerate() {
                validate_peer(&format!("{path}.{peers}[{at}]"), peer, &mut causes);
            }
        }
    }
    let types = list(spec, "policyTypes");
    if types.len() > 2 {
        let detail = "may not specify more than two policyTypes";
        causes.push(Cause::invalid("spec.policyTypes", &json!(types), detail));
        return causes;
    }
    for (at, kind) in types.iter().enumerate() {
        let field = format!("spec.policyTypes[{at}]");
        one_of(&field, kind.as_str().unwrap_or_default(), &["Ingress", "Egress"], &mut causes);
    }
    causes
}

/// Checks a label selector.
fn selector(field: &str, selector: Option<&Value>, causes: &mut Vec<Cause>) {
    let Some(selector) = selector else { return };
    meta::labels(&format!("{field}.matchLabels"), selector.get("matchLabels"), causes);
    for (at, expression) in list(selector, "matchExpressions").iter().enumerate() {
        let path = format!("{field}.matchExpressions[{at}]");
        let values = list(expression, "values");
        match text(expression, "operator") {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                causes.push(Cause::required(format!("{path}.values"), detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                causes.push(Cause::forbidden(format!("{path}.values"), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                let detail = "not a valid selector operator";
                causes.push(Cause::invalid(format!("{path}.operator"), &json!(other), detail));
            }
        }
        let key = text(expression, "key");
        let problems = crate::verb::names::qualified(key);
        causes.extend(crate::verb::names::causes(&format!("{path}.key"), key, &problems));
    }
}

fn validate_port(path: &str, entry: &Value, causes: &mut Vec<Cause>) {
    one_of(&format!("{path}.protocol"), text(entry, "protocol"), &["TCP", "UDP", "SCTP"], causes);
    let end = entry.get("endPort").and_then(Value::as_i64);
    let field = format!("{path}.port");
    match entry.get("port") {
        Some(Value::Number(number)) => {
            let number = number.as_i64().unwrap_or(0);
            port(&field, number, causes);
            if let Some(end) = end {
                if end < number {
                    let detail = "must be greater than or equal to `port`";
                    causes.push(Cause::invalid(format!("{path}.endPort"), &json!(number), detail));
                }
                port(&format!("{path}.endPort"), end, causes);
            }
        }
        Some(Value::String(name)) => {
            if let Some(end) = end {
                let detail = "may not be specified when `port` is non-numeric";
                causes.push(Cause::invalid(format!("{path}.endPort"), &json!(end), detail));
            }
            for problem in port_name(name) {
                causes.push(Cause::invalid(&*field, &json!(name), problem));
            }
        }
        _ => {
            if let Some(end) = end {
                let detail = "may not be specified when `port` is not specified";
                causes.push(Cause::invalid(format!("{path}.endPort"), &json!(end), detail));
            }
        }
    }
}

/// Returns what keeps a text from being the name of a port.
pub(super) fn port_name(name: &str) -> Vec<&'static str> {
    let mut problems = Vec::new();
    if name.len() > 15 {
        problems.push("must be no more than 15 characters");
    }
    if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        problems.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
        return problems;
    }
    if !name.bytes().any(|byte| byte.is_ascii_lowercase()) {
        problems.push("must contain at least one letter (a-z)");
    }
    if name.contains("--") {
        problems.push("must not contain consecutive hyphens");
    }
    if name.starts_with('-') || name.ends_with('-') {
        problems.push("must not begin or end with a hyphen");
    }
    problems
}

fn validate_peer(path: &str, peer: &Value, causes: &mut Vec<Cause>) {
    let block = peer.get("ipBlock");
    let selectors = [
        ("podSelector", peer.get("podSelector")),
        ("namespaceSelector", peer.get("namespaceSelector")),
    ];
    let mut count: usize = 0;
    for (name, value) in selectors {
        if value.is_some() {
            count = count.saturating_add(1);
            selector(&format!("{path}.{name}"), value, causes);
        }
    }
    if let Some(block) = block {
        validate_block(&format!("{path}.ipBlock"), block, causes);
    }
    if block.is_some() && count > 0 {
        causes.push(Cause::forbidden(path, "may not specify both ipBlock and another peer"));
    } else if block.is_none() && count == 0 {
        causes.push(Cause::required(path, "must specify a peer"));
    }
}

fn validate_block(path: &str, block: &Value, causes: &mut Vec<Cause>) {
    let cidr = text(block, "cidr");
    if cidr.is_empty() {
        causes.push(Cause::required(format!("{path}.cidr"), ""));
        return;
    }
    let Some(outer) = network(cidr) else {
        causes.push(bad_cidr(&format!("{path}.cidr"), &json!(cidr)));
        return;
    };
    for (at, except) in list(block, "except").iter().enumerate() {
        let field = format!("{path}.except[{at}]");
        let Some(inner) = network(except.as_str().unwrap_or_default()) else {
            causes.push(bad_cidr(&field, except));
            continue;
        };
        let is_within =
            outer.1 < inner.1 && first_bits(inner.0, outer.1) == first_bits(outer.0, outer.1);
        if !is_within {
            causes.push(Cause::invalid(field, except, "must be a strict subset of `cidr`"));
        }
    }
}

/// Reads a prefix as 128 bits and their length.
fn network(text: &str) -> Option<(u128, u32)> {
    if !is_cidr(text) {
        return None;
    }
    let (address, length) = text.split_once('/')?;
    let length: u32 = length.parse().ok()?;
    match address.parse().ok()? {
        std::net::IpAddr::V4(address) => {
            let bits = address.to_ipv6_mapped().to_bits();
            Some((bits, length.saturating_add(96)))
        }
        std::net::IpAddr::V6(address) => Some((address.to_bits(), length)),
    }
}

fn first_bits(bits: u128, length: u32) -> u128 {
    bits.checked_shr(128_u32.saturating_sub(length)).unwrap_or(0)
}
