//! OPEN messages: ours, and what is checked in the peer's (RFC 4271 §6.2, §6.8).

use model::net::Family;

use super::agreed::{RECEIVES_PATHS, SENDS_PATHS, role_code, roles_match};
use super::{Effect, Environment, Session};
use crate::connection::{Connection, ConnectionId, Stage};
use crate::hold_time::HoldTime;
use crate::wire::{self, AfiSafi, Capability, GracefulRestart, Notification, Open, Reason};

impl Session {
    /// Returns the OPEN that we send, with the R and F bits as they are now (RFC 4724 §3).
    pub(super) fn our_open(&self, env: &Environment) -> Open {
        let mut capabilities: Vec<Capability> = self
            .config
            .families
            .iter()
            .map(|each| Capability::Multiprotocol((*each).into()))
            .collect();
        capabilities.push(Capability::RouteRefresh);
        capabilities.extend(self.next_hop_capability());
        if self.config.allows_extended_messages {
            capabilities.push(Capability::ExtendedMessage);
        }
        // RFC 9234 §4.1: roles are of external sessions only.
        let role = self.config.role.filter(|_| !self.config.is_internal());
        capabilities.extend(role.map(|role| Capability::Role(role_code(role))));
        capabilities.push(Capability::GracefulRestart(self.our_restart(env)));
        capabilities.push(Capability::FourOctetAsn(self.config.local_asn));
        capabilities.extend(self.path_capability());
        capabilities.push(Capability::EnhancedRouteRefresh);
        Open {
            short_asn: Self::short_asn(self.config.local_asn),
            hold_time: HoldTime::PROPOSED,
            identifier: env.identifier,
            capabilities,
        }
    }

    /// Returns what we say of our restarts, with R and F as they are now (RFC 4724 §3).
    fn our_restart(&self, env: &Environment) -> GracefulRestart {
        let secs = u16::try_from(self.config.restart_time.as_secs()).unwrap_or(u16::MAX);
        // F says whether forwarding survived; across a mere loss of TCP it always does.
        let is_kept = env.is_forwarding_kept || self.establishments > 0;
        GracefulRestart {
            is_restarting: env.is_restarting,
            is_notification_graceful: true,
            restart_secs: secs.min(GracefulRestart::MAX_SECS),
            families: self.config.families.iter().map(|each| ((*each).into(), is_kept)).collect(),
        }
    }

    /// Returns for which families we take next hops of the other one (RFC 8950 §4).
    fn next_hop_capability(&self) -> Option<Capability> {
        let families = self.config.families.iter().copied();
        let entries: Vec<(AfiSafi, u16)> = families
            .filter(|family| self.needs_foreign_next_hops(*family))
            .map(|family| (family.into(), AfiSafi::from(Family::V6).afi))
            .collect();
        (!entries.is_empty()).then_some(Capability::ExtendedNextHop(entries))
    }

    /// Returns in which directions we carry several paths of a prefix (RFC 7911 §4).
    fn path_capability(&self) -> Option<Capability> {
        let receives = if self.config.add_path.receives { RECEIVES_PATHS } else { 0 };
        let sends = if self.config.add_path.sends { SENDS_PATHS } else { 0 };
        let mode = receives | sends;
        let entry = |family: &Family| ((*family).into(), mode);
        (mode != 0).then(|| Capability::AddPath(self.config.families.iter().map(entry).collect()))
    }

    /// Returns the longest message that we offer to read (RFC 8654).
    pub(super) fn readable_len(&self) -> usize {
        if self.config.allows_extended_messages { wire::MAX_EXTENDED_LEN } else { wire::MAX_LEN }
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
        if let Some(role) = self.config.role.filter(|_| !self.config.is_internal())
            && !roles_match(role, open)
        {
            return Err(Notification::new(Reason::ROLE_MISMATCH));
        }
        let families = &self.config.families;
        if !families.iter().any(|family| self.shares(open, *family)) {
            // RFC 5492 §5: the data lists what we would need.
            let needed = families.iter().map(|each| Capability::Multiprotocol((*each).into()));
            let needed: Vec<u8> =
                needed.chain(self.next_hop_capability()).flat_map(|each| each.to_bytes()).collect();
            return Err(Notification::with_data(Reason::UNSUPPORTED_CAPABILITY, &needed));
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
