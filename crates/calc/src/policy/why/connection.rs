//! A connection from one endpoint to another, at both of them.

use std::fmt;
use std::net::IpAddr;

use model::net::Family;
use model::policy::Protocol;
use model::vrf::{VrfName, Zone};

use super::{Verdict, verdict};
use crate::policy::{Endpoint, Inputs, Packet, Way};

/// What somebody wants to send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Probe {
    /// The protocol.
    pub protocol: Protocol,
    /// The receiver's port; of no meaning for protocols without.
    pub port: u16,
}

/// What becomes of a connection's first packet at one of its ends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Crossing {
    /// The packet.
    pub packet: Packet,
    /// Whose policies.
    pub endpoint: Endpoint,
    /// The VRF that it is in.
    pub vrf: Option<VrfName>,
    /// Whether the endpoint sends or receives it.
    pub way: Way,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// The port that senders use here: the first one that is nobody's (RFC 6335 §6).
const SOURCE_PORT: u16 = 49_152;

/// Returns what becomes of a connection between two endpoints: for each pair of
/// addresses of one family, at the sender and then at the receiver.
///
/// Nothing if one of them is unknown, or if they share no address family.
#[must_use]
pub fn connection(inputs: &Inputs, from: &Endpoint, to: &Endpoint, probe: Probe) -> Vec<Crossing> {
    let (sources, destinations) = (addrs(inputs, from), addrs(inputs, to));
    let mut crossings = Vec::new();
    for source in sources {
        let same = |addr: &&IpAddr| Family::of(**addr) == Family::of(source);
        for destination in destinations.iter().filter(same) {
            let packet = packet(source, *destination, probe);
            for (endpoint, way) in [(from, Way::Egress), (to, Way::Ingress)] {
                let (endpoint, vrf) = (endpoint.clone(), vrf(inputs, endpoint));
                crossings.extend(
                    verdict(inputs, &endpoint, &packet, way).map(|verdict| Crossing {
                        packet,
                        endpoint,
                        vrf,
                        way,
                        verdict,
                    }),
                );
            }
        }
    }
    crossings
}

/// Returns why nothing passes between two endpoints, whatever policies say; `None` if routes do not
/// keep them apart.
#[must_use]
pub fn barrier(inputs: &Inputs, from: &Endpoint, to: &Endpoint) -> Option<String> {
    let vrfs = inputs.vrfs();
    let ends = [from, to].map(|end| (end, vrf(inputs, end)));
    let [one, two] = ends.each_ref().map(|(_, vrf)| vrfs.zone(vrf.as_ref()));
    let told = |(end, vrf): &(&Endpoint, Option<VrfName>)| match vrf {
        Some(vrf) => format!("{end} is in VRF {vrf}"),
        None => format!("{end} is in none"),
    };
    if let Some((end, _)) = ends.iter().zip([one, two]).find(|(_, zone)| *zone == Zone::Nowhere) {
        return Some(format!("{}, which no pool has: it reaches nobody", told(end)));
    }
    let [from, to] = ends.each_ref().map(told);
    (one != two).then(|| format!("{from}, {to}: they exchange no routes, and nothing passes"))
}

fn vrf(inputs: &Inputs, endpoint: &Endpoint) -> Option<VrfName> {
    match endpoint {
        Endpoint::Workload(pod) => inputs.workloads.get(pod)?.vrf.clone(),
        Endpoint::Host(_) => None,
    }
}

/// Returns the packet of a probe; of ICMP it is an echo request (RFC 792, RFC 4443 §4.1).
fn packet(source: IpAddr, destination: IpAddr, probe: Probe) -> Packet {
    let ports = if probe.protocol.has_ports() { (SOURCE_PORT, probe.port) } else { (0, 0) };
    let icmp = match probe.protocol {
        Protocol::ICMP => Some((8, 0)),
        Protocol::ICMP_V6 => Some((128, 0)),
        _ => None,
    };
    Packet {
        source,
        destination,
        protocol: probe.protocol,
        source_port: ports.0,
        destination_port: ports.1,
        icmp,
    }
}

fn addrs(inputs: &Inputs, endpoint: &Endpoint) -> Vec<IpAddr> {
    match endpoint {
        Endpoint::Workload(pod) => {
            inputs.workloads.get(pod).map(|found| found.addrs.clone()).unwrap_or_default()
        }
        Endpoint::Host(name) => {
            inputs.hosts.get(name).map(|found| found.expected_addrs.clone()).unwrap_or_default()
        }
    }
}

impl fmt::Display for Crossing {
    /// Writes the packet, then the verdict with its trace.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Packet { source, destination, protocol, destination_port, .. } = self.packet;
        let way = if self.way.is_ingress() { "to" } else { "from" };
        write!(f, "{protocol} {source} -> {destination}")?;
        if protocol.has_ports() {
            write!(f, " port {destination_port}")?;
        }
        match &self.vrf {
            Some(vrf) => writeln!(f, ", {way} {} in VRF {vrf}", self.endpoint)?,
            None => writeln!(f, ", {way} {}", self.endpoint)?,
        }
        self.verdict.fmt(f)
    }
}
