//! Where services lead: `Endpoints` and `EndpointSlice`.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::core::{default, items, list, one_of, port};
use super::{Rules, Trait};
use crate::Object;
use crate::cause::Cause;

pub(super) const fn endpoints(rules: Rules) -> Rules {
    Rules {
        traits: &[Trait::CreatesOnUpdate],
        default: |object| {
            for subset in items(&mut object.body, "subsets") {
                items(subset, "ports").for_each(|port| default(port, "protocol", json!("TCP")));
            }
        },
        ..rules
    }
}

pub(super) const fn endpoint_slice(rules: Rules) -> Rules {
    Rules {
        traits: &[Trait::Generation],
        default: |object| {
            for port in items(&mut object.body, "ports") {
                default(port, "name", json!(""));
                default(port, "protocol", json!("TCP"));
            }
            default(&mut object.body, "endpoints", Value::Null);
            default(&mut object.body, "ports", Value::Null);
            items(&mut object.body, "endpoints")
                .for_each(|endpoint| default(endpoint, "conditions", json!({})));
        },
        validate: validate_slice,
        validate_update: |new, old| {
            let mut causes = validate_slice(new);
            if new.body.get("addressType") != old.body.get("addressType") {
                let value = new.body.get("addressType").cloned().unwrap_or_default();
                causes.retain(|cause| !cause.field.starts_with("endpoints"));
                causes.push(Cause::invalid("addressType", &value, "field is immutable"));
            }
            causes
        },
        ..rules
    }
}

/// Returns why an address cannot be an endpoint's.
fn unfit(field: &str, value: &Value, address: Option<IpAddr>) -> Option<Cause> {
    let address = address?;
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let detail = if address.is_unspecified() {
        "may not be unspecified (0.0.0.0 or ::)".to_owned()
    } else if address.is_loopback() {
        "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned()
    } else if is_link_local {
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()
    } else if address.is_multicast() {
        "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned()
    } else {
        return None;
    };
    Some(Cause::invalid(field, value, &detail))
}

fn validate_slice(object: &Object) -> Vec<Cause> {
    let mut causes = Vec::new();
    let body = Value::Object(object.body.clone());
    let family = body.get("addressType").and_then(Value::as_str).unwrap_or_default();
    if family.is_empty() {
        causes.push(Cause::required("addressType", ""));
    } else {
        one_of("addressType", family, &["FQDN", "IPv4", "IPv6"], &mut causes);
    }
    for (at, endpoint) in list(&body, "endpoints").iter().enumerate() {
        let field = format!("endpoints[{at}].addresses");
        let addresses = list(endpoint, "addresses");
        if addresses.is_empty() {
            causes.push(Cause::required(field.clone(), "must contain at least 1 address"));
        }
        for (at, address) in addresses.iter().enumerate() {
            let parsed = address.as_str().and_then(|text| text.parse::<IpAddr>().ok());
            let detail = match (family, parsed) {
                ("IPv4", Some(IpAddr::V4(_))) | ("IPv6", Some(IpAddr::V6(_))) => {
                    causes.extend(unfit(&format!("{field}[{at}]"), address, parsed));
                    continue;
                }
                ("IPv4", _) => "must be an IPv4 address",
                ("IPv6", _) => "must be an IPv6 address",
                _ => continue,
            };
            causes.push(Cause::invalid(&*field, address, detail));
            causes.extend(unfit(&format!("{field}[{at}]"), address, parsed));
        }
    }
    for (at, entry) in list(&body, "ports").iter().enumerate() {
        if let Some(number) = entry.get("port").and_then(Value::as_i64) {
            port(&format!("ports[{at}].port"), number, &mut causes);
        }
    }
    causes
}
