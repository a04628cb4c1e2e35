//! Truth values, numbers, durations, texts and patterns.

use std::time::Duration;

use regex::bytes::{Regex, RegexBuilder};

use super::Setting;

impl Setting for bool {
    fn from_text(text: &str) -> Option<Self> {
        match text.to_lowercase().as_str() {
            "true" | "t" | "1" | "yes" | "y" | "on" => Some(true),
            "false" | "f" | "0" | "no" | "n" | "off" => Some(false),
            _ => None,
        }
    }

    fn allowed() -> String {
        "`true` or `false`".to_owned()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Number<const MIN: u32, const MAX: u32>(u32);

impl<const MIN: u32, const MAX: u32> Number<MIN, MAX> {
    /// Returns `number`, or the nearest one that is allowed.
    #[must_use]
    pub const fn clamped(number: u32) -> Self {
        if number < MIN {
            Self(MIN)
        } else if number > MAX {
            Self(MAX)
        } else {
            Self(number)
        }
    }

    /// Returns the number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl<const MIN: u32, const MAX: u32> Setting for Number<MIN, MAX> {
    fn from_text(text: &str) -> Option<Self> {
        let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| is_decimal)?;
        (MIN..=MAX).contains(&number).then_some(Self(number))
    }

    fn allowed() -> String {
        format!("a whole number from {MIN} to {MAX}")
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// A set of bits of a packet's mark.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mask(pub u32);

impl Setting for Mask {
    fn from_text(text: &str) -> Option<Self> {
        let mask = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(digits) => u32::from_str_radix(digits, 16).ok()?,
            None => text.parse().ok()?,
        };
        (mask != 0).then_some(Self(mask))
    }

    fn allowed() -> String {
        "a mask of 32 bits other than 0, such as 0xffff0000".to_owned()
    }

    fn show(&self) -> String {
        format!("{:#x}", self.0)
    }
}

impl Setting for Duration {
    /// Reads `1h2m3.5s`, `90s`, `500ms`, or plain seconds.
    fn from_text(text: &str) -> Option<Self> {
        if text.starts_with(|c: char| c.is_ascii_digit())
            && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        {
            return Self::try_from_secs_f64(text.parse().ok()?).ok();
        }
        let (mut total, mut rest) = (Self::ZERO, text);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, behind) = rest.split_at_checked(digits)?;
            let end = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
            let (unit, next) = behind.split_at_checked(end)?;
            let part = number.parse::<f64>().ok()? * unit_seconds(unit)?;
            total = total.checked_add(Self::try_from_secs_f64(part).ok()?)?;
            rest = next;
        }
        (!text.is_empty()).then_some(total)
    }

    fn allowed() -> String {
        "a duration such as 90s, 1m30s or 500ms; a plain number is seconds".to_owned()
    }

    fn show(&self) -> String {
        let millis = self.as_millis();
        if millis.is_multiple_of(1000) {
            format!("{}s", self.as_secs())
        } else {
            format!("{millis}ms")
        }
    }
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "h" => 3600.0,
        "m" => 60.0,
        "s" => 1.0,
        "ms" => 1e-3,
        "us" | "µs" => 1e-6,
        "ns" => 1e-9,
        _ => return None,
    })
}

impl Setting for String {
    /// Takes any text; `none`, in Felix's way, is the empty one.
    fn from_text(text: &str) -> Option<Self> {
        Some(if text.eq_ignore_ascii_case("none") { Self::new() } else { text.to_owned() })
    }

    fn allowed() -> String {
        "any text".to_owned()
    }

    fn show(&self) -> String {
        if self.is_empty() { "empty".to_owned() } else { self.clone() }
    }
}

/// A regular expression, which matches a name if it matches any part of it.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl Pattern {
    /// Parses an expression; `None` if it is none, or takes more memory than is sane.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        RegexBuilder::new(text).unicode(false).size_limit(1 << 20).build().ok().map(Self)
    }

    /// Does it match any part of `name`?
    #[must_use]
    pub fn is_match(&self, name: &str) -> bool {
        self.0.is_match(name.as_bytes())
    }

    /// Returns the text of the expression.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Setting for Pattern {
    fn from_text(text: &str) -> Option<Self> {
        Self::new(text)
    }

    fn allowed() -> String {
        "a regular expression".to_owned()
    }

    fn show(&self) -> String {
        self.as_str().to_owned()
    }
}
