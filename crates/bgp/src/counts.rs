//! What a session counts for those who watch it.

use crate::wire::{self, Kind};

/// How many messages have gone one way, by type, over all connections of a session.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct MessageCounts {
    /// OPEN.
    pub open: u64,
    /// UPDATE.
    pub update: u64,
    /// NOTIFICATION.
    pub notification: u64,
    /// KEEPALIVE.
    pub keepalive: u64,
    /// ROUTE-REFRESH.
    pub route_refresh: u64,
}

/// What became of the routes that a peer has told, over all connections of a session.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RouteCounts {
    /// Announced by the peer.
    pub announced: u64,
    /// Of these, not taken: by a filter, for a loop, for a next hop that leads nowhere.
    pub rejected: u64,
    /// Withdrawn by the peer.
    pub withdrawn: u64,
}

impl MessageCounts {
    /// Returns the numbers with the names of the types, as RFC 4271 §4.1 and RFC 2918 have them.
    #[must_use]
    pub const fn by_type(&self) -> [(&'static str, u64); 5] {
        [
            ("OPEN", self.open),
            ("UPDATE", self.update),
            ("NOTIFICATION", self.notification),
            ("KEEPALIVE", self.keepalive),
            ("ROUTE-REFRESH", self.route_refresh),
        ]
    }

    /// Returns how many there are of all types.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_type().iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    pub(crate) const fn add(&mut self, kind: Kind) {
        let count = match kind {
            Kind::Open => &mut self.open,
            Kind::Update => &mut self.update,
            Kind::Notification => &mut self.notification,
            Kind::Keepalive => &mut self.keepalive,
            Kind::RouteRefresh => &mut self.route_refresh,
        };
        *count = count.saturating_add(1);
    }

    /// Counts the whole messages that `bytes` are.
    pub(crate) fn add_all(&mut self, mut bytes: &[u8]) {
        while let Ok(Some((frame, rest))) = wire::split_frame(bytes, wire::MAX_EXTENDED_LEN) {
            self.add(frame.kind);
            bytes = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use model::net::Family;

    use super::*;

    #[test]
    fn messages_are_counted_where_they_are_joined() {
        let end = wire::encode_end_of_rib(Family::V4);
        let bytes = [wire::encode_keepalive(), end.clone(), end].concat();
        let mut counts = MessageCounts::default();
        counts.add_all(&bytes);
        assert_eq!(counts, MessageCounts { update: 2, keepalive: 1, ..MessageCounts::default() });
        assert_eq!(counts.total(), 3);
    }
}
