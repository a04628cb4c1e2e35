//! Texts for people: ages as `duration.HumanDuration` of apimachinery writes them.

use jiff::Timestamp;
use serde_json::Value;

/// Writes how long ago a time was; `<unknown>` if it is none.
pub(super) fn age(time: Option<&Value>, now: Timestamp) -> String {
    match time.and_then(Value::as_str).map(str::parse::<Timestamp>) {
        Some(Ok(time)) => duration(now.as_second().saturating_sub(time.as_second())),
        Some(Err(_)) => "<invalid>".to_owned(),
        None => "<unknown>".to_owned(),
    }
}

/// Writes seconds with two units at most.
pub(super) fn duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / (24 * 365));
    let two = |big: i64, unit, small: i64, sub| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{sub}"),
    };
    match () {
        () if seconds < -1 => "<invalid>".to_owned(),
        () if seconds < 0 => "0s".to_owned(),
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 24 * 8 => two(days, 'd', hours % 24, 'h'),
        () if years < 2 => format!("{days}d"),
        () if years < 8 => two(years, 'y', days % 365, 'd'),
        () => format!("{years}y"),
    }
}

/// Writes the first few and how many more there are.
pub(super) fn first(all: &[String], most: usize) -> String {
    let shown = all.get(..most.min(all.len())).unwrap_or_default().join(",");
    match all.len().saturating_sub(most) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_ages_as_kubectl_users_know_them() {
        const H: i64 = 3600;
        const D: i64 = 24 * H;
        let cases = [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (3 * H - 1, "179m"),
            (3 * H, "3h"),
            (3 * H + 60, "3h1m"),
            (8 * H, "8h"),
            (2 * D, "2d"),
            (2 * D + H, "2d1h"),
            (8 * D, "8d"),
            (729 * D, "729d"),
            (730 * D, "2y"),
            (731 * D, "2y1d"),
            (8 * 365 * D, "8y"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(duration(seconds), expected, "{seconds}");
        }
    }
}
