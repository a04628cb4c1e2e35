//! What is wrong with an object.

use std::fmt;
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
const MAX_SHOWN: usize = 80;

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, field, value, problem } = self;
        // Many problems start with the value themselves; once is enough.
        let problem = problem
            .strip_prefix(&format!("`{value}` "))
            .map_or_else(|| format!(": {problem}"), |rest| format!(" {rest}"));
        let mut shown: String =
            value.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect();
        if value.chars().nth(MAX_SHOWN).is_some() {
            shown.push('…');
        }
        let field = if shown.is_empty() { field.clone() } else { format!("{field} `{shown}`") };
        write!(f, "{object}: {field}{problem}")
    }
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
