//! What is wrong with a field: `field.Error` of apimachinery.

use serde_json::{Map, Value, json};

/// One problem of an object: an entry of a status' `details.causes`.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Cause {
    /// The kind of problem.
    pub problem: Problem,
    /// What is wrong, in Kubernetes' words, without the field.
    pub message: String,
    /// The path of the field: `spec.nodes[0].name`.
    pub field: String,
}

/// The kinds of problems: `CauseType` of meta/v1.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Problem {
    /// A required field is absent.
    Required,
    /// A value is not allowed.
    Invalid,
    /// A value is none of those that are listed.
    NotSupported,
    /// A value is of another type.
    TypeInvalid,
    /// A value that must be unique is not.
    Duplicate,
    /// A field must not be set here.
    Forbidden,
    /// A text is too long, or a list.
    TooLong,
    /// A list has too many items.
    TooMany,
    /// What a field refers to is not there.
    NotFound,
}

impl Problem {
    /// Returns the word as it stands in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
        }
    }
}

impl Cause {
    /// `Required value`, with a detail unless that is empty.
    #[must_use]
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        Self::new(Problem::Required, field, with_detail("Required value".to_owned(), detail))
    }

    /// `Forbidden`, with a detail unless that is empty.
    #[must_use]
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::new(Problem::Forbidden, field, with_detail("Forbidden".to_owned(), detail))
    }

    /// `Invalid value: <value>: <detail>`.
    #[must_use]
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        let message = with_detail(format!("Invalid value: {}", show(value)), detail);
        Self::new(Problem::Invalid, field, message)
    }

    /// `Invalid value: <type>: <detail>`, for a value of another type.
    #[must_use]
    pub fn wrong_type(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        let message = with_detail(format!("Invalid value: {}", show(value)), detail);
        Self::new(Problem::TypeInvalid, field, message)
    }

    /// `Duplicate value: <value>`.
    #[must_use]
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::new(Problem::Duplicate, field, format!("Duplicate value: {}", show(value)))
    }

    /// `Not found: <value>`.
    #[must_use]
    pub fn not_found(field: impl Into<String>, value: &Value) -> Self {
        Self::new(Problem::NotFound, field, format!("Not found: {}", show(value)))
    }

    /// `Unsupported value: <value>: supported values: …`, in the order given.
    #[must_use]
    pub fn unsupported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let mut message = format!("Unsupported value: {}", show(value));
        if !supported.is_empty() {
            let supported: Vec<_> = supported.iter().map(|text| quote(text)).collect();
            message = format!("{message}: supported values: {}", supported.join(", "));
        }
        Self::new(Problem::NotSupported, field, message)
    }

    /// `Too long: may not be more than <limit> bytes`.
    #[must_use]
    pub fn too_long(field: impl Into<String>, limit: usize) -> Self {
        let bytes = if limit == 1 { "byte" } else { "bytes" };
        let message = format!("Too long: may not be more than {limit} {bytes}");
        Self::new(Problem::TooLong, field, message)
    }

    /// `Too many: <count>: must have at most <limit> items`.
    #[must_use]
    pub fn too_many(field: impl Into<String>, count: usize, limit: usize) -> Self {
        let items = if limit == 1 { "item" } else { "items" };
        let message = format!("Too many: {count}: must have at most {limit} {items}");
        Self::new(Problem::TooMany, field, message)
    }

    /// A problem with a message that is worded already.
    #[must_use]
    pub fn new(problem: Problem, field: impl Into<String>, message: String) -> Self {
        Self { problem, message, field: field.into() }
    }

    /// Returns the line of the status' message: `<field>: <message>`.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}: {}", self.field, self.message)
    }

    /// Returns the entry of `details.causes`.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let reason = self.problem.as_str();
        let cause = [
            ("reason".to_owned(), json!(reason)),
            ("message".to_owned(), json!(self.message)),
            ("field".to_owned(), json!(self.field)),
        ];
        Value::Object(Map::from_iter(cause))
    }
}

fn with_detail(message: String, detail: &str) -> String {
    if detail.is_empty() { message } else { format!("{message}: {detail}") }
}

/// Shows a value as Go's field errors do: texts quoted, scalars bare, the rest as JSON.
fn show(value: &Value) -> String {
    match (value, value.as_f64().filter(|_| !value.is_i64())) {
        (_, Some(float)) => go_float(float),
        (value, None) => value.as_str().map_or_else(|| value.to_string(), quote),
    }
}

/// Shows a float as Go's `%v`: the shortest digits, with an exponent from 10⁶ and below 10⁻⁴.
pub(crate) fn go_float(float: f64) -> String {
    let scientific = format!("{float:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(exponent) if exponent < -4 => format!("{digits}e-{:02}", exponent.unsigned_abs()),
        Ok(exponent) if exponent >= 6 => format!("{digits}e+{exponent:02}"),
        _ => float.to_string(),
    }
}

/// Quotes a text as Go's `%q`.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len().saturating_add(2));
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            c if u32::from(c) < 0x20 || c == '\u{7f}' => {
                quoted.extend(format!("\\x{:02x}", u32::from(c)).chars());
            }
            c if c.is_control() => quoted.extend(format!("\\u{:04x}", u32::from(c)).chars()),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_floats_as_go() {
        let floats = [1.0, 0.5, 1e5, 1e6, 1_234_567.5, 1e20, 0.0001, 0.00001, -2.5e-7, 1e100];
        let shown = [
            "1",
            "0.5",
            "100000",
            "1e+06",
            "1.2345675e+06",
            "1e+20",
            "0.0001",
            "1e-05",
            "-2.5e-07",
            "1e+100",
        ];
        assert_eq!(floats.map(go_float), shown);
    }

    #[test]
    fn quotes_as_go() {
        assert_eq!(quote("a\"\\\u{1}\n"), r#""a\"\\\x01\n""#);
    }
}
