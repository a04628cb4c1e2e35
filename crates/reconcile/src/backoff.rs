//! How long to wait after failures: twice as long after each, up to a limit.

use std::time::Duration;

/// The waits after the first, the second and each further failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Backoff {
    /// The wait after the first failure.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
}

impl Backoff {
    /// What suits a kernel table: the cause is often gone within a second, and a
    /// refusal that stays should not fill the log.
    pub const KERNEL: Self =
        Self { first: Duration::from_millis(100), longest: Duration::from_secs(30) };

    /// Returns the wait after the failure that follows a wait of `last`.
    #[must_use]
    pub fn after(&self, last: Option<Duration>) -> Duration {
        last.map_or(self.first, |last| last.saturating_mul(2)).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut waits = Vec::new();
        for _ in 0..11 {
            waits.push(Backoff::KERNEL.after(waits.last().copied()));
        }
        let millis: Vec<u128> = waits.iter().map(Duration::as_millis).collect();
        assert_eq!(millis, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
    }
}
