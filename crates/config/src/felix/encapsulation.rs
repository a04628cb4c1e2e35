//! Settings of tunnels and of encryption between nodes.

use std::time::Duration;

use crate::table::Names::{Felix, FelixAs};
use crate::table::group;
use crate::value::{Features, Number};

group! {
    /// Tunnels.
    Encapsulation, "Tunnels" {
        /// Whether IP-in-IP is set up; unset is whether a pool wants it.
        ipip_enabled: Option<bool> = None, FelixAs("ipipEnabled", "IpInIpEnabled"), Used;
        /// The MTU of the IP-in-IP tunnel in bytes; 0 is the host's less 20.
        ipip_mtu: Number<0, 65535> = Number::clamped(0), FelixAs("ipipMTU", "IpInIpMtu"), Used;
        /// Whether VXLAN is set up; unset is whether a pool wants it.
        vxlan_enabled: Option<bool> = None, Felix("vxlanEnabled"), Used;
        /// The MTU of the VXLAN tunnel in bytes; 0 is the host's less 50.
        vxlan_mtu: Number<0, 65535> = Number::clamped(0), Felix("vxlanMTU"), Used;
        /// The MTU of the VXLAN tunnel over IPv6 in bytes; 0 is the host's less 70.
        vxlan_mtu_v6: Number<0, 65535> = Number::clamped(0), Felix("vxlanMTUV6"), Used;
        /// The UDP port of VXLAN.
        vxlan_port: Number<1, 65535> = Number::clamped(4789), Felix("vxlanPort"), Used;
        /// The VXLAN network identifier (RFC 7348).
        vxlan_vni: Number<1, 16_777_215> = Number::clamped(4096), Felix("vxlanVNI"), Used;
        /// What is known of the kernel and of the fabric against what is found out. With
        /// `ChecksumOffloadBroken=true` the kernel fills in the checksums of packets in VXLAN, with
        /// `=false` that is left to the interface; other features are taken and change nothing.
        features: Features = Features::default(), Felix("featureDetectOverride"), Used;
        /// Whether workloads may send VXLAN packets themselves.
        vxlan_from_workloads: bool = false, Felix("allowVXLANPacketsFromWorkloads"), Used;
        /// Whether workloads may send IP-in-IP packets themselves.
        ipip_from_workloads: bool = false, Felix("allowIPIPPacketsFromWorkloads"), Used;
    }
}

group! {
    /// Encryption between nodes.
    Wireguard, "WireGuard" {
        /// Whether IPv4 traffic between nodes is encrypted.
        is_enabled: bool = false, Felix("wireguardEnabled"), Used;
        /// Whether IPv6 traffic between nodes is encrypted.
        is_enabled_v6: bool = false, Felix("wireguardEnabledV6"), Used;
        /// The UDP port for IPv4.
        port: Number<1, 65535> = Number::clamped(51820), Felix("wireguardListeningPort"), Used;
        /// The UDP port for IPv6.
        port_v6: Number<1, 65535> = Number::clamped(51821), Felix("wireguardListeningPortV6"), Used;
        /// The priority of the routing rule.
        rule_priority: Number<1, 32765> = Number::clamped(99),
            Felix("wireguardRoutingRulePriority"), Used;
        /// The interface for IPv4.
        interface: String = "wireguard.cali".to_owned(), Felix("wireguardInterfaceName"), Used;
        /// The interface for IPv6.
        interface_v6: String = "wg-v6.cali".to_owned(), Felix("wireguardInterfaceNameV6"), Used;
        /// The MTU for IPv4 in bytes; 0 is the host's less 60.
        mtu: Number<0, 65535> = Number::clamped(0), Felix("wireguardMTU"), Used;
        /// The MTU for IPv6 in bytes; 0 is the host's less 80.
        mtu_v6: Number<0, 65535> = Number::clamped(0), Felix("wireguardMTUV6"), Used;
        /// Whether traffic of the nodes themselves is encrypted too.
        host_encryption: bool = false, Felix("wireguardHostEncryptionEnabled"), Used;
        /// Whether packets to pods of other nodes go nowhere that cannot be encrypted, instead of in
        /// clear; Calico has no such setting.
        is_strict: bool = false, Felix("wireguardStrictMode"), Used;
        /// How often a silent peer is sent a packet; 0 is never.
        keep_alive: Duration = Duration::ZERO,
            FelixAs("wireguardKeepAlive", "WireguardPersistentKeepAlive"), Used;
    }
}
