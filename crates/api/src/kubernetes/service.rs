//! Service: addresses that stand for those who answer.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort};
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
    let ingress = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = ingress.and_then(|balancer| balancer.ingress.as_ref());
    let given: Vec<String> =
        ingress.into_iter().flatten().filter_map(|ingress| ingress.ip.clone()).collect();
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
        load_balancer_addrs: addrs("status.loadBalancer.ingress", &given)?,
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
