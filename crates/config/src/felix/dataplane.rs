//! Settings of the packet filter and of the eBPF dataplane.

use std::time::Duration;

use crate::table::Names::Felix;
use crate::table::group;
use crate::value::{
    ChainInsertMode, IptablesBackend, Mask, Mode, NftablesMode, Number, Pattern, PortRange,
};

/// The bits of packet marks that are ours where nobody configures others.
const DEFAULT_MASK: Mask = Mask(0xffff_0000);

/// Returns the pattern of names that interfaces to other machines usually have.
fn data_interfaces() -> Option<Pattern> {
    Pattern::new("^((en|wl|ww|sl|ib)[Popsx].*|(eth|wlan|wwan|bond).*)")
}

group! {
    /// The packet filter.
    Dataplane, "Packet filter" {
        /// Whether nftables is used instead of iptables.
        nftables_mode: NftablesMode = NftablesMode::Auto, Felix("nftablesMode"), Accepted;
        /// Which iptables is used.
        iptables_backend: IptablesBackend = IptablesBackend::Auto, Felix("iptablesBackend"), Accepted;
        /// Where jump rules go in the kernel's own chains.
        chain_insert_mode: ChainInsertMode = ChainInsertMode::Insert,
            Felix("chainInsertMode"), Accepted;
        /// The bits of packet marks that iptables rules may use.
        iptables_mask: Mask = DEFAULT_MASK, Felix("iptablesMarkMask"), Accepted;
        /// The bits of packet marks that nftables rules may use.
        nftables_mask: Mask = DEFAULT_MASK, Felix("nftablesMarkMask"), Used;
        /// How often iptables rules are compared with what they should be; 0 is never.
        iptables_refresh: Duration = Duration::from_secs(180),
            Felix("iptablesRefreshInterval"), Accepted;
        /// How often nftables rules are compared with what they should be; 0 is never.
        nftables_refresh: Duration = Duration::from_secs(180),
            Felix("nftablesRefreshInterval"), Used;
        /// How often IP sets are compared with what they should be; 0 is never.
        ip_sets_refresh: Duration = Duration::from_secs(90),
            Felix("ipsetsRefreshInterval"), Accepted;
        /// How often XDP programs are compared with what they should be; 0 is never.
        xdp_refresh: Duration = Duration::from_secs(90), Felix("xdpRefreshInterval"), Accepted;
        /// The most members of an IP set.
        max_ip_set_size: Number<1, 4_294_967_295> = Number::clamped(1_048_576),
            Felix("maxIpsetSize"), Accepted;
        /// Whether XDP drops packets of untracked policy.
        xdp_enabled: bool = true, Felix("xdpEnabled"), Accepted;
        /// Whether XDP may run without the driver's support.
        generic_xdp_enabled: bool = false, Felix("genericXDPEnabled"), Accepted;
        /// Whether traffic to sidecars is shortened.
        sidecar_acceleration: bool = false, Felix("sidecarAccelerationEnabled"), Accepted;
    }
}

group! {
    /// The eBPF dataplane.
    Bpf, "eBPF" {
        /// Whether the eBPF dataplane is used.
        is_enabled: bool = false, Felix("bpfEnabled"), Accepted;
        /// How service traffic from outside is forwarded.
        external_service_mode: Mode = Mode::Tunnel, Felix("bpfExternalServiceMode"), Accepted;
        /// Which protocols are balanced when they connect: `TCP`, `Enabled` or `Disabled`.
        connect_time: String = "TCP".to_owned(), Felix("bpfConnectTimeLoadBalancing"), Accepted;
        /// Interfaces to other machines.
        data_interfaces: Option<Pattern> = data_interfaces(), Felix("bpfDataIfacePattern"), Accepted;
        /// How source addresses are checked: `Loose`, `Strict` or `Disabled`.
        enforce_rpf: String = "Loose".to_owned(), Felix("bpfEnforceRPF"), Accepted;
        /// What programs log: `Off`, `Info` or `Debug`.
        log_level: String = "Off".to_owned(), Felix("bpfLogLevel"), Accepted;
        /// Whether rules of kube-proxy are removed.
        kube_proxy_cleanup: bool = true, Felix("bpfKubeProxyIptablesCleanupEnabled"), Accepted;
        /// Ports for translated sources.
        source_ports: PortRange = PortRange { first: 20000, last: 29999 },
            Felix("bpfPSNATPorts"), Accepted;
        /// The size of the map of connections.
        conntrack_size: Number<1, 4_294_967_295> = Number::clamped(512_000),
            Felix("bpfMapSizeConntrack"), Accepted;
        /// The size of the map of routes.
        route_size: Number<1, 4_294_967_295> = Number::clamped(262_144),
            Felix("bpfMapSizeRoute"), Accepted;
        /// The size of the map of service addresses.
        frontend_size: Number<1, 4_294_967_295> = Number::clamped(65_536),
            Felix("bpfMapSizeNATFrontend"), Accepted;
        /// The size of the map of service backends.
        backend_size: Number<1, 4_294_967_295> = Number::clamped(262_144),
            Felix("bpfMapSizeNATBackend"), Accepted;
        /// The size of the map of IP sets.
        ip_sets_size: Number<1, 4_294_967_295> = Number::clamped(1_048_576),
            Felix("bpfMapSizeIPSets"), Accepted;
    }
}
