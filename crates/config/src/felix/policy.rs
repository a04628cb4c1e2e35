//! Settings of policy, of ports that it never closes, and of address translation.

use std::net::Ipv4Addr;

use model::net::Cidr;

use crate::table::Names::Felix;
use crate::table::group;
use crate::value::{
    DeniedConnections, DropAction, EndpointAction, NatExclusions, PassAction, PortRange,
    ProtocolPort, ServiceLoopPrevention,
};

/// TCP ports that stay open in both directions: BGP, etcd, Typha, the API server.
const FAILSAFE_TCP: [u16; 7] = [179, 2379, 2380, 5473, 6443, 6666, 6667];

fn failsafe(first: &[ProtocolPort]) -> Vec<ProtocolPort> {
    first.iter().copied().chain(FAILSAFE_TCP.map(ProtocolPort::tcp)).collect()
}

group! {
    /// Policy.
    Policy, "Policy" {
        /// What happens to packets from a workload to its host, after its policy.
        endpoint_to_host: EndpointAction = EndpointAction::Drop,
            Felix("defaultEndpointToHostAction"), Used;
        /// What happens to packets that the filter allows.
        filter_allow: PassAction = PassAction::Accept, Felix("iptablesFilterAllowAction"), Accepted;
        /// What happens to packets that the mangle table allows.
        mangle_allow: PassAction = PassAction::Accept, Felix("iptablesMangleAllowAction"), Accepted;
        /// What happens to packets that policy denies, as clusters with iptables have it:
        /// `Reject` here or in nftablesFilterDenyAction is enough.
        filter_deny: DropAction = DropAction::Drop, Felix("iptablesFilterDenyAction"), Used;
        /// The same as iptablesFilterAllowAction, with nftables.
        nft_filter_allow: PassAction = PassAction::Accept,
            Felix("nftablesFilterAllowAction"), Accepted;
        /// The same as iptablesMangleAllowAction, with nftables.
        nft_mangle_allow: PassAction = PassAction::Accept,
            Felix("nftablesMangleAllowAction"), Accepted;
        /// What happens to packets that policy denies: whether their senders are told (ICMP, port
        /// unreachable). Packets are dropped all the same before connections are tracked and
        /// destinations translated, and if their source is not the workload's.
        nft_filter_deny: DropAction = DropAction::Drop, Felix("nftablesFilterDenyAction"), Used;
        /// Whether packets that connection tracking calls invalid are let through.
        no_invalid_check: bool = false, Felix("disableConntrackInvalidCheck"), Used;
        /// What happens to connections of workloads and of hosts' endpoints that policy allowed
        /// once and no longer allows. Differs from Calico, which has no such setting and keeps them.
        denied_connections: DeniedConnections = DeniedConnections::Keep,
            Felix("deniedConnectionAction"), Used;
        /// What happens to packets to service addresses that nobody has.
        service_loop_prevention: ServiceLoopPrevention = ServiceLoopPrevention::Drop,
            Felix("serviceLoopPrevention"), Used;
        /// Networks of services' addresses for serviceLoopPrevention, beside those that the
        /// `BGPConfiguration` names.
        service_loop_prevention_nets: Vec<Cidr> = Vec::new(),
            Felix("serviceLoopPreventionCIDRs"), Used;
        /// The ports of Kubernetes `NodePort` services.
        node_ports: Vec<PortRange> = vec![PortRange { first: 30000, last: 32767 }],
            Felix("kubeNodePortRanges"), Accepted;
    }
}

group! {
    /// Ports of the host that policy never closes.
    Failsafe, "Failsafe ports" {
        /// Ports of the host that can always be reached.
        inbound: Vec<ProtocolPort> = failsafe(&[ProtocolPort::tcp(22), ProtocolPort::udp(68)]),
            Felix("failsafeInboundHostPorts"), Used;
        /// Ports elsewhere that the host can always reach.
        outbound: Vec<ProtocolPort> = failsafe(&[ProtocolPort::udp(53), ProtocolPort::udp(67)]),
            Felix("failsafeOutboundHostPorts"), Used;
    }
}

group! {
    /// Address translation.
    Nat, "Address translation" {
        /// The ports that masqueraded connections use; unset leaves it to the kernel.
        port_range: Option<PortRange> = None, Felix("natPortRange"), Used;
        /// The address that masqueraded connections use; unset is the outgoing interface's.
        outgoing_address: Option<Ipv4Addr> = None, Felix("natOutgoingAddress"), Used;
        /// Destinations that packets are not masqueraded for.
        outgoing_exclusions: NatExclusions = NatExclusions::IpPoolsOnly,
            Felix("natOutgoingExclusions"), Used;
        /// The interface that packets must leave by to be masqueraded; empty is any.
        outgoing_interface: String = String::new(),
            Felix("iptablesNATOutgoingInterfaceFilter"), Used;
    }
}
