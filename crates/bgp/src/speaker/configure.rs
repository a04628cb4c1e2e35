//! Changes of configuration, which leave untouched what they do not concern.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use model::desired::BgpSession;
use model::time::Timestamp;

use super::{Output, Peer, Speaker};
use crate::rib::PeerIndex;
use crate::session::{Session, State};
use crate::wire::{Notification, Reason, RefreshKind, RouteRefresh};

/// What makes two sessions the same one.
type Key = (IpAddr, u16);

impl Speaker {
    /// Starts, changes and ends sessions until they are `wanted`.
    pub(super) fn configure(&mut self, wanted: Vec<BgpSession>, now: Timestamp) -> Vec<Output> {
        let mut by_key: BTreeMap<Key, BgpSession> = BTreeMap::new();
        let reflections = wanted.iter().filter_map(|session| session.reflection);
        self.cluster_ids = reflections.map(|each| each.cluster_id).collect();
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
                Some(config) => outputs.extend(self.change(index, config, now)),
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
        let seed = self.config.seed
            ^ u64::from(index.0.wrapping_sub(PeerIndex::FIRST.0))
                .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let peer = Peer {
            session: Session::new(config, seed, now),
            source: None,
            epoch: 0,
            stale_until: None,
            has_end_of_rib: false,
            owes_end_of_rib: false,
            owes_refresh_end: false,
            deadline: None,
            state: State::Active,
            since: now,
        };
        self.peers.insert(index, peer);
        self.touched.insert(index);
    }

    fn remove(&mut self, index: PeerIndex, reason: Reason, now: Timestamp) -> Vec<Output> {
        let Some(peer) = self.peers.get_mut(&index) else { return Vec::new() };
        let effects = peer.session.stop(&Notification::new(reason));
        let outputs = self.apply(index, effects, now);
        self.table.remove_peer(index);
        if let Some(at) = self.peers.remove(&index).and_then(|peer| peer.deadline) {
            self.deadlines.remove(&(at, index));
        }
        outputs
    }

    fn change(&mut self, index: PeerIndex, config: BgpSession, now: Timestamp) -> Vec<Output> {
        let Some(peer) = self.peers.get_mut(&index) else { return Vec::new() };
        let old = &peer.session.config;
        if *old == config {
            return Vec::new();
        }
        let imports = |each: &BgpSession| {
            (each.import.clone(), each.allowed_own_asns, each.requires_policy, each.role)
        };
        let is_import_new = imports(old) != imports(&config);
        let reflection = config.reflection;
        peer.session.reconfigure(config, now);
        self.touched.insert(index);
        if let Some(source) = &mut peer.source {
            let source = Arc::make_mut(source);
            source.is_client = reflection.is_some_and(|each| each.is_client);
            source.cluster_id = reflection.map(|each| each.cluster_id);
        }
        let mut outputs = Vec::new();
        if is_import_new && peer.source.is_some() {
            // What was received is not kept, so the peer says it again (RFC 2918 §1).
            let family = peer.session.family().into();
            let request = RouteRefresh { family, kind: RefreshKind::Request };
            outputs = peer.send(request.encode().into());
        }
        if self.is_policy_new(index) {
            self.tell_again(index);
        }
        outputs
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
