//! `WorkloadEndpoint`: the attachment of a workload that is no pod, such as a container of Docker.
//!
//! In Kubernetes, Calico makes workload endpoints of pods and keeps none. What is no pod has an
//! object of its own (ADR 10), with the fields of `projectcalico.org/v3`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::endpoint::{Controls, NamedPort, WorkloadEndpoint as Model};
use model::id::NamespacedName;
use model::net::{Cidr, MacAddr};
use model::policy::Protocol;
use serde_json::Value;

use crate::invalid::{Fault, parse, parse_some, within};
use crate::object::kind;
use crate::policy::is_port_name;
use crate::wire::wire;
use crate::{Invalid, Object};

/// The attachment of a workload that is no pod.
pub type WorkloadEndpoint = Object<WorkloadEndpointSpec>;

/// The namespace of the endpoints of Docker's containers, and their orchestrator.
pub const LIBNETWORK: &str = "libnetwork";

wire! {
    /// The spec of a [`WorkloadEndpoint`].
    pub struct WorkloadEndpointSpec {
        /// Who runs the workload: `libnetwork` for Docker.
        orchestrator: Option<String> = "orchestrator",
        /// The workload; `libnetwork` for containers of Docker.
        workload: Option<String> = "workload",
        /// The node.
        node: Option<String> = "node",
        /// The container.
        container_id: Option<String> = "containerID",
        /// Which of the workload's endpoints it is: Docker's id.
        endpoint: Option<String> = "endpoint",
        /// Its addresses, each alone in its network: `10.0.0.1/32`.
        ip_networks: Option<Vec<String>> = "ipNetworks",
        /// The IPv4 gateway.
        ipv4_gateway: Option<String> = "ipv4Gateway",
        /// The IPv6 gateway.
        ipv6_gateway: Option<String> = "ipv6Gateway",
        /// The profiles that apply, first one first.
        profiles: Option<Vec<String>> = "profiles",
        /// The host's side of its interface.
        interface_name: Option<String> = "interfaceName",
        /// Its own Ethernet address.
        mac: Option<String> = "mac",
        /// Its ports that have names, or that the host publishes.
        ports: Option<Vec<WorkloadPortSpec>> = "ports",
        /// Networks that it may send from beside its addresses.
        allowed_sources: Option<Vec<String>> = "allowSpoofedSourcePrefixes",
    }

    /// A port of a workload.
    pub struct WorkloadPortSpec {
        /// The name by which policies call it.
        name: Option<String> = "name",
        /// `TCP`, `UDP` or `SCTP`, or a number.
        protocol: Value = "protocol",
        /// The port.
        port: i64 = "port",
        /// The host's port that leads here.
        host_port: Option<i64> = "hostPort",
        /// The host's address whose port that is; absent is any.
        host_ip: Option<String> = "hostIP",
    }
}

kind! { WorkloadEndpointSpec: "WorkloadEndpoint" "workloadendpoints" namespaced ["wep", "weps"] }

/// Returns how endpoints that are no pods are called where pods are called by their names.
///
/// No name of a pod has a colon, so nobody can make a pod that is taken for such an endpoint.
#[must_use]
pub fn workload_id(namespace: &str, name: &str) -> NamespacedName {
    let (namespace, name) = (namespace.to_owned(), format!("workloadendpoint:{name}"));
    NamespacedName { namespace, name }
}

impl TryFrom<&WorkloadEndpoint> for Model {
    type Error = Invalid;

    fn try_from(object: &WorkloadEndpoint) -> Result<Self, Invalid> {
        read(object).map_err(|fault| object.faulty(fault))
    }
}

fn read(object: &WorkloadEndpoint) -> Result<Model, Fault> {
    let spec = &object.spec;
    let node = needed("node", spec.node.as_deref())?;
    let if_name = needed("interfaceName", spec.interface_name.as_deref())?;
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let addrs = spec.ip_networks.iter().flatten().enumerate();
    let addrs = addrs.map(|(index, text)| alone(&format!("ipNetworks[{index}]"), text));
    let ports =
        spec.ports.iter().flatten().enumerate().map(|(index, wire)| {
            port(wire).map_err(|fault| fault.under(format!("ports[{index}]")))
        });
    let sources = spec.allowed_sources.iter().flatten().enumerate();
    let sources =
        sources.map(|(index, text)| parse(&format!("allowSpoofedSourcePrefixes[{index}]"), text));
    let ports: Vec<Option<NamedPort>> = ports.collect::<Result<_, _>>()?;
    let mac: Option<MacAddr> = parse_some("mac", spec.mac.as_deref())?;
    Ok(Model {
        pod: workload_id(namespace, object.name()),
        node: parse("node", node)?,
        if_name: parse("interfaceName", if_name)?,
        addrs: addrs.collect::<Result<_, _>>()?,
        mac,
        container_id: spec.container_id.clone().filter(|id| !id.is_empty()),
        labels: labels(object, namespace),
        profiles: spec.profiles.clone().unwrap_or_default(),
        ports: ports.into_iter().flatten().collect(),
        allowed_sources: sources.collect::<Result<_, _>>()?,
        controls: Controls::default(),
        floating: Vec::new(),
        vrf: None,
    })
}

fn needed<'a>(field: &str, text: Option<&'a str>) -> Result<&'a str, Fault> {
    let text = text.unwrap_or_default();
    if text.is_empty() { Err(Fault::new(field, "", "is missing: name it")) } else { Ok(text) }
}

/// Reads the address of a workload, which is alone in its network.
fn alone(field: &str, text: &str) -> Result<IpAddr, Fault> {
    let bare = text.parse::<IpAddr>().map(Cidr::host);
    let net: Cidr =
        bare.or_else(|_| text.parse()).map_err(|error| Fault::new(field, text, error))?;
    if net.is_host() {
        return Ok(net.addr());
    }
    Err(Fault::new(field, text, "has other addresses beside the workload's: use /32 or /128"))
}

/// Returns the object's labels and those that policies find it by; nobody can forge the latter.
fn labels(object: &WorkloadEndpoint, namespace: &str) -> BTreeMap<String, String> {
    let mut labels = object.metadata.labels.clone().unwrap_or_default();
    // What is no pod is never Kubernetes', whose policies must not select it.
    let orchestrator = object.spec.orchestrator.as_deref().filter(|name| *name != "k8s");
    let orchestrator = orchestrator.unwrap_or(LIBNETWORK);
    labels.insert("projectcalico.org/namespace".to_owned(), namespace.to_owned());
    labels.insert("projectcalico.org/orchestrator".to_owned(), orchestrator.to_owned());
    labels.remove("projectcalico.org/serviceaccount");
    labels
}

/// Reads a port; one without a name is only published, which is not policy's business.
fn port(wire: &WorkloadPortSpec) -> Result<Option<NamedPort>, Fault> {
    let Some(name) = wire.name.as_deref().filter(|name| !name.is_empty()) else { return Ok(None) };
    if !is_port_name(name) {
        let problem = "is no port name: use at most 128 letters, digits, `-`, `_` and `.`";
        return Err(Fault::new("name", name, problem));
    }
    let text = wire.protocol.as_str().map_or_else(|| wire.protocol.to_string(), str::to_owned);
    let protocol: Protocol = parse("protocol", &text)?;
    if !protocol.has_ports() {
        return Err(Fault::new("protocol", text, "has no ports: use TCP, UDP or SCTP"));
    }
    let port = within("port", Some(wire.port), 1..=u16::MAX)?.unwrap_or_default();
    Ok(Some(NamedPort { name: name.to_owned(), protocol: protocol.0, port }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(change: &Value) -> Result<Model, Invalid> {
        let mut object = json!({
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": "WorkloadEndpoint",
            "metadata": {
                "namespace": "libnetwork",
                "name": "node--1-libnetwork-libnetwork-0f",
                "labels": {"role": "db", "projectcalico.org/orchestrator": "k8s"},
            },
            "spec": {
                "orchestrator": "libnetwork",
                "node": "node-1",
                "endpoint": "0f",
                "ipNetworks": ["10.0.0.1/32", "fd00::1/128"],
                "profiles": ["web"],
                "interfaceName": "cali0f",
                "mac": "02:42:00:00:00:01",
                "ports": [
                    {"name": "sql", "protocol": "TCP", "port": 5432},
                    {"protocol": "TCP", "port": 80, "hostPort": 8080},
                ],
            },
        });
        for (field, value) in change.as_object().unwrap() {
            object["spec"][field] = value.clone();
        }
        Model::try_from(&WorkloadEndpoint::from_json(&object)?)
    }

    #[test]
    fn a_container_is_an_endpoint_like_a_pod() {
        let endpoint = read(&json!({})).unwrap();
        assert_eq!(endpoint.pod.name, "workloadendpoint:node--1-libnetwork-libnetwork-0f");
        assert_eq!(endpoint.addrs.len(), 2);
        assert_eq!(endpoint.profiles, ["web"]);
        assert_eq!(endpoint.ports.len(), 1, "what is only published has no name");
        let label = |name: &str| endpoint.labels.get(name).map(String::as_str);
        assert_eq!(label("role"), Some("db"));
        assert_eq!(label("projectcalico.org/namespace"), Some("libnetwork"));
    }

    #[test]
    fn policies_of_kubernetes_never_select_it() {
        for orchestrator in [json!("k8s"), json!("libnetwork"), json!(null)] {
            let endpoint = read(&json!({"orchestrator": orchestrator})).unwrap();
            let label = endpoint.labels.get("projectcalico.org/orchestrator").unwrap();
            assert_eq!(label, "libnetwork");
        }
    }

    #[test]
    fn what_cannot_be_followed_is_named() {
        for (change, expected) in [
            (json!({"node": null}), "spec.node is missing"),
            (json!({"interfaceName": "much-too-long-a-name"}), "spec.interfaceName"),
            (json!({"ipNetworks": ["10.0.0.0/24"]}), "use /32 or /128"),
            (json!({"ipNetworks": ["x"]}), "spec.ipNetworks[0]"),
            (json!({"mac": "x"}), "spec.mac `x`"),
            (
                json!({"ports": [{"name": "a b", "protocol": "TCP", "port": 1}]}),
                "spec.ports[0].name",
            ),
        ] {
            let error = read(&change).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
