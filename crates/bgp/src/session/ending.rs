//! How connections and sessions end, and what pause that costs (RFC 4271 §6, §8.2.2).

use std::time::Duration;

use model::net::Family;

use super::{
    CONNECT_DELAY, CONNECT_RETRY, ERROR_FORGET, ERROR_WAIT, Effect, Environment, LastError, Loss,
    Session,
};
use crate::connection::{ConnectionId, Stage};
use crate::speaker::{Output, PathFate};
use crate::wire::{AfiSafi, Notification, Reason};

/// How long a peer that announced too much is left alone.
const MAX_PREFIXES_WAIT: Duration = Duration::from_secs(300);

impl Session {
    /// Ends a connection that lost to another one, which is no error of the session.
    pub(super) fn close_collided(&mut self, id: ConnectionId) -> Vec<Effect> {
        let is_open = self.connection_mut(id).is_some_and(|each| each.stage > Stage::Connecting);
        let mut effects = Vec::new();
        if is_open {
            effects = self.send(id, Notification::new(Reason::COLLISION).encode());
        }
        self.connections.retain(|each| each.id != id);
        effects.push(Effect::Output(Output::Close { connection: id }));
        effects
    }

    pub(super) fn on_notification(
        &mut self,
        id: ConnectionId,
        notification: &Notification,
        env: &Environment,
    ) -> Vec<Effect> {
        if notification.reason == Reason::COLLISION && self.connections.len() > 1 {
            self.connections.retain(|each| each.id != id);
            return vec![Effect::Output(Output::Close { connection: id })];
        }
        let loss = self.loss_by(notification);
        let error_wait = self.error_wait;
        let effects = self.end_with_error(format!("the peer said: {notification}"), loss, env);
        if is_about_configuration(notification) {
            // Nobody has done anything wrong: one side has read the cluster's configuration later
            // than the other. A session that had to wait as after errors, refusing the peer
            // meanwhile, would be missing for up to half a minute.
            self.error_wait = error_wait;
            self.idle_until = None;
            self.retry_at = Some(env.now + self.pause());
        }
        effects
    }

    /// Returns what becomes of the routes when `notification` ends the session (RFC 8538 §4).
    fn loss_by(&self, notification: &Notification) -> Loss {
        let is_hard = notification.reason == Reason::HARD_RESET;
        if self.survives_notifications() && !is_hard { self.loss() } else { Loss::Hard }
    }

    /// Returns what becomes of the routes when the session ends without a word: those of the
    /// families that the peer's capability names stay (RFC 4724 §4.2).
    fn loss(&self) -> Loss {
        let Some(restart) = self.graceful_restart() else { return Loss::Hard };
        let families = self.families().iter().filter(|family| restart.covers(*family));
        Loss::Graceful(restart.restart_time(), families.collect())
    }

    /// Returns `notification` as the peer must be told it: wrapped if it would otherwise
    /// keep routes that must go (RFC 8538 §5).
    fn worded(&self, notification: &Notification) -> Notification {
        let must_go = [
            Reason::MAXIMUM_PREFIXES,
            Reason::ADMINISTRATIVE_SHUTDOWN,
            Reason::PEER_DECONFIGURED,
            // Who was silent for that long is taken for dead, as BIRD does in Calico.
            Reason::HOLD_TIMER_EXPIRED,
        ];
        let notification = notification.clone();
        if self.survives_notifications() && must_go.contains(&notification.reason) {
            notification.into_hard_reset()
        } else {
            notification
        }
    }

    /// Ends a session whose peer has announced more than `limit` prefixes of `family`, and
    /// leaves the peer alone for a while (RFC 4486 §4).
    pub(crate) fn on_too_many_prefixes(
        &mut self,
        family: Family,
        limit: u32,
        env: &Environment,
    ) -> Vec<Effect> {
        let Some(id) = self.established().map(|each| each.id) else { return Vec::new() };
        let AfiSafi { afi, safi } = family.into();
        let data = [&afi.to_be_bytes()[..], &[safi], &limit.to_be_bytes()].concat();
        let effects = self.fail(id, &Notification::with_data(Reason::MAXIMUM_PREFIXES, &data), env);
        self.idle_until = Some(env.now + MAX_PREFIXES_WAIT);
        effects
    }

    /// Ends a session whose path is down (RFC 5882 §4.2, RFC 9384 §3). The routes stay for a
    /// restart only if the watch may have died with the peer's control plane (RFC 5882 §4.3).
    pub(crate) fn on_path_down(&mut self, fate: PathFate, env: &Environment) -> Vec<Effect> {
        let Some(id) = self.established().map(|each| each.id) else { return Vec::new() };
        let loss = match fate {
            PathFate::MaybeRestart => self.loss(),
            PathFate::Broken => Loss::Hard,
        };
        let notification = Notification::new(Reason::BFD_DOWN);
        let mut effects = Vec::new();
        // A peer that may be restarting keeps our routes too, unless it is told something.
        if loss == Loss::Hard || self.survives_notifications() {
            effects = self.send(id, notification.encode());
        }
        effects.extend(self.end_with_error(notification.to_string(), loss, env));
        // The path may be back at once, and nobody has done anything wrong.
        self.idle_until = None;
        self.retry_at = Some(env.now + CONNECT_RETRY);
        effects
    }

    /// Sends `notification` and ends the session with the pause that errors cost.
    pub(super) fn fail(
        &mut self,
        id: ConnectionId,
        notification: &Notification,
        env: &Environment,
    ) -> Vec<Effect> {
        let notification = self.worded(notification);
        let loss = self.loss_by(&notification);
        let mut effects = self.send(id, notification.encode());
        effects.extend(self.end_with_error(format!("we said: {notification}"), loss, env));
        effects
    }

    /// Closes all connections after a protocol error.
    fn end_with_error(&mut self, error: String, loss: Loss, env: &Environment) -> Vec<Effect> {
        let was_established = self.established().is_some();
        let lasted = self.established_at.map(|since| since.until(env.now)).unwrap_or_default();
        if was_established && lasted >= ERROR_FORGET {
            self.error_wait = ERROR_WAIT.0;
        }
        let mut effects: Vec<Effect> = self.close_all().map(Effect::Output).collect();
        self.last_error = Some(LastError { text: error, at: env.now });
        self.has_failed = true;
        self.idle_until = Some(env.now + self.jitter.shorten(self.error_wait));
        self.error_wait = self.error_wait.saturating_mul(2).min(ERROR_WAIT.1);
        if was_established {
            effects.push(Effect::Down(loss));
        }
        effects
    }

    /// Forgets all connections without a word to the peer.
    pub(crate) fn close_all(&mut self) -> impl Iterator<Item = Output> + use<> {
        let connections = std::mem::take(&mut self.connections);
        connections.into_iter().map(|each| Output::Close { connection: each.id })
    }

    /// Ends the session because of us: tells the peer why, then closes.
    pub(crate) fn stop(&mut self, notification: &Notification) -> Vec<Effect> {
        let was_established = self.established().is_some();
        let open = self.connections.iter().filter(|each| each.stage > Stage::Connecting);
        let ids: Vec<ConnectionId> = open.map(|each| each.id).collect();
        let bytes = self.worded(notification).encode();
        let mut effects = Vec::new();
        for id in ids {
            effects.extend(self.send(id, bytes.clone()));
        }
        effects.extend(self.close_all().map(Effect::Output));
        if was_established {
            effects.push(Effect::Down(Loss::Hard));
        }
        effects
    }

    /// Notes that a connection is gone or never came.
    pub(crate) fn on_closed(
        &mut self,
        id: ConnectionId,
        why: &str,
        env: &Environment,
    ) -> Vec<Effect> {
        let Some(stage) = self.connection_mut(id).map(|each| each.stage) else { return Vec::new() };
        let loss = self.loss();
        self.connections.retain(|each| each.id != id);
        self.last_error = Some(LastError { text: why.to_owned(), at: env.now });
        if stage == Stage::Established {
            self.retry_at = Some(env.now + self.jitter.up_to(CONNECT_DELAY));
            return vec![Effect::Down(loss)];
        }
        self.has_failed = true;
        self.retry_at = Some(env.now + self.pause());
        Vec::new()
    }

    /// Counts a failed attempt and returns how long to wait for the next one.
    fn pause(&mut self) -> Duration {
        self.failed_attempts = self.failed_attempts.saturating_add(1);
        // Differs from Calico: the first pauses are 1 s and 2 s, so that nodes which start
        // together do not wait 5 s for whoever listens a moment later.
        let doubled = 1_u64.checked_shl(self.failed_attempts.min(4).saturating_sub(1));
        let pause = Duration::from_secs(doubled.unwrap_or(1)).min(CONNECT_RETRY);
        self.jitter.shorten(pause)
    }
}

/// Has the peer changed its configuration, and is it not about to stay away (RFC 4486 §4)?
fn is_about_configuration(notification: &Notification) -> bool {
    let inner = notification.hard_reset().map(|inner| inner.reason);
    [Reason::PEER_DECONFIGURED, Reason::CONNECTION_REJECTED, Reason::CONFIGURATION_CHANGE]
        .contains(&inner.unwrap_or(notification.reason))
}
