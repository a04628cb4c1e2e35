//! The session with one peer: its state machine (RFC 4271 §8), connection
//! collisions (§6.8), and the pauses between attempts.
//!
//! A session has up to two TCP connections until one of them is Established;
//! each of them is an FSM of RFC 4271 by itself, and the session's state is that
//! of the one which has come furthest.

mod agreed;
mod ending;
mod open;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use model::desired::BgpSession;
use model::jitter::Jitter;
use model::net::Asn;
use model::time::Timestamp;

use crate::connection::{Connection, ConnectionId, Message, Stage, TimerEvent};
use crate::counts::MessageCounts;
use crate::speaker::Output;
use crate::wire::{self, BgpIdentifier, Families, Notification, Reason, RouteRefresh, Update};

/// The states of RFC 4271 §8.2.2.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum State {
    /// Pausing after an error; connections are refused.
    Idle,
    /// Waiting for the peer to connect, or for the next attempt.
    Active,
    /// TCP is on its way.
    Connect,
    /// Our OPEN is out.
    OpenSent,
    /// The peer's OPEN is in.
    OpenConfirm,
    /// Routes flow.
    Established,
}

/// What all sessions of a speaker share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Environment {
    pub(crate) identifier: BgpIdentifier,
    /// Has the speaker just restarted, and not converged yet (the R bit)?
    pub(crate) is_restarting: bool,
    /// Did the kernel's routes survive since the last life (the F bit)?
    pub(crate) is_forwarding_kept: bool,
    pub(crate) now: Timestamp,
}

/// What a session wants done; routes are the speaker's affair.
#[derive(Debug)]
pub(crate) enum Effect {
    Output(Output),
    Established,
    Update(Update),
    Refresh(RouteRefresh),
    Down(Loss),
}

/// How an Established session ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Loss {
    /// The peer may come back within this time; its routes of these families stay (RFC 4724 §4.2).
    Graceful(Duration, Families),
    /// Its routes go.
    Hard,
}

/// Why the last attempt or session ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct LastError {
    pub(crate) text: String,
    pub(crate) at: Timestamp,
}

/// The session with one peer.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) config: BgpSession,
    pub(crate) last_error: Option<LastError>,
    /// Has an attempt ended before Established since the last time it was?
    pub(crate) has_failed: bool,
    connections: Vec<Connection>,
    retry_at: Option<Timestamp>,
    idle_until: Option<Timestamp>,
    failed_attempts: u32,
    error_wait: Duration,
    established_at: Option<Timestamp>,
    /// How often it has become Established.
    pub(crate) establishments: u64,
    pub(crate) sent: MessageCounts,
    pub(crate) heard: MessageCounts,
    jitter: Jitter,
}

/// The first attempt comes within this time, so that nodes that start together spread out.
/// Differs from Calico: BIRD waits 2 s; we need not, since a failure costs one second.
const CONNECT_DELAY: Duration = Duration::from_millis(500);
/// The pause after a failed attempt grows to this: Calico's `connect retry time`.
const CONNECT_RETRY: Duration = Duration::from_secs(5);
/// The pause after the first protocol error, and the most it doubles to: Calico's `error wait time`.
const ERROR_WAIT: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));
/// A session that lasted this long has forgotten its earlier errors (BIRD's `error forget time`).
const ERROR_FORGET: Duration = Duration::from_secs(300);

impl Session {
    /// Makes a session that starts connecting soon, or waits if it is passive.
    pub(crate) fn new(config: BgpSession, seed: u64, now: Timestamp) -> Self {
        let mut jitter = Jitter::new(seed);
        let retry_at = (!config.is_passive).then(|| now + jitter.up_to(CONNECT_DELAY));
        Self {
            config,
            last_error: None,
            has_failed: false,
            connections: Vec::new(),
            retry_at,
            idle_until: None,
            failed_attempts: 0,
            error_wait: ERROR_WAIT.0,
            established_at: None,
            establishments: 0,
            sent: MessageCounts::default(),
            heard: MessageCounts::default(),
            jitter,
        }
    }

    pub(crate) fn state(&self) -> State {
        let furthest = self.connections.iter().map(|connection| connection.stage).max();
        match furthest {
            Some(Stage::Established) => State::Established,
            Some(Stage::OpenConfirm) => State::OpenConfirm,
            Some(Stage::OpenSent) => State::OpenSent,
            Some(Stage::Connecting) => State::Connect,
            None if self.idle_until.is_some() => State::Idle,
            None => State::Active,
        }
    }

    /// Returns the connection that routes flow over.
    pub(crate) fn established(&self) -> Option<&Connection> {
        self.connections.iter().find(|connection| connection.stage == Stage::Established)
    }

    pub(crate) fn connection_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|connection| connection.id == id)
    }

    pub(crate) fn established_at(&self) -> Option<Timestamp> {
        self.established().and(self.established_at)
    }

    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        let connections = self.connections.iter().filter_map(Connection::next_deadline);
        // An attempt waits for the pause to end, and is pointless beside a live connection.
        let retry = self.retry_at.filter(|_| self.may_connect());
        connections.chain(retry).chain(self.idle_until).min()
    }

    fn may_connect(&self) -> bool {
        let is_busy = self.connections.iter().any(|connection| {
            matches!(connection.id, ConnectionId::Outgoing(_))
                || connection.stage >= Stage::OpenConfirm
        });
        self.idle_until.is_none() && !is_busy && !self.config.is_passive
    }

    /// Advances all timers; `id` names the connection that may be opened.
    pub(crate) fn on_deadline(&mut self, id: ConnectionId, env: &Environment) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.idle_until.is_some_and(|until| until <= env.now) {
            self.idle_until = None;
            self.retry_at = Some(env.now);
        }
        let ids: Vec<ConnectionId> = self.connections.iter().map(|each| each.id).collect();
        for id in ids {
            let event = self.connection_mut(id).and_then(|each| each.on_deadline(env.now));
            match event {
                Some(TimerEvent::SendKeepalive) => {
                    effects.extend(self.send(id, wire::encode_keepalive()));
                }
                Some(TimerEvent::Expired) => effects.extend(self.on_expired(id, env)),
                None => {}
            }
        }
        if self.retry_at.is_some_and(|at| at <= env.now) && self.may_connect() {
            self.retry_at = None;
            self.connections.push(Connection::outgoing(id, CONNECT_RETRY, env.now));
            effects.push(Effect::Output(Output::Connect {
                connection: id,
                to: SocketAddr::new(self.config.peer_addr, self.config.peer_port),
                from: self.config.local_addr,
            }));
        }
        effects
    }

    fn on_expired(&mut self, id: ConnectionId, env: &Environment) -> Vec<Effect> {
        let is_connecting =
            self.connection_mut(id).is_some_and(|each| each.stage == Stage::Connecting);
        if is_connecting {
            let mut effects = vec![Effect::Output(Output::Close { connection: id })];
            effects.extend(self.on_closed(id, "no answer to the TCP connect", env));
            return effects;
        }
        self.fail(id, &Notification::new(Reason::HOLD_TIMER_EXPIRED), env)
    }

    /// Takes a connection that the peer has opened.
    pub(crate) fn on_accepted(
        &mut self,
        id: ConnectionId,
        local_addr: IpAddr,
        env: &Environment,
    ) -> Vec<Effect> {
        let refuse = || vec![Effect::Output(Output::Close { connection: id })];
        if self.idle_until.is_some() {
            return refuse();
        }
        let mut effects = Vec::new();
        if let Some(established) = self.established().map(|each| each.id) {
            if self.graceful_restart().is_none() {
                // RFC 4271 §6.8: the Established one stays; a dead one falls to its Hold Timer.
                return refuse();
            }
            // RFC 4724 §5: the peer has restarted before we could see the old connection die.
            effects.push(Effect::Output(Output::Close { connection: established }));
            effects.extend(self.on_closed(established, "the peer connected anew", env));
        }
        // An older connection of the peer that has got nowhere is one it has given up.
        let is_old = |each: &Connection| {
            matches!(each.id, ConnectionId::Incoming(_)) && each.stage <= Stage::OpenSent
        };
        for old in self.connections.extract_if(.., |each| is_old(each)) {
            effects.push(Effect::Output(Output::Close { connection: old.id }));
        }
        self.connections.push(Connection::incoming(id));
        effects.extend(self.on_connected(id, local_addr, env));
        effects
    }

    /// Notes that TCP is there, and sends the OPEN.
    pub(crate) fn on_connected(
        &mut self,
        id: ConnectionId,
        local_addr: IpAddr,
        env: &Environment,
    ) -> Vec<Effect> {
        let open = self.our_open(env);
        let max_len = self.readable_len();
        match self.connection_mut(id) {
            Some(connection) if connection.stage == Stage::Connecting => {
                connection.open_sent(local_addr, max_len, env.now);
                self.send(id, open.encode())
            }
            Some(_) | None => Vec::new(),
        }
    }

    /// Takes bytes of the peer.
    pub(crate) fn on_bytes(
        &mut self,
        id: ConnectionId,
        bytes: &[u8],
        env: &Environment,
    ) -> Vec<Effect> {
        if let Some(connection) = self.connection_mut(id) {
            connection.push(bytes);
        }
        let mut effects = Vec::new();
        // The connection may be closed by any message, so it is looked up each time.
        while let Some(connection) = self.connection_mut(id) {
            match connection.next_message(env.now) {
                Ok(None) => break,
                Ok(Some(message)) => self.on_message(id, message, env, &mut effects),
                Err(notification) => effects.extend(self.fail(id, &notification, env)),
            }
        }
        effects
    }

    /// Takes a message and adds what follows; most by far are UPDATEs, which need no list of their own.
    fn on_message(
        &mut self,
        id: ConnectionId,
        message: Message,
        env: &Environment,
        effects: &mut Vec<Effect>,
    ) {
        let Some(stage) = self.connection_mut(id).map(|each| each.stage) else { return };
        self.heard.add(message.kind());
        let unexpected = match (stage, message) {
            (Stage::Established, Message::Update(update)) => {
                effects.push(Effect::Update(update));
                return;
            }
            (Stage::Established, Message::RouteRefresh(refresh)) => {
                effects.push(Effect::Refresh(refresh));
                return;
            }
            (Stage::Established, Message::Keepalive) => return,
            (_, Message::Notification(notification)) => {
                effects.extend(self.on_notification(id, &notification, env));
                return;
            }
            (Stage::OpenSent, Message::Open(open)) => {
                effects.extend(self.on_open(id, open, env));
                return;
            }
            (Stage::OpenConfirm, Message::Keepalive) => {
                effects.extend(self.on_established(id, env));
                return;
            }
            (Stage::Connecting | Stage::OpenSent, _) => Reason::UNEXPECTED_IN_OPEN_SENT,
            (Stage::OpenConfirm, _) => Reason::UNEXPECTED_IN_OPEN_CONFIRM,
            (Stage::Established, Message::Open(_) | Message::EarlyUpdate) => {
                Reason::UNEXPECTED_IN_ESTABLISHED
            }
        };
        effects.extend(self.fail(id, &Notification::new(unexpected), env));
    }

    fn on_established(&mut self, id: ConnectionId, env: &Environment) -> Vec<Effect> {
        let mut effects = Vec::new();
        let losers: Vec<ConnectionId> =
            self.connections.iter().map(|each| each.id).filter(|other| *other != id).collect();
        for loser in losers {
            effects.extend(self.close_collided(loser));
        }
        if let Some(connection) = self.connection_mut(id) {
            connection.stage = Stage::Established;
        }
        let context = self.context();
        if let Some(connection) = self.connection_mut(id) {
            connection.context = context;
        }
        self.established_at = Some(env.now);
        self.establishments = self.establishments.saturating_add(1);
        self.failed_attempts = 0;
        self.has_failed = false;
        self.retry_at = None;
        effects.push(Effect::Established);
        effects
    }

    /// Takes a configuration that leaves a running connection alone.
    pub(crate) fn reconfigure(&mut self, config: BgpSession, now: Timestamp) {
        if config.keepalive != self.config.keepalive {
            for connection in &mut self.connections {
                connection.set_keepalive(config.keepalive, now);
            }
        }
        if self.config.is_passive && !config.is_passive {
            self.retry_at = Some(now);
        }
        self.config = config;
    }

    /// Returns the output that sends `bytes`, and counts them.
    pub(crate) fn send(&mut self, id: ConnectionId, bytes: impl Into<Bytes>) -> Vec<Effect> {
        let bytes = bytes.into();
        self.sent.add_all(&bytes);
        let Some(connection) = self.connection_mut(id) else { return Vec::new() };
        connection.unsent = connection.unsent.saturating_add(bytes.len());
        vec![Effect::Output(Output::Send { connection: id, bytes })]
    }

    /// Returns the short form of our AS (RFC 6793 §4.2.1).
    fn short_asn(asn: Asn) -> u16 {
        u16::try_from(asn.0).or(u16::try_from(Asn::TRANS.0)).unwrap_or(0)
    }
}
