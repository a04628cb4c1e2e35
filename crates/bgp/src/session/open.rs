//! OPEN messages: ours, and what is checked in the peer's (RFC 4271 §6.2, §6.8).

use super::{Effect, Environment, Session};
use crate::connection::{Connection, ConnectionId, Stage};
use crate::hold_time::HoldTime;
use crate::wire::{self, Capability, GracefulRestart, Notification, Open, Reason};

impl Session {
    /// Returns the OPEN that we send, with the R and F bits as they are now (RFC 4724 §3).
    pub(super) fn our_open(&self, env: &Environment) -> Open {
        let family = self.family().into();
        let secs = u16::try_from(self.config.restart_time.as_secs()).unwrap_or(u16::MAX);
        // F says whether forwarding survived; across a mere loss of TCP it always does.
        let is_kept = env.is_forwarding_kept || self.has_been_established;
        Open {
            short_asn: Self::short_asn(self.config.local_asn),
            hold_time: HoldTime::PROPOSED,
            identifier: env.identifier,
            capabilities: vec![
                Capability::Multiprotocol(family),
                Capability::RouteRefresh,
                Capability::GracefulRestart(GracefulRestart {
                    is_restarting: env.is_restarting,
                    is_notification_graceful: false,
                    restart_secs: secs.min(GracefulRestart::MAX_SECS),
                    families: vec![(family, is_kept)],
                }),
                Capability::FourOctetAsn(self.config.local_asn),
                Capability::EnhancedRouteRefresh,
            ],
        }
    }

    /// Checks the peer's OPEN against the configuration.
    fn check(&self, open: &Open, env: &Environment) -> Result<(), Notification> {
        if open.asn() != self.config.peer_asn {
            // The data is ours to choose; the AS that we saw is what an operator needs.
            return Err(Notification::with_data(Reason::BAD_PEER_AS, &open.asn().0.to_be_bytes()));
        }
        // RFC 6286 §2.2: inside an AS nobody else may have our identifier.
        if self.config.is_internal() && open.identifier == env.identifier {
            let data = open.identifier.0.to_be_bytes();
            return Err(Notification::with_data(Reason::BAD_IDENTIFIER, &data));
        }
        if !open.carries(self.family()) {
            let missing = Capability::Multiprotocol(self.family().into()).to_bytes();
            return Err(Notification::with_data(Reason::UNSUPPORTED_CAPABILITY, &missing));
        }
        Ok(())
    }

    pub(super) fn on_open(
        &mut self,
        id: ConnectionId,
        open: Open,
        env: &Environment,
    ) -> Vec<Effect> {
        if let Err(notification) = self.check(&open, env) {
            return self.fail(id, &notification, env);
        }
        let mut effects = Vec::new();
        if let Some(loser) = self.collision_loser(id, &open, env) {
            effects.extend(self.close_collided(loser));
            if loser == id {
                return effects;
            }
        }
        let keepalive = self.config.keepalive;
        if let Some(connection) = self.connection_mut(id) {
            connection.open_received(open, keepalive, env.now);
        }
        effects.extend(self.send(id, wire::encode_keepalive()));
        effects
    }

    /// Returns which connection must go when two have got this far (RFC 4271 §6.8).
    ///
    /// The one that the speaker with the higher identifier has opened stays. With equal
    /// identifiers the higher AS counts as higher (RFC 6286 §2.3).
    fn collision_loser(
        &self,
        id: ConnectionId,
        open: &Open,
        env: &Environment,
    ) -> Option<ConnectionId> {
        let is_rival = |each: &&Connection| each.id != id && each.stage >= Stage::OpenConfirm;
        let rival = self.connections.iter().find(is_rival)?;
        if rival.stage == Stage::Established {
            return Some(id);
        }
        let ours = (env.identifier, self.config.local_asn);
        let is_ours_higher = ours > (open.identifier, open.asn());
        let is_outgoing = matches!(id, ConnectionId::Outgoing(_));
        Some(if is_outgoing == is_ours_higher { rival.id } else { id })
    }
}
