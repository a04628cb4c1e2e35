//! Nodes: taints, pod CIDRs, the shape of the status.

use serde_json::{Value, json};

use super::Rules;
use super::core::{default, items, list, section, text};
use crate::Object;
use crate::cause::Cause;

const INFO: [&str; 10] = [
    "machineID",
    "systemUUID",
    "bootID",
    "kernelVersion",
    "osImage",
    "containerRuntimeVersion",
    "kubeletVersion",
    "kubeProxyVersion",
    "operatingSystem",
    "architecture",
];
const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(super) const fn node(rules: Rules) -> Rules {
    Rules {
        default: default_node,
        on_create: |node| {
            default_status(node);
            taint(node);
        },
        on_status: default_status,
        validate,
        validate_update,
        ..rules
    }
}

fn default_node(node: &mut Object) {
    let Some(spec) = section(node, "spec") else { return };
    match (spec.get("podCIDR").cloned(), spec.get("podCIDRs").cloned()) {
        (Some(one), None) => default(spec, "podCIDRs", json!([one])),
        (None, Some(all)) => {
            if let Some(first) = all.get(0) {
                default(spec, "podCIDR", first.clone());
            }
        }
        (Some(one), Some(Value::Array(mut all))) => {
            if let Some(first) = all.first_mut() {
                *first = one;
            }
            spec.insert("podCIDRs".to_owned(), Value::Array(all));
        }
        _ => {}
    }
}

fn default_status(node: &mut Object) {
    let Some(status) = section(node, "status") else { return };
    if let Some(capacity) = status.get("capacity").cloned() {
        default(status, "allocatable", capacity);
    }
    default(status, "daemonEndpoints", json!({}));
    if let Some(endpoints) = status.get_mut("daemonEndpoints").and_then(Value::as_object_mut) {
        default(endpoints, "kubeletEndpoint", json!({"Port": 0}));
    }
    default(status, "nodeInfo", json!({}));
    if let Some(info) = status.get_mut("nodeInfo").and_then(Value::as_object_mut) {
        for field in INFO {
            default(info, field, json!(""));
        }
    }
    for condition in items(status, "conditions") {
        default(condition, "lastHeartbeatTime", Value::Null);
        default(condition, "lastTransitionTime", Value::Null);
    }
}

/// A node is not ready until somebody says that it is: admission's `TaintNodesByCondition`.
fn taint(node: &mut Object) {
    let Some(spec) = section(node, "spec") else { return };
    let taints = spec.entry("taints").or_insert_with(|| json!([]));
    if let Value::Array(taints) = taints
        && !taints.iter().any(|taint| text(taint, "key") == NOT_READY)
    {
        taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
    }
}

fn validate(node: &Object) -> Vec<Cause> {
    let mut causes = Vec::new();
    let null = Value::Null;
    let spec = node.body.get("spec").unwrap_or(&null);
    for (at, taint) in list(spec, "taints").iter().enumerate() {
        let field = format!("metadata.taints[{at}].effect");
        let known = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        super::core::one_of(&field, text(taint, "effect"), &known, &mut causes);
    }
    for (at, cidr) in list(spec, "podCIDRs").iter().enumerate() {
        if !is_cidr(cidr.as_str().unwrap_or_default()) {
            causes.push(bad_cidr(&format!("spec.podCIDRs[{at}]"), cidr));
        }
    }
    causes
}

/// Words a prefix that is none.
pub(super) fn bad_cidr(field: &str, value: &Value) -> Cause {
    let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    Cause::invalid(field, value, detail)
}

/// Returns whether Go's `ParseCIDR` takes a text; host bits may be set.
pub(super) fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let Ok(address) = address.parse::<std::net::IpAddr>() else { return false };
    let most = if address.is_ipv4() { 32 } else { 128 };
    let is_plain = length.bytes().all(|byte| byte.is_ascii_digit());
    is_plain && length.parse::<u8>().is_ok_and(|length| length <= most)
}

fn validate_update(new: &Object, old: &Object) -> Vec<Cause> {
    let mut causes = validate(new);
    let at = |node: &Object, field: &str| node.body.get("spec").and_then(|s| s.get(field)).cloned();
    let before = at(old, "podCIDRs");
    if before.is_some() && at(new, "podCIDRs") != before {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        causes.push(Cause::forbidden("spec.podCIDRs", detail));
    }
    let before = at(old, "providerID");
    if before.is_some() && at(new, "providerID") != before {
        let detail = "node updates may not change providerID except from \"\" to valid";
        causes.push(Cause::forbidden("spec.providerID", detail));
    }
    causes
}
