//! Events that the daemon has not taken yet, merged so that there are never more
//! than destinations and sessions.

use std::collections::BTreeMap;

use ::bgp::rib::Gateways;
use model::net::Cidr;

use super::Event;

/// Fewer entries than this are not worth a look.
const SMALL: usize = 1024;

/// What is still to be told.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// What was said of routes, in order; a destination may be named more than once.
    routes: Vec<(Cidr, Gateways)>,
    /// At how many entries repetitions are removed: that keeps what is stored below twice what
    /// there is to tell.
    thin_at: usize,
    sessions: BTreeMap<String, Event>,
    has_converged: bool,
}

impl Pending {
    /// Adds routes; the last word about a destination counts.
    pub(super) fn add_routes(&mut self, routes: Vec<(Cidr, Gateways)>) {
        self.routes.extend(routes);
        if self.routes.len() >= self.thin_at.max(SMALL) {
            self.thin();
            self.thin_at = self.routes.len().saturating_mul(2);
        }
    }

    /// Keeps the last word about each destination, in the order of destinations.
    fn thin(&mut self) {
        // Mostly they come in order, and then this costs one look at each.
        self.routes.sort_by_key(|(cidr, _)| *cidr);
        self.routes.dedup_by(|later, kept| {
            let is_same = later.0 == kept.0;
            if is_same {
                std::mem::swap(later, kept);
            }
            is_same
        });
    }

    /// Adds a session's state; the last one counts.
    pub(super) fn add_session(&mut self, name: String, event: Event) {
        self.sessions.insert(name, event);
    }

    /// Adds that the initial exchange is over.
    pub(super) fn add_converged(&mut self) {
        self.has_converged = true;
    }

    /// Is there nothing to tell?
    pub(super) fn is_empty(&self) -> bool {
        self.routes.is_empty() && self.sessions.is_empty() && !self.has_converged
    }

    /// Takes the next event: routes first, since `Converged` speaks about them.
    pub(super) fn take(&mut self) -> Option<Event> {
        if !self.routes.is_empty() {
            self.thin();
            self.thin_at = 0;
            return Some(Event::RoutesChanged(std::mem::take(&mut self.routes)));
        }
        if let Some((_, event)) = self.sessions.pop_first() {
            return Some(event);
        }
        std::mem::take(&mut self.has_converged).then_some(Event::Converged)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::IpAddr;

    use ::bgp::rib::GatewaySet;

    use super::*;

    fn by(gateway: IpAddr) -> Gateways {
        GatewaySet { addrs: BTreeSet::from([gateway]), metric: 1024 }.into()
    }

    #[test]
    fn what_is_told_again_and_again_does_not_pile_up() {
        let mut pending = Pending::default();
        let gateway = |last: u8| by(IpAddr::from([192, 0, 2, last]));
        let cidr = |last: u8| Cidr::host([10, 0, 0, last].into());
        for round in 0..100 {
            pending.add_routes((0..200).rev().map(|last| (cidr(last), gateway(round))).collect());
            assert!(pending.routes.len() < 2 * SMALL);
        }
        let told = (0..200).map(|last| (cidr(last), gateway(99))).collect();
        assert_eq!(pending.take(), Some(Event::RoutesChanged(told)));
    }

    #[test]
    fn the_last_word_counts_and_routes_come_before_converged() {
        let cidr: Cidr = "10.0.0.0/26".parse().unwrap();
        let gateway: IpAddr = "192.0.2.1".parse().unwrap();
        let mut pending = Pending::default();
        pending.add_converged();
        pending.add_routes(vec![(cidr, Gateways::default())]);
        pending.add_routes(vec![(cidr, by(gateway))]);
        let routes = Event::RoutesChanged(vec![(cidr, by(gateway))]);
        assert_eq!(pending.take(), Some(routes));
        assert_eq!(pending.take(), Some(Event::Converged));
        assert_eq!(pending.take(), None);
        assert!(pending.is_empty());
    }
}
