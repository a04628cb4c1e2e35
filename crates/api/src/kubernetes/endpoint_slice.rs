//! `EndpointSlice`: some of those who answer for a Service.

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use model::service::{EndpointPort, EndpointSlice as Model, ServiceEndpoint};

use super::service::protocol;
use super::{faulty, id};
use crate::Invalid;
use crate::invalid::{Fault, addr, parse_some, within};

/// The label with the name of the Service that a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Reads a slice of a Service's endpoints.
///
/// Slices of names (`addressType: FQDN`) have no endpoints for us.
///
/// # Errors
///
/// [`Invalid`] for an address, a node's name or a port that cannot be read.
pub fn endpoint_slice(object: &EndpointSlice) -> Result<Model, Invalid> {
    read(object).map_err(|fault| faulty("EndpointSlice", &object.metadata, fault))
}

fn read(object: &EndpointSlice) -> Result<Model, Fault> {
    let has_addrs = object.address_type != "FQDN";
    let endpoints = object.endpoints.iter().filter(|_| has_addrs).enumerate();
    let endpoints = endpoints.map(|(index, wire)| {
        endpoint(wire).map_err(|fault| fault.under(format!("endpoints[{index}]")))
    });
    let ports = object.ports.iter().flatten().enumerate().map(|(index, wire)| {
        let read = || {
            Ok(EndpointPort {
                name: wire.name.clone().unwrap_or_default(),
                protocol: protocol(wire.protocol.as_deref())?,
                port: within("port", wire.port.map(i64::from), 1..=u16::MAX)?,
            })
        };
        read().map_err(|fault: Fault| fault.under(format!("ports[{index}]")))
    });
    let labels = object.metadata.labels.as_ref();
    Ok(Model {
        id: id(&object.metadata),
        service: labels.and_then(|labels| labels.get(SERVICE_NAME)).cloned(),
        endpoints: endpoints.collect::<Result<_, _>>()?,
        ports: ports.collect::<Result<_, _>>()?,
    })
}

fn endpoint(wire: &Endpoint) -> Result<ServiceEndpoint, Fault> {
    let conditions = wire.conditions.clone().unwrap_or_default();
    let addrs = wire.addresses.iter().map(|text| addr("addresses", text));
    Ok(ServiceEndpoint {
        addrs: addrs.collect::<Result<_, _>>()?,
        node: parse_some("nodeName", wire.node_name.as_deref())?,
        // Unknown is ready (Kubernetes, "EndpointSlices", conditions).
        is_ready: conditions.ready.unwrap_or(true),
        is_terminating: conditions.terminating.unwrap_or_default(),
    })
}
