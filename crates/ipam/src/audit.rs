//! The audit: what is wrong with the allocations, with evidence, and the writes that repair it.
//!
//! ```text
//!   Snapshot ── check ──► Vec<Finding> ── (grace, re-validation: the caller) ── plan ──► Plan
//! ```
//!
//! An allocation is *live* if what its attributes name still exists, or if its address is in
//! use by anything at all. A live allocation is never released, whoever it says holds it.
//! Everything that cannot be judged counts as live: addresses without attributes, those that
//! Windows nodes reserve, and those of virtual machines, which keep them while they are off.
//!
//! A snapshot is never of one moment, so a finding is a suspicion until it was made twice:
//! [`Confidence`] says which. Writes carry the revision that they were decided upon, and
//! releases the sequence number of the allocation, so that what changed meanwhile stays.

mod check;
mod plan;
pub mod screen;
mod uses;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use model::block::{Affinity, Block, Handle, IpamConfig, Owner};
use model::id::{HandleId, NamespacedName, NodeName};
use model::net::Cidr;
use model::pool::IpPool;
use model::time::WallTime;

pub use check::check;
pub use plan::{Change, Limits, Plan, Refused, Write, plan, rebase};
pub use uses::{allocations, is_gone, is_respected};

/// The handle under which Windows nodes reserve addresses for themselves.
pub const WINDOWS_HANDLE: &str = "windows-reserved-ipam-handle";

/// An object as the server had it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Revisioned<T> {
    /// The object.
    pub value: T,
    /// Its `resourceVersion`: opaque, and different after each write.
    pub revision: String,
    /// When the server created it, if it says so.
    pub created: Option<WallTime>,
}

/// Everything that the audit looks at. Lists that could not be read have no snapshot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// When it was taken.
    pub now: WallTime,
    /// All pools, disabled ones too.
    pub pools: Vec<IpPool>,
    /// All blocks.
    pub blocks: Vec<Revisioned<Block>>,
    /// All affinities.
    pub affinities: Vec<Revisioned<Affinity>>,
    /// All handles.
    pub handles: Vec<Revisioned<Handle>>,
    /// The nodes that exist.
    pub nodes: BTreeSet<NodeName>,
    /// All pods, those of the host's network and those that ended too.
    pub pods: Vec<PodUse>,
    /// The addresses of tunnels that nodes name in their annotations.
    pub tunnels: Vec<TunnelUse>,
    /// The Services that are of type `LoadBalancer`.
    pub services: Vec<ServiceUse>,
    /// The configuration.
    pub config: IpamConfig,
    /// What there is besides, if this is a part of a cluster.
    pub elsewhere: Elsewhere,
}

/// What a snapshot leaves out, since a first look has found it in order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Elsewhere {
    /// Blocks.
    pub blocks: usize,
    /// Allocations that do not count as live whatever there is.
    pub allocations: usize,
    /// Allocations of pods.
    pub of_pods: usize,
    /// Pods.
    pub pods: usize,
    /// Allocations that nobody was seen to use, but that nobody has looked at again.
    pub unused: usize,
    /// Nodes that pods run on, which may not exist.
    pub occupied: BTreeSet<NodeName>,
    /// Addresses that somebody uses whom no block gave them to.
    pub strays: BTreeSet<IpAddr>,
}

/// A pod and the addresses that it uses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PodUse {
    /// The pod.
    pub pod: NamespacedName,
    /// Its uid.
    pub uid: String,
    /// The node that runs it; `None` if it is not scheduled.
    pub node: Option<NodeName>,
    /// All its addresses, of every network; none if it uses its node's.
    pub addrs: Vec<IpAddr>,
    /// Did it end, or give its addresses back?
    pub is_terminated: bool,
}

/// A tunnel's address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TunnelUse {
    /// The node.
    pub node: NodeName,
    /// The address.
    pub addr: IpAddr,
}

/// A Service of type `LoadBalancer`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceUse {
    /// The Service.
    pub service: NamespacedName,
    /// The handle under which its addresses are taken.
    pub handle: HandleId,
    /// The addresses that its status names.
    pub addrs: Vec<IpAddr>,
}

/// One address that a block gave away.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Allocation {
    /// The address.
    pub addr: IpAddr,
    /// The block.
    pub block: Cidr,
    /// Its place in the block.
    pub ordinal: u32,
    /// The holder's handle.
    pub handle: Option<HandleId>,
    /// Facts about the holder: `pod`, `namespace`, `node`, `type`, ….
    pub owner: BTreeMap<String, String>,
    /// The block's sequence number when it was allocated; unknown in old blocks.
    pub sequence_number: Option<u64>,
}

impl Allocation {
    /// Returns what the holder is called, for people: `pod default/web`, `ipipTunnelAddress of a`.
    #[must_use]
    pub fn holder(&self) -> String {
        let fact = |key: &str| self.owner.get(key).map(String::as_str);
        match (fact("namespace"), fact("pod"), fact("service"), fact("type"), fact("node")) {
            (Some(namespace), Some(pod), ..) => format!("pod {namespace}/{pod}"),
            (Some(namespace), None, Some(service), ..) => format!("service {namespace}/{service}"),
            (_, _, _, Some(kind), Some(node)) => format!("{kind} of node {node}"),
            _ => self
                .handle
                .as_ref()
                .map_or("nobody".to_owned(), |handle| format!("handle {handle}")),
        }
    }
}

/// Something that is wrong, and why we believe so.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// What is wrong.
    pub problem: Problem,
    /// What was seen, one fact per line.
    pub evidence: Vec<String>,
    /// Since when, as far as the objects tell.
    pub since: Option<WallTime>,
    /// How sure it is.
    pub confidence: Confidence,
}

/// How sure a finding is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Confidence {
    /// Told for people to judge; never repaired.
    Possible,
    /// True if it is seen again after a grace period, since an operation may be under way.
    Likely,
    /// True at once: the node is gone, for instance.
    Certain,
}

/// What can be wrong. The order is that of a report.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Problem {
    /// Two blocks contain the same addresses.
    Overlap(Cidr, Cidr),
    /// One address has two holders: two allocations, or two pods.
    Duplicate(IpAddr),
    /// A block contradicts itself: a holder that is not listed, a free address that is taken.
    DamagedBlock(Cidr),
    /// An address is taken by somebody who does not exist any more.
    Leak(Allocation),
    /// An address is in use by somebody else than the block says.
    WrongHolder(Allocation),
    /// An address of a pool is used by a pod, but taken from no block.
    Unallocated(IpAddr),
    /// A borrowed address cannot be reached: its block does not say where it is.
    UnreachableBorrow(Allocation),
    /// An address leads to a handle that does not exist.
    MissingHandle(HandleId),
    /// A handle holds nothing.
    OrphanHandle(HandleId),
    /// A handle counts other addresses than it holds.
    HandleMismatch(HandleId),
    /// A claim on a block of a node that is gone, of a block that is not there, or somebody else's.
    StaleAffinity(Owner, Cidr),
    /// A block says whose it is, but there is no claim.
    MissingAffinity(Owner, Cidr),
    /// A block is empty, and either nobody's or not its node's last.
    EmptyBlock(Cidr),
    /// A block lies in no pool.
    OutsidePool(Cidr),
}

impl Problem {
    /// Returns the problem's name in reports.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Overlap(..) => "overlap",
            Self::Duplicate(_) => "duplicate",
            Self::DamagedBlock(_) => "damaged block",
            Self::Leak(_) => "leak",
            Self::WrongHolder(_) => "wrong holder",
            Self::Unallocated(_) => "in use but not allocated",
            Self::UnreachableBorrow(_) => "unreachable borrow",
            Self::MissingHandle(_) => "missing handle",
            Self::OrphanHandle(_) => "orphan handle",
            Self::HandleMismatch(_) => "handle mismatch",
            Self::StaleAffinity(..) => "stale affinity",
            Self::MissingAffinity(..) => "missing affinity",
            Self::EmptyBlock(_) => "empty block",
            Self::OutsidePool(_) => "outside every pool",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        match self {
            Self::Overlap(one, other) => write!(f, "{name}: blocks {one} and {other}"),
            Self::Duplicate(addr) | Self::Unallocated(addr) => write!(f, "{name}: {addr}"),
            Self::DamagedBlock(cidr) | Self::EmptyBlock(cidr) | Self::OutsidePool(cidr) => {
                write!(f, "{name}: block {cidr}")
            }
            Self::Leak(held) | Self::WrongHolder(held) | Self::UnreachableBorrow(held) => {
                write!(f, "{name}: {} of {}", held.addr, held.holder())
            }
            Self::MissingHandle(id) | Self::OrphanHandle(id) | Self::HandleMismatch(id) => {
                write!(f, "{name}: {id}")
            }
            Self::StaleAffinity(owner, cidr) | Self::MissingAffinity(owner, cidr) => {
                write!(f, "{name}: {owner} on block {cidr}")
            }
        }
    }
}

#[cfg(test)]
mod tests;
