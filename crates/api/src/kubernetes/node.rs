//! Node: where Calico keeps what it knows of a node, in annotations.

use std::fmt::Display;
use std::str::FromStr;

use k8s_openapi::api::core::v1::Node;
use model::id::NodeName;
use model::net::{Family, InterfaceAddr, MacAddr};
use model::node::TunnelAddrs;

use super::{annotation, invalid};
use crate::{Invalid, annotations, names};

/// Reads a node.
///
/// A node that `calico-node` has not written its address to has none, even if
/// Kubernetes knows one: it does not route yet.
///
/// # Errors
///
/// [`Invalid`] for an annotation that cannot be read.
pub fn node(object: &Node) -> Result<model::node::Node, Invalid> {
    let metadata = &object.metadata;
    let name = metadata.name.as_deref().unwrap_or_default();
    let name =
        name.parse().map_err(|error| invalid("Node", metadata, ("metadata.name", name), error))?;
    let pod_cidrs = object.spec.as_ref().and_then(|spec| spec.pod_cidrs.clone());
    let pod_cidrs = pod_cidrs.unwrap_or_default();
    let pod_cidrs = pod_cidrs.iter().map(|text| {
        text.parse().map_err(|error| invalid("Node", metadata, ("spec.podCIDRs", text), error))
    });
    let name: NodeName = name;
    let vxlan_mac = |annotation, family| {
        let given: Option<MacAddr> = parsed(object, annotation)?;
        Ok(Some(given.unwrap_or_else(|| names::vxlan_mac(&name, family))))
    };
    // A key that cannot be read is none: the node's own daemon writes what its device says.
    let wireguard_key = |family| {
        annotation(metadata, annotations::wireguard_key(family)).and_then(|text| text.parse().ok())
    };
    Ok(model::node::Node {
        labels: metadata.labels.clone().unwrap_or_default(),
        ipv4: addr(object, annotations::NODE_IPV4, Family::V4)?,
        ipv6: addr(object, annotations::NODE_IPV6, Family::V6)?,
        asn: parsed(object, annotations::NODE_ASN)?,
        route_reflector_cluster_id: parsed(object, annotations::NODE_CLUSTER_ID)?,
        tunnel_addrs: TunnelAddrs {
            ipip: parsed(object, annotations::NODE_IPIP)?,
            vxlan_v4: parsed(object, annotations::NODE_VXLAN_V4)?,
            vxlan_v6: parsed(object, annotations::NODE_VXLAN_V6)?,
            wireguard_v4: parsed(object, annotations::NODE_WIREGUARD_V4)?,
            wireguard_v6: parsed(object, annotations::NODE_WIREGUARD_V6)?,
            vxlan_mac_v4: vxlan_mac(annotations::NODE_VXLAN_MAC_V4, Family::V4)?,
            vxlan_mac_v6: vxlan_mac(annotations::NODE_VXLAN_MAC_V6, Family::V6)?,
            wireguard_key_v4: wireguard_key(Family::V4),
            wireguard_key_v6: wireguard_key(Family::V6),
        },
        pod_cidrs: pod_cidrs.collect::<Result<_, _>>()?,
        name,
    })
}

fn addr(object: &Node, name: &str, family: Family) -> Result<Option<InterfaceAddr>, Invalid> {
    let Some(text) = annotation(&object.metadata, name) else { return Ok(None) };
    let wrong = |problem: &dyn Display| {
        let field = format!("annotation {name}");
        invalid("Node", &object.metadata, (&field, text), problem)
    };
    // A bare address, as old versions wrote it, is alone in its network.
    let found = match text.parse() {
        Ok(addr) => InterfaceAddr::new(addr, family.bits()),
        Err(_) => text.parse(),
    };
    let found = found.map_err(|error| wrong(&error))?;
    if Family::of(found.addr()) != family {
        return Err(wrong(&format!("use an {family} address")));
    }
    Ok(Some(found))
}

fn parsed<T: FromStr<Err: Display>>(object: &Node, name: &str) -> Result<Option<T>, Invalid> {
    let Some(text) = annotation(&object.metadata, name) else { return Ok(None) };
    let field = format!("annotation {name}");
    let wrong = |error| invalid("Node", &object.metadata, (&field, text), error);
    text.parse().map(Some).map_err(wrong)
}
