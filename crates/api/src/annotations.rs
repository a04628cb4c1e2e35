//! Names of annotations, as Calico writes them.

use model::net::Family;
use model::node::TunnelKind;

/// A pod's first address with its prefix length: `10.244.0.5/32`. Empty: given back.
pub const POD_IP: &str = "cni.projectcalico.org/podIP";
/// All of a pod's addresses with their prefix lengths, separated by commas.
pub const POD_IPS: &str = "cni.projectcalico.org/podIPs";
/// The address that Amazon's CNI plugin gave to a pod.
pub const AMAZON_POD_IPS: &str = "vpc.amazonaws.com/pod-ips";
/// The container that holds a pod's addresses.
pub const CONTAINER_ID: &str = "cni.projectcalico.org/containerID";
/// The pools to take a pod's IPv4 address from: a JSON array of names or CIDRs.
pub const IPV4_POOLS: &str = "cni.projectcalico.org/ipv4pools";
/// The same for IPv6.
pub const IPV6_POOLS: &str = "cni.projectcalico.org/ipv6pools";
/// The families that a pod wants: a JSON array of `IPv4` and `IPv6`.
pub const IP_FAMILIES: &str = "cni.projectcalico.org/ipFamilies";
/// The very addresses that a pod wants: a JSON array, at most one of each family.
pub const IP_ADDRS: &str = "cni.projectcalico.org/ipAddrs";
/// The same, taken without asking IPAM.
pub const IP_ADDRS_NO_IPAM: &str = "cni.projectcalico.org/ipAddrsNoIpam";
/// Further addresses that are translated to a pod's: a JSON array.
pub const FLOATING_IPS: &str = "cni.projectcalico.org/floatingIPs";
/// The Ethernet address of a pod's interface.
pub const HW_ADDR: &str = "cni.projectcalico.org/hwAddr";
/// Source prefixes that a pod may use beside its own addresses: a JSON array.
pub const ALLOWED_SOURCE_PREFIXES: &str = "cni.projectcalico.org/allowedSourcePrefixes";

/// The pools to take a Service's IPv4 address from: a JSON array of names or CIDRs.
pub const BALANCER_IPV4_POOLS: &str = "projectcalico.org/ipv4pools";
/// The same for IPv6.
pub const BALANCER_IPV6_POOLS: &str = "projectcalico.org/ipv6pools";
/// The very addresses that a Service wants: a JSON array, at most one of each family.
pub const BALANCER_ADDRS: &str = "projectcalico.org/loadBalancerIPs";

/// A node's IPv4 address with the length of its subnet's prefix.
pub const NODE_IPV4: &str = "projectcalico.org/IPv4Address";
/// A node's IPv6 address with the length of its subnet's prefix.
pub const NODE_IPV6: &str = "projectcalico.org/IPv6Address";
/// A node's AS number.
pub const NODE_ASN: &str = "projectcalico.org/ASNumber";
/// A route reflector's cluster id.
pub const NODE_CLUSTER_ID: &str = "projectcalico.org/RouteReflectorClusterID";
/// The address of a node's `tunl0`.
pub const NODE_IPIP: &str = "projectcalico.org/IPv4IPIPTunnelAddr";
/// The address of a node's `vxlan.calico`.
pub const NODE_VXLAN_V4: &str = "projectcalico.org/IPv4VXLANTunnelAddr";
/// The address of a node's `vxlan-v6.calico`.
pub const NODE_VXLAN_V6: &str = "projectcalico.org/IPv6VXLANTunnelAddr";
/// The address of a node's `wireguard.cali`.
pub const NODE_WIREGUARD_V4: &str = "projectcalico.org/IPv4WireguardInterfaceAddr";
/// The address of a node's `wg-v6.cali`.
pub const NODE_WIREGUARD_V6: &str = "projectcalico.org/IPv6WireguardInterfaceAddr";
/// The Ethernet address of a node's `vxlan.calico`, where it is not the usual one.
pub const NODE_VXLAN_MAC_V4: &str = "projectcalico.org/VXLANTunnelMACAddr";
/// The Ethernet address of a node's `vxlan-v6.calico`, where it is not the usual one.
pub const NODE_VXLAN_MAC_V6: &str = "projectcalico.org/VXLANTunnelMACAddrV6";
/// The public key of a node's `wireguard.cali`, in base64.
pub const NODE_WIREGUARD_KEY_V4: &str = "projectcalico.org/WireguardPublicKey";
/// The public key of a node's `wg-v6.cali`, in base64.
pub const NODE_WIREGUARD_KEY_V6: &str = "projectcalico.org/WireguardPublicKeyV6";
/// The VRF of a pool, of a namespace, and, as the plugin has written it, of a pod: `red`. Also the
/// label of a VRF's blocks, affinities and handles.
pub const VRF_NAME: &str = "vrf.projectcalico.org/name";
/// The number of a pool's VRF: `5001`.
pub const VRF_ID: &str = "vrf.projectcalico.org/id";
/// The VRFs that a pool's VRF exchanges routes with, by commas; `default` is those without one.
pub const VRF_IMPORT: &str = "vrf.projectcalico.org/import";

/// Metadata of the object as people see it, in JSON.
pub const METADATA: &str = "projectcalico.org/metadata";

/// A peer's families, by commas: `ipv4`, `ipv6`.
pub const BGP_FAMILIES: &str = "bgp.projectcalico.org/families";
/// How many prefixes of a family a peer may announce (RFC 4486 §4).
pub const BGP_MAX_PREFIXES: &str = "bgp.projectcalico.org/max-prefixes";
/// What a node is to a peer: `provider`, `rs`, `rs-client`, `customer` or `peer` (RFC 9234).
pub const BGP_ROLE: &str = "bgp.projectcalico.org/role";
/// Whether messages may have 65535 octets: `true` or `false` (RFC 8654).
pub const BGP_EXTENDED_MESSAGES: &str = "bgp.projectcalico.org/extended-messages";
/// Whether an external peer without filters is told nothing and told from nothing (RFC 8212).
pub const BGP_REQUIRE_POLICY: &str = "bgp.projectcalico.org/require-policy";
/// The interface on which the peer is found by itself, in place of its address: `eth0`.
pub const BGP_INTERFACE: &str = "bgp.projectcalico.org/interface";
/// Several paths of one prefix: `both`, `receive`, `send` or `none` (RFC 7911).
pub const BGP_ADD_PATH: &str = "bgp.projectcalico.org/add-path";
/// How often BFD packets are sent to a peer: `300ms` (RFC 5880). Absent: no BFD.
pub const BGP_BFD_INTERVAL: &str = "bgp.projectcalico.org/bfd-interval";
/// How many BFD packets may be missed: `3`.
pub const BGP_BFD_MULTIPLIER: &str = "bgp.projectcalico.org/bfd-multiplier";

/// Returns the annotation with a node's tunnel address.
#[must_use]
pub const fn tunnel_addr(kind: TunnelKind) -> &'static str {
    match kind {
        TunnelKind::Ipip => NODE_IPIP,
        TunnelKind::VxlanV4 => NODE_VXLAN_V4,
        TunnelKind::VxlanV6 => NODE_VXLAN_V6,
        TunnelKind::WireguardV4 => NODE_WIREGUARD_V4,
        TunnelKind::WireguardV6 => NODE_WIREGUARD_V6,
    }
}

/// Returns the annotation with the public key of a node's WireGuard device.
#[must_use]
pub const fn wireguard_key(family: Family) -> &'static str {
    match family {
        Family::V4 => NODE_WIREGUARD_KEY_V4,
        Family::V6 => NODE_WIREGUARD_KEY_V6,
    }
}
