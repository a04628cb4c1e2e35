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
use std::hash::{Hash, Hasher};
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

/// The LOCAL_PREF that stands for the kernel metric 0; Calico subtracts metrics from it.
pub const METRIC_BASE: u32 = 2_147_483_647;

/// Returns the kernel metric that a LOCAL_PREF stands for; none stands for a better one than 1, for
/// the kernel takes 0 for "unsaid".
#[must_use]
pub const fn metric_of(local_pref: u32) -> u32 {
    match METRIC_BASE.saturating_sub(local_pref) {
        0 => 1,
        metric => metric,
    }
}

/// How one route leaves this node, shared by all routes that leave alike.
pub type Gateways = Arc<GatewaySet>;

/// Gateways that are used together, and how much they are preferred.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct GatewaySet {
    /// Where packets may go; none if the destination is unreachable.
    pub addrs: BTreeSet<IpAddr>,
    /// The metric of the kernel's route, by the LOCAL_PREF of the paths.
    pub metric: u32,
}

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
        // A seed of few bits is as good as any other.
        let key = Folding::fold(self.0 ^ Folding::MULTIPLIER, Folding::OTHER);
        let mut hasher = Folding { state: key, key: key.rotate_left(32) | 1 };
        value.hash(&mut hasher);
        hasher.finish()
    }
}

/// Multiplies what it is given with its state to twice the width, and folds the halves: a step for
/// each word, where `SipHash` has a dozen. Who does not know the key cannot tell what collides.
struct Folding {
    state: u64,
    key: u64,
}

impl Folding {
    /// The fraction of the golden ratio.
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    /// The fraction of the square root of three.
    const OTHER: u64 = 0xbb67_ae85_84ca_a73b;

    fn fold(one: u64, two: u64) -> u64 {
        let product = u128::from(one).wrapping_mul(two.into());
        let halves = [product & u128::from(u64::MAX), product >> u64::BITS];
        let [low, high] = halves.map(|half| u64::try_from(half).unwrap_or_default());
        low ^ high
    }
}

impl Hasher for Folding {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.write_u64(u64::from_ne_bytes(*word));
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(rest) {
                *to = *from;
            }
            self.write_u64(u64::from_ne_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        let mixed = Self::fold(self.state ^ word, self.key);
        self.state = mixed.wrapping_add(Self::MULTIPLIER).rotate_left(23);
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(word.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    fn finish(&self) -> u64 {
        Self::fold(self.state, Self::MULTIPLIER)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn hashes_of_neighbours_spread_over_all_bits() {
        for seed in [0, 1, u64::MAX] {
            let hashes = || (0..4096_u64).map(|number| Seed(seed).hash(&(number << 8 | 32)));
            // A table takes its groups by the low bits, and tells their members by the high ones.
            for bits in [|hash: u64| hash & 0xfff, |hash: u64| hash >> 52] {
                let different: BTreeSet<u64> = hashes().map(bits).collect();
                // By chance 63 of 100 places are hit.
                assert!(different.len() > 2300, "{seed}: {}", different.len());
            }
        }
        assert_ne!(Seed(1).hash(&7_u64), Seed(2).hash(&7_u64));
        let of_bytes = |bytes: &[u8]| Seed(1).hash(&bytes);
        assert_ne!(of_bytes(&[1, 0]), of_bytes(&[1]));
    }
}
