//! What both sides of a session have agreed on by their OPENs (RFC 5492).

use model::desired::Role;
use model::net::{Family, zone};

use super::Session;
use crate::wire::{
    AfiSafi, AsnWidth, Capability, Context, Families, Form, GracefulRestart, MAX_EXTENDED_LEN,
    MAX_LEN, Open,
};

/// The modes of RFC 7911 §4.
pub(super) const RECEIVES_PATHS: u8 = 1;
pub(super) const SENDS_PATHS: u8 = 2;

impl Session {
    /// Returns what the peer's OPEN said, once the session is Established.
    fn peer_open(&self) -> Option<&Open> {
        self.established()?.peer_open.as_ref()
    }

    /// Returns the families whose routes flow, or would if the peer carried all of ours.
    pub(crate) fn families(&self) -> Families {
        let open = self.peer_open();
        let is_common = |family: &Family| open.is_none_or(|open| self.shares(open, *family));
        self.config.families.iter().copied().filter(is_common).collect()
    }

    /// Do we and the sender of `open` both carry `family`?
    pub(super) fn shares(&self, open: &Open, family: Family) -> bool {
        self.config.families.contains(&family)
            && open.carries(family)
            && (!self.needs_foreign_next_hops(family) || takes_ipv6_next_hops(open, family))
    }

    /// Would routes of `family` have nothing but next hops of the other family (RFC 8950)?
    pub(super) fn needs_foreign_next_hops(&self, family: Family) -> bool {
        family == Family::V4 && self.config.peer_addr.is_ipv6()
    }

    /// Returns what the peer said about restarts, if it covers a family of ours.
    pub(crate) fn graceful_restart(&self) -> Option<&GracefulRestart> {
        let restart = self.peer_open()?.graceful_restart()?;
        self.families().iter().any(|family| restart.covers(family)).then_some(restart)
    }

    /// Do both sides keep routes through a NOTIFICATION (RFC 8538)?
    pub(super) fn survives_notifications(&self) -> bool {
        self.graceful_restart().is_some_and(|restart| restart.is_notification_graceful)
    }

    /// Does the peer know the borders of a refresh (RFC 7313)?
    pub(crate) fn speaks_enhanced_refresh(&self) -> bool {
        self.has_capability(&Capability::EnhancedRouteRefresh)
    }

    /// Does the peer answer ROUTE-REFRESH (RFC 2918)?
    pub(crate) fn speaks_refresh(&self) -> bool {
        self.has_capability(&Capability::RouteRefresh)
    }

    fn has_capability(&self, capability: &Capability) -> bool {
        self.peer_open().is_some_and(|open| open.capabilities.contains(capability))
    }

    /// Returns how the peer of an open connection writes AS numbers.
    fn width(&self) -> AsnWidth {
        let is_wide = self.peer_open().is_none_or(|open| open.four_octet_asn().is_some());
        if is_wide { AsnWidth::Four } else { AsnWidth::Two }
    }

    /// Returns how the peer wants to be written to.
    pub(crate) fn form(&self) -> Form {
        let is_long = self.config.allows_extended_messages
            && self.has_capability(&Capability::ExtendedMessage);
        Form {
            width: self.width(),
            max_len: if is_long { MAX_EXTENDED_LEN } else { MAX_LEN },
            add_path: self.path_ids(self.config.add_path.sends, RECEIVES_PATHS),
        }
    }

    /// Returns how the peer writes to us.
    pub(super) fn context(&self) -> Context {
        Context {
            width: self.width(),
            is_internal: self.config.is_internal(),
            add_path: self.path_ids(self.config.add_path.receives, SENDS_PATHS),
            foreign_next_hops: self.foreign_next_hops(),
            is_on_link: zone::of(self.config.peer_addr).is_some(),
        }
    }

    /// Returns the families for which next hops of the other family are agreed on (RFC 8950).
    pub(crate) fn foreign_next_hops(&self) -> Families {
        self.families().iter().filter(|family| self.needs_foreign_next_hops(*family)).collect()
    }

    /// Returns the families for which paths have numbers in one direction: that in which we
    /// are `able`, and the peer in mode `wanted` (RFC 7911 §4).
    fn path_ids(&self, able: bool, wanted: u8) -> Families {
        let Some(open) = self.peer_open().filter(|_| able) else { return Families::NONE };
        let is_wanted = |family: &Family| {
            path_mode(open, *family).is_some_and(|mode| mode <= 3 && mode & wanted != 0)
        };
        self.families().iter().filter(is_wanted).collect()
    }
}

/// Returns the mode that `open` gives for `family`; of several the last counts.
fn path_mode(open: &Open, family: Family) -> Option<u8> {
    let listed = open.capabilities.iter().filter_map(|capability| {
        if let Capability::AddPath(families) = capability { Some(families) } else { None }
    });
    let of_family = |(listed, mode): &(AfiSafi, u8)| (*listed == family.into()).then_some(*mode);
    listed.flatten().filter_map(of_family).next_back()
}

/// Does the sender of `open` take IPv6 next hops for routes of `family` (RFC 8950 §4)?
fn takes_ipv6_next_hops(open: &Open, family: Family) -> bool {
    let entry = (AfiSafi::from(family), AfiSafi::from(Family::V6).afi);
    open.capabilities.iter().any(|capability| {
        matches!(capability, Capability::ExtendedNextHop(entries) if entries.contains(&entry))
    })
}

/// Returns the number of a role (RFC 9234 §4.1).
pub(super) const fn role_code(role: Role) -> u8 {
    match role {
        Role::Provider => 0,
        Role::RouteServer => 1,
        Role::RouteServerClient => 2,
        Role::Customer => 3,
        Role::Peer => 4,
    }
}

/// Returns what the other side of `role` must be (RFC 9234 §4.2).
const fn opposite(role: Role) -> Role {
    match role {
        Role::Provider => Role::Customer,
        Role::Customer => Role::Provider,
        Role::RouteServer => Role::RouteServerClient,
        Role::RouteServerClient => Role::RouteServer,
        Role::Peer => Role::Peer,
    }
}

/// Is what `open` says of the peer's role what ours wants? Saying nothing is.
pub(super) fn roles_match(ours: Role, open: &Open) -> bool {
    let wanted = Capability::Role(role_code(opposite(ours)));
    let is_role = |capability: &&Capability| matches!(capability, Capability::Role(_));
    open.capabilities.iter().filter(is_role).all(|role| *role == wanted)
}
