//! What administrators decide (`FelixConfiguration` and pools).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use model::net::{Cidr, Family};
use model::policy::Protocol;
use model::ruleset::{InterfacePattern, Mark};

use crate::tenants::Tenants;
use crate::tunnel::Tunnels;
use crate::wireguard::Wireguard;

/// What administrators decide; the default is Calico's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// The families that have a table (`ipv6Support`).
    pub families: BTreeSet<Family>,
    /// How workloads' interfaces start (`interfacePrefix`); never empty.
    pub workload_prefixes: Vec<String>,
    /// The bits of packets' marks that are ours (`nftablesMarkMask`).
    pub marks: Marks,
    /// What becomes of packets from workloads to this machine that policy allows
    /// (`defaultEndpointToHostAction`).
    pub workload_to_host: HostAction,
    /// What always reaches this machine (`failsafeInboundHostPorts`).
    pub failsafe_in: Vec<Failsafe>,
    /// What this machine always reaches (`failsafeOutboundHostPorts`).
    pub failsafe_out: Vec<Failsafe>,
    /// The pools, without those of VRFs that exchange no routes with those without a VRF.
    pub pools: Vec<Pool>,
    /// The VRFs.
    pub tenants: Tenants,
    /// How packets that leave all pools get their source address.
    pub nat: NatSettings,
    /// The floating addresses of this node's workloads, and where each leads; `None` if
    /// administrators do not let workloads have any (`floatingIPs`).
    pub floating: Option<BTreeMap<IpAddr, IpAddr>>,
    /// The addresses of all nodes.
    pub hosts: BTreeSet<IpAddr>,
    /// Tunnels between nodes.
    pub tunnels: Tunnels,
    /// The port that workloads must not send VXLAN to; `None` lets them
    /// (`vxlanPort`, `allowVXLANPacketsFromWorkloads`).
    pub refused_vxlan_port: Option<u16>,
    /// May workloads send IP in IP (`allowIPIPPacketsFromWorkloads`)?
    pub is_ipip_allowed: bool,
    /// What becomes of packets that policy denies (`nftablesFilterDenyAction`).
    pub denial: Denial,
    /// What workloads may send from beside their addresses (`workloadSourceSpoofing`).
    pub spoofing: Spoofing,
    /// What WireGuard needs.
    pub wireguard: Wireguard,
    /// Are connections ended that policy no longer allows (`deniedConnectionAction`)? Whoever
    /// finds such a connection gives it the mark [`Marks::ended`].
    pub ends_denied: bool,
    /// Are packets of impossible connections dropped (`disableConntrackInvalidCheck`)?
    pub is_invalid_dropped: bool,
    /// Ranges of Services' addresses: what is still for these when it is to be
    /// forwarded is for no Service, and would come back.
    pub service_ranges: Vec<Cidr>,
    /// What becomes of it (`serviceLoopPrevention`).
    pub service_loop: ServiceLoop,
    /// Where workloads of this node that speak BGP call it (`localWorkloadPeeringIPV4`, `…IPV6`).
    pub peering: BTreeSet<SocketAddr>,
    /// How many sets of addresses may have a set of the kernel's to themselves; it
    /// looks through all their names for each message that names one.
    pub named_sets: usize,
    /// How lines of the Log action start (`logPrefix`).
    pub log_prefix: String,
    /// Whether the kernel counts packets and connections.
    pub counting: Counting,
}

impl Default for Settings {
    fn default() -> Self {
        let tcp = |port| Failsafe { protocol: Protocol::TCP, port, net: None };
        let udp = |port| Failsafe { protocol: Protocol::UDP, port, net: None };
        // BGP, etcd, Typha, the API server, and etcd as Kubernetes' installers move it.
        let both = [179, 2379, 2380, 5473, 6443, 6666, 6667].map(tcp);
        Self {
            families: Family::ALL.into(),
            workload_prefixes: vec!["cali".to_owned()],
            marks: Marks::default(),
            workload_to_host: HostAction::Drop,
            failsafe_in: [vec![tcp(22), udp(68)], both.to_vec()].concat(),
            failsafe_out: [vec![udp(53), udp(67)], both.to_vec()].concat(),
            pools: Vec::new(),
            tenants: Tenants::default(),
            nat: NatSettings::default(),
            floating: None,
            hosts: BTreeSet::new(),
            tunnels: Tunnels::default(),
            refused_vxlan_port: Some(4789),
            is_ipip_allowed: false,
            denial: Denial::Drop,
            spoofing: Spoofing::Disabled,
            wireguard: Wireguard::default(),
            ends_denied: false,
            is_invalid_dropped: true,
            service_ranges: Vec::new(),
            peering: BTreeSet::new(),
            service_loop: ServiceLoop::Drop,
            named_sets: 1_000,
            log_prefix: "calico-packet".to_owned(),
            counting: Counting::Possible,
        }
    }
}

/// The bits of packets' marks that carry verdicts from chain to chain, and from us to the chains.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Marks {
    accept: u32,
    pass: u32,
    ended: u32,
}

/// A mask with too few bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "mark mask {0:#010x} has fewer than three bits: use Calico's 0xffff0000, or others that nobody else uses"
)]
pub struct NoMarks(pub u32);

impl Default for Marks {
    fn default() -> Self {
        Self { accept: 0x1_0000, pass: 0x2_0000, ended: 0x4_0000 }
    }
}

impl Marks {
    /// Takes the three lowest bits of `mask`, the first two in Calico's order.
    ///
    /// # Errors
    ///
    /// [`NoMarks`] if there are fewer than three.
    pub fn new(mask: u32) -> Result<Self, NoMarks> {
        let lowest = |bits: u32| bits & bits.wrapping_neg();
        let accept = lowest(mask);
        let pass = lowest(mask & !accept);
        let ended = lowest(mask & !accept & !pass);
        if ended == 0 { Err(NoMarks(mask)) } else { Ok(Self { accept, pass, ended }) }
    }

    /// Some rule allowed it.
    #[must_use]
    pub const fn accept(self) -> Mark {
        Mark { mask: self.accept, value: self.accept }
    }

    /// Some rule left it to the next tier.
    #[must_use]
    pub const fn pass(self) -> Mark {
        Mark { mask: self.pass, value: self.pass }
    }

    /// Some rule denied it, and its sender is to be told. Connections' marks are other ones, so
    /// that the bit of [`Marks::ended`] serves here, too.
    #[must_use]
    pub const fn denied(self) -> Mark {
        Mark { mask: self.ended, value: self.ended }
    }

    /// A mark of connections: policy no longer allows it.
    #[must_use]
    pub const fn ended(self) -> Mark {
        Mark { mask: self.ended, value: self.ended }
    }

    /// No rule allowed it.
    #[must_use]
    pub const fn no_accept(self) -> Mark {
        Mark { mask: self.accept, value: 0 }
    }

    /// No rule left it to the next tier.
    #[must_use]
    pub const fn no_pass(self) -> Mark {
        Mark { mask: self.pass, value: 0 }
    }

    /// No rule has said anything.
    #[must_use]
    pub const fn none(self) -> Mark {
        Mark { mask: self.accept | self.pass | self.ended, value: 0 }
    }
}

/// What becomes of packets from workloads to this machine that policy allows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HostAction {
    /// They are dropped all the same.
    Drop,
    /// They pass.
    Accept,
    /// Other programs' rules decide.
    Return,
}

/// What becomes of packets that policy denies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Denial {
    /// They are dropped.
    Drop,
    /// They are refused, and their sender told, where the kernel can do that.
    Reject,
}

/// Whether the kernel counts packets and connections; one that does not must not be left without
/// policy for that.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Counting {
    /// It does, as far as anybody knows.
    Possible,
    /// It has refused to.
    Refused,
}

/// What workloads may send from beside their addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Spoofing {
    /// Nothing.
    Disabled,
    /// Any networks that they name.
    Any,
}

/// What host endpoints' policies never cut off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Failsafe {
    /// The protocol.
    pub protocol: Protocol,
    /// The receiver's port.
    pub port: u16,
    /// Where the other end must be; `None` is anywhere.
    pub net: Option<Cidr>,
}

/// A pool, as far as packets are concerned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pool {
    /// Its addresses.
    pub net: Cidr,
    /// Do packets from it that leave all pools get another source address (`natOutgoing`)?
    pub is_translated: bool,
}

/// How packets that leave all pools get their source address.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NatSettings {
    /// The source ports to choose from (`natPortRange`).
    pub ports: Option<(u16, u16)>,
    /// The address; `None` is that of the interface that they leave by (`natOutgoingAddress`).
    pub addr: Option<IpAddr>,
    /// Do packets to nodes keep theirs (`natOutgoingExclusions`)?
    pub is_kept_to_hosts: bool,
    /// The interfaces by which they must leave (`iptablesNATOutgoingInterfaceFilter`).
    pub interface: Option<InterfacePattern>,
}

/// What becomes of packets for Services' addresses that no Service has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ServiceLoop {
    /// They are dropped.
    Drop,
    /// They are refused, and their sender told.
    Reject,
    /// They are forwarded.
    Forward,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_the_lowest_bits_of_the_mask() {
        assert_eq!(Marks::new(0xffff_0000), Ok(Marks::default()));
        assert_eq!(Marks::new(0x8000_0101).unwrap().pass().value, 0x100);
        assert_eq!(Marks::new(0x8000_0101).unwrap().ended().value, 0x8000_0000);
        for wrong in [0, 1, 0x8000_0100] {
            assert_eq!(Marks::new(wrong), Err(NoMarks(wrong)));
        }
    }
}
