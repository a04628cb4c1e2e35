//! What many measurements of the same thing come to.

use std::time::Duration;

use serde::Serialize;

/// A summary of many durations, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// How many there were.
    pub(crate) count: usize,
    /// Half of them were no longer.
    pub(crate) p50_ms: f64,
    /// 99 of 100 were no longer.
    pub(crate) p99_ms: f64,
    /// The longest.
    pub(crate) max_ms: f64,
}

impl Summary {
    /// Summarises `durations`, in any order; all zero if there are none.
    #[must_use]
    pub(crate) fn of(durations: &[Duration]) -> Self {
        let mut sorted = durations.to_vec();
        sorted.sort_unstable();
        Self {
            count: sorted.len(),
            p50_ms: millis(percentile(&sorted, 50)),
            p99_ms: millis(percentile(&sorted, 99)),
            max_ms: millis(percentile(&sorted, 100)),
        }
    }
}

/// Returns the smallest of `sorted` that `percent` of them do not exceed (nearest rank).
#[must_use]
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = sorted.len().saturating_mul(percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Returns milliseconds, to a thousandth.
#[must_use]
pub(crate) fn millis(duration: Duration) -> f64 {
    rounded(duration.as_secs_f64() * 1000.0)
}

/// Returns how many happen in a second if `count` took `duration`; zero if there was no time.
#[must_use]
pub(crate) fn per_second(count: usize, duration: Duration) -> f64 {
    let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    ratio(count, duration.as_secs_f64())
}

/// Returns `a` in units of `b`, to a thousandth; zero if there is no `b`.
#[must_use]
pub(crate) fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { rounded(a / b) } else { 0.0 }
}

/// Returns `number` to a thousandth, which is more than any clock here is worth.
#[must_use]
pub(crate) fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(numbers: &[u64]) -> Vec<Duration> {
        numbers.iter().copied().map(Duration::from_millis).collect()
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred: Vec<u64> = (1..=100).collect();
        let sorted = ms(&hundred);
        for (percent, expected) in [(0, 1), (1, 1), (50, 50), (99, 99), (100, 100)] {
            assert_eq!(percentile(&sorted, percent), Duration::from_millis(expected), "{percent}");
        }
        assert_eq!(percentile(&ms(&[1, 2, 3]), 50), Duration::from_millis(2));
        assert_eq!(percentile(&ms(&[7]), 99), Duration::from_millis(7));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }

    #[test]
    fn the_order_of_measurements_does_not_count() {
        let summary = Summary { count: 4, p50_ms: 2.0, p99_ms: 9.0, max_ms: 9.0 };
        assert_eq!(Summary::of(&ms(&[9, 1, 3, 2])), summary);
        assert_eq!(Summary::of(&[]), Summary::default());
    }

    #[test]
    fn nothing_is_divided_by_zero() {
        assert!(per_second(5, Duration::ZERO).abs() < f64::EPSILON);
        assert!((per_second(5, Duration::from_millis(50)) - 100.0).abs() < f64::EPSILON);
        assert!((ratio(3.0, 2.0) - 1.5).abs() < f64::EPSILON);
    }
}
