//! When the initial exchange of routes is over (RFC 4724 §4.1), without waiting
//! for peers that are not there.

use std::time::Duration;

use model::time::Timestamp;

use super::{Output, Peer, Speaker};
use crate::session::State;

/// How far the speaker's start has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Convergence {
    is_configured: bool,
    is_advertised: bool,
    started_at: Option<Timestamp>,
    /// When the last wait for a peer ends by itself.
    waits_until: Option<Timestamp>,
    is_done: bool,
}

/// The most that any peer is waited for.
/// Differs from Calico: BIRD waits 240 s for every peer, reachable or not.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a peer that must call us has time to do so.
const CALL_LIMIT: Duration = Duration::from_secs(15);
/// How long a peer that will not say when it is done has time to tell its routes.
const SETTLE: Duration = Duration::from_secs(5);

impl Convergence {
    /// Notes that sessions are known.
    pub(super) fn on_configured(&mut self, now: Timestamp) {
        self.is_configured = true;
        self.start(now);
    }

    /// Notes that advertisements are known.
    pub(super) fn on_advertised(&mut self, now: Timestamp) {
        self.is_advertised = true;
        self.start(now);
    }

    fn start(&mut self, now: Timestamp) {
        if self.is_configured && self.is_advertised {
            self.started_at = self.started_at.or(Some(now));
        }
    }

    /// Notes that the speaker has stopped, so that nothing is called stale any more.
    pub(super) fn stop(&mut self) {
        self.is_done = true;
    }

    /// Is everything known that sessions need?
    pub(super) fn has_started(&self) -> bool {
        self.started_at.is_some()
    }

    /// Is the initial exchange over?
    pub(super) fn is_done(&self) -> bool {
        self.is_done
    }

    /// Returns when the initial exchange is over at the latest, if it is not.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.waits_until.filter(|_| !self.is_done)
    }

    fn started_at(&self) -> Option<Timestamp> {
        self.started_at.filter(|_| !self.is_done)
    }
}

impl Speaker {
    /// Ends the initial exchange once nobody is left to wait for.
    pub(super) fn converge(&mut self, now: Timestamp) -> Option<Output> {
        let started_at = self.convergence.started_at()?;
        let waits = self.peers.values().filter_map(|peer| wait_for(peer, started_at));
        let until = waits.filter(|until| *until > now).max();
        self.convergence.waits_until = until;
        if until.is_some() {
            return None;
        }
        self.convergence.is_done = true;
        // Groups that have been told everything may now say so.
        self.active.extend(self.groups.keys());
        Some(Output::Converged)
    }
}

/// Returns until when `peer` is waited for, or `None` if there is no reason to.
fn wait_for(peer: &Peer, started_at: Timestamp) -> Option<Timestamp> {
    let limit = started_at + LIMIT;
    if let Some(since) = peer.session.established_at() {
        if peer.has_end_of_rib {
            return None;
        }
        // RFC 4724 §4.1: a peer that restarts too, or cannot say when it is done, is not waited for.
        let restart = peer.session.graceful_restart();
        let will_tell = restart.is_some_and(|restart| !restart.is_restarting);
        return Some(if will_tell { limit } else { limit.min(since + SETTLE) });
    }
    match peer.session.state() {
        State::Idle => None,
        State::Active if peer.session.config.is_passive => Some(started_at + CALL_LIMIT),
        _ if peer.session.has_failed => None,
        State::Active
        | State::Connect
        | State::OpenSent
        | State::OpenConfirm
        | State::Established => Some(limit),
    }
}
