//! Blocks, affinities and handles: who holds which address.
//!
//! A [`Block`] is the unit of claim and of compare-and-swap. A node owns a
//! block through an [`Affinity`], which exists before the block (`pending`)
//! and is believed by routing only once it is `confirmed`. A [`Handle`] lists
//! the blocks in which one owner, usually a container, holds addresses.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::id::{HandleId, NodeName};
use crate::net::Cidr;
use crate::time::WallTime;

/// A slice of a pool with the state of each of its addresses (`IPAMBlock`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Block {
    /// The range.
    pub cidr: Cidr,
    /// Who assigns from it first; `None` if nobody in particular.
    pub affinity: Option<Owner>,
    /// When the affinity was claimed; unknown for blocks made before Calico 3.32.
    pub claimed_at: Option<WallTime>,
    /// Per address, in order: the index into `attributes` of its holder, or `None` if free.
    pub allocations: Vec<Option<usize>>,
    /// The free ordinals, first to be used first, so that an address rests after its release.
    pub unallocated: Vec<u32>,
    /// The distinct holders.
    pub attributes: Vec<Attributes>,
    /// Counts writes, starting at the nanosecond of the block's creation.
    pub sequence_number: u64,
    /// Per allocated ordinal, the block's sequence number when it was allocated.
    pub allocated_at: BTreeMap<u32, u64>,
    /// Is a deletion of this object under way?
    pub is_deleted: bool,
}

/// Who holds an address, and for what.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Attributes {
    /// The holder's handle; `None` for addresses assigned without one.
    pub handle: Option<HandleId>,
    /// Facts about the holder: `pod`, `namespace`, `node`, `timestamp`, `type`, …
    pub owner: BTreeMap<String, String>,
    /// The same of the holder-to-be during a live migration.
    pub alternate_owner: BTreeMap<String, String>,
    /// When the address was given back; set means it is nobody's, but rests.
    pub released_at: Option<WallTime>,
}

/// Who a block belongs to.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Owner {
    /// A node: `host:<name>`.
    Host(NodeName),
    /// No machine: `virtual:<name>`, such as `virtual:load-balancer`.
    Virtual(String),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(node) => write!(f, "host:{node}"),
            Self::Virtual(name) => write!(f, "virtual:{name}"),
        }
    }
}

/// A claim on a block (`BlockAffinity`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Affinity {
    /// Who claims.
    pub owner: Owner,
    /// The block.
    pub cidr: Cidr,
    /// How far the claim is.
    pub state: AffinityState,
    /// Is a deletion of this object under way?
    pub is_deleted: bool,
}

/// How far a claim on a block is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AffinityState {
    /// Written before the block is; means nothing for routing.
    Pending,
    /// The block exists and is the owner's.
    Confirmed,
    /// Being given up.
    PendingDeletion,
}

/// The blocks in which one holder has addresses, with their number (`IPAMHandle`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Handle {
    /// Who holds.
    pub id: HandleId,
    /// Addresses held per block, never zero.
    pub blocks: BTreeMap<Cidr, u32>,
    /// Is a deletion of this object under way?
    pub is_deleted: bool,
}

/// How addresses are assigned throughout the cluster (`IPAMConfig`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IpamConfig {
    /// Whether nodes assign only from blocks of their own.
    pub is_strict_affinity: bool,
    /// Whether nodes may claim new blocks.
    pub auto_allocate_blocks: bool,
    /// The most blocks that a node may own.
    pub max_blocks_per_host: u32,
    /// How long an address rests after its release.
    pub cooldown: Duration,
}

impl IpamConfig {
    /// The limit of blocks per node where none is configured.
    pub const DEFAULT_MAX_BLOCKS: u32 = 20;
}

impl Default for IpamConfig {
    fn default() -> Self {
        Self {
            is_strict_affinity: false,
            auto_allocate_blocks: true,
            max_blocks_per_host: Self::DEFAULT_MAX_BLOCKS,
            cooldown: Duration::ZERO,
        }
    }
}
