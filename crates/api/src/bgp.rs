//! `BGPConfiguration` and `BGPPeer`: how the cluster speaks BGP, and with whom.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::ClusterResourceScope;
use model::net::Asn;
use model::peer::{
    BgpPeer as Peer, Community, NextHopMode, PeerNodes, PeerRemote, PrefixAdvertisement,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Invalid, Kind, Object};

/// How the cluster, or one node, speaks BGP.
pub type BgpConfiguration = Object<BgpConfigurationSpec>;

/// The spec of a [`BgpConfiguration`]; absent fields have Calico's defaults.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BgpConfigurationSpec {
    /// Whether every node peers with every other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_to_node_mesh_enabled: Option<bool>,
    /// The AS of nodes that name none: a number, or text such as `1.10`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_number: Option<Value>,
    /// The TCP port to listen on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen_port: Option<i64>,
    /// How long mesh peers keep the routes of a node that is away: `120s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_mesh_max_restart_time: Option<String>,
    /// Names for communities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub communities: Option<Vec<NamedCommunity>>,
    /// Ranges with the communities of routes in them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix_advertisements: Option<Vec<PrefixAdvertisementSpec>>,
    /// What this version does not know, or does not act upon yet.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// A name for a community.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct NamedCommunity {
    /// The name.
    pub name: String,
    /// `aa:nn` or `aa:nn:mm`.
    pub value: String,
    /// What this version does not know.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// Communities for the routes of one range.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct PrefixAdvertisementSpec {
    /// The range.
    pub cidr: String,
    /// Names, or values as they are.
    pub communities: Vec<String>,
    /// What this version does not know.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Kind for BgpConfigurationSpec {
    const KIND: &'static str = "BGPConfiguration";
    const PLURAL: &'static str = "bgpconfigurations";
    type Scope = ClusterResourceScope;
}

impl TryFrom<&BgpConfiguration> for model::peer::BgpConfiguration {
    type Error = Invalid;

    fn try_from(object: &BgpConfiguration) -> Result<Self, Invalid> {
        let spec = &object.spec;
        let restart = spec.node_mesh_max_restart_time.as_deref();
        Ok(Self {
            is_mesh_enabled: spec.node_to_node_mesh_enabled.unwrap_or(true),
            asn: asn(object, spec.as_number.as_ref())?.unwrap_or(Asn::DEFAULT),
            listen_port: listen_port(object)?,
            mesh_max_restart_time: seconds(object, "spec.nodeMeshMaxRestartTime", restart)?,
            prefix_advertisements: prefix_advertisements(object)?,
        })
    }
}

fn listen_port(object: &BgpConfiguration) -> Result<u16, Invalid> {
    let default = model::peer::BgpConfiguration::DEFAULT_PORT;
    let Some(port) = object.spec.listen_port else { return Ok(default) };
    let found = u16::try_from(port).ok().filter(|port| *port != 0);
    found.ok_or_else(|| object.invalid("spec.listenPort", port, "use 1 to 65535"))
}

/// Reads an AS number, which stands there as a number or as text.
fn asn<S: Kind>(object: &Object<S>, value: Option<&Value>) -> Result<Option<Asn>, Invalid> {
    let text = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let wrong = |error| object.invalid("spec.asNumber", &text, error);
    text.parse().map(Some).map_err(|error: model::net::InvalidAsn| wrong(error.to_string()))
}

/// Reads a duration in Go's form, such as `1m30s`, in whole seconds.
fn seconds<S: Kind>(
    object: &Object<S>,
    field: &str,
    text: Option<&str>,
) -> Result<Option<Duration>, Invalid> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let found = go_duration(text).map(|length| Duration::from_secs(length.as_secs()));
    let problem = "use a duration such as 90s or 2m";
    found.map(Some).ok_or_else(|| object.invalid(field, text, problem))
}

fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let unit_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match rest.get(..unit_end)? {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return None,
        };
        total = total.checked_add(unit.checked_mul(u32::try_from(number).ok()?)?)?;
        rest = rest.get(unit_end..)?;
    }
    (!text.is_empty()).then_some(total)
}

fn prefix_advertisements(object: &BgpConfiguration) -> Result<Vec<PrefixAdvertisement>, Invalid> {
    let names = object.spec.communities.as_deref().unwrap_or_default();
    let resolve = |text: &String| {
        let value = names.iter().find(|named| named.name == *text);
        let value = value.map_or(text.as_str(), |named| named.value.as_str());
        community(value).ok_or_else(|| {
            let problem = "use aa:nn, aa:nn:mm, or a name of spec.communities";
            object.invalid("spec.prefixAdvertisements.communities", text, problem)
        })
    };
    let read = |wire: &PrefixAdvertisementSpec| {
        let cidr = wire
            .cidr
            .parse()
            .map_err(|error| object.invalid("spec.prefixAdvertisements.cidr", &wire.cidr, error))?;
        let communities = wire.communities.iter().map(resolve).collect::<Result<_, _>>()?;
        Ok(PrefixAdvertisement { cidr, communities })
    };
    object.spec.prefix_advertisements.iter().flatten().map(read).collect()
}

fn community(text: &str) -> Option<Community> {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [a, b] => Some(Community::Standard(a.parse().ok()?, b.parse().ok()?)),
        [a, b, c] => Some(Community::Large(a.parse().ok()?, b.parse().ok()?, c.parse().ok()?)),
        _ => None,
    }
}

/// A BGP neighbour of some or all nodes.
pub type BgpPeer = Object<BgpPeerSpec>;

/// The spec of a [`BgpPeer`].
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BgpPeerSpec {
    /// The one node that has this peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The nodes that have this peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<String>,
    /// The peer: `ip`, `ip:port` or `[ip]:port`.
    #[serde(rename = "peerIP", skip_serializing_if = "Option::is_none")]
    pub peer_ip: Option<String>,
    /// The peer's AS: a number, or text such as `1.10`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_number: Option<Value>,
    /// The nodes that are the peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_selector: Option<String>,
    /// `UseNodeIP` or `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_address: Option<String>,
    /// `Auto`, `Self` or `Keep`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_hop_mode: Option<String>,
    /// The old way to say `nextHopMode: Keep`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_original_next_hop: Option<bool>,
    /// How often a KEEPALIVE is sent: `30s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive_time: Option<String>,
    /// How long the peer keeps our routes: `120s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_restart_time: Option<String>,
    /// Names of filters, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filters: Option<Vec<String>>,
    /// What this version does not know, or does not act upon yet.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Kind for BgpPeerSpec {
    const KIND: &'static str = "BGPPeer";
    const PLURAL: &'static str = "bgppeers";
    type Scope = ClusterResourceScope;
}

impl TryFrom<&BgpPeer> for Peer {
    type Error = Invalid;

    fn try_from(object: &BgpPeer) -> Result<Self, Invalid> {
        let spec = &object.spec;
        let uses_node_addr = match spec.source_address.as_deref().unwrap_or_default() {
            "" | "UseNodeIP" => true,
            "None" => false,
            other => {
                return Err(object.invalid("spec.sourceAddress", other, "use UseNodeIP or None"));
            }
        };
        let keepalive = spec.keepalive_time.as_deref();
        let restart = spec.max_restart_time.as_deref();
        Ok(Self {
            name: object.name().to_owned(),
            nodes: peer_nodes(object)?,
            remote: remote(object)?,
            uses_node_addr,
            next_hop: next_hop(object)?,
            keepalive: seconds(object, "spec.keepaliveTime", keepalive)?,
            max_restart_time: seconds(object, "spec.maxRestartTime", restart)?,
            filters: spec.filters.clone().unwrap_or_default(),
        })
    }
}

fn some(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

fn peer_nodes(object: &BgpPeer) -> Result<PeerNodes, Invalid> {
    let spec = &object.spec;
    match (some(spec.node.as_ref()), some(spec.node_selector.as_ref())) {
        (None, None) => Ok(PeerNodes::All),
        (Some(node), None) => {
            let name = node.parse();
            name.map(PeerNodes::Named).map_err(|error| object.invalid("spec.node", node, error))
        }
        (None, Some(text)) => {
            let selector = text.parse();
            let selector = selector.map_err(|error: selector::InvalidSelector| {
                object.invalid("spec.nodeSelector", text, error)
            })?;
            Ok(PeerNodes::Selected(selector))
        }
        (Some(_), Some(text)) => {
            let problem = "node and nodeSelector exclude each other; leave one out";
            Err(object.invalid("spec.nodeSelector", text, problem))
        }
    }
}

fn remote(object: &BgpPeer) -> Result<PeerRemote, Invalid> {
    let spec = &object.spec;
    let asn = asn(object, spec.as_number.as_ref())?;
    match (some(spec.peer_ip.as_ref()), some(spec.peer_selector.as_ref())) {
        (Some(text), None) => {
            let (addr, port) = peer_ip(text).ok_or_else(|| {
                object.invalid("spec.peerIP", text, "use ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT")
            })?;
            let asn = asn
                .filter(|asn| asn.0 != 0)
                .ok_or_else(|| object.invalid("spec.asNumber", "", "is required beside peerIP"))?;
            Ok(PeerRemote::Router { addr, port, asn })
        }
        (None, Some(text)) if asn.is_none() => {
            let selector = text.parse();
            selector.map(PeerRemote::Nodes).map_err(|error: selector::InvalidSelector| {
                object.invalid("spec.peerSelector", text, error)
            })
        }
        (None, Some(_)) => {
            let problem = "the selected nodes have their own; leave it out beside peerSelector";
            Err(object.invalid("spec.asNumber", asn.unwrap_or(Asn::DEFAULT), problem))
        }
        (Some(text), Some(_)) => {
            let problem = "peerIP and peerSelector exclude each other; leave one out";
            Err(object.invalid("spec.peerIP", text, problem))
        }
        (None, None) if spec.unknown.contains_key("localWorkloadSelector") => {
            let problem = "peering with local workloads is not supported by this version";
            Err(object.invalid("spec.localWorkloadSelector", "", problem))
        }
        (None, None) => {
            Err(object.invalid("spec.peerIP", "", "say who the peer is: peerIP or peerSelector"))
        }
    }
}

fn peer_ip(text: &str) -> Option<(IpAddr, u16)> {
    if let Ok(addr) = text.parse() {
        return Some((addr, model::peer::BgpConfiguration::DEFAULT_PORT));
    }
    let socket: SocketAddr = text.parse().ok()?;
    (socket.port() != 0).then(|| (socket.ip(), socket.port()))
}

fn next_hop(object: &BgpPeer) -> Result<NextHopMode, Invalid> {
    let spec = &object.spec;
    match spec.next_hop_mode.as_deref().unwrap_or_default() {
        "" if spec.keep_original_next_hop == Some(true) => Ok(NextHopMode::Keep),
        "" | "Auto" => Ok(NextHopMode::Auto),
        "Self" => Ok(NextHopMode::SelfAddr),
        "Keep" => Ok(NextHopMode::Keep),
        other => Err(object.invalid("spec.nextHopMode", other, "use Auto, Self or Keep")),
    }
}
