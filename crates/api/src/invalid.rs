//! What is wrong with an object.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A field of an object that cannot be followed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Invalid {
    /// The object's kind and name: `IPPool default-ipv4-ippool`.
    pub object: String,
    /// The field's path: `spec.blockSize`.
    pub field: String,
    /// The value, as it stands there; empty if nothing does.
    pub value: String,
    /// What is wrong with it and what to write instead.
    pub problem: String,
}

/// The most characters of a value that an error shows.
const MAX_VALUE: usize = 80;

/// The most characters of any other part.
const MAX_PART: usize = 400;

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", one_line(&self.object, MAX_PART), self.detail())
    }
}

impl Invalid {
    /// Returns what is wrong, without whose it is: for whoever has said so already.
    #[must_use]
    pub fn detail(&self) -> String {
        let Self { field, value, problem, .. } = self;
        let quoted = format!("`{value}`");
        // Many problems name the value themselves; once is enough.
        let (is_shown, problem) = match problem.strip_prefix(&format!("{quoted} ")) {
            Some(rest) => (!value.is_empty(), rest),
            None => (!value.is_empty() && !problem.contains(&quoted), problem.as_str()),
        };
        let value =
            if is_shown { format!(" `{}`", one_line(value, MAX_VALUE)) } else { String::new() };
        let verbs = ["is ", "has ", "does ", "needs "];
        let link = if verbs.iter().any(|verb| problem.starts_with(verb)) { "" } else { ":" };
        format!("{}{value}{link} {}", one_line(field, MAX_PART), one_line(problem, MAX_PART))
    }
}

/// Returns text without control characters, and not too long to be read.
fn one_line(text: &str, max: usize) -> String {
    let mut shown = String::new();
    for character in text.chars().take(max) {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    if text.chars().nth(max).is_some() {
        shown.push('…');
    }
    shown
}

impl std::error::Error for Invalid {}

/// A field that cannot be followed, before it is known whose it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Fault {
    field: String,
    value: String,
    problem: String,
}

impl Fault {
    /// Makes the fault of one field.
    pub(crate) fn new(
        field: impl Into<String>,
        value: impl fmt::Display,
        problem: impl fmt::Display,
    ) -> Self {
        Self { field: field.into(), value: value.to_string(), problem: problem.to_string() }
    }

    /// Says that the field lies in `outer`.
    pub(crate) fn under(self, outer: impl fmt::Display) -> Self {
        Self { field: format!("{outer}.{}", self.field), ..self }
    }

    /// Says whose field it is.
    pub(crate) fn of(self, object: String) -> Invalid {
        let Self { field, value, problem } = self;
        Invalid { object, field, value, problem }
    }
}

/// Reads a value from text.
pub(crate) fn parse<T: FromStr<Err: fmt::Display>>(field: &str, text: &str) -> Result<T, Fault> {
    text.parse().map_err(|error| Fault::new(field, text, error))
}

/// Reads a value from text that may be absent, or empty, which is the same.
pub(crate) fn parse_some<T: FromStr<Err: fmt::Display>>(
    field: &str,
    text: Option<&str>,
) -> Result<Option<T>, Fault> {
    text.filter(|text| !text.trim().is_empty()).map(|text| parse(field, text)).transpose()
}

/// Reads an address.
pub(crate) fn addr(field: &str, text: &str) -> Result<IpAddr, Fault> {
    let problem = "is no address: use a form such as 10.0.0.1 or fd00::1";
    text.parse().map_err(|_| Fault::new(field, text, problem))
}

/// Reads one of a few words; absent and empty text is the first of them.
pub(crate) fn word<T: Copy>(
    field: &str,
    text: Option<&str>,
    words: &[(&str, T)],
    default: T,
) -> Result<T, Fault> {
    let text = text.unwrap_or_default();
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    match found {
        Some(value) => Ok(value),
        None if text.is_empty() => Ok(default),
        None => {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            Err(Fault::new(field, text, format!("is none of the values: use {}", listed(&words))))
        }
    }
}

/// Joins words the way people do: `a, b or c`.
fn listed(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// Reads a number of a range; `None` stays `None`.
pub(crate) fn within<T: TryFrom<i64> + PartialOrd + fmt::Display + Copy>(
    field: &str,
    number: Option<i64>,
    range: std::ops::RangeInclusive<T>,
) -> Result<Option<T>, Fault> {
    let Some(number) = number else { return Ok(None) };
    let found = T::try_from(number).ok().filter(|number| range.contains(number));
    let wrong = || format!("out of range: use {} to {}", range.start(), range.end());
    found.map(Some).ok_or_else(|| Fault::new(field, number, wrong()))
}
