//! The speaker: all sessions, the tables, and what joins them (RFC 4271 §3).

mod configure;
mod convergence;
mod event;
mod groups;
mod routes;
mod status;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use model::desired::Origination;
use model::net::{Cidr, Family};
use model::time::Timestamp;

pub use event::{Input, Output, PathFate, Problem};
pub use status::{PeerStatus, Status};

use crate::connection::ConnectionId;
use crate::counts::RouteCounts;
use crate::export::Scope;
use crate::rib::{Interner, PeerIndex, Seed, Source, Table};
use crate::session::{Effect, Environment, Loss, Session, State};
use crate::wire::{BgpIdentifier, Families};
use convergence::Convergence;
use groups::{Group, GroupId};

/// What a speaker is born with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SpeakerConfig {
    /// Our identifier in every OPEN.
    pub identifier: BgpIdentifier,
    /// Did an earlier life of this speaker leave routes in the kernel? Then peers are
    /// asked to keep theirs too (RFC 4724 §4.1).
    pub is_restarting: bool,
    /// Where the jitter of timers starts.
    pub seed: u64,
    /// How many bytes may wait for a peer before it gets no more routes; what waits beyond
    /// that is one batch of messages.
    pub send_limit: usize,
}

impl SpeakerConfig {
    /// As much as a fast peer takes in a blink, and a thousand slow ones may cost.
    pub const SEND_LIMIT: usize = 256 * 1024;
}

/// A BGP speaker.
#[derive(Debug)]
pub struct Speaker {
    config: SpeakerConfig,
    peers: BTreeMap<PeerIndex, Peer>,
    connections: BTreeMap<ConnectionId, PeerIndex>,
    table: Table,
    interner: Interner,
    originated: BTreeMap<Cidr, Origination>,
    scope: Scope,
    /// The clusters that we reflect in (RFC 4456).
    cluster_ids: BTreeSet<u32>,
    groups: BTreeMap<GroupId, Group>,
    /// Groups that may have to be told something.
    active: BTreeSet<GroupId>,
    convergence: Convergence,
    /// When peers have something to do without being told, the first first.
    deadlines: BTreeSet<(Timestamp, PeerIndex)>,
    /// Peers whose state or deadline may have changed in this step.
    touched: BTreeSet<PeerIndex>,
    /// Counts the inputs.
    step: u64,
    next_group: GroupId,
    next_peer: u32,
    next_connection: u64,
}

/// A session with its side of the tables.
#[derive(Debug)]
struct Peer {
    session: Session,
    source: Option<Arc<Source>>,
    /// Counts what makes earlier paths stale: losses of the session, refreshes.
    epoch: u32,
    /// Paths of epochs before these are stale.
    floors: Floors,
    /// When stale paths go at the latest.
    stale_until: Option<Timestamp>,
    /// The families whose initial routes it has told.
    ended: Families,
    has_end_of_rib: bool,
    owes_end_of_rib: bool,
    owes_refresh_end: bool,
    routes: RouteCounts,
    /// Its entry in the speaker's deadlines.
    deadline: Option<Timestamp>,
    state: State,
    since: Timestamp,
}

/// An epoch for each family: a refresh of one says nothing of the other's paths.
#[derive(Clone, Copy, Debug, Default)]
struct Floors {
    v4: u32,
    v6: u32,
}

impl Floors {
    const fn of(self, family: Family) -> u32 {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    fn raise(&mut self, family: Family, epoch: u32) {
        match family {
            Family::V4 => self.v4 = epoch,
            Family::V6 => self.v6 = epoch,
        }
    }
}

impl Speaker {
    /// Makes a speaker without sessions; it does nothing before it has been told both
    /// its sessions and its advertisements.
    #[must_use]
    pub fn new(config: SpeakerConfig) -> Self {
        Self {
            config,
            peers: BTreeMap::new(),
            connections: BTreeMap::new(),
            table: Table::new(Seed(config.seed)),
            interner: Interner::new(Seed(config.seed)),
            originated: BTreeMap::new(),
            scope: Scope::default(),
            cluster_ids: BTreeSet::new(),
            groups: BTreeMap::new(),
            active: BTreeSet::new(),
            convergence: Convergence::default(),
            deadlines: BTreeSet::new(),
            touched: BTreeSet::new(),
            step: 0,
            next_group: 0,
            next_peer: PeerIndex::FIRST.0,
            next_connection: 0,
        }
    }

    /// Takes in what happened and returns what to do, in order.
    pub fn handle(&mut self, input: Input, now: Timestamp) -> Vec<Output> {
        let mut outputs = self.take_in(input, now);
        outputs.extend(self.settle(now));
        outputs
    }

    /// Takes in what happened and returns what must be done at once. What follows for routes,
    /// deadlines and states comes of [`Self::settle`], once for any number of inputs: what many
    /// peers say at the same time is then told to many peers once.
    pub fn take_in(&mut self, input: Input, now: Timestamp) -> Vec<Output> {
        self.step = self.step.wrapping_add(1);
        match input {
            Input::Configure(sessions) => self.configure(sessions, now),
            Input::Advertise(advertisements) => {
                self.advertise(&advertisements, now);
                Vec::new()
            }
            Input::Ways(ways) => self.take_ways(ways),
            Input::Accepted { connection, peer_addr, local_addr } => {
                self.on_accepted(connection, peer_addr, local_addr, now)
            }
            Input::Connected { connection, local_addr } => {
                self.with_session(connection, now, |session, env| {
                    session.on_connected(connection, local_addr, env)
                })
            }
            Input::Received { connection, bytes } => {
                self.with_session(connection, now, |session, env| {
                    session.on_bytes(connection, &bytes, env)
                })
            }
            Input::Closed { connection, why } => {
                let outputs = self.with_session(connection, now, |session, env| {
                    session.on_closed(connection, &why, env)
                });
                self.connections.remove(&connection);
                outputs
            }
            Input::Sent { connection, len } => self.on_sent(connection, len),
            Input::PathDown { peer_addr, fate } => self.on_path_down(peer_addr, fate, now),
            Input::DeadlineReached => self.on_deadline(now),
            Input::Stop => self.stop(),
        }
    }

    /// Returns what is to be done because of all that was taken in since the last time.
    pub fn settle(&mut self, now: Timestamp) -> Vec<Output> {
        let mut outputs: Vec<Output> = self.converge(now).into_iter().collect();
        outputs.extend(self.tell());
        outputs.extend(self.account_for_touched(now));
        outputs
    }

    /// Returns when [`Input::DeadlineReached`] is next due, if ever.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        if !self.convergence.has_started() {
            return None;
        }
        let peers = self.deadlines.first().map(|(at, _)| *at);
        [peers, self.convergence.deadline()].into_iter().flatten().min()
    }

    fn environment(&self, now: Timestamp) -> Environment {
        Environment {
            identifier: self.config.identifier,
            is_restarting: self.is_restarting(),
            is_forwarding_kept: self.config.is_restarting,
            now,
        }
    }

    /// Are we still coming back from an earlier life?
    fn is_restarting(&self) -> bool {
        self.config.is_restarting && !self.convergence.is_done()
    }

    /// Runs `step` on the session that has `connection`, if it still has.
    fn with_session(
        &mut self,
        connection: ConnectionId,
        now: Timestamp,
        step: impl FnOnce(&mut Session, &Environment) -> Vec<Effect>,
    ) -> Vec<Output> {
        let env = self.environment(now);
        let Some(index) = self.connections.get(&connection).copied() else { return Vec::new() };
        let Some(peer) = self.peers.get_mut(&index) else { return Vec::new() };
        self.touched.insert(index);
        let effects = step(&mut peer.session, &env);
        self.apply(index, effects, now)
    }

    fn on_accepted(
        &mut self,
        connection: ConnectionId,
        peer_addr: IpAddr,
        local_addr: IpAddr,
        now: Timestamp,
    ) -> Vec<Output> {
        let mut known = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.session.config.peer_addr == peer_addr)
            .map(|(index, peer)| (peer.session.state(), *index));
        // Of several sessions to one address (on other ports) the one most in need is meant.
        let Some((_, index)) = known.by_ref().min() else {
            let problem = Problem::UnknownPeer(peer_addr);
            return vec![Output::Close { connection }, Output::Report(problem)];
        };
        if !self.convergence.has_started() {
            return vec![Output::Close { connection }];
        }
        self.connections.insert(connection, index);
        self.with_session(connection, now, |session, env| {
            session.on_accepted(connection, local_addr, env)
        })
    }

    fn on_path_down(&mut self, peer_addr: IpAddr, fate: PathFate, now: Timestamp) -> Vec<Output> {
        let env = self.environment(now);
        let is_meant = |(_, peer): &(&PeerIndex, &Peer)| peer.session.config.peer_addr == peer_addr;
        let indexes: Vec<PeerIndex> =
            self.peers.iter().filter(is_meant).map(|(index, _)| *index).collect();
        let mut outputs = Vec::new();
        for index in indexes {
            let Some(peer) = self.peers.get_mut(&index) else { continue };
            self.touched.insert(index);
            let effects = peer.session.on_path_down(fate, &env);
            outputs.extend(self.apply(index, effects, now));
        }
        outputs
    }

    fn on_sent(&mut self, connection: ConnectionId, len: usize) -> Vec<Output> {
        let Some(index) = self.connections.get(&connection).copied() else { return Vec::new() };
        let Some(peer) = self.peers.get_mut(&index) else { return Vec::new() };
        if let Some(connection) = peer.session.connection_mut(connection) {
            connection.written(len);
        }
        self.active.extend(self.group_of(index));
        Vec::new()
    }

    fn on_deadline(&mut self, now: Timestamp) -> Vec<Output> {
        if !self.convergence.has_started() {
            return Vec::new();
        }
        let env = self.environment(now);
        let due = self.deadlines.iter().take_while(|(at, _)| *at <= now);
        let due: BTreeSet<PeerIndex> = due.map(|(_, index)| *index).collect();
        let mut outputs = Vec::new();
        for index in due {
            self.touched.insert(index);
            let Some(peer) = self.peers.get_mut(&index) else { continue };
            let connection = ConnectionId::Outgoing(self.next_connection);
            let effects = peer.session.on_deadline(connection, &env);
            if peer.session.connection_mut(connection).is_some() {
                self.connections.insert(connection, index);
                self.next_connection = self.next_connection.saturating_add(1);
            }
            outputs.extend(self.apply(index, effects, now));
            self.expire_stale(index, now);
        }
        outputs
    }

    fn stop(&mut self) -> Vec<Output> {
        let outputs = self.peers.values_mut().flat_map(|peer| peer.session.close_all()).collect();
        self.peers.clear();
        self.connections.clear();
        self.deadlines.clear();
        self.groups.clear();
        // What was learned stays in the kernel: nothing is reselected, so nothing is withdrawn.
        self.table.take_marked();
        self.convergence.stop();
        outputs
    }

    /// Carries out what a session asked for.
    fn apply(&mut self, index: PeerIndex, effects: Vec<Effect>, now: Timestamp) -> Vec<Output> {
        let mut outputs = Vec::new();
        for effect in effects {
            match effect {
                Effect::Output(output) => {
                    if let Output::Close { connection } = output {
                        self.connections.remove(&connection);
                    }
                    outputs.push(output);
                }
                Effect::Established => self.on_established(index, now),
                Effect::Update(update) => outputs.extend(self.on_update(index, &update, now)),
                Effect::Refresh(refresh) => outputs.extend(self.on_refresh(index, refresh)),
                Effect::Down(loss) => self.on_down(index, loss, now),
            }
        }
        outputs
    }

    fn on_down(&mut self, index: PeerIndex, loss: Loss, now: Timestamp) {
        self.leave(index);
        let Some(peer) = self.peers.get_mut(&index) else { return };
        peer.source = None;
        peer.ended = Families::NONE;
        peer.has_end_of_rib = false;
        peer.owes_end_of_rib = false;
        peer.owes_refresh_end = false;
        if peer.stale_until.is_some() {
            // RFC 4724 §4.2: what was stale already does not survive a second restart.
            for family in Family::ALL {
                self.table.remove_before(index, family, peer.floors.of(family));
            }
        }
        for family in Family::ALL {
            peer.begin_epoch(family);
        }
        match loss {
            Loss::Graceful(time, families) if !time.is_zero() => {
                peer.stale_until = Some(now + time);
                for family in Family::ALL.into_iter().filter(|each| !families.contains(*each)) {
                    self.table.remove_before(index, family, u32::MAX);
                }
            }
            Loss::Graceful(..) | Loss::Hard => {
                peer.stale_until = None;
                self.table.remove_peer(index);
            }
        }
    }

    /// Drops what a peer that restarted has not told again in time.
    fn expire_stale(&mut self, index: PeerIndex, now: Timestamp) {
        let is_due = |peer: &&mut Peer| peer.stale_until.is_some_and(|until| until <= now);
        if let Some(peer) = self.peers.get_mut(&index).filter(is_due) {
            peer.stale_until = None;
            for family in Family::ALL {
                self.table.remove_before(index, family, peer.floors.of(family));
            }
        }
    }

    /// Notes new deadlines of the peers of this step, and reports what states they are in now.
    fn account_for_touched(&mut self, now: Timestamp) -> Vec<Output> {
        let mut outputs = Vec::new();
        for index in std::mem::take(&mut self.touched) {
            let Some(peer) = self.peers.get_mut(&index) else { continue };
            let deadline = [peer.session.next_deadline(), peer.stale_until];
            let deadline = deadline.into_iter().flatten().min();
            if deadline != peer.deadline {
                peer.deadline.map(|old| self.deadlines.remove(&(old, index)));
                deadline.map(|new| self.deadlines.insert((new, index)));
                peer.deadline = deadline;
            }
            let state = peer.session.state();
            if state != peer.state {
                peer.state = state;
                peer.since = now;
                outputs.push(Output::SessionChanged {
                    name: peer.session.config.name.clone(),
                    peer_addr: peer.session.config.peer_addr,
                    state,
                    last_error: peer.session.last_error.as_ref().map(|error| error.text.clone()),
                });
            }
        }
        outputs
    }
}

impl Peer {
    /// Makes what the peer has told so far of `family` old, until it tells it again.
    fn begin_epoch(&mut self, family: Family) {
        self.epoch = self.epoch.saturating_add(1);
        self.floors.raise(family, self.epoch);
        if let Some(source) = &mut self.source {
            Arc::make_mut(source).epoch = self.epoch;
        }
    }
}
