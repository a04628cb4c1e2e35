//! What a node's routes should be, computed from the API's objects, and what they are.
//!
//! This shares no code with the daemon on purpose: it reads the objects' JSON and
//! the output of ip(8).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use serde_json::Value;

use crate::Error;
use crate::cluster::{Cluster, NAMESPACE};
use crate::node::Node;

/// A route without what may differ: `10.244.0.0/26 via 192.0.2.11`.
pub type Line = String;

/// Returns the routes to pods and blocks that a node should have.
///
/// # Errors
///
/// [`Error`] if the API cannot be read.
pub fn desired(cluster: &Cluster, node: &Node) -> Result<BTreeSet<Line>, Error> {
    let mut lines = BTreeSet::new();
    for (cidr, owner) in blocks(cluster)? {
        if owner == node.name {
            lines.insert(format!("{cidr} blackhole"));
        } else {
            let peer = cluster.node(&owner)?;
            let is_v6 = cidr.contains(':');
            let via = peer.addrs.iter().find(|addr| addr.is_ipv6() == is_v6);
            let via = via.ok_or_else(|| Error::wrong(format!("{owner} has no way to {cidr}")))?;
            lines.insert(format!("{cidr} via {via}"));
        }
    }
    for pod in cluster.api.list::<core::Pod>()? {
        let is_here = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
        if is_here != Some(&node.name) {
            continue;
        }
        let name = pod.metadata.name.unwrap_or_default();
        let veth = veth_name(NAMESPACE, &name)?;
        let ips = pod.status.into_iter().flat_map(|status| status.pod_ips.unwrap_or_default());
        for ip in ips {
            let addr: IpAddr = ip.ip.parse().map_err(Error::wrong)?;
            lines.insert(format!("{} dev {veth}", host_cidr(addr)));
        }
    }
    lines.extend(to_containers(cluster, node)?);
    Ok(lines)
}

/// Returns the routes to the containers of a host; most clusters do not know any.
fn to_containers(cluster: &Cluster, node: &Node) -> Result<Vec<Line>, Error> {
    let path = "/apis/crd.projectcalico.org/v1/workloadendpoints";
    let answer = cluster.api.send(crate::rest::Request::get(path))?;
    if answer.status == 404 {
        return Ok(Vec::new());
    }
    let list = answer.success()?;
    let mut lines = Vec::new();
    for object in list.get("items").and_then(Value::as_array).into_iter().flatten() {
        let text = |field: &str| object.pointer(field).and_then(Value::as_str).unwrap_or_default();
        if text("/spec/node") != node.name {
            continue;
        }
        let nets = object.pointer("/spec/ipNetworks").and_then(Value::as_array);
        for net in nets.into_iter().flatten().filter_map(Value::as_str) {
            lines.push(format!("{net} dev {}", text("/spec/interfaceName")));
        }
    }
    Ok(lines)
}

/// Returns the blocks in the API, with the node that each belongs to.
///
/// # Errors
///
/// [`Error`] if the API cannot be read.
pub fn blocks(cluster: &Cluster) -> Result<BTreeMap<String, String>, Error> {
    let blocks = cluster.api.list::<api::IpamBlock>()?;
    let blocks: Vec<Value> =
        blocks.iter().map(serde_json::to_value).collect::<Result<_, _>>().map_err(Error::wrong)?;
    let text = |block: &Value, field: &str| {
        block.pointer(&format!("/spec/{field}")).and_then(Value::as_str).map(str::to_owned)
    };
    Ok(blocks
        .iter()
        .filter_map(|block| {
            let owner = text(block, "affinity")?.strip_prefix("host:")?.to_owned();
            Some((text(block, "cidr")?, owner))
        })
        .collect())
}

/// Returns the routes to pods and blocks that a node has.
///
/// # Errors
///
/// [`Error`] if the node does not answer.
pub fn actual(node: &Node) -> Result<BTreeSet<Line>, Error> {
    let mut lines = BTreeSet::new();
    for family in ["-4", "-6"] {
        let text = node.run(&["ip", "-json", family, "route", "show", "table", "main"])?;
        let routes: Vec<Value> = serde_json::from_str(&text).map_err(Error::wrong)?;
        lines.extend(routes.iter().filter_map(line));
    }
    Ok(lines)
}

/// Returns the routing tables of a node, byte for byte as ip(8) shows them.
///
/// # Errors
///
/// [`Error`] if the node does not answer, or if the kernel is still checking IPv6 addresses
/// for duplicates: it adds routes of its own when it is done.
pub fn verbatim(node: &Node) -> Result<String, Error> {
    let tentative = node.run(&["ip", "-6", "address", "show", "tentative"])?;
    if !tentative.trim().is_empty() {
        return Err(Error::wrong(format!("{} has tentative addresses: {tentative}", node.name)));
    }
    let v4 = node.run(&["ip", "-N", "-4", "-details", "route", "show", "table", "all"])?;
    let v6 = node.run(&["ip", "-N", "-6", "-details", "route", "show", "table", "all"])?;
    Ok(v4 + &v6)
}

/// Fails unless every node has exactly the routes that it should have.
///
/// # Errors
///
/// [`Error::Wrong`] with what is missing and what is too much.
pub fn require_as_modelled(cluster: &Cluster) -> Result<(), Error> {
    for node in &cluster.nodes {
        let (desired, actual) = (desired(cluster, node)?, actual(node)?);
        let missing: Vec<_> = desired.difference(&actual).collect();
        let extra: Vec<_> = actual.difference(&desired).collect();
        if !missing.is_empty() || !extra.is_empty() {
            return Err(Error::wrong(format!(
                "routes of {}: missing {missing:?}, too much {extra:?}",
                node.name
            )));
        }
    }
    Ok(())
}

/// Returns a route in our words if it is to a pod or a block.
fn line(route: &Value) -> Option<Line> {
    let text = |key: &str| route.get(key).and_then(Value::as_str);
    let dst = text("dst")?;
    if !dst.starts_with("10.244.") && !dst.starts_with("fd00:10:244:") {
        return None;
    }
    let cidr = match dst.parse::<IpAddr>() {
        Ok(addr) => host_cidr(addr),
        Err(_) => dst.to_owned(),
    };
    if text("type") == Some("blackhole") {
        return Some(format!("{cidr} blackhole"));
    }
    let hops = route.get("nexthops").and_then(Value::as_array).into_iter().flatten();
    let hops = hops.filter_map(|hop| hop.get("gateway")?.as_str());
    let gateways: Vec<&str> = text("gateway").into_iter().chain(hops).collect();
    if gateways.is_empty() {
        Some(format!("{cidr} dev {}", text("dev")?))
    } else {
        Some(format!("{cidr} via {}", gateways.join(" ")))
    }
}

fn host_cidr(addr: IpAddr) -> String {
    format!("{addr}/{}", if addr.is_ipv6() { 128 } else { 32 })
}

fn veth_name(namespace: &str, pod: &str) -> Result<String, Error> {
    let name = api::names::host_veth_name(namespace, pod, "cali");
    let name = name.ok_or_else(|| Error::wrong(format!("{pod} has no interface name")))?;
    Ok(name.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn routes_become_lines() {
        let cases = [
            (
                json!({"dst": "10.244.0.1", "dev": "cali1", "protocol": "3"}),
                "10.244.0.1/32 dev cali1",
            ),
            (json!({"type": "blackhole", "dst": "10.244.0.0/26"}), "10.244.0.0/26 blackhole"),
            (
                json!({"dst": "fd00:10:244::/122", "gateway": "2001:db8::11", "dev": "eth0"}),
                "fd00:10:244::/122 via 2001:db8::11",
            ),
            (
                json!({"dst": "10.244.1.0/26", "nexthops": [{"gateway": "192.0.2.11"}, {"gateway": "192.0.2.12"}]}),
                "10.244.1.0/26 via 192.0.2.11 192.0.2.12",
            ),
        ];
        for (route, expected) in cases {
            assert_eq!(line(&route).as_deref(), Some(expected));
        }
    }

    #[test]
    fn other_routes_are_not_ours_to_judge() {
        assert_eq!(line(&json!({"dst": "default", "gateway": "192.0.2.1"})), None);
        assert_eq!(line(&json!({"dst": "192.0.2.0/24", "dev": "eth0"})), None);
    }
}
