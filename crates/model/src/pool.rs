//! Pools: the ranges that addresses are handed out from.

use selector::Selector;

use crate::net::{Cidr, Family};
use crate::time::WallTime;
use crate::vrf::PoolVrf;

/// A range of addresses to hand out, and how packets to it travel (`IPPool`).
#[derive(Clone, Debug, PartialEq)]
pub struct IpPool {
    /// The object's name.
    pub name: String,
    /// The range.
    pub cidr: Cidr,
    /// The prefix length of the blocks that nodes claim: 20 to 32, or 116 to 128.
    pub block_len: u8,
    /// How packets between nodes travel.
    pub encapsulation: Encapsulation,
    /// Whether packets from the pool to the world outside all pools are masqueraded.
    pub nat_outgoing: bool,
    /// Whether new addresses are refused.
    pub is_disabled: bool,
    /// Whether the pool's blocks stay out of BGP.
    pub is_bgp_export_disabled: bool,
    /// The nodes that may claim blocks of it.
    pub node_selector: Selector,
    /// The namespaces whose pods may use it; `None` is all.
    pub namespace_selector: Option<Selector>,
    /// What its addresses may be used for.
    pub allowed_uses: AllowedUses,
    /// Who may ask for addresses of it.
    pub assignment: AssignmentMode,
    /// The VRF whose range it is; `None` is everybody's.
    pub vrf: Option<PoolVrf>,
    /// When its object was made: of two that contradict each other, the older one has effect.
    pub created: WallTime,
}

impl IpPool {
    /// Makes a pool of which nothing but the range is said.
    #[must_use]
    pub fn plain(name: &str, cidr: Cidr) -> Self {
        Self {
            name: name.to_owned(),
            cidr,
            block_len: match cidr.family() {
                Family::V4 => 26,
                Family::V6 => 122,
            },
            encapsulation: Encapsulation::None,
            nat_outgoing: false,
            is_disabled: false,
            is_bgp_export_disabled: false,
            node_selector: Selector::all(),
            namespace_selector: None,
            allowed_uses: AllowedUses::default(),
            assignment: AssignmentMode::Automatic,
            vrf: None,
            created: WallTime::default(),
        }
    }

    /// Returns the address family.
    #[must_use]
    pub fn family(&self) -> Family {
        self.cidr.family()
    }

    /// Returns the block of this pool that `addr` lies in, if it is in the pool.
    #[must_use]
    pub fn block_of(&self, addr: std::net::IpAddr) -> Option<Cidr> {
        if !self.cidr.contains(addr) {
            return None;
        }
        Cidr::containing(addr, self.block_len).ok()
    }
}

/// How packets to another node's pods travel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Encapsulation {
    /// As they are: the fabric knows, or the nodes share a link.
    None,
    /// In IP-in-IP (RFC 2003).
    Ipip(EncapsulationScope),
    /// In VXLAN (RFC 7348).
    Vxlan(EncapsulationScope),
}

/// Which packets an encapsulation is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EncapsulationScope {
    /// Those to every other node.
    Always,
    /// Those to nodes in another subnet.
    CrossSubnet,
}

/// What a pool's addresses may be used for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AllowedUses {
    /// Pods.
    pub workload: bool,
    /// Tunnel devices of nodes.
    pub tunnel: bool,
    /// Services of type `LoadBalancer`.
    pub load_balancer: bool,
}

impl AllowedUses {
    /// Does this contain `intended`?
    #[must_use]
    pub const fn allow(self, intended: Use) -> bool {
        match intended {
            Use::Workload => self.workload,
            Use::Tunnel => self.tunnel,
            Use::LoadBalancer => self.load_balancer,
        }
    }
}

impl Default for AllowedUses {
    fn default() -> Self {
        Self { workload: true, tunnel: true, load_balancer: false }
    }
}

/// What an address is wanted for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Use {
    /// A pod or another workload.
    Workload,
    /// A node's tunnel device.
    Tunnel,
    /// A Service of type `LoadBalancer`.
    LoadBalancer,
}

/// Who may ask for addresses of a pool.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AssignmentMode {
    /// Every workload that the selectors match.
    Automatic,
    /// Only workloads that name the pool.
    Manual,
}
