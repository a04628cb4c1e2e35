//! Routes: in from peers, chosen, out to the kernel and to other peers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use model::desired::BgpSession;
use model::net::{Cidr, Family};
use model::time::Timestamp;

use super::{Output, Peer, Problem, Speaker};
use crate::export::{self, Target};
use crate::rib::{Batch, Candidate, Interner, Path, PeerIndex, Source, Table};
use crate::session::Effect;
use crate::wire::{self, Attributes, Nlri, RefreshKind, RouteRefresh, Update};

/// How long a peer that came back may take to tell all its routes again.
const RESYNC_LIMIT: Duration = Duration::from_secs(360);
/// How many unwritten bytes a connection may have before it gets no more routes.
const SEND_LIMIT: usize = 256 * 1024;
/// How many destinations are looked at for one peer before its queue is looked at again.
const BATCH: usize = 4096;

impl Speaker {
    pub(super) fn on_established(&mut self, index: PeerIndex, now: Timestamp) {
        let Some(peer) = self.peers.get_mut(&index) else { return };
        let family = peer.session.family();
        let restart = peer.session.graceful_restart();
        let is_kept = restart.is_some_and(|restart| restart.is_forwarding_kept(family));
        let Some(open) = peer.session.established().and_then(|each| each.peer_open.as_ref()) else {
            return;
        };
        let source = Source {
            peer: index,
            addr: peer.session.config.peer_addr,
            identifier: open.identifier,
            is_internal: peer.session.config.is_internal(),
        };
        peer.source = Some(Arc::new(source));
        peer.owes_end_of_rib = true;
        peer.stale_until = peer.stale_until.map(|_| if is_kept { now + RESYNC_LIMIT } else { now });
        self.mark_all(index);
        // RFC 4724 §4.2: without F, or without the capability, what was kept goes at once.
        self.expire_stale(index, now);
    }

    /// Notes that a peer must be told everything (again).
    pub(super) fn mark_all(&mut self, index: PeerIndex) {
        let Some(peer) = self.peers.get_mut(&index) else { return };
        if peer.session.established().is_none() {
            return;
        }
        let family = peer.session.family();
        let all = self.table.destinations().chain(self.advertisements.originated.keys());
        peer.adj_out.mark_all(all.filter(|cidr| cidr.family() == family).copied());
    }

    pub(super) fn on_update(&mut self, index: PeerIndex, update: &Update) -> Vec<Output> {
        let Some(peer) = self.peers.get_mut(&index) else { return Vec::new() };
        let (epoch, family) = (peer.epoch, peer.session.family());
        let name = &peer.session.config.name;
        let report = |malformed| Problem::Malformed { name: name.clone(), malformed };
        let reports = update.malformed.iter().copied().map(report).map(Output::Report).collect();
        let Some(source) = peer.source.clone() else { return reports };
        // RFC 4760 §7: routes of a family that was not agreed on are not for us.
        let is_ours = |cidr: &&Cidr| cidr.family() == family;
        for cidr in update.withdrawn.iter().map(|nlri| &nlri.prefix).filter(is_ours) {
            if self.table.remove(cidr, index) {
                self.changed.insert(*cidr);
            }
        }
        let is_usable =
            is_loop_free(&update.attributes, &peer.session.config, self.config.identifier.0);
        let local_addr = peer.session.established().and_then(|each| each.local_addr);
        for announcement in &update.announced {
            let next_hop = announcement.next_hop;
            let is_usable = is_usable && is_gateway(next_hop) && Some(next_hop) != local_addr;
            let path = Path { next_hop, attributes: Attributes::clone(&update.attributes) };
            let path = self.interner.intern(path);
            for cidr in announcement.prefixes.iter().map(|nlri| &nlri.prefix).filter(is_ours) {
                let candidate =
                    Candidate { source: Arc::clone(&source), path: Arc::clone(&path), epoch };
                let is_changed = if is_usable {
                    self.table.upsert(*cidr, candidate)
                } else {
                    // RFC 4271 §9.1.2: an unusable path replaces the usable one of before.
                    self.table.remove(cidr, index)
                };
                if is_changed {
                    self.changed.insert(*cidr);
                }
            }
        }
        if update.end_of_rib == Some(family.into()) {
            peer.has_end_of_rib = true;
            peer.stale_until = None;
            self.changed.extend(self.table.remove_before(index, epoch));
        }
        reports
    }

    pub(super) fn on_refresh(&mut self, index: PeerIndex, refresh: RouteRefresh) -> Vec<Output> {
        let Some(peer) = self.peers.get_mut(&index) else { return Vec::new() };
        if refresh.family.unicast() != Some(peer.session.family()) {
            return Vec::new();
        }
        match refresh.kind {
            RefreshKind::Request => {
                let is_enhanced = peer.session.speaks_enhanced_refresh();
                peer.adj_out.forget_paths();
                peer.owes_refresh_end = is_enhanced;
                let begin = RouteRefresh { kind: RefreshKind::Begin, ..refresh };
                let effects = if is_enhanced { peer.send(begin.encode()) } else { Vec::new() };
                self.mark_all(index);
                return effects;
            }
            // RFC 7313 §4: what is not told between the borders is gone.
            RefreshKind::Begin => peer.epoch = peer.epoch.saturating_add(1),
            RefreshKind::End => {
                self.changed.extend(self.table.remove_before(index, peer.epoch));
            }
            RefreshKind::Unknown(_) => {}
        }
        Vec::new()
    }

    /// Chooses again where paths have changed, and tells the kernel and the peers.
    pub(super) fn settle(&mut self) -> Vec<Output> {
        let changed = std::mem::take(&mut self.changed);
        let mut routes = Vec::new();
        for cidr in &changed {
            let mut gateways = self.table.reselect(cidr);
            if self.advertisements.originated.contains_key(cidr) {
                // Our own prefixes never lead elsewhere, whoever else announces them.
                gateways.clear();
            }
            routes.extend(self.installed_change(*cidr, gateways));
        }
        for peer in self.peers.values_mut().filter(|peer| peer.source.is_some()) {
            let family = peer.session.family();
            for cidr in changed.iter().filter(|cidr| cidr.family() == family) {
                peer.adj_out.mark(*cidr);
            }
        }
        let mut outputs = Vec::new();
        if !routes.is_empty() {
            outputs.push(Output::RoutesChanged(routes));
        }
        outputs.extend(self.flush());
        outputs
    }

    /// Remembers what the kernel should hold; returns it if that is a change.
    fn installed_change(
        &mut self,
        cidr: Cidr,
        gateways: BTreeSet<IpAddr>,
    ) -> Option<(Cidr, BTreeSet<IpAddr>)> {
        let old = if gateways.is_empty() {
            self.installed.remove(&cidr)
        } else {
            self.installed.insert(cidr, gateways.clone())
        };
        (old.unwrap_or_default() != gateways).then_some((cidr, gateways))
    }

    /// Sends each peer what it has not been told yet, as far as its queue has room.
    fn flush(&mut self) -> Vec<Output> {
        let is_restarting = self.is_restarting();
        let mut outputs = Vec::new();
        for (index, peer) in &mut self.peers {
            let view = View { table: &self.table, advertisements: &self.advertisements };
            outputs.extend(peer.flush(*index, &view, &mut self.interner));
            if peer.adj_out.is_settled() {
                outputs.extend(peer.end_of_rib(is_restarting));
            }
        }
        outputs
    }
}

/// What peers are told from.
struct View<'a> {
    table: &'a Table,
    advertisements: &'a model::desired::Advertisements,
}

impl Peer {
    fn flush(&mut self, index: PeerIndex, view: &View<'_>, interner: &mut Interner) -> Vec<Output> {
        let mut outputs = Vec::new();
        while !self.adj_out.is_settled() {
            let Some(connection) = self.session.established() else { break };
            let Some(local_addr) = connection.local_addr else { break };
            if connection.unsent >= SEND_LIMIT {
                break;
            }
            let target = Target { peer: index, session: &self.session.config, local_addr };
            let mut wording = Wording { target, view, interner, known: BTreeMap::new(), own: None };
            let batch = self.adj_out.take(BATCH, |cidr| wording.path(cidr));
            outputs.extend(self.send_batch(&batch));
        }
        outputs
    }

    fn send_batch(&mut self, batch: &Batch) -> Vec<Output> {
        let form = self.session.form();
        let numbered =
            |prefixes: &[Cidr]| -> Vec<Nlri> { prefixes.iter().copied().map(Nlri::from).collect() };
        let mut bytes = Vec::new();
        wire::encode_withdrawal(&numbered(&batch.withdrawn), form, &mut bytes);
        let mut outputs = Vec::new();
        for (path, prefixes) in &batch.announced {
            let nlri = numbered(prefixes);
            let (attributes, next_hop) = (&path.attributes, path.next_hop);
            let encoded = wire::encode_announcement(attributes, next_hop, &nlri, form, &mut bytes);
            if encoded.is_err() {
                let name = self.session.config.name.clone();
                let problem = Problem::TooLong { name, count: prefixes.len() };
                outputs.push(Output::Report(problem));
                // The peer must not go on using what it was told before.
                wire::encode_withdrawal(&nlri, form, &mut bytes);
            }
        }
        if !bytes.is_empty() {
            outputs.extend(self.send(bytes));
        }
        outputs
    }

    /// Says that everything has been told, if that is owed and true.
    fn end_of_rib(&mut self, is_restarting: bool) -> Vec<Output> {
        let family: Family = self.session.family();
        let mut outputs = Vec::new();
        // RFC 4724 §4.1: a restarting speaker is done only when it has heard its peers.
        if self.owes_end_of_rib && !is_restarting {
            self.owes_end_of_rib = false;
            outputs.extend(self.send(wire::encode_end_of_rib(family)));
        }
        if self.owes_refresh_end {
            self.owes_refresh_end = false;
            let end = RouteRefresh { family: family.into(), kind: RefreshKind::End };
            outputs.extend(self.send(end.encode()));
        }
        outputs
    }

    /// Sends over the Established connection, if there is one.
    fn send(&mut self, bytes: Vec<u8>) -> Vec<Output> {
        let Some(id) = self.session.established().map(|each| each.id) else { return Vec::new() };
        let effects = self.session.send(id, bytes);
        let output = |effect| if let Effect::Output(output) = effect { Some(output) } else { None };
        effects.into_iter().filter_map(output).collect()
    }
}

/// Finds the words for one peer; what it has worded once it does not word again.
struct Wording<'a> {
    target: Target<'a>,
    view: &'a View<'a>,
    interner: &'a mut Interner,
    known: BTreeMap<(*const Path, PeerIndex), Option<Arc<Path>>>,
    own: Option<Arc<Path>>,
}

impl Wording<'_> {
    /// Returns what the peer should hold for `cidr`, if anything.
    fn path(&mut self, cidr: &Cidr) -> Option<Arc<Path>> {
        if self.view.advertisements.originated.contains_key(cidr) {
            let own = self
                .own
                .get_or_insert_with(|| self.interner.intern(export::originate(&self.target)));
            return Some(Arc::clone(own));
        }
        let best = self.view.table.best(cidr)?;
        if !export::is_exportable(cidr, best, self.view.advertisements) {
            return None;
        }
        let key = (Arc::as_ptr(&best.path), best.source.peer);
        let worded = self.known.entry(key).or_insert_with(|| {
            export::pass_on(best, &self.target).map(|path| self.interner.intern(path))
        });
        worded.clone()
    }
}

/// Has the route not been here before (RFC 4271 §9.1.2, RFC 4456 §8)?
fn is_loop_free(attributes: &Attributes, session: &BgpSession, identifier: u32) -> bool {
    let has_our_asn = attributes.as_path.contains(session.local_asn);
    let is_ours = attributes.originator_id.is_some_and(|originator| originator.0 == identifier);
    !has_our_asn && !is_ours
}

/// Can packets be sent to `addr` at all (RFC 4271 §6.3)?
fn is_gateway(addr: IpAddr) -> bool {
    let is_broadcast = matches!(addr, IpAddr::V4(addr) if addr.is_broadcast());
    !addr.is_unspecified() && !addr.is_multicast() && !addr.is_loopback() && !is_broadcast
}
