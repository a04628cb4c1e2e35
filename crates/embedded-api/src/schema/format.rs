//! The formats of strings that CRDs can ask for: `strfmt` of kube-openapi.
//!
//! `bsonobjectid`, `creditcard`, `isbn`, `isbn10`, `isbn13`, `rgbcolor` and `ssn` are known and
//! not checked. `email` and `uri` are checked for their shape only.

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Returns the format's normal name if the API server knows it; others it ignores.
pub(super) fn normalize(format: &str) -> Option<String> {
    const KNOWN: &[&str] = &[
        "bsonobjectid",
        "byte",
        "cidr",
        "creditcard",
        "date",
        "datetime",
        "duration",
        "email",
        "hexcolor",
        "hostname",
        "ipv4",
        "ipv6",
        "isbn",
        "isbn10",
        "isbn13",
        "mac",
        "password",
        "rgbcolor",
        "ssn",
        "uri",
        "uuid",
        "uuid3",
        "uuid4",
        "uuid5",
    ];
    let normal = format.replace('-', "");
    KNOWN.contains(&normal.as_str()).then(|| format.to_owned())
}

/// Returns whether a text has a format that [`normalize`] knows.
pub(super) fn matches(format: &str, text: &str) -> bool {
    match format.replace('-', "").as_str() {
        "byte" => !text.is_empty() && STANDARD.decode(text).is_ok(),
        "cidr" => is_cidr(text),
        "date" => is_date(text),
        "datetime" => is_date_time(text),
        "duration" => is_duration(text),
        "email" => {
            text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty())
        }
        "hexcolor" => {
            let digits = text.strip_prefix('#').unwrap_or(text);
            matches!(digits.len(), 3 | 6) && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        }
        "hostname" => is_hostname(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "mac" => is_mac(text),
        "uri" => text.starts_with('/') || text.contains("://"),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some(b'3')),
        "uuid4" => is_uuid(text, Some(b'4')),
        "uuid5" => is_uuid(text, Some(b'5')),
        _ => true,
    }
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let bits = match (address.parse::<Ipv4Addr>(), address.parse::<Ipv6Addr>()) {
        (Ok(_), _) => 32,
        (_, Ok(_)) => 128,
        _ => return false,
    };
    let is_number = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    is_number && length.parse::<u8>().is_ok_and(|length| length <= bits)
}

/// `full-date` of RFC 3339 §5.6.
fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

/// `date-time` of RFC 3339 §5.6, without leap seconds.
fn is_date_time(text: &str) -> bool {
    let lower = text.to_lowercase();
    let Some((date, time)) = lower.split_once('t') else { return false };
    let Some((clock, rest)) = time.split_at_checked(8) else { return false };
    let mut parts = clock.split(':');
    let below = |part: Option<&str>, limit: u8| {
        part.is_some_and(|part| part.len() == 2 && part.parse().is_ok_and(|n: u8| n < limit))
    };
    let is_clock = below(parts.next(), 24) && below(parts.next(), 60) && below(parts.next(), 60);
    let digits =
        rest.strip_prefix('.').map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    let has_fraction = rest.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
    let zone = match digits {
        Some(zone) if has_fraction => zone,
        Some(_) => return false,
        None => rest,
    };
    is_date(date) && is_clock && is_zone(zone)
}

fn is_zone(text: &str) -> bool {
    let offset = text.strip_prefix(['+', '-']);
    let is_offset = |offset: &str| {
        let digit =
            |(at, byte): (usize, u8)| if at == 2 { byte == b':' } else { byte.is_ascii_digit() };
        offset.len() == 5 && offset.bytes().enumerate().all(digit)
    };
    text == "z" || offset.is_some_and(is_offset)
}

/// A duration of Go: `1h2.5m`, or of Scala: `3 days`.
fn is_duration(text: &str) -> bool {
    const UNITS: &[&str] = &[
        "ns", "us", "µs", "μs", "ms", "s", "m", "h", "d", "w", "day", "days", "hour", "hours",
        "minute", "minutes", "second", "seconds", "week", "weeks",
    ];
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text).trim();
    if rest == "0" {
        return true;
    }
    let mut count = 0_u32;
    while !rest.is_empty() {
        let unit_on = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        if unit_on.len() == rest.len() {
            return false;
        }
        let unit_on = unit_on.trim_start();
        let after = unit_on.trim_start_matches(char::is_alphabetic);
        let unit = unit_on.strip_suffix(after).unwrap_or(unit_on);
        if !UNITS.contains(&unit) {
            return false;
        }
        count = count.saturating_add(1);
        rest = after;
    }
    count > 0
}

fn is_hostname(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_outer = |c: char| c.is_alphanumeric();
        label.len() <= 63
            && label.starts_with(is_outer)
            && label.ends_with(is_outer)
            && label.chars().all(|c| c == '-' || is_outer(c))
    };
    text.len() <= 255 && text.split('.').all(is_label)
}

/// As Go's `net.ParseMAC`: 6, 8 or 20 bytes.
fn is_mac(text: &str) -> bool {
    let groups = |separator: char, digits: usize| {
        let groups: Vec<_> = text.split(separator).collect();
        let is_hex = |group: &&str| {
            group.len() == digits && group.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        groups.iter().all(is_hex).then_some(groups.len())
    };
    let bytes = groups(':', 2).or_else(|| groups('-', 2));
    let words = groups('.', 4);
    matches!(bytes, Some(6 | 8 | 20)) || matches!(words, Some(3 | 4 | 10))
}

fn is_uuid(text: &str, version: Option<u8>) -> bool {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    // Each of the hyphens may be left out; the others stay between their groups.
    let hyphens = text.bytes().enumerate().filter(|(_, byte)| *byte == b'-');
    let places = hyphens.enumerate().map(|(index, (at, _))| at.saturating_sub(index));
    let places: Vec<usize> = places.collect();
    let is_ordered = places.is_sorted_by(|left, right| left < right);
    let places_are_right = is_ordered && places.iter().all(|at| [8, 12, 16, 20].contains(at));
    let is_version = version.is_none_or(|version| digits.get(12) == Some(&version));
    let is_variant = !matches!(version, Some(b'4' | b'5'))
        || digits.get(16).is_some_and(|byte| b"89abAB".contains(byte));
    digits.len() == 32
        && digits.iter().all(u8::is_ascii_hexdigit)
        && places_are_right
        && is_version
        && is_variant
}
