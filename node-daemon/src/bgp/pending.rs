//! Events that the daemon has not taken yet, merged so that there are never more
//! than destinations and sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ::bgp::rib::Gateways;
use model::net::Cidr;

use super::Event;

/// What is still to be told.
#[derive(Debug, Default)]
pub(super) struct Pending {
    routes: BTreeMap<Cidr, Gateways>,
    sessions: BTreeMap<String, Event>,
    has_converged: bool,
}

impl Pending {
    /// Adds routes; the last word about a destination counts.
    pub(super) fn add_routes(&mut self, routes: Vec<(Cidr, Gateways)>) {
        self.routes.extend(routes);
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
            let routes = std::mem::take(&mut self.routes).into_iter();
            let wanted = |gateways: Gateways| -> Option<BTreeSet<IpAddr>> {
                (!gateways.is_empty()).then(|| (*gateways).clone())
            };
            let routes = routes.map(|(cidr, gateways)| (cidr, wanted(gateways)));
            return Some(Event::RoutesChanged(routes.collect()));
        }
        if let Some((_, event)) = self.sessions.pop_first() {
            return Some(event);
        }
        std::mem::take(&mut self.has_converged).then_some(Event::Converged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts_and_routes_come_before_converged() {
        let cidr: Cidr = "10.0.0.0/26".parse().unwrap();
        let gateway: IpAddr = "192.0.2.1".parse().unwrap();
        let mut pending = Pending::default();
        pending.add_converged();
        pending.add_routes(vec![(cidr, Gateways::default())]);
        pending.add_routes(vec![(cidr, BTreeSet::from([gateway]).into())]);
        let routes = Event::RoutesChanged(vec![(cidr, Some(BTreeSet::from([gateway])))]);
        assert_eq!(pending.take(), Some(routes));
        assert_eq!(pending.take(), Some(Event::Converged));
        assert_eq!(pending.take(), None);
        assert!(pending.is_empty());
    }
}
