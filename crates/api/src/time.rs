//! Times in objects (RFC 3339).

use jiff::Timestamp;
use model::time::WallTime;

/// What a time must look like.
pub(crate) const EXPECTED: &str = "use a time such as 2026-06-24T11:32:35Z";

/// Reads a time; `None` if it is none.
pub(crate) fn from_text(text: &str) -> Option<WallTime> {
    let time: Timestamp = text.parse().ok()?;
    Some(WallTime(time.as_nanosecond()))
}

/// Writes a time; what lies outside the years that can be written is the epoch.
pub(crate) fn to_text(time: WallTime) -> String {
    Timestamp::from_nanosecond(time.0).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}
