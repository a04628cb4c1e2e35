//! Settings of interfaces and routes.

use std::net::IpAddr;
use std::time::Duration;

use crate::table::Names::Felix;
use crate::table::group;
use crate::value::{
    IfPrefix, L2Reachability, Number, NumberRange, Pattern, ProgramClusterRoutes, RouteSource,
    SourceSpoofing, Switch,
};

/// Returns the pattern of names that the host's own interfaces usually have.
fn host_interfaces() -> Option<Pattern> {
    Pattern::new("^((en|wl|ww|sl|ib)[Pcopsvx].*|(eth|wlan|wwan).*)")
}

group! {
    /// Interfaces of workloads and of the host.
    Interfaces, "Interfaces" {
        /// What the names of workloads' interfaces start with. The CNI plugin and the routes
        /// use the first one.
        prefix: Vec<IfPrefix> = vec![IfPrefix::cali()], Felix("interfacePrefix"), Used;
        /// Interfaces of the host that are not looked at: names, or patterns between slashes.
        exclude: String = "kube-ipvs0".to_owned(), Felix("interfaceExclude"), Accepted;
        /// Interfaces of the host whose MTU workloads inherit.
        mtu_pattern: Option<Pattern> = host_interfaces(), Felix("mtuIfacePattern"), Used;
        /// How often the list of interfaces is read again, beside the kernel's events; 0 is never.
        refresh_interval: Duration = Duration::from_secs(90),
            Felix("interfaceRefreshInterval"), Accepted;
        /// Whether IPv6 is used for workloads.
        ipv6_support: bool = true, Felix("ipv6Support"), Used;
        /// Whether the kernel is told to forward packets.
        ip_forwarding: Switch = Switch::Enabled, Felix("ipForwarding"), Used;
        /// Whether workloads may send from addresses that are not theirs: with `Any` from the
        /// networks in their annotation `cni.projectcalico.org/allowedSourcePrefixes`.
        source_spoofing: SourceSpoofing = SourceSpoofing::Disabled,
            Felix("workloadSourceSpoofing"), Used;
        /// Whether workloads may have floating addresses: those in pools that they name in their
        /// annotation `cni.projectcalico.org/floatingIPs`.
        floating_ips: Switch = Switch::Disabled, Felix("floatingIPs"), Used;
    }
}

group! {
    /// Routes.
    Routes, "Routes" {
        /// The protocol number of routes to local workloads; 3 is `boot`.
        device_protocol: Number<0, 255> = Number::clamped(3), Felix("deviceRouteProtocol"), Used;
        /// The source address in routes to local workloads; unset leaves it to the kernel.
        device_source: Option<IpAddr> = None, Felix("deviceRouteSourceAddress"), Accepted;
        /// The same for IPv6.
        device_source_v6: Option<IpAddr> = None, Felix("deviceRouteSourceAddressIPv6"), Accepted;
        /// Whether routes on workloads' interfaces that nobody here made are removed.
        remove_external: bool = true, Felix("removeExternalRoutes"), Accepted;
        /// How often the kernel's routes are compared with what they should be, beside the
        /// kernel's events; 0 is never.
        refresh_interval: Duration = Duration::from_secs(90), Felix("routeRefreshInterval"), Used;
        /// The routing tables that may be used for policy routing.
        table_ranges: Vec<NumberRange> = vec![NumberRange { first: 1, last: 250 }],
            Felix("routeTableRanges"), Used;
        /// What routes to other nodes' pods are computed from.
        source: RouteSource = RouteSource::CalicoIpam, Felix("routeSource"), Accepted;
        /// Which routes to other nodes are programmed without BGP's help.
        program_cluster_routes: ProgramClusterRoutes = ProgramClusterRoutes::EnabledIpipOnly,
            Felix("programClusterRoutes"), Accepted;
        /// The metric of IPv4 routes to local workloads, blocks and tunnels.
        ipv4_normal_priority: Number<1, 2_147_483_646> = Number::clamped(1024),
            Felix("ipv4NormalRoutePriority"), Used;
        /// The same for IPv6.
        ipv6_normal_priority: Number<1, 2_147_483_646> = Number::clamped(1024),
            Felix("ipv6NormalRoutePriority"), Used;
        /// The metric of IPv4 routes that win during a live migration.
        ipv4_elevated_priority: Number<1, 2_147_483_646> = Number::clamped(512),
            Felix("ipv4ElevatedRoutePriority"), Accepted;
        /// The metric of IPv6 routes that win during a live migration.
        ipv6_elevated_priority: Number<1, 2_147_483_646> = Number::clamped(512),
            Felix("ipv6ElevatedRoutePriority"), Accepted;
        /// Whether ARP is answered on the local subnet for pods and load balancers.
        local_subnet_l2: L2Reachability = L2Reachability::Disabled,
            Felix("localSubnetL2Reachability"), Accepted;
        /// Nodes outside the cluster whose tunnels are accepted.
        external_nodes: Vec<String> = Vec::new(), Felix("externalNodesList"), Used;
        /// The selector of nodes that this object is for, in newer releases.
        node_selector: String = String::new(), Felix("nodeSelector"), Accepted;
    }
}
