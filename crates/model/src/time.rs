//! Time as a value: decisions are told what time it is, they never look.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on a clock that never goes back, for timers and grace periods.
///
/// Its origin is arbitrary (usually the start of the program), so it means
/// nothing outside the process.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(Duration);

impl Timestamp {
    /// The origin.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// Makes the point that lies `since_origin` after the origin.
    #[must_use]
    pub const fn from_origin(since_origin: Duration) -> Self {
        Self(since_origin)
    }

    /// Returns the time since the origin.
    #[must_use]
    pub const fn since_origin(self) -> Duration {
        self.0
    }

    /// Returns how long before `later` this is; zero if it is not before.
    #[must_use]
    pub const fn until(self, later: Self) -> Duration {
        later.0.saturating_sub(self.0)
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(rhs))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(rhs))
    }
}

/// A point in civil time, in nanoseconds since 1970-01-01 00:00 UTC.
///
/// Only for what is written into objects that others read; it may jump.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct WallTime(pub i128);

impl WallTime {
    /// Returns the nanoseconds since 1970 as a block's first sequence number wants them;
    /// zero before 1970 and `u64::MAX` after 2554.
    #[must_use]
    pub fn as_unsigned_nanos(self) -> u64 {
        u64::try_from(self.0.max(0)).unwrap_or(u64::MAX)
    }
}
