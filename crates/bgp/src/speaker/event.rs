//! What a speaker is told and what it says: all of it, so that a run can be recorded.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use model::desired::{Advertisements, BgpSession};
use model::net::{Cidr, IfName, zone};

use crate::connection::ConnectionId;
use crate::rib::Gateways;
use crate::session::State;
use crate::wire::Malformed;

/// What happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Input {
    /// These are all the sessions from now on. Of two with the same address and port the
    /// first counts.
    Configure(Vec<BgpSession>),
    /// This is all that we announce from now on.
    Advertise(Advertisements),
    /// These interfaces lead to these ranges, which only filters ask for; link-local neighbours'
    /// range is `fe80:N::/32` for the link N.
    Ways(BTreeMap<Cidr, IfName>),
    /// An [`Output::Connect`] has come to a TCP connection.
    Connected {
        /// Which.
        connection: ConnectionId,
        /// Our end of it.
        local_addr: IpAddr,
    },
    /// A TCP connection has come in.
    Accepted {
        /// The shell's new number for it, always [`ConnectionId::Incoming`].
        connection: ConnectionId,
        /// Who calls.
        peer_addr: IpAddr,
        /// Our end of it.
        local_addr: IpAddr,
    },
    /// The peer has sent bytes.
    Received {
        /// Over which connection.
        connection: ConnectionId,
        /// What.
        bytes: Vec<u8>,
    },
    /// Bytes of an [`Output::Send`] have been written.
    Sent {
        /// To which connection.
        connection: ConnectionId,
        /// How many.
        len: usize,
    },
    /// A TCP connection has ended, or an [`Output::Connect`] has failed.
    Closed {
        /// Which.
        connection: ConnectionId,
        /// What the kernel said.
        why: String,
    },
    /// The path to a peer is down, as BFD sees it (RFC 5882).
    PathDown {
        /// The peer.
        peer_addr: IpAddr,
        /// What that says of its routes.
        fate: PathFate,
    },
    /// [`next_deadline`](super::Speaker::next_deadline) has come; an early one does no harm.
    DeadlineReached,
    /// The program ends: all connections close without a NOTIFICATION, so that peers
    /// keep our routes until we are back (RFC 4724 §4.2).
    Stop,
}

/// What the end of a BFD session says of the peer's forwarding (RFC 5882 §4.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PathFate {
    /// The peer's BFD does not depend on its control plane (C bit): packets are lost.
    Broken,
    /// Its BFD may just have died with the control plane, which restarts.
    MaybeRestart,
}

/// What to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Output {
    /// Open a TCP connection; answer with [`Input::Connected`] or [`Input::Closed`].
    Connect {
        /// Its number.
        connection: ConnectionId,
        /// The peer.
        to: SocketAddr,
        /// The address to bind to.
        from: Option<IpAddr>,
    },
    /// Write bytes; answer with [`Input::Sent`].
    Send {
        /// To which connection.
        connection: ConnectionId,
        /// What; peers that are told the same share it.
        bytes: Bytes,
    },
    /// Write what is queued, then close; needs no answer.
    Close {
        /// Which.
        connection: ConnectionId,
    },
    /// The kernel should hold these routes: gateways by destination, none to remove it.
    RoutesChanged(Vec<(Cidr, Gateways)>),
    /// A session is in another state.
    SessionChanged {
        /// Its name.
        name: String,
        /// The peer's address.
        peer_addr: IpAddr,
        /// The new state.
        state: State,
        /// Why the last attempt or session ended, if one did.
        last_error: Option<String>,
    },
    /// Every peer that can be reached has told all its routes, or has had time enough:
    /// kernel routes of an earlier life that were not named since are stale. Said once.
    Converged,
    /// Something that an operator should read.
    Report(Problem),
}

/// Something odd that a peer did.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Problem {
    /// A call from an address that no session has.
    #[error("refused a connection from {}: no BGP peer is configured there", zone::to_text(*.0))]
    UnknownPeer(IpAddr),
    /// A message with a wrong attribute (RFC 7606).
    #[error("{name}: {malformed}")]
    Malformed {
        /// The session.
        name: String,
        /// What was wrong and what was done.
        malformed: Malformed,
    },
    /// A path with so many attributes that no message holds it.
    #[error("{name}: {count} routes not announced: their attributes exceed one message")]
    TooLong {
        /// The session.
        name: String,
        /// How many routes.
        count: usize,
    },
}
