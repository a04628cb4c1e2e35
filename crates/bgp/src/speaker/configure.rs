//! Changes of configuration, which leave untouched what they do not concern.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use model::desired::BgpSession;
use model::net::Family;
use model::time::Timestamp;

use super::{Floors, Output, Peer, Speaker};
use crate::counts::RouteCounts;
use crate::rib::PeerIndex;
use crate::session::{Session, State};
use crate::wire::{Families, Notification, Reason, RefreshKind, RouteRefresh};

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
                Some(config) if must_begin_anew(&peer.session, &config) => {
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
            floors: Floors::default(),
            stale_until: None,
            ended: Families::NONE,
            has_end_of_rib: false,
            owes_end_of_rib: false,
            owes_refresh_end: false,
            routes: RouteCounts::default(),
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
        let is_import_new = is_import_new(old, &config);
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
            outputs.extend(peer.ask_again());
        }
        if self.is_policy_new(index) {
            self.tell_again(index);
        }
        outputs
    }
}

impl Peer {
    /// Asks the peer to tell all its routes again (RFC 2918).
    pub(super) fn ask_again(&mut self) -> Vec<Output> {
        let families = self.session.families();
        let request = |family: Family| {
            RouteRefresh { family: family.into(), kind: RefreshKind::Request }.encode()
        };
        families.iter().flat_map(|family| self.send(request(family).into())).collect()
    }
}

fn key(session: &BgpSession) -> Key {
    (session.peer_addr, session.peer_port)
}

/// Is there no other way to `new` than another session?
fn must_begin_anew(session: &Session, new: &BgpSession) -> bool {
    let is_deaf = session.established().is_some() && !session.speaks_refresh();
    needs_reset(&session.config, new) || (is_deaf && is_import_new(&session.config, new))
}

/// Would received routes be judged otherwise?
fn is_import_new(old: &BgpSession, new: &BgpSession) -> bool {
    old.import != new.import
        || old.allowed_own_asns != new.allowed_own_asns
        || old.requires_policy != new.requires_policy
        || old.role != new.role
}

/// Does the difference show in TCP or in our OPEN?
fn needs_reset(old: &BgpSession, new: &BgpSession) -> bool {
    old.local_asn != new.local_asn
        || old.peer_asn != new.peer_asn
        || old.local_addr != new.local_addr
        || old.password != new.password
        || old.ttl_security != new.ttl_security
        || old.families != new.families
        || old.role != new.role
        || old.add_path != new.add_path
        || old.allows_extended_messages != new.allows_extended_messages
}
