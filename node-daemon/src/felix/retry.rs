//! When to try again what the kernel refused.

use std::collections::BTreeMap;
use std::time::Duration;

use model::net::Cidr;
use model::time::Timestamp;

/// The wait after the first failure; it doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The destinations that failed, and when each is due again.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    failures: BTreeMap<Cidr, Failure>,
}

#[derive(Clone, Copy, Debug)]
struct Failure {
    wait: Duration,
    due: Timestamp,
}

impl Retries {
    /// Takes note of how an attempt went.
    pub(crate) fn note(&mut self, dst: Cidr, is_ok: bool, now: Timestamp) {
        if is_ok {
            self.failures.remove(&dst);
            return;
        }
        let last = self.failures.get(&dst).map(|failure| failure.wait);
        let wait = last.map_or(FIRST_WAIT, |wait| wait.saturating_mul(2).min(LONGEST_WAIT));
        self.failures.insert(dst, Failure { wait, due: now + wait });
    }

    /// May `dst` be tried now?
    pub(crate) fn is_due(&self, dst: Cidr, now: Timestamp) -> bool {
        self.failures.get(&dst).is_none_or(|failure| failure.due <= now)
    }

    /// Forgets the destinations that nothing is wanted of any more.
    pub(crate) fn keep_only(&mut self, is_wanted: impl Fn(&Cidr) -> bool) {
        self.failures.retain(|dst, _| is_wanted(dst));
    }

    /// Returns when the next one is due.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.failures.values().map(|failure| failure.due).min()
    }

    /// Returns how many are failing.
    pub(crate) fn len(&self) -> usize {
        self.failures.len()
    }
}
