//! A new claim without looking at all blocks first.
//!
//! Who claims what is much less to read than what is in every block of a cluster, and
//! nearly always tells which place is free. If it does not, the search looks at everything.

use super::Assignment;
use super::place::{Place, Purpose};
use crate::machine::Op;
use crate::{Ranges, ranges};

/// How far the choice is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Guess {
    /// Nobody else's claims are known.
    #[default]
    NotTried,
    /// All claims are.
    ClaimsKnown,
    /// There was none, or it was not right.
    Tried,
}

impl Assignment {
    /// Chooses a block for a new claim by who claims what; `None` if that is not possible,
    /// or was not right.
    ///
    /// Everything is listed before the block is created, as for every claim.
    pub(super) fn guess(&mut self) -> Option<Place> {
        // Own blocks may have to be given up, which needs a look at them.
        let has_unwanted = self.own_claims().any(|claim| self.is_unwanted(claim));
        if self.survey.guess == Guess::Tried || has_unwanted || self.limit().is_some() {
            return None;
        }
        if self.survey.guess == Guess::NotTried {
            self.survey.under_way = Some(Purpose::Guess);
            return Some(Place::Do(vec![Op::ListAffinities]));
        }
        self.survey.guess = Guess::Tried;
        let taken = self.view.affinities().map(|claim| claim.cidr);
        let taken = Ranges::of(taken, self.request.family);
        let gap =
            self.scene.pools.iter().find_map(|pool| {
                ranges::first_gap(pool, &taken, &self.reserved, self.seed_in(pool))
            });
        Some(Place::Do(vec![self.claim_of(gap?)]))
    }
}
