//! Routes: in from peers, chosen, out to the kernel and to the groups of other peers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::desired::Advertisements;
use model::net::{Cidr, Family, IfName};
use model::peer::Community;
use model::time::Timestamp;

use super::{Output, Problem, Speaker};
use crate::export::{self, Scope};
use crate::filter;
use crate::import::{Identity, Import};
use crate::rib::{Candidate, PeerIndex, Source};
use crate::ways::Ways;
use crate::wire::{AfiSafi, Attributes, Families, RefreshKind, RouteRefresh, Update};

/// How long a peer that came back may take to tell all its routes again.
const RESYNC_LIMIT: Duration = Duration::from_secs(360);

impl Speaker {
    pub(super) fn on_established(&mut self, index: PeerIndex, now: Timestamp) {
        let Some(peer) = self.peers.get_mut(&index) else { return };
        let (families, restart) = (peer.session.families(), peer.session.graceful_restart());
        let is_kept = |family: &Family| {
            families.contains(*family)
                && restart.is_some_and(|restart| restart.is_forwarding_kept(*family))
        };
        let kept: Families = Family::ALL.into_iter().filter(is_kept).collect();
        let Some(open) = peer.session.established().and_then(|each| each.peer_open.as_ref()) else {
            return;
        };
        let config = &peer.session.config;
        let source = Source {
            peer: index,
            addr: config.peer_addr,
            identifier: open.identifier,
            is_internal: config.is_internal(),
            is_client: config.reflection.is_some_and(|each| each.is_client),
            cluster_id: config.reflection.map(|each| each.cluster_id),
            epoch: peer.epoch,
        };
        peer.source = Some(Arc::new(source));
        peer.owes_end_of_rib = true;
        if peer.stale_until.is_some() {
            peer.stale_until = (!kept.is_empty()).then(|| now + RESYNC_LIMIT);
            // RFC 4724 §4.2: of a family without F, or without the capability, what was kept goes
            // at once.
            for family in Family::ALL.into_iter().filter(|family| !kept.contains(*family)) {
                self.table.remove_before(index, family, peer.floors.of(family));
            }
        }
        self.join(index);
    }

    pub(super) fn on_update(
        &mut self,
        index: PeerIndex,
        update: &Update,
        now: Timestamp,
    ) -> Vec<Output> {
        let Some(peer) = self.peers.get_mut(&index) else { return Vec::new() };
        let families = peer.session.families();
        let name = &peer.session.config.name;
        let report = |malformed| Problem::Malformed { name: name.clone(), malformed };
        let mut reports: Vec<Output> =
            update.malformed.iter().copied().map(report).map(Output::Report).collect();
        let Some(source) = peer.source.clone() else { return reports };
        // RFC 4760 §7: routes of a family that was not agreed on are not for us.
        let is_ours = |cidr: &Cidr| families.contains(cidr.family());
        for nlri in update.withdrawn.iter().filter(|nlri| is_ours(&nlri.prefix)) {
            peer.routes.withdrawn = peer.routes.withdrawn.saturating_add(1);
            self.table.remove(&nlri.prefix, index, nlri.path_id);
        }
        let identity = Identity {
            identifier: self.config.identifier.0,
            cluster_ids: &self.cluster_ids,
            local_addr: peer.session.established().and_then(|each| each.local_addr),
            ways: &self.scope.ways,
        };
        let (mut announced, mut rejected) = (0_u64, 0_u64);
        for announcement in &update.announced {
            let config = &peer.session.config;
            let next_hop = announcement.next_hop;
            let mut import = Import::new(config, &identity, next_hop, &update.attributes);
            for nlri in announcement.prefixes.iter().filter(|nlri| is_ours(&nlri.prefix)) {
                announced = announced.saturating_add(1);
                if let Some(path) = import.path(&nlri.prefix, &mut self.interner) {
                    let source = Arc::clone(&source);
                    let candidate =
                        Candidate { source, path, received_id: nlri.path_id, sent_id: 0 };
                    self.table.upsert(nlri.prefix, candidate);
                } else {
                    rejected = rejected.saturating_add(1);
                    // RFC 4271 §9.1.2: an unusable path replaces the usable one of before.
                    self.table.remove(&nlri.prefix, index, nlri.path_id);
                }
            }
        }
        peer.routes.announced = peer.routes.announced.saturating_add(announced);
        peer.routes.rejected = peer.routes.rejected.saturating_add(rejected);
        if let Some(family) = update.end_of_rib.and_then(AfiSafi::unicast) {
            peer.ended = peer.ended.with(family);
            if families.iter().all(|family| peer.ended.contains(family)) {
                peer.has_end_of_rib = true;
                peer.stale_until = None;
            }
            // RFC 4724 §4.2: each family's stale routes go with its own End-of-RIB.
            self.table.remove_before(index, family, peer.floors.of(family));
        }
        reports.extend(self.limit_prefixes(index, now));
        reports
    }

    /// Ends the session with a peer that has announced more than it may (RFC 4486 §4).
    fn limit_prefixes(&mut self, index: PeerIndex, now: Timestamp) -> Vec<Output> {
        let env = self.environment(now);
        let Some(peer) = self.peers.get_mut(&index) else { return Vec::new() };
        let Some(limit) = peer.session.config.max_prefixes else { return Vec::new() };
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut families = peer.session.families().iter();
        let exceeded = families.find(|family| self.table.received_of(index, *family) > most);
        let Some(family) = exceeded else { return Vec::new() };
        let effects = peer.session.on_too_many_prefixes(family, limit, &env);
        self.apply(index, effects, now)
    }

    pub(super) fn on_refresh(&mut self, index: PeerIndex, refresh: RouteRefresh) -> Vec<Output> {
        let Some(peer) = self.peers.get_mut(&index) else { return Vec::new() };
        let families = peer.session.families();
        let Some(family) = refresh.family.unicast().filter(|each| families.contains(*each)) else {
            return Vec::new();
        };
        match refresh.kind {
            RefreshKind::Request => {
                let is_enhanced = peer.session.speaks_enhanced_refresh();
                peer.owes_refresh_end = is_enhanced;
                let mut outputs = Vec::new();
                // Everything is told again, and so every family has its borders.
                for family in families.iter().filter(|_| is_enhanced) {
                    let begin = RouteRefresh { family: family.into(), kind: RefreshKind::Begin };
                    outputs.extend(peer.send(begin.encode().into()));
                }
                self.tell_again(index);
                return outputs;
            }
            // RFC 7313 §4: what is not told between the borders is gone.
            RefreshKind::Begin => peer.begin_epoch(family),
            RefreshKind::End => {
                self.table.remove_before(index, family, peer.floors.of(family));
            }
            RefreshKind::Unknown(_) => {}
        }
        Vec::new()
    }

    /// Takes what we announce; peers are told only the difference.
    pub(super) fn advertise(&mut self, advertisements: &Advertisements, now: Timestamp) {
        let old = std::mem::take(&mut self.originated);
        for cidr in old.keys().filter(|cidr| !advertisements.originated.contains_key(cidr)) {
            self.table.set_own(*cidr, None);
        }
        for (cidr, origination) in &advertisements.originated {
            if old.get(cidr) != Some(origination) {
                let marks = Arc::new(marks(&origination.communities));
                let path = self.interner.intern(cidr.addr(), marks);
                self.table.set_own(*cidr, Some(path));
            }
        }
        self.originated.clone_from(&advertisements.originated);
        let ways = std::mem::take(&mut self.scope.ways);
        let scope = Scope::of(advertisements, ways);
        let ranges = scope.difference(&self.scope);
        let is_worded_anew = scope.words_differ(&self.scope);
        self.scope = scope;
        if is_worded_anew {
            self.forget_words();
        }
        if ranges.iter().any(|each| !each.is_empty()) {
            // What is learned inside our prefixes or the ranges may now be passed on, or not.
            let concerned = |cidr: &Cidr| ranges.iter().any(|each| each.cover(cidr));
            let known = self.table.reachable().filter(|(_, each)| concerned(each.cidr()));
            let ids: Vec<_> = known.map(|(id, _)| id).collect();
            self.look_at(&ids);
        }
        self.convergence.on_advertised(now);
    }

    /// Takes which interface leads where; only rules that ask for interfaces are judged anew.
    pub(super) fn take_ways(&mut self, ways: BTreeMap<Cidr, IfName>) -> Vec<Output> {
        let ways = Ways::from(ways);
        if self.scope.ways == ways {
            return Vec::new();
        }
        self.scope.ways = ways;
        self.judge_interfaces_anew();
        let asks = |peer: &&mut super::Peer| {
            peer.source.is_some() && export::asks_for_interfaces(&peer.session.config.import)
        };
        self.peers.values_mut().filter(asks).flat_map(super::Peer::ask_again).collect()
    }

    /// Chooses again where paths have changed, and tells the kernel and the peers.
    pub(super) fn tell(&mut self) -> Vec<Output> {
        let changed = self.table.take_marked();
        let mut routes = Vec::new();
        for id in &changed {
            routes.extend(self.table.reselect(*id, &mut self.interner));
        }
        self.look_at(&changed);
        let mut outputs = Vec::new();
        if !routes.is_empty() {
            outputs.push(Output::RoutesChanged(routes));
        }
        self.flush(&mut outputs);
        outputs
    }
}

fn marks(communities: &[Community]) -> Attributes {
    let mut attributes = Attributes::default();
    for community in communities {
        filter::add_community(&mut attributes, *community);
    }
    attributes
}
