//! Times (RFC 3339) and durations (as Go writes them) in objects.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use model::time::WallTime;

use crate::invalid::Fault;

/// What a time must look like.
pub(crate) const EXPECTED: &str = "not a time: use a form such as 2026-06-24T11:32:35Z";

/// Reads a time; `None` if it is none.
pub(crate) fn from_text(text: &str) -> Option<WallTime> {
    let time: Timestamp = text.parse().ok()?;
    Some(WallTime(time.as_nanosecond()))
}

/// Writes a time; what lies outside the years that can be written is the epoch.
pub(crate) fn to_text(time: WallTime) -> String {
    Timestamp::from_nanosecond(time.0).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

/// Writes a time as Go's `time.Time.String` does in UTC, which is how Calico notes it with an address.
///
/// The fraction has no trailing zeros and is absent if it is zero.
#[must_use]
pub fn go_time(time: WallTime) -> String {
    let time = Timestamp::from_nanosecond(time.0).unwrap_or(Timestamp::UNIX_EPOCH);
    let utc = time.to_zoned(TimeZone::UTC);
    let fraction = format!("{:09}", utc.subsec_nanosecond());
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    format!("{}{dot}{fraction} +0000 UTC", utc.strftime("%Y-%m-%d %H:%M:%S"))
}

/// The units of durations; the longer of two that start alike comes first.
const UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
];

/// Reads a duration such as `1m30s` or `1.5h`; `None` if it is none.
#[must_use]
pub fn span(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = 0_u64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at_checked(end)?;
        let (unit, nanos) = UNITS.iter().find(|(unit, _)| behind.starts_with(unit))?;
        total = total.checked_add(nanoseconds(number, *nanos)?)?;
        rest = behind.strip_prefix(unit)?;
    }
    (!text.is_empty()).then(|| Duration::from_nanos(total))
}

/// Returns a decimal number of units of `nanos` nanoseconds.
fn nanoseconds(number: &str, nanos: u64) -> Option<u64> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && part.is_empty() || part.len() > 9 {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let digits: u64 = if part.is_empty() { 0 } else { part.parse().ok()? };
    let scale = 10_u64.checked_pow(u32::try_from(part.len()).ok()?)?;
    let part = u128::from(digits).checked_mul(nanos.into())?.checked_div(scale.into())?;
    whole.checked_mul(nanos)?.checked_add(u64::try_from(part).ok()?)
}

/// Reads the duration of a field; absent and empty text is none.
pub(crate) fn duration(field: &str, text: Option<&str>) -> Result<Option<Duration>, Fault> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let wrong = || Fault::new(field, text, "not a duration: use a form such as 90s or 1m30s");
    span(text).map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_what_go_writes() {
        let seconds = Duration::from_secs;
        for (text, length) in [
            ("0", seconds(0)),
            ("0s", seconds(0)),
            ("90s", seconds(90)),
            ("1m30s", seconds(90)),
            ("1h0m0s", seconds(3600)),
            ("1.5h", seconds(5400)),
            ("300ms", Duration::from_millis(300)),
            (".5s", Duration::from_millis(500)),
            ("10us", Duration::from_micros(10)),
        ] {
            assert_eq!(span(text), Some(length), "{text}");
        }
        for wrong in ["", "90", "s", "-1s", "1d", "1 s", ".s", "99999999999999h", "1s2"] {
            assert_eq!(span(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn times_are_written_as_go_writes_them() {
        for (nanos, text) in [
            (1_782_300_755_123_456_789, "2026-06-24 11:32:35.123456789 +0000 UTC"),
            (1_782_300_755_120_000_000, "2026-06-24 11:32:35.12 +0000 UTC"),
            (1_782_300_755_000_000_001, "2026-06-24 11:32:35.000000001 +0000 UTC"),
            (1_782_300_755_000_000_000, "2026-06-24 11:32:35 +0000 UTC"),
            (0, "1970-01-01 00:00:00 +0000 UTC"),
        ] {
            assert_eq!(go_time(WallTime(nanos)), text);
        }
    }

    #[test]
    fn times_keep_their_nanoseconds() {
        for text in ["2026-06-24T11:32:35Z", "2026-06-24T11:32:35.123456789Z"] {
            assert_eq!(to_text(from_text(text).unwrap()), text);
        }
    }
}
