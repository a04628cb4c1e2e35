//! Times and spans of time, as they stand in objects and as people read them.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::strtime;
use model::time::WallTime;

/// Reads the time of an allocation, which is in the form of Go's `time.Time.String`.
#[must_use]
pub fn of_go(text: &str) -> Option<WallTime> {
    let time = strtime::parse("%Y-%m-%d %H:%M:%S%.f %z UTC", text).ok()?.to_timestamp().ok()?;
    Some(WallTime(time.as_nanosecond()))
}

/// Reads a time as objects have it (RFC 3339).
#[must_use]
pub fn of_text(text: &str) -> Option<WallTime> {
    let time: Timestamp = text.parse().ok()?;
    Some(WallTime(time.as_nanosecond()))
}

/// Writes a time (RFC 3339), in whole seconds.
#[must_use]
pub fn text(time: WallTime) -> String {
    let seconds = time.0.div_euclid(1_000_000_000);
    let time = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    time.map_or_else(|| "beyond the calendar".to_owned(), |time| time.to_string())
}

/// Returns how long before `now` something was; zero if it was not before.
#[must_use]
pub fn age(since: WallTime, now: WallTime) -> Duration {
    let nanos = now.0.saturating_sub(since.0).max(0);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Returns the time that is `span` after `now`.
#[must_use]
pub fn after(now: WallTime, span: Duration) -> WallTime {
    WallTime(now.0.saturating_add(i128::try_from(span.as_nanos()).unwrap_or(i128::MAX)))
}

/// Writes a span with its two largest units: `3d4h`, `5m0s`, `12s`.
#[must_use]
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let part = |unit: u64, of: u64| {
        seconds.checked_div(unit).unwrap_or_default().checked_rem(of).unwrap_or_default()
    };
    let (days, hours) = (part(86_400, u64::MAX), part(3_600, 24));
    let (minutes, seconds) = (part(60, 60), part(1, 60));
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{seconds}s"),
        (0, ..) => format!("{hours}h{minutes}m"),
        (1..=999, ..) => format!("{days}d{hours}h"),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_allocations_are_read() {
        for (written, read) in [
            ("2026-06-24 11:32:35.123456789 +0000 UTC", "2026-06-24T11:32:35Z"),
            ("2026-06-24 11:32:35.5 +0000 UTC", "2026-06-24T11:32:35Z"),
            ("2026-06-24 11:32:35 +0000 UTC", "2026-06-24T11:32:35Z"),
        ] {
            assert_eq!(of_go(written).map(text).as_deref(), Some(read), "{written}");
        }
        for wrong in ["", "2026-06-24", "2026-06-24T11:32:35Z"] {
            assert_eq!(of_go(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn spans_are_short() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (300, "5m0s"),
            (3_660, "1h1m"),
            (90_000, "1d1h"),
            (86_400_000, "1000d"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }
}
