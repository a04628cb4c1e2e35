//! The tables of RFC 4271 §3.2: what peers told us, what we chose, what we told them.
//!
//! Destinations have numbers ([`DestId`]), and what groups of peers have been told is a
//! list by these numbers ([`Stream`]): no path and no prefix is stored a second time.

mod best_path;
mod candidates;
mod interner;
mod queue;
mod stream;
mod table;

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

pub use best_path::{MAX_GATEWAYS, Selection, select};
pub use candidates::{Candidate, Candidates};
pub use interner::{Interner, Path};
pub use queue::Queue;
pub use stream::{Stream, Told};
pub use table::{DestId, Destination, Table};

use crate::wire::BgpIdentifier;

/// The LOCAL_PREF of a path that carries none (BIRD's `default bgp_local_pref`).
pub const DEFAULT_LOCAL_PREF: u32 = 100;

/// The gateways of one route, shared by all routes that have the same; none if it is unreachable.
pub type Gateways = Arc<BTreeSet<IpAddr>>;

/// A peer's number in the tables, at least 1; it stays the same while the peer is configured.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PeerIndex(pub u32);

impl PeerIndex {
    /// Ourselves, as the source of what we originate.
    pub const OURSELVES: Self = Self(Told::MAX_SOURCE);
    /// The first number of a peer.
    pub const FIRST: Self = Self(1);
}

/// Whom a path was received from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Source {
    /// The peer.
    pub peer: PeerIndex,
    /// Its address.
    pub addr: IpAddr,
    /// The identifier that its OPEN gave.
    pub identifier: BgpIdentifier,
    /// Is it in our AS?
    pub is_internal: bool,
    /// Is it a client of ours (RFC 4456 §6)?
    pub is_client: bool,
    /// The id of the cluster that we reflect its paths in, if we are a reflector.
    pub cluster_id: Option<u32>,
    /// The peer's count of restarts and refreshes; paths of a smaller one are stale.
    pub epoch: u32,
}

impl Source {
    /// Is it the same peer in the same role, whatever the epoch?
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let peer = |each: &Self| (each.peer, each.addr, each.identifier);
        let role = |each: &Self| (each.is_internal, each.is_client, each.cluster_id);
        peer(self) == peer(other) && role(self) == role(other)
    }
}

/// Hashes for the tables; the seed keeps peers from choosing what collides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seed(pub u64);

impl Seed {
    fn hash(self, value: &impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        value.hash(&mut hasher);
        hasher.finish()
    }
}
