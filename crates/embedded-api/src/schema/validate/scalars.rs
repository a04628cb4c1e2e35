//! The rules about one value: its type, length, pattern, format, range and enumeration.

use serde_json::{Number, Value};

use super::{At, Failure, Outcome, field, size};
use crate::Cause;
use crate::cause::go_float;
use crate::schema::{Bound, Schema, format as formats};

/// The largest integer that a float holds without loss: 2⁵³-1.
const MAX_SAFE: f64 = 9_007_199_254_740_991.0;

/// Checks the type.
pub(super) fn kind(schema: &Schema, at: At<'_>) -> Outcome {
    let (found, found_format) = match at.value {
        Value::Null => ("null", ""),
        Value::Bool(_) => ("boolean", ""),
        Value::Number(number) if number.is_i64() => ("integer", "int64"),
        Value::Number(_) => ("number", "float64"),
        Value::String(_) => ("string", ""),
        Value::Array(_) => ("array", ""),
        Value::Object(_) => ("object", ""),
    };
    let mut outcome = Outcome { matches: 1, ..Outcome::default() };
    let wanted = schema.kind.join(",");
    let accepts = |kind: &str| schema.kind.iter().any(|wanted| wanted == kind);
    if at.value.is_null() {
        if !wanted.is_empty() && !schema.is_nullable {
            return wrong_type(at, &wanted, "null");
        }
        return outcome;
    }
    let is_whole = |number: &Number| {
        number.as_f64().is_some_and(|number| number.fract() == 0.0 && number.abs() <= MAX_SAFE)
    };
    let fits = accepts(found)
        || (found == "number" && accepts("integer") && at.value.as_number().is_some_and(is_whole))
        || (found == "integer" && accepts("number"));
    let format = schema.rules.format.as_deref().unwrap_or_default();
    let is_text = matches!(at.value, Value::String(_) | Value::Array(_));
    if !is_text && !format.is_empty() && !fits {
        return wrong_type(at, format, found_format);
    }
    if is_text && !format.is_empty() && !accepts("number") && !accepts("integer") {
        return outcome;
    }
    if !fits {
        outcome = wrong_type(at, &wanted, found);
    }
    outcome
}

fn wrong_type(at: At<'_>, wanted: &str, found: &str) -> Outcome {
    let text = format!("{} in body must be of type {wanted}: {found:?}", at.path);
    let cause = Cause::wrong_type(field(at.path), &Value::from(found), &text);
    Outcome { failures: vec![Failure { text, cause }], matches: 0 }
}

/// Checks the length and the pattern of a string; the first failure is all that is told.
pub(super) fn string(schema: &Schema, at: At<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    let text = at.value.as_str().unwrap_or_default();
    let length = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
    let rules = &schema.rules;
    if let Some(limit) = rules.max_length.filter(|limit| length > *limit) {
        let text = format!("{} in body should be at most {limit} chars long", at.path);
        let cause = Cause::too_long(field(at.path), size(limit));
        outcome.fail(Failure { text, cause });
    } else if let Some(limit) = rules.min_length.filter(|limit| length < *limit) {
        outcome.fail(Failure::invalid(at, &format!("should be at least {limit} chars long")));
    } else if let Some(pattern) = rules.pattern.as_ref().filter(|pattern| !pattern.matches(text)) {
        outcome.fail(Failure::invalid(at, &format!("should match '{}'", pattern.text)));
    }
    outcome
}

/// Checks the format of a string.
pub(super) fn format(schema: &Schema, at: At<'_>) -> Outcome {
    let text = at.value.as_str().unwrap_or_default();
    match schema.rules.format.as_deref() {
        Some(format) if !formats::matches(format, text) => {
            // The value stands where for other types the name of the type does.
            wrong_type(at, format, text)
        }
        _ => Outcome::default(),
    }
}

/// Checks the range of a number.
pub(super) fn number(schema: &Schema, at: At<'_>) -> Outcome {
    let mut outcome = Outcome { matches: 1, ..Outcome::default() };
    let value = at.value.as_f64().unwrap_or_default();
    let is_integer = at.value.is_i64();
    let rules = &schema.rules;
    if let Some(factor) = rules.multiple_of.filter(|factor| !is_multiple(at.value, *factor)) {
        let rule = format!("should be a multiple of {}", show(factor, is_integer));
        outcome.fail(Failure::invalid(at, &rule));
    }
    let below = |bound: &Bound| value < bound.value || (bound.is_exclusive && value <= bound.value);
    if let Some(bound) = rules.minimum.filter(below) {
        let words = if bound.is_exclusive { "greater than" } else { "greater than or equal to" };
        let rule = format!("should be {words} {}", show(bound.value, is_integer));
        outcome.fail(Failure::invalid(at, &rule));
    }
    let above = |bound: &Bound| value > bound.value || (bound.is_exclusive && value >= bound.value);
    if let Some(bound) = rules.maximum.filter(above) {
        let words = if bound.is_exclusive { "less than" } else { "less than or equal to" };
        let rule = format!("should be {words} {}", show(bound.value, is_integer));
        outcome.fail(Failure::invalid(at, &rule));
    }
    outcome
}

/// Integers are divided as such; a float is a multiple only if the quotient is exact.
fn is_multiple(value: &Value, factor: f64) -> bool {
    let whole = format!("{:.0}", factor.trunc()).parse::<i64>();
    if let (Some(value), Ok(factor)) = (value.as_i64(), whole) {
        return value.checked_rem(factor).is_some_and(|rest| rest == 0);
    }
    let value = value.as_f64().unwrap_or_default();
    let quotient = if factor < 1.0 { 1.0 / factor * value } else { value / factor };
    quotient.fract() == 0.0 && quotient.abs() <= MAX_SAFE
}

/// Shows a limit as Go does: for an integer, the limit is one too.
fn show(limit: f64, is_integer: bool) -> String {
    if is_integer { limit.trunc().to_string() } else { go_float(limit) }
}

/// Checks that the value is one of those that are listed.
pub(super) fn enumeration(schema: &Schema, at: At<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    let allowed = &schema.rules.enumeration;
    let is_same = |allowed: &Value| match (allowed.as_f64(), at.value.as_f64()) {
        (Some(allowed), Some(value)) => allowed.to_bits() == value.to_bits(),
        _ => allowed == at.value,
    };
    if !allowed.is_empty() && !allowed.iter().any(is_same) {
        let names: Vec<String> = allowed
            .iter()
            .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let cause = Cause::unsupported(field(at.path), at.value, &names);
        let text = format!("{} in body should be one of [{}]", at.path, names.join(" "));
        outcome.fail(Failure { text, cause });
    }
    outcome
}
