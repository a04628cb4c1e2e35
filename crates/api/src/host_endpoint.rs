//! `HostEndpoint`: the attachment of a machine itself.

use model::endpoint::NamedPort;
use model::host_endpoint::{HostEndpoint as Model, HostInterface};
use model::policy::Protocol;
use serde_json::Value;

use crate::invalid::{Fault, addr, parse, within};
use crate::object::kind;
use crate::policy::is_port_name;
use crate::wire::wire;
use crate::{Invalid, Object};

/// A machine's attachment to the network.
pub type HostEndpoint = Object<HostEndpointSpec>;

wire! {
    /// The spec of a [`HostEndpoint`].
    pub struct HostEndpointSpec {
        /// The machine.
        node: Option<String> = "node",
        /// The interface: `*` for all that lead outside, or a name.
        interface_name: Option<String> = "interfaceName",
        /// Addresses; they find the interface if it is not named.
        expected_ips: Option<Vec<String>> = "expectedIPs",
        /// The profiles that apply, first one first.
        profiles: Option<Vec<String>> = "profiles",
        /// Names for ports.
        ports: Option<Vec<EndpointPortSpec>> = "ports",
    }

    /// A name for a port.
    pub struct EndpointPortSpec {
        /// The name.
        name: String = "name",
        /// `TCP`, `UDP` or `SCTP`, or a number.
        protocol: Value = "protocol",
        /// The port.
        port: i64 = "port",
    }
}

kind! { HostEndpointSpec: "HostEndpoint" "hostendpoints" cluster ["hep", "heps"] }

impl TryFrom<&HostEndpoint> for Model {
    type Error = Invalid;

    fn try_from(object: &HostEndpoint) -> Result<Self, Invalid> {
        let spec = &object.spec;
        let read = || {
            let node = spec.node.as_deref().unwrap_or_default();
            if node.is_empty() {
                return Err(Fault::new("node", "", "is missing: say which node's endpoint it is"));
            }
            let addrs = spec.expected_ips.iter().flatten().enumerate();
            let addrs = addrs.map(|(index, text)| addr(&format!("expectedIPs[{index}]"), text));
            let ports = spec.ports.iter().flatten().enumerate().map(|(index, wire)| {
                port(wire).map_err(|fault| fault.under(format!("ports[{index}]")))
            });
            Ok(Self {
                name: object.name().to_owned(),
                node: parse("node", node)?,
                interface: interface(spec)?,
                labels: object.labels(),
                expected_addrs: addrs.collect::<Result<_, _>>()?,
                profiles: spec.profiles.clone().unwrap_or_default(),
                ports: ports.collect::<Result<_, _>>()?,
            })
        };
        read().map_err(|fault| object.faulty(fault))
    }
}

fn interface(spec: &HostEndpointSpec) -> Result<HostInterface, Fault> {
    let has_addrs = spec.expected_ips.as_ref().is_some_and(|addrs| !addrs.is_empty());
    match spec.interface_name.as_deref().unwrap_or_default() {
        "" if has_addrs => Ok(HostInterface::WithExpectedAddr),
        "" => {
            let problem = "is missing: use * for all, a name, or say expectedIPs";
            Err(Fault::new("interfaceName", "", problem))
        }
        "*" => Ok(HostInterface::All),
        name => parse("interfaceName", name).map(HostInterface::Named),
    }
}

fn port(wire: &EndpointPortSpec) -> Result<NamedPort, Fault> {
    if !is_port_name(&wire.name) {
        let problem = "is no port name: use at most 128 letters, digits, `-`, `_` and `.`";
        return Err(Fault::new("name", &wire.name, problem));
    }
    let text = wire.protocol.as_str().map_or_else(|| wire.protocol.to_string(), str::to_owned);
    let protocol: Protocol = parse("protocol", &text)?;
    if !protocol.has_ports() {
        return Err(Fault::new("protocol", text, "has no ports: use TCP, UDP or SCTP"));
    }
    let port = within("port", Some(wire.port), 1..=u16::MAX)?.unwrap_or_default();
    Ok(NamedPort { name: wire.name.clone(), protocol: protocol.0, port })
}
