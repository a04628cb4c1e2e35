//! Hold Time: how long a BGP session survives silence (RFC 4271 §4.2, §6.2).

use std::time::Duration;

/// A Hold Time that may be put in an OPEN: zero, or 3 to 65 535 seconds.
///
/// Zero means the session never expires and sends no KEEPALIVE.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct HoldTime(u16);

/// A proposed Hold Time of one or two seconds.
///
/// The answer to the peer is NOTIFICATION 2/6, Unacceptable Hold Time.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("hold time of {secs} s is neither zero nor at least 3 s")]
pub struct UnacceptableHoldTime {
    /// What the peer proposed.
    pub secs: u16,
}

impl HoldTime {
    /// What Calico's BIRD proposes.
    pub const PROPOSED: Self = Self(240);

    /// Reads the Hold Time field of an OPEN, in seconds.
    ///
    /// # Errors
    ///
    /// [`UnacceptableHoldTime`] if `secs` is 1 or 2, which RFC 4271 §6.2
    /// says MUST be rejected.
    pub const fn from_secs(secs: u16) -> Result<Self, UnacceptableHoldTime> {
        match secs {
            1 | 2 => Err(UnacceptableHoldTime { secs }),
            _ => Ok(Self(secs)),
        }
    }

    /// Returns the seconds, as an OPEN carries them.
    #[must_use]
    pub const fn secs(self) -> u16 {
        self.0
    }

    /// Returns the value both sides use: the smaller proposal (§4.2).
    #[must_use]
    pub fn negotiate(self, peer: Self) -> Self {
        self.min(peer)
    }

    /// Returns how long to wait for a message, or `None` for ever.
    #[must_use]
    pub fn period(self) -> Option<Duration> {
        (self.0 != 0).then(|| Duration::from_secs(self.0.into()))
    }

    /// Returns the time between KEEPALIVEs: `wanted`, or a third of the Hold Time (§4.4),
    /// which is also the most that is safe.
    #[must_use]
    pub fn keepalive_interval(self, wanted: Option<Duration>) -> Option<Duration> {
        let third = self.period()?.checked_div(3)?;
        Some(wanted.map_or(third, |wanted| wanted.clamp(Duration::from_secs(1), third)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_only_one_and_two_seconds() {
        let rejected: Vec<u16> =
            (0..=u16::MAX).filter(|secs| HoldTime::from_secs(*secs).is_err()).collect();
        assert_eq!(rejected, [1, 2]);
    }

    #[test]
    fn keepalive_is_never_sent_more_than_once_a_second() {
        for secs in 3..=u16::MAX {
            let interval = HoldTime(secs).keepalive_interval(Some(Duration::ZERO)).unwrap();
            assert!(interval >= Duration::from_secs(1), "{secs}");
        }
    }

    #[test]
    fn zero_never_expires() {
        assert_eq!(HoldTime(0).period(), None);
        assert_eq!(HoldTime(0).keepalive_interval(Some(Duration::from_secs(5))), None);
    }

    #[test]
    fn a_keepalive_time_beyond_the_hold_time_is_cut() {
        let wanted = Some(Duration::from_secs(500));
        assert_eq!(HoldTime(90).keepalive_interval(wanted), Some(Duration::from_secs(30)));
    }
}
