//! How long to wait before the start is tried again.

use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_millis(250);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(5);

/// How often a start that does not wait is repeated when other nodes write at the same time.
pub(crate) const REPEATS: u32 = 10;

/// Returns the pause after `failures` failed attempts, between half of its full length
/// and all of it, as `random` says, so that nodes which fail together come back apart.
pub(crate) fn pause(failures: u32, random: u8) -> Duration {
    let doubled = FIRST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(16)));
    let full = doubled.min(LONGEST);
    let half = full.checked_div(2).unwrap_or(full);
    let share = half.saturating_mul(random.into()).checked_div(255).unwrap_or_default();
    half.saturating_add(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_differ() {
        let millis = |failures, random| pause(failures, random).as_millis();
        assert_eq!([1, 2, 3].map(|failures| millis(failures, 255)), [250, 500, 1000]);
        assert_eq!((millis(40, 255), millis(u32::MAX, 255)), (5000, 5000));
        assert_eq!((millis(1, 0), millis(40, 0)), (125, 2500));
    }
}
