//! Why an address could not be assigned or released, and what to do about it.

use std::fmt;
use std::net::IpAddr;

use model::id::NodeName;
use model::net::{Cidr, Family};

/// Why a machine gave up. The text says what to change.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Failure {
    /// No pool may be used.
    #[error("no configured Calico pools for node {node}: {}", refusals(*family, refused))]
    NoPool {
        /// The family asked for.
        family: Family,
        /// The node.
        node: NodeName,
        /// The pools of that family, each with why it is not used.
        refused: Vec<String>,
    },
    /// The request names a pool that does not exist.
    #[error(
        "requested pool `{reference}` does not exist: use the name or range of an IPPool ({})",
        list(known)
    )]
    UnknownPool {
        /// What the request names.
        reference: String,
        /// The pools of that family.
        known: Vec<String>,
    },
    /// The request names a pool that cannot be used.
    #[error("requested pool {pool} {cidr} {reason}, or request another pool")]
    UnusablePool {
        /// The pool.
        pool: String,
        /// Its range.
        cidr: Cidr,
        /// Why, and what to change.
        reason: &'static str,
    },
    /// The pools have no address that this node may take.
    #[error("{}; {reason}", list(pools))]
    Exhausted {
        /// What is left in each pool.
        pools: Vec<PoolUsage>,
        /// Which limit was met, and what to change.
        reason: Limit,
    },
    /// The requested address is in no pool that may be used.
    #[error(
        "address {addr} is in no enabled IPPool for this use: request an address of one, \
         or create an IPPool that contains it"
    )]
    OutsidePools {
        /// The address.
        addr: IpAddr,
    },
    /// The requested address is held by somebody.
    #[error("address {addr} is already held by {holder}: request another, or release it first")]
    Taken {
        /// The address.
        addr: IpAddr,
        /// Who holds it.
        holder: String,
    },
    /// The requested address is in another owner's block and borrowing is off.
    #[error(
        "address {addr} is in block {block} of {owner} and IPAMConfig `default` sets \
         strictAffinity: request an address of this node's blocks, or set strictAffinity to false"
    )]
    NotOurs {
        /// The address.
        addr: IpAddr,
        /// Its block.
        block: Cidr,
        /// The block's owner.
        owner: String,
    },
    /// The requested address would need a block that overlaps another.
    #[error(
        "address {addr} needs block {block}, which overlaps a block of another size: \
         request another address, or empty the older blocks first"
    )]
    Overlap {
        /// The address.
        addr: IpAddr,
        /// The block that the pool's blockSize asks for.
        block: Cidr,
    },
    /// The requested address is in a block that somebody is claiming.
    #[error(
        "address {addr} is in block {block}, which {owner} has not finished claiming: \
         try again, or request another address"
    )]
    Unsettled {
        /// The address.
        addr: IpAddr,
        /// Its block.
        block: Cidr,
        /// Who claims it.
        owner: String,
    },
    /// The pool's block length makes blocks larger than 4096 addresses.
    #[error(
        "block {block} would hold more than 4096 addresses: set the pool's blockSize to 20..32 or 116..128"
    )]
    BlockTooLarge {
        /// The block.
        block: Cidr,
    },
    /// The address is not held as the release expects.
    #[error("address {addr} was not released: {reason}")]
    Changed {
        /// The address.
        addr: IpAddr,
        /// What differs.
        reason: String,
    },
    /// Others wrote the same objects first, again and again.
    #[error("gave up after {attempts} conflicting writes: too many writers at once, try again")]
    Contention {
        /// How often it was tried.
        attempts: u32,
    },
}

/// How much of a pool is used, as far as it was looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PoolUsage {
    /// The pool's name.
    pub pool: String,
    /// Its range.
    pub cidr: Cidr,
    /// Addresses that nobody holds and no reservation covers.
    pub free: u128,
    /// All addresses.
    pub total: u128,
}

impl fmt::Display for PoolUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "pool {} {}: {} of {} addresses free",
            self.pool, self.cidr, self.free, self.total
        )
    }
}

/// The limit that stands between a node and an address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Limit {
    /// Every address is taken.
    PoolsFull,
    /// What is free is in other nodes' blocks, which may not be borrowed from.
    StrictAffinity {
        /// The node.
        node: NodeName,
    },
    /// The node may claim no further block.
    BlocksPerNode {
        /// The node.
        node: NodeName,
        /// How many it has.
        owned: usize,
        /// How many it may have.
        limit: u32,
    },
    /// Nodes may not claim blocks by themselves.
    NoAutomaticBlocks {
        /// The node.
        node: NodeName,
    },
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoolsFull => write!(
                f,
                "all blocks are full: delete pods or leaked addresses (calicoctl ipam check), \
                 shrink IPReservations, or add an IPPool"
            ),
            Self::StrictAffinity { node } => write!(
                f,
                "node {node} may not borrow from other nodes' blocks and no block is unclaimed: \
                 set strictAffinity to false in IPAMConfig `default`, or add an IPPool"
            ),
            Self::BlocksPerNode { node, owned, limit } => write!(
                f,
                "limit of {limit} blocks reached, node {node} has {owned} and all are full: \
                 raise maxBlocksPerHost in IPAMConfig `default`"
            ),
            Self::NoAutomaticBlocks { node } => write!(
                f,
                "node {node} may not claim blocks: set autoAllocateBlocks to true in IPAMConfig \
                 `default`"
            ),
        }
    }
}

fn refusals(family: Family, refused: &[String]) -> String {
    if refused.is_empty() {
        return format!("there is no {family} IPPool, create one");
    }
    format!("{} (change one of these {family} IPPools, or create another)", refused.join("; "))
}

fn list<T: ToString>(items: &[T]) -> String {
    if items.is_empty() {
        return "there is none".to_owned();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
