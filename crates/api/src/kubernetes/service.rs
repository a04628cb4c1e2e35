//! Service: addresses that stand for those who answer.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use model::net::Family;
use model::policy::Protocol;
use model::service::{Service as Model, ServiceKind, ServicePort as Port};

use super::{faulty, id};
use crate::Invalid;
use crate::invalid::{Fault, addr, within, word};

/// Reads a Service.
///
/// # Errors
///
/// [`Invalid`] for an address, a port or a word that cannot be read.
pub fn service(object: &Service) -> Result<Model, Invalid> {
    read(object).map_err(|fault| faulty("Service", &object.metadata, fault))
}

fn read(object: &Service) -> Result<Model, Fault> {
    let spec = object.spec.clone().unwrap_or_default();
    let kinds = [
        ("ClusterIP", ServiceKind::ClusterIp),
        ("NodePort", ServiceKind::NodePort),
        ("LoadBalancer", ServiceKind::LoadBalancer),
        ("ExternalName", ServiceKind::ExternalName),
    ];
    let many = spec.cluster_ips.unwrap_or_default();
    let cluster = if many.is_empty() { spec.cluster_ip.into_iter().collect() } else { many };
    let policy = spec.external_traffic_policy.as_deref();
    let ports = spec.ports.unwrap_or_default();
    let ports = ports.iter().enumerate().map(|(index, wire)| {
        port(wire).map_err(|fault| fault.under(format!("spec.ports[{index}]")))
    });
    Ok(Model {
        id: id(&object.metadata),
        kind: word("spec.type", spec.type_.as_deref(), &kinds, ServiceKind::ClusterIp)?,
        cluster_addrs: addrs("spec.clusterIPs", &cluster)?,
        external_addrs: addrs("spec.externalIPs", &spec.external_ips.unwrap_or_default())?,
        load_balancer_addrs: balancer_addrs(object)?,
        is_external_traffic_local: word(
            "spec.externalTrafficPolicy",
            policy,
            &[("Local", true), ("Cluster", false)],
            false,
        )?,
        load_balancer_class: spec.load_balancer_class,
        ports: ports.collect::<Result<_, _>>()?,
    })
}

/// Reads the addresses that a load balancer gave; names count for nothing here.
pub(super) fn balancer_addrs(object: &Service) -> Result<Vec<IpAddr>, Fault> {
    let ingress = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = ingress.and_then(|balancer| balancer.ingress.as_ref());
    let given: Vec<String> =
        ingress.into_iter().flatten().filter_map(|ingress| ingress.ip.clone()).collect();
    addrs("status.loadBalancer.ingress", &given)
}

/// Returns the families of a Service, its first one first; without a word on it they are those of
/// its addresses in the cluster, and IPv4 if there are none.
pub(super) fn families(spec: &ServiceSpec) -> Result<Vec<Family>, Fault> {
    let words = [("IPv4", Family::V4), ("IPv6", Family::V6)];
    let told = spec.ip_families.iter().flatten();
    let mut families: Vec<Family> = told
        .map(|text| word("spec.ipFamilies", Some(text), &words, Family::V4))
        .collect::<Result<_, _>>()?;
    if families.is_empty() {
        let many = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip).cloned();
        let addrs = addrs("spec.clusterIPs", &many.collect::<Vec<_>>())?;
        families.extend(addrs.into_iter().map(Family::of));
    }
    if families.is_empty() {
        families.push(Family::V4);
    }
    // Addresses may repeat; families do not, and there are two.
    let first = families.first().copied();
    let second = families.iter().copied().find(|family| Some(*family) != first);
    Ok(first.into_iter().chain(second).collect())
}

/// Reads addresses; `None` and nothing are those of headless Services.
fn addrs(field: &str, texts: &[String]) -> Result<Vec<IpAddr>, Fault> {
    let texts = texts.iter().filter(|text| !text.is_empty() && *text != "None");
    texts.map(|text| addr(field, text)).collect()
}

fn port(wire: &ServicePort) -> Result<Port, Fault> {
    let number = within("port", Some(wire.port.into()), 1..=u16::MAX)?;
    let node_port = wire.node_port.filter(|port| *port != 0).map(i64::from);
    Ok(Port {
        name: wire.name.clone().unwrap_or_default(),
        protocol: protocol(wire.protocol.as_deref())?,
        port: number.unwrap_or_default(),
        node_port: within("nodePort", node_port, 1..=u16::MAX)?,
    })
}

/// Reads a protocol; absent is TCP.
pub(super) fn protocol(text: Option<&str>) -> Result<Protocol, Fault> {
    let protocols = [("TCP", Protocol::TCP), ("UDP", Protocol::UDP), ("SCTP", Protocol::SCTP)];
    word("protocol", text, &protocols, Protocol::TCP)
}
