//! One TCP connection as the speaker sees it: framing, OPEN, timers (RFC 4271 §4.4, §6.5).

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use model::time::Timestamp;

use crate::hold_time::HoldTime;
use crate::wire::{self, Context, Kind, Notification, Open, RouteRefresh, Update};

/// The name of a TCP connection between the speaker and its shell.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ConnectionId {
    /// We called; the speaker numbers these.
    Outgoing(u64),
    /// The peer called; the shell numbers these.
    Incoming(u64),
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outgoing(number) => write!(f, "out-{number}"),
            Self::Incoming(number) => write!(f, "in-{number}"),
        }
    }
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Stage {
    /// TCP is not there yet.
    Connecting,
    /// Our OPEN is out.
    OpenSent,
    /// The peer's OPEN is in and good.
    OpenConfirm,
    /// Routes flow.
    Established,
}

/// A message of the peer; an UPDATE that comes too early is not read.
#[derive(Debug)]
pub(crate) enum Message {
    Open(Open),
    Update(Update),
    EarlyUpdate,
    Notification(Notification),
    Keepalive,
    RouteRefresh(RouteRefresh),
}

impl Message {
    pub(crate) const fn kind(&self) -> Kind {
        match self {
            Self::Open(_) => Kind::Open,
            Self::Update(_) | Self::EarlyUpdate => Kind::Update,
            Self::Notification(_) => Kind::Notification,
            Self::Keepalive => Kind::Keepalive,
            Self::RouteRefresh(_) => Kind::RouteRefresh,
        }
    }
}

/// A TCP connection to or from a peer.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) stage: Stage,
    /// Our end, once TCP is there.
    pub(crate) local_addr: Option<IpAddr>,
    /// What the peer's OPEN said.
    pub(crate) peer_open: Option<Open>,
    /// Bytes given to the shell that it has not written yet.
    pub(crate) unsent: usize,
    /// What both sides have agreed on for UPDATEs, once they flow.
    pub(crate) context: Context,
    /// The longest message that we have offered to read, in bytes.
    max_len: usize,
    buffer: Vec<u8>,
    /// How much of the buffer has been taken; it is cut off when no whole message is left.
    taken: usize,
    hold: Option<Duration>,
    /// When silence, or a TCP connect without an end, has lasted too long.
    expires: Option<Timestamp>,
    keepalive: Option<Timer>,
}

#[derive(Clone, Copy, Debug)]
struct Timer {
    period: Duration,
    due: Timestamp,
}

/// What a connection's timers ask for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TimerEvent {
    SendKeepalive,
    Expired,
}

impl Connection {
    /// Starts an outgoing connection, which must be there within `limit`.
    pub(crate) fn outgoing(id: ConnectionId, limit: Duration, now: Timestamp) -> Self {
        Self { expires: Some(now + limit), ..Self::new(id, Stage::Connecting) }
    }

    fn new(id: ConnectionId, stage: Stage) -> Self {
        Self {
            id,
            stage,
            local_addr: None,
            peer_open: None,
            unsent: 0,
            context: Context::default(),
            max_len: wire::MAX_LEN,
            buffer: Vec::new(),
            taken: 0,
            hold: None,
            expires: None,
            keepalive: None,
        }
    }

    /// Makes a connection that the peer has opened.
    pub(crate) fn incoming(id: ConnectionId) -> Self {
        Self::new(id, Stage::Connecting)
    }

    /// Notes that our OPEN goes out; until the peer's comes, the proposed Hold Time counts (§8.2.2).
    ///
    /// `max_len` is the longest message that it offers to read.
    pub(crate) fn open_sent(&mut self, local_addr: IpAddr, max_len: usize, now: Timestamp) {
        self.stage = Stage::OpenSent;
        self.max_len = max_len;
        self.local_addr = Some(local_addr);
        self.expires = HoldTime::PROPOSED.period().map(|period| now + period);
    }

    /// Notes the peer's OPEN and starts the timers that both agreed on.
    pub(crate) fn open_received(
        &mut self,
        open: Open,
        keepalive: Option<Duration>,
        now: Timestamp,
    ) {
        let hold_time = HoldTime::PROPOSED.negotiate(open.hold_time);
        self.stage = Stage::OpenConfirm;
        self.hold = hold_time.period();
        self.expires = self.hold.map(|hold| now + hold);
        self.peer_open = Some(open);
        self.set_keepalive(keepalive, now);
    }

    /// Sets how often a KEEPALIVE goes out.
    pub(crate) fn set_keepalive(&mut self, wanted: Option<Duration>, now: Timestamp) {
        let Some(open) = &self.peer_open else { return };
        self.keepalive = HoldTime::PROPOSED
            .negotiate(open.hold_time)
            .keepalive_interval(wanted)
            .map(|period| Timer { period, due: now + period });
    }

    /// Adds bytes of the peer.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes the next whole message, if there is one.
    pub(crate) fn next_message(&mut self, now: Timestamp) -> Result<Option<Message>, Notification> {
        let untaken = self.buffer.get(self.taken..).unwrap_or_default();
        let Some((frame, rest)) = wire::split_frame(untaken, self.max_len)? else {
            self.buffer.drain(..self.taken);
            self.taken = 0;
            return Ok(None);
        };
        let message = match frame.kind {
            Kind::Open => Message::Open(Open::decode(frame.body)?),
            Kind::Update if self.stage == Stage::Established => {
                Message::Update(Update::decode(frame.body, self.context)?)
            }
            Kind::Update => Message::EarlyUpdate,
            Kind::Notification => Message::Notification(Notification::decode(frame.body)),
            Kind::Keepalive => Message::Keepalive,
            Kind::RouteRefresh => Message::RouteRefresh(RouteRefresh::decode(frame.body)?),
        };
        self.taken = self.buffer.len().saturating_sub(rest.len());
        if let Some(hold) = self.hold {
            self.expires = Some(now + hold);
        }
        Ok(Some(message))
    }

    /// Returns when [`Self::on_deadline`] has something to say.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        let keepalive = self.keepalive.map(|timer| timer.due);
        [self.expires, keepalive].into_iter().flatten().min()
    }

    /// Advances the timers; an early call does nothing.
    pub(crate) fn on_deadline(&mut self, now: Timestamp) -> Option<TimerEvent> {
        if self.expires.is_some_and(|due| due <= now) {
            return Some(TimerEvent::Expired);
        }
        let timer = self.keepalive.as_mut().filter(|timer| timer.due <= now)?;
        timer.due = now + timer.period;
        Some(TimerEvent::SendKeepalive)
    }

    /// Notes that the shell has written `len` bytes.
    pub(crate) fn written(&mut self, len: usize) {
        self.unsent = self.unsent.saturating_sub(len);
    }
}
