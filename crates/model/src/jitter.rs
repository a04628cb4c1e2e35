//! Jitter of timers (RFC 4271 §10, RFC 5880 §6.8.7) from a seed, so that runs can be repeated.

use std::time::Duration;

/// A small generator of numbers that look random (xorshift64*).
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// Starts from `seed`; any seed will do.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15 | 1)
    }

    /// Returns between three quarters and all of `base`.
    #[must_use]
    pub fn shorten(&mut self, base: Duration) -> Duration {
        let quarter = base.checked_div(4).unwrap_or_default();
        base.saturating_sub(self.up_to(quarter))
    }

    /// Returns between nothing and all of `limit`.
    #[must_use]
    pub fn up_to(&mut self, limit: Duration) -> Duration {
        let permille = u32::try_from(self.next() % 1001).unwrap_or(0);
        limit.checked_div(1000).unwrap_or_default().saturating_mul(permille)
    }

    fn next(&mut self) -> u64 {
        let mut bits = self.0;
        bits ^= bits >> 12;
        bits ^= bits << 25;
        bits ^= bits >> 27;
        self.0 = bits;
        bits.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortened_times_stay_within_a_quarter() {
        let mut jitter = Jitter::new(7);
        let base = Duration::from_secs(8);
        for _ in 0..1000 {
            let time = jitter.shorten(base);
            assert!(time >= Duration::from_secs(6) && time <= base, "{time:?}");
        }
    }
}
