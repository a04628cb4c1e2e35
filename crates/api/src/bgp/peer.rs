//! `BGPPeer`: a BGP neighbour of some or all nodes.

mod options;

use std::net::{IpAddr, SocketAddr};

use model::net::{Asn, IfName};
use model::peer::{BgpConfiguration, BgpPeer as Peer, NextHopMode, PeerNodes, PeerRemote};
use serde_json::Value;

use super::asn;
use super::configuration::{PasswordSpec, password};
use crate::invalid::{Fault, addr, parse, within, word};
use crate::object::kind;
use crate::time::duration;
use crate::wire::wire;
use crate::{Invalid, Object};

/// A BGP neighbour of some or all nodes.
pub type BgpPeer = Object<BgpPeerSpec>;

wire! {
    /// The spec of a [`BgpPeer`].
    pub struct BgpPeerSpec {
        /// The one node that has this peer.
        node: Option<String> = "node",
        /// The nodes that have this peer.
        node_selector: Option<String> = "nodeSelector",
        /// The peer: `ip`, `ip:port` or `[ip]:port`.
        peer_ip: Option<String> = "peerIP",
        /// The peer's AS: a number, or text such as `1.10`.
        as_number: Option<Value> = "asNumber",
        /// Our AS in these sessions.
        local_as_number: Option<Value> = "localASNumber",
        /// The nodes that are the peers.
        peer_selector: Option<String> = "peerSelector",
        /// The local workloads that are the peers.
        local_workload_selector: Option<String> = "localWorkloadSelector",
        /// The address to connect from: `UseNodeIP` or `None`.
        source_address: Option<String> = "sourceAddress",
        /// The next hop of routes sent to it: `Auto`, `Self` or `Keep`.
        next_hop_mode: Option<String> = "nextHopMode",
        /// The old way to say `nextHopMode: Keep`.
        keep_original_next_hop: Option<bool> = "keepOriginalNextHop",
        /// The password.
        password: Option<PasswordSpec> = "password",
        /// How often a KEEPALIVE is sent: `30s`.
        keepalive_time: Option<String> = "keepaliveTime",
        /// How long the peer keeps our routes: `120s`.
        max_restart_time: Option<String> = "maxRestartTime",
        /// How often our own AS may stand in a path.
        num_allowed_local_as_numbers: Option<i64> = "numAllowedLocalASNumbers",
        /// How many hops away the peer may be (RFC 5082).
        ttl_security: Option<i64> = "ttlSecurity",
        /// The gateway that leads to the peer.
        reachable_by: Option<String> = "reachableBy",
        /// Names of filters, in order.
        filters: Option<Vec<String>> = "filters",
        /// Whether nodes that are peers peer back: `Auto` or `Manual`.
        reverse_peering: Option<String> = "reversePeering",
    }
}

kind! { BgpPeerSpec: "BGPPeer" "bgppeers" cluster }

impl TryFrom<&BgpPeer> for Peer {
    type Error = Invalid;

    fn try_from(object: &BgpPeer) -> Result<Self, Invalid> {
        let spec = &object.spec;
        let (options, interface) = (options::of(object)?, options::interface(object)?);
        let read = || {
            let source = [("UseNodeIP", true), ("None", false)];
            Ok(Self {
                name: object.name().to_owned(),
                nodes: nodes(spec)?,
                remote: remote(spec, interface.clone())?,
                uses_node_addr: word(
                    "sourceAddress",
                    spec.source_address.as_deref(),
                    &source,
                    true,
                )?,
                next_hop: next_hop(spec)?,
                keepalive: duration("keepaliveTime", spec.keepalive_time.as_deref())?,
                max_restart_time: duration("maxRestartTime", spec.max_restart_time.as_deref())?,
                filters: spec.filters.clone().unwrap_or_default(),
                local_asn: asn("localASNumber", spec.local_as_number.as_ref())?,
                password: password("password", spec.password.as_ref())?,
                allowed_own_asns: allowed_own_asns(spec)?,
                ttl_security: within("ttlSecurity", spec.ttl_security, 1..=255)?,
                reachable_by: reachable_by(spec)?,
                is_reversed: word(
                    "reversePeering",
                    spec.reverse_peering.as_deref(),
                    &[("Auto", true), ("Manual", false)],
                    true,
                )?,
                options: options.clone(),
            })
        };
        read().map_err(|fault| object.faulty(fault))
    }
}

/// Returns how often our AS may stand in a path; no path has more than 255 of one AS.
fn allowed_own_asns(spec: &BgpPeerSpec) -> Result<u8, Fault> {
    let field = "numAllowedLocalASNumbers";
    let number = within(field, spec.num_allowed_local_as_numbers, 0..=i32::MAX)?;
    Ok(u8::try_from(number.unwrap_or_default()).unwrap_or(u8::MAX))
}

/// Returns the gateway to the peer, which must speak the peer's family and not be the peer.
fn reachable_by(spec: &BgpPeerSpec) -> Result<Option<IpAddr>, Fault> {
    let Some(text) = some(spec.reachable_by.as_ref()) else { return Ok(None) };
    let gateway = addr("reachableBy", text)?;
    let peer = some(spec.peer_ip.as_ref()).and_then(peer_ip).map(|(addr, _)| addr);
    let problem = match peer {
        None => "needs peerIP: say the address of the peer, or leave it out",
        Some(peer) if peer == gateway => "is the peer itself: name the router that leads to it",
        Some(peer) if peer.is_ipv4() != gateway.is_ipv4() => {
            "is of another family than peerIP: use a gateway of the same one"
        }
        Some(_) => return Ok(Some(gateway)),
    };
    Err(Fault::new("reachableBy", text, problem))
}

fn some(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

fn nodes(spec: &BgpPeerSpec) -> Result<PeerNodes, Fault> {
    match (some(spec.node.as_ref()), some(spec.node_selector.as_ref())) {
        (None, None) => Ok(PeerNodes::All),
        (Some(node), None) => parse("node", node).map(PeerNodes::Named),
        (None, Some(text)) => parse("nodeSelector", text).map(PeerNodes::Selected),
        (Some(_), Some(text)) => {
            let problem = "node and nodeSelector exclude each other: leave one out";
            Err(Fault::new("nodeSelector", text, problem))
        }
    }
}

fn remote(spec: &BgpPeerSpec, interface: Option<IfName>) -> Result<PeerRemote, Fault> {
    let asn = asn("asNumber", spec.as_number.as_ref())?;
    if let Some(name) = interface {
        return on_interface(spec, name, asn);
    }
    let workloads = some(spec.local_workload_selector.as_ref());
    match (some(spec.peer_ip.as_ref()), some(spec.peer_selector.as_ref()), workloads) {
        (Some(text), None, None) => {
            let (addr, port) = peer_ip(text).ok_or_else(|| {
                let problem = "is no peer: use ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT";
                Fault::new("peerIP", text, problem)
            })?;
            let needed = || Fault::new("asNumber", "", "is missing: say the AS of the peer");
            Ok(PeerRemote::Router { addr, port, asn: asn.ok_or_else(needed)? })
        }
        (None, Some(text), None) => match asn {
            None => parse("peerSelector", text).map(PeerRemote::Nodes),
            Some(asn) => {
                let problem = "nodes have their own: leave it out beside peerSelector";
                Err(Fault::new("asNumber", asn, problem))
            }
        },
        (None, None, Some(text)) => {
            let selector = parse("localWorkloadSelector", text)?;
            let needed = || Fault::new("asNumber", "", "is missing: say the AS of the workloads");
            Ok(PeerRemote::Workloads { selector, asn: asn.ok_or_else(needed)? })
        }
        (None, None, None) => {
            let problem = "is missing: say who the peer is, by peerIP or peerSelector";
            Err(Fault::new("peerIP", "", problem))
        }
        (first, second, _) => {
            let problem = "peerIP, peerSelector and localWorkloadSelector exclude each other: \
                           leave all but one out";
            let value = first.or(second).unwrap_or_default();
            Err(Fault::new(if first.is_some() { "peerIP" } else { "peerSelector" }, value, problem))
        }
    }
}

/// Reads a peer that is found on an interface, so that nothing else says who it is.
fn on_interface(spec: &BgpPeerSpec, name: IfName, asn: Option<Asn>) -> Result<PeerRemote, Fault> {
    let others = [
        ("peerIP", &spec.peer_ip),
        ("peerSelector", &spec.peer_selector),
        ("localWorkloadSelector", &spec.local_workload_selector),
    ];
    for (field, value) in others {
        if let Some(value) = some(value.as_ref()) {
            let problem = "and the annotation bgp.projectcalico.org/interface exclude each other: \
                           leave one out";
            return Err(Fault::new(field, value, problem));
        }
    }
    let needed = || Fault::new("asNumber", "", "is missing: say the AS of the peer");
    Ok(PeerRemote::Interface { name, asn: asn.ok_or_else(needed)? })
}

fn peer_ip(text: &str) -> Option<(IpAddr, u16)> {
    if let Ok(addr) = text.parse() {
        return Some((addr, BgpConfiguration::DEFAULT_PORT));
    }
    let socket: SocketAddr = text.parse().ok()?;
    (socket.port() != 0).then(|| (socket.ip(), socket.port()))
}

fn next_hop(spec: &BgpPeerSpec) -> Result<NextHopMode, Fault> {
    let modes =
        [("Auto", NextHopMode::Auto), ("Self", NextHopMode::SelfAddr), ("Keep", NextHopMode::Keep)];
    let keeps = spec.keep_original_next_hop.unwrap_or_default();
    let default = if keeps { NextHopMode::Keep } else { NextHopMode::Auto };
    word("nextHopMode", spec.next_hop_mode.as_deref(), &modes, default)
}
