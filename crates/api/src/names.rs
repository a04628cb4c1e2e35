//! Names and labels of objects and interfaces, exactly as Calico forms them.

use std::collections::BTreeMap;

use model::block::Owner;
use model::id::{HandleId, NodeName};
use model::net::{Cidr, Family, IfName, MacAddr};
use model::node::TunnelKind;
use model::vrf::VrfName;
use sha1::Digest as _;

use crate::annotations::VRF_NAME;

/// The label that finds a node's block affinities.
pub const HOSTNAME_HASH_LABEL: &str = "projectcalico.org/hostname-hash";
/// The label with the kind of a block affinity: `host` or `virtual`.
pub const AFFINITY_TYPE_LABEL: &str = "projectcalico.org/affinity-type";
/// The label with the family of a block affinity: `4` or `6`.
pub const IP_VERSION_LABEL: &str = "projectcalico.org/ip-version";

/// The longest name of an object.
const MAX_NAME: usize = 253;

/// Returns the name of a block's object: `10-1-0-0-26`, in the VRF `red` `10-1-0-0-26.red.vrf`.
///
/// With this end it is no other object's name: those of blocks and claims without a VRF end in a
/// word with a dash, and whatever nodes are called, the last three words of this one say which VRF
/// and which block.
#[must_use]
pub fn block_name(vrf: Option<&VrfName>, cidr: Cidr) -> String {
    format!("{}{}", cidr.object_name(), ending(vrf))
}

/// Returns what the names of a VRF's blocks and claims end in.
fn ending(vrf: Option<&VrfName>) -> String {
    vrf.map(|vrf| format!(".{vrf}.vrf")).unwrap_or_default()
}

/// Returns the name of the object that says that `owner` claims the block.
///
/// A name that would be too long keeps the block's part, and a hash in place of
/// the end of the owner's. That of a VRF ends as its block's does ([`block_name`]).
#[must_use]
pub fn affinity_name(vrf: Option<&VrfName>, owner: &str, cidr: Cidr) -> String {
    let (block, ending) = (cidr.object_name(), ending(vrf));
    let name = format!("{owner}-{block}{ending}");
    if name.len() < MAX_NAME {
        return name;
    }
    let hash = data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(format!("{owner}+{block}")));
    let used = block.len().saturating_add(ending.len()).saturating_add(13);
    let room = MAX_NAME.saturating_sub(1).saturating_sub(used);
    let owner = owner.get(..room).unwrap_or(owner);
    format!("{owner}-{block}-{}{ending}", hash.get(..11).unwrap_or(&hash))
}

/// Returns the label selector that finds what is of a VRF, or of none.
#[must_use]
pub fn of_vrf(vrf: Option<&VrfName>) -> String {
    vrf.map_or_else(|| format!("!{VRF_NAME}"), |vrf| format!("{VRF_NAME}={vrf}"))
}

/// Returns the labels of a block affinity.
#[must_use]
pub fn affinity_labels(owner: &Owner, cidr: Cidr) -> BTreeMap<String, String> {
    let (name, kind) = match owner {
        Owner::Host(node) => (node.as_str(), "host"),
        Owner::Virtual(name) => (name.as_str(), "virtual"),
    };
    [
        (HOSTNAME_HASH_LABEL, hostname_hash(name)),
        (AFFINITY_TYPE_LABEL, kind.to_owned()),
        (IP_VERSION_LABEL, cidr.family().number().to_string()),
    ]
    .map(|(label, value)| (label.to_owned(), value))
    .into()
}

/// Returns the label selector that finds the block affinities of `owner`, in whatever VRF.
#[must_use]
pub fn affinities_of(owner: &Owner) -> String {
    let (name, kind) = match owner {
        Owner::Host(node) => (node.as_str(), "host"),
        Owner::Virtual(name) => (name.as_str(), "virtual"),
    };
    let hash = hostname_hash(name);
    format!("{HOSTNAME_HASH_LABEL}={hash},{AFFINITY_TYPE_LABEL}={kind}")
}

/// Returns a node's name in a form that fits a label: the SHA3-256 in base 32.
#[must_use]
pub fn hostname_hash(name: &str) -> String {
    data_encoding::BASE32_NOPAD.encode(&sha3::Sha3_256::digest(name.as_bytes()))
}

/// Returns the id of the handle that holds the addresses of a Service of type `LoadBalancer`.
#[must_use]
pub fn load_balancer_handle(service: &str, namespace: &str, uid: &str) -> String {
    let whose = format!("{service}-{namespace}-{uid}").to_lowercase();
    let hash = data_encoding::BASE64URL_NOPAD.encode(&sha2::Sha256::digest(whose));
    format!("lb-{}", hash.replace(['-', '_', '.'], "").to_lowercase())
}

/// Returns the id of the handle that holds the address of a node's tunnel.
#[must_use]
pub fn tunnel_handle(kind: TunnelKind, node: &NodeName) -> HandleId {
    let kind = match kind {
        TunnelKind::Ipip => "ipip",
        TunnelKind::VxlanV4 => "vxlan",
        TunnelKind::VxlanV6 => "vxlan-v6",
        TunnelKind::WireguardV4 => "wireguard",
        TunnelKind::WireguardV6 => "wireguard-v6",
    };
    HandleId(format!("{kind}-tunnel-addr-{node}"))
}

/// Returns what is noted as `type` with the address of a node's tunnel.
#[must_use]
pub const fn tunnel_type(kind: TunnelKind) -> &'static str {
    match kind {
        TunnelKind::Ipip => "ipipTunnelAddress",
        TunnelKind::VxlanV4 => "vxlanTunnelAddress",
        TunnelKind::VxlanV6 => "vxlanV6TunnelAddress",
        TunnelKind::WireguardV4 => "wireguardTunnelAddress",
        TunnelKind::WireguardV6 => "wireguardV6TunnelAddress",
    }
}

/// Returns the Ethernet address that a node's VXLAN device has unless an annotation says
/// otherwise: 0x66, and five bytes of a hash of the node's name.
#[must_use]
pub fn vxlan_mac(node: &NodeName, family: Family) -> MacAddr {
    let suffix = match family {
        Family::V4 => "",
        Family::V6 => "-v6",
    };
    let hash = sha1::Sha1::digest(format!("{node}{suffix}"));
    let mut mac = [0x66; 6];
    mac.iter_mut().skip(1).zip(&hash[..]).for_each(|(byte, hashed)| *byte = *hashed);
    MacAddr(mac)
}

/// Returns the name of the host's side of a pod's veth: the prefix, and 11 digits of a hash.
///
/// A prefix that leaves no room for them is cut, so that the name always fits.
#[must_use]
pub fn host_veth_name(namespace: &str, pod: &str, prefix: &str) -> Option<IfName> {
    let hash = sha1::Sha1::digest(format!("{namespace}.{pod}"));
    let hash = data_encoding::HEXLOWER.encode(&hash);
    format!("{prefix}{}", hash.get(..11)?).parse().ok()
}

/// Returns the name of a workload endpoint of a pod.
#[must_use]
pub fn wep_name(node: &NodeName, pod: &str) -> String {
    let doubled = |text: &str| text.replace('-', "--");
    format!("{}-k8s-{}-eth0", doubled(node.as_str()), doubled(pod))
}
