//! The tables of RFC 4271 §3.2: what peers told us, what we chose, what we told them.

mod adj_out;
mod best_path;
mod table;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

pub use adj_out::{AdjRibOut, Batch};
pub use best_path::{MAX_GATEWAYS, Selection, select};
pub use table::{Candidate, Table};

use crate::wire::{Attributes, BgpIdentifier};

/// The LOCAL_PREF of a path that carries none (BIRD's `default bgp_local_pref`).
pub const DEFAULT_LOCAL_PREF: u32 = 100;

/// A way to a destination.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Path {
    /// Where to send packets.
    pub next_hop: IpAddr,
    /// Everything else about it.
    pub attributes: Attributes,
}

/// A peer's number in the tables; it stays the same while the peer is configured.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct PeerIndex(pub u32);

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
}

/// All paths in use, each stored once.
#[derive(Debug, Default)]
pub struct Interner {
    paths: BTreeSet<Arc<Path>>,
    clean_at: usize,
}

impl Interner {
    /// Below this many paths nothing is ever cleaned.
    const SMALL: usize = 1024;

    /// Returns the one copy of `path`.
    pub fn intern(&mut self, path: Path) -> Arc<Path> {
        if let Some(known) = self.paths.get(&path) {
            return Arc::clone(known);
        }
        if self.paths.len() >= self.clean_at.max(Self::SMALL) {
            self.paths.retain(|path| Arc::strong_count(path) > 1);
            // Cleaning again only after doubling keeps its cost constant for each path.
            self.clean_at = self.paths.len().saturating_mul(2);
        }
        let path = Arc::new(path);
        self.paths.insert(Arc::clone(&path));
        path
    }

    /// Returns how many paths are stored.
    #[must_use]
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Is nothing stored?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }
}
