//! What people and metrics want to know of a speaker.

use std::collections::BTreeSet;
use std::net::IpAddr;

use model::net::{Asn, Cidr};
use model::time::Timestamp;

use super::Speaker;
use crate::counts::{MessageCounts, RouteCounts};
use crate::session::State;

/// A speaker at one moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Status {
    /// Its peers, in the order in which they were configured.
    pub peers: Vec<PeerStatus>,
    /// How many destinations are known from peers.
    pub destinations: usize,
    /// Is the initial exchange of routes over?
    pub has_converged: bool,
}

/// A peer at one moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerStatus {
    /// The session's name.
    pub name: String,
    /// The BGPPeer that asks for it; `None` is the mesh.
    pub object: Option<String>,
    /// The peer's address.
    pub peer_addr: IpAddr,
    /// The peer's AS.
    pub peer_asn: Asn,
    /// The state of the session.
    pub state: State,
    /// Since when it has been in that state.
    pub since: Timestamp,
    /// How often the session has become Established.
    pub establishments: u64,
    /// The messages that we have sent.
    pub sent: MessageCounts,
    /// The messages that the peer has sent.
    pub heard: MessageCounts,
    /// What became of the routes that the peer has told.
    pub routes: RouteCounts,
    /// How many destinations it has told us that we have taken.
    pub received: usize,
    /// How many it holds from us.
    pub advertised: usize,
    /// Are routes kept for it while it restarts (RFC 4724)?
    pub is_stale: bool,
    /// Has it told all its routes since the session was established?
    pub has_end_of_rib: bool,
    /// Why the last attempt or session ended, if one did.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_at: Option<Timestamp>,
}

impl Speaker {
    /// Returns how things are.
    #[must_use]
    pub fn status(&self) -> Status {
        let peers = self.peers.iter().map(|(index, peer)| PeerStatus {
            name: peer.session.config.name.clone(),
            object: peer.session.config.object.clone(),
            peer_addr: peer.session.config.peer_addr,
            peer_asn: peer.session.config.peer_asn,
            state: peer.session.state(),
            since: peer.since,
            establishments: peer.session.establishments,
            sent: peer.session.sent,
            heard: peer.session.heard,
            routes: peer.routes,
            received: self.table.received(*index),
            advertised: self.advertised(*index),
            is_stale: peer.stale_until.is_some(),
            has_end_of_rib: peer.has_end_of_rib,
            last_error: peer.session.last_error.as_ref().map(|error| error.text.clone()),
            last_error_at: peer.session.last_error.as_ref().map(|error| error.at),
        });
        Status {
            peers: peers.collect(),
            destinations: self.table.len(),
            has_converged: self.convergence.is_done(),
        }
    }

    /// Is a session with `peer_addr` Established?
    #[must_use]
    pub fn is_established(&self, peer_addr: IpAddr) -> bool {
        let is_it = |peer: &super::Peer| peer.session.config.peer_addr == peer_addr;
        self.peers.values().any(|peer| is_it(peer) && peer.session.state() == State::Established)
    }

    /// Returns the routes that the kernel should hold: gateways by destination.
    pub fn routes(&self) -> impl Iterator<Item = (&Cidr, &BTreeSet<IpAddr>)> {
        let known = self.table.reachable().map(|(_, destination)| destination);
        known.filter_map(|each| Some((each.cidr(), &each.gateways()?.addrs)))
    }
}
