//! Suspicions, and when they have lasted long enough to act upon.

use std::collections::BTreeMap;
use std::time::Duration;

use ipam::audit::{Confidence, Finding, Problem};
use model::time::Timestamp;

/// What was found wrong, and since when.
///
/// A look at the cluster is never of one moment: a pod may have got its address between two
/// lists. So a problem counts only when it was seen at two looks with the grace period between
/// them, and at every look in between. Certain problems, such as those of a node that is gone,
/// count at once.
#[derive(Clone, Debug, Default)]
pub struct Watchlist {
    suspicions: BTreeMap<Problem, Timestamp>,
}

impl Watchlist {
    /// Takes note of what a look found and returns what to act upon.
    #[must_use]
    pub fn observe(
        &mut self,
        findings: &[Finding],
        grace: Duration,
        now: Timestamp,
    ) -> Vec<Finding> {
        let mut suspicions = BTreeMap::new();
        let mut due = Vec::new();
        for finding in findings {
            let seen = self.suspicions.get(&finding.problem).copied();
            suspicions.insert(finding.problem.clone(), seen.unwrap_or(now));
            let has_lasted = seen.is_some_and(|seen| seen.until(now) >= grace);
            let is_due = match finding.confidence {
                Confidence::Certain => true,
                Confidence::Likely => has_lasted,
                Confidence::Possible => false,
            };
            if is_due {
                due.push(finding.clone());
            }
        }
        self.suspicions = suspicions;
        due
    }

    /// Forgets every suspicion: a look failed, so nothing was seen without interruption.
    pub fn forget(&mut self) {
        self.suspicions.clear();
    }
}

#[cfg(test)]
mod tests {
    use model::id::HandleId;

    use super::*;

    const GRACE: Duration = Duration::from_secs(900);

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_origin(Duration::from_secs(secs))
    }

    fn orphan(confidence: Confidence) -> Finding {
        Finding {
            problem: Problem::OrphanHandle(HandleId("a".to_owned())),
            evidence: Vec::new(),
            since: None,
            confidence,
        }
    }

    #[test]
    fn a_likely_problem_is_due_at_the_second_look_after_the_grace_period() {
        let mut list = Watchlist::default();
        let found = [orphan(Confidence::Likely)];
        assert_eq!(list.observe(&found, GRACE, at(0)), []);
        assert_eq!(list.observe(&found, GRACE, at(899)), []);
        assert_eq!(list.observe(&found, GRACE, at(900)), found);
    }

    #[test]
    fn a_problem_that_was_away_begins_anew() {
        let mut list = Watchlist::default();
        let found = [orphan(Confidence::Likely)];
        assert_eq!(list.observe(&found, GRACE, at(0)), []);
        assert_eq!(list.observe(&[], GRACE, at(450)), []);
        assert_eq!(list.observe(&found, GRACE, at(900)), []);
        list.forget();
        assert_eq!(list.observe(&found, GRACE, at(1800)), []);
    }

    #[test]
    fn a_certain_problem_is_due_at_once_and_a_possible_one_never() {
        let mut list = Watchlist::default();
        let certain = [orphan(Confidence::Certain)];
        assert_eq!(list.observe(&certain, GRACE, at(0)), certain);
        let possible = [orphan(Confidence::Possible)];
        assert_eq!(list.observe(&possible, GRACE, at(5000)), []);
    }

    #[test]
    fn without_a_grace_period_two_looks_are_needed_all_the_same() {
        let mut list = Watchlist::default();
        let found = [orphan(Confidence::Likely)];
        assert_eq!(list.observe(&found, Duration::ZERO, at(0)), []);
        assert_eq!(list.observe(&found, Duration::ZERO, at(0)), found);
    }
}
