//! Changes of configuration, which leave untouched what they do not concern.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::desired::{Advertisements, BgpSession};
use model::net::Cidr;
use model::time::Timestamp;

use super::{Output, Peer, Speaker};
use crate::rib::{AdjRibOut, PeerIndex};
use crate::session::{Session, State};
use crate::wire::{Notification, Reason};

/// What makes two sessions the same one.
type Key = (IpAddr, u16);

impl Speaker {
    /// Starts, changes and ends sessions until they are `wanted`.
    pub(super) fn configure(&mut self, wanted: Vec<BgpSession>, now: Timestamp) -> Vec<Output> {
        let mut by_key: BTreeMap<Key, BgpSession> = BTreeMap::new();
        for session in wanted {
            by_key.entry(key(&session)).or_insert(session);
        }
        let mut outputs = Vec::new();
        let existing: Vec<PeerIndex> = self.peers.keys().copied().collect();
        for index in existing {
            let Some(peer) = self.peers.get(&index) else { continue };
            match by_key.remove(&key(&peer.session.config)) {
                None => outputs.extend(self.remove(index, Reason::PEER_DECONFIGURED, now)),
                Some(config) if needs_reset(&peer.session.config, &config) => {
                    outputs.extend(self.remove(index, Reason::CONFIGURATION_CHANGE, now));
                    self.add(config, now);
                }
                Some(config) => self.change(index, config, now),
            }
        }
        for config in by_key.into_values() {
            self.add(config, now);
        }
        self.convergence.on_configured(now);
        outputs
    }

    fn add(&mut self, config: BgpSession, now: Timestamp) {
        let index = PeerIndex(self.next_peer);
        self.next_peer = self.next_peer.saturating_add(1);
        let seed = self.config.seed ^ u64::from(index.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let peer = Peer {
            session: Session::new(config, seed, now),
            adj_out: AdjRibOut::default(),
            source: None,
            epoch: 0,
            stale_until: None,
            has_end_of_rib: false,
            owes_end_of_rib: false,
            owes_refresh_end: false,
            state: State::Active,
            since: now,
        };
        self.peers.insert(index, peer);
    }

    fn remove(&mut self, index: PeerIndex, reason: Reason, now: Timestamp) -> Vec<Output> {
        let Some(peer) = self.peers.get_mut(&index) else { return Vec::new() };
        let effects = peer.session.stop(&Notification::new(reason));
        let outputs = self.apply(index, effects, now);
        self.changed.extend(self.table.remove_peer(index));
        self.peers.remove(&index);
        outputs
    }

    fn change(&mut self, index: PeerIndex, config: BgpSession, now: Timestamp) {
        let Some(peer) = self.peers.get_mut(&index) else { return };
        let is_export_changed = config.next_hop != peer.session.config.next_hop;
        peer.session.reconfigure(config, now);
        if is_export_changed {
            self.mark_all(index);
        }
    }

    /// Takes what we announce; peers are told only the difference.
    pub(super) fn advertise(
        &mut self,
        advertisements: Advertisements,
        now: Timestamp,
    ) -> Vec<Output> {
        let old = std::mem::replace(&mut self.advertisements, advertisements);
        let new = &self.advertisements;
        let prefixes = old.originated.keys().chain(new.originated.keys()).copied();
        let changed: BTreeSet<Cidr> =
            prefixes.filter(|cidr| old.originated.get(cidr) != new.originated.get(cidr)).collect();
        let is_range_changed = old.exportable != new.exportable;
        self.changed.extend(&changed);
        if is_range_changed || !changed.is_empty() {
            // What is learned inside our prefixes or the ranges may now be passed on, or not.
            let indexes: Vec<PeerIndex> = self.peers.keys().copied().collect();
            for index in indexes {
                self.mark_all(index);
            }
        }
        self.convergence.on_advertised(now);
        Vec::new()
    }
}

fn key(session: &BgpSession) -> Key {
    (session.peer_addr, session.peer_port)
}

/// Does the difference show in TCP or in the OPEN's identity?
fn needs_reset(old: &BgpSession, new: &BgpSession) -> bool {
    let identity = |session: &BgpSession| (session.local_asn, session.peer_asn, session.local_addr);
    identity(old) != identity(new)
}
