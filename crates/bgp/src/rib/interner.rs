//! Paths in use, each stored once, and found by what they say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashTable;

use super::{GatewaySet, Gateways, Seed};
use crate::wire::Attributes;

/// A way to a destination.
#[derive(Debug)]
pub struct Path {
    /// Where to send packets.
    pub next_hop: IpAddr,
    /// Everything else about it.
    pub attributes: Arc<Attributes>,
    /// Tells the paths of one [`Interner`] apart, for as long as it lives; at least 1.
    pub serial: u64,
    /// The hash of its words, so that they are hashed once.
    pub(super) hash: u32,
}

impl Path {
    /// Returns the hash as the table wants it: with all bits of use.
    fn spread(hash: u32) -> u64 {
        u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// All paths in use, each stored once.
#[derive(Debug, Default)]
pub struct Interner {
    paths: HashTable<Arc<Path>>,
    gateways: BTreeMap<(IpAddr, u32), Gateways>,
    no_gateways: Gateways,
    seed: Seed,
    last_serial: u64,
    clean_at: usize,
    clean_gateways_at: usize,
}

impl Interner {
    /// Below this many paths nothing is ever cleaned.
    const SMALL: usize = 1024;

    /// Makes one whose hashes begin with `seed`.
    #[must_use]
    pub fn new(seed: Seed) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Returns the one copy of the path with these words.
    pub fn intern(&mut self, next_hop: IpAddr, attributes: Arc<Attributes>) -> Arc<Path> {
        let [first, second, third, fourth, ..] =
            self.seed.hash(&(next_hop, &*attributes)).to_ne_bytes();
        let hash = u32::from_ne_bytes([first, second, third, fourth]);
        let is_same = |path: &Arc<Path>| {
            path.hash == hash
                && path.next_hop == next_hop
                && (Arc::ptr_eq(&path.attributes, &attributes) || path.attributes == attributes)
        };
        if let Some(known) = self.paths.find(Path::spread(hash), is_same) {
            return Arc::clone(known);
        }
        if self.paths.len() >= self.clean_at.max(Self::SMALL) {
            self.clean();
        }
        self.last_serial = self.last_serial.saturating_add(1);
        let path = Arc::new(Path { next_hop, attributes, serial: self.last_serial, hash });
        self.paths.insert_unique(Path::spread(hash), Arc::clone(&path), Self::rehash);
        path
    }

    /// Returns the one copy of the set that holds only `addr`, with this metric.
    pub fn gateway(&mut self, addr: IpAddr, metric: u32) -> Gateways {
        if let Some(known) = self.gateways.get(&(addr, metric)) {
            return Arc::clone(known);
        }
        if self.gateways.len() >= self.clean_gateways_at.max(Self::SMALL) {
            self.gateways.retain(|_, set| Arc::strong_count(set) > 1);
            self.clean_gateways_at = self.gateways.len().saturating_mul(2);
        }
        let set = Arc::new(GatewaySet { addrs: BTreeSet::from([addr]), metric });
        self.gateways.insert((addr, metric), Arc::clone(&set));
        set
    }

    /// Returns the one copy of the empty set.
    #[must_use]
    pub fn no_gateways(&self) -> Gateways {
        Arc::clone(&self.no_gateways)
    }

    fn rehash(path: &Arc<Path>) -> u64 {
        Path::spread(path.hash)
    }

    fn clean(&mut self) {
        self.paths.retain(|path| Arc::strong_count(path) > 1);
        self.paths.shrink_to(Self::SMALL, Self::rehash);
        // Cleaning again only after doubling keeps its cost constant for each path.
        self.clean_at = self.paths.len().saturating_mul(2);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(med: u32) -> Arc<Attributes> {
        Arc::new(Attributes { med: Some(med), ..Attributes::default() })
    }

    #[test]
    fn equal_paths_are_stored_once() {
        let (mut interner, addr) = (Interner::default(), IpAddr::from([192, 0, 2, 1]));
        let one = interner.intern(addr, attributes(1));
        assert!(Arc::ptr_eq(&one, &interner.intern(addr, attributes(1))));
        let other = interner.intern(addr, attributes(2));
        assert_ne!(one.serial, other.serial);
        assert_eq!(interner.len(), 2);
    }

    #[test]
    fn equal_gateways_are_stored_once_and_go_when_unused() {
        let (mut interner, addr) = (Interner::default(), IpAddr::from([192, 0, 2, 1]));
        let one = interner.gateway(addr, 1024);
        assert!(Arc::ptr_eq(&one, &interner.gateway(addr, 1024)));
        assert_ne!(one, interner.gateway(addr, 512));
        for metric in 2000..100_000 {
            interner.gateway(addr, metric);
        }
        assert!(interner.gateways.len() <= Interner::SMALL);
        assert!(Arc::ptr_eq(&one, &interner.gateway(addr, 1024)));
    }

    #[test]
    fn unused_paths_go_before_the_table_grows() {
        let (mut interner, addr) = (Interner::default(), IpAddr::from([192, 0, 2, 1]));
        for med in 0..100_000 {
            interner.intern(addr, attributes(med));
        }
        assert!(interner.len() <= Interner::SMALL);
    }
}
