//! Encryption: what it should be, and whether that is news.

use std::collections::BTreeMap;

use calc::{Cluster, Problem};
use model::net::Family;

use crate::felix::wireguard::{OfFamily, Place, Wanted};

/// What the engine knows of WireGuard.
#[derive(Debug, Default)]
pub(super) struct Wireguard {
    places: BTreeMap<Family, Place>,
    wanted: Wanted,
    problems: Vec<Problem>,
    is_news: bool,
}

impl Wireguard {
    /// Takes what is ours, and returns whether that is news.
    pub(super) fn places(&mut self, places: BTreeMap<Family, Place>) -> bool {
        let is_new = self.places != places;
        self.places = places;
        is_new
    }

    /// Calculates anew what should be.
    ///
    /// Without our own Node nothing is known of what should be, and what there is stays.
    pub(super) fn recalculate(&mut self, cluster: &Cluster) {
        if !cluster.nodes.contains_key(&cluster.this_node) {
            return;
        }
        let (mut devices, problems) = cluster.wireguard();
        self.problems = problems;
        let families = self.places.iter().map(|(family, place)| {
            let device = devices.remove(family);
            let published = cluster.published_wireguard_key(*family);
            (*family, OfFamily { place: place.clone(), device, published })
        });
        let wanted = Wanted { families: families.collect() };
        self.is_news |= self.wanted != wanted;
        self.wanted = wanted;
    }

    /// Returns what should be, if nobody has been told yet.
    pub(super) fn news(&mut self) -> Option<Wanted> {
        std::mem::take(&mut self.is_news).then(|| self.wanted.clone())
    }

    /// Returns what of the datastore could not be followed.
    pub(super) fn problems(&self) -> &[Problem] {
        &self.problems
    }
}
