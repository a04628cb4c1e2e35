//! Validation: what of a custom resource the schema does not allow, in Kubernetes' words.
//!
//! Follows kube-openapi's validator: its order, its counts of matches (they choose which
//! alternative of an `anyOf` is reported), and, on updates, ratcheting: what did not change is
//! not complained of.

mod lists;
mod scalars;

use serde_json::{Map, Value};

use super::{Additional, ListKind, Schema};
use crate::Cause;

impl Schema {
    /// Returns what is wrong with a custom resource; `old` is what an update replaces.
    #[must_use]
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let outcome = validate(self, At { path: "", value: object, old });
        let mut causes: Vec<_> =
            outcome.failures.into_iter().map(|failure| failure.cause).collect();
        let duplicates = lists::duplicates(self, object);
        // Duplicates that were there before may stay.
        if old.is_none_or(|old| lists::duplicates(self, old).is_empty()) {
            causes.extend(duplicates);
        }
        causes
    }
}

/// A value in its place.
#[derive(Clone, Copy)]
struct At<'a> {
    /// `spec.list[0].name`, or `.spec` for a member of the root of `additionalProperties`.
    path: &'a str,
    value: &'a Value,
    /// What was there before, if an update can tell.
    old: Option<&'a Value>,
}

/// What a check found.
#[derive(Default)]
struct Outcome {
    failures: Vec<Failure>,
    /// How many checks were made, as kube-openapi counts them.
    matches: usize,
}

struct Failure {
    /// Two failures with the same text are one.
    text: String,
    cause: Cause,
}

impl Outcome {
    fn fail(&mut self, failure: Failure) {
        if self.failures.iter().all(|known| known.text != failure.text) {
            self.failures.push(failure);
        }
    }

    fn merge(&mut self, other: Self) {
        self.count(other.matches);
        other.failures.into_iter().for_each(|failure| self.fail(failure));
    }

    fn count(&mut self, matches: usize) {
        self.matches = self.matches.saturating_add(matches);
    }

    fn is_valid(&self) -> bool {
        self.failures.is_empty()
    }
}

impl Failure {
    /// A value that breaks a rule.
    fn invalid(at: At<'_>, rule: &str) -> Self {
        let text = format!("{} in body {rule}", at.path);
        Self { cause: Cause::invalid(field(at.path), at.value, &text), text }
    }

    /// A rule about the whole, for which Kubernetes names no field.
    fn composite(text: String) -> Self {
        Self { cause: Cause::invalid("<nil>", &Value::from(""), &text), text }
    }
}

/// Returns the path of a field as messages give it.
fn field(path: &str) -> String {
    match path.strip_prefix('.').unwrap_or(path) {
        "" => "<nil>".to_owned(),
        path => path.to_owned(),
    }
}

/// Returns a limit as a length; what is longer than memory is no limit.
fn size(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

fn validate(schema: &Schema, at: At<'_>) -> Outcome {
    let mut outcome = check(schema, at);
    if at.old == Some(at.value) {
        outcome.failures.clear();
    }
    outcome
}

fn check(schema: &Schema, at: At<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    let checks: &[fn(&Schema, At<'_>) -> Outcome] = match at.value {
        Value::Null => {
            outcome.merge(scalars::kind(schema, at));
            outcome.merge(scalars::enumeration(schema, at));
            return outcome;
        }
        Value::Bool(_) => &[combinations, scalars::enumeration],
        Value::Number(_) => &[combinations, scalars::number, scalars::enumeration],
        Value::String(_) if schema.rules.format.is_some() => {
            &[combinations, scalars::string, scalars::format, scalars::enumeration]
        }
        Value::String(_) => &[combinations, scalars::string, scalars::enumeration],
        Value::Array(_) => &[combinations, list, scalars::enumeration],
        Value::Object(_) => &[combinations, scalars::enumeration, object],
    };
    let has_type = !schema.kind.is_empty() || schema.rules.format.is_some();
    if has_type {
        outcome.merge(scalars::kind(schema, at));
        outcome.count(1);
    }
    for check in checks {
        outcome.merge(check(schema, at));
        outcome.count(1);
    }
    outcome.count(1);
    outcome
}

fn combinations(schema: &Schema, at: At<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    any_of(schema, at, &mut outcome);
    one_of(schema, at, &mut outcome);
    let all: Vec<_> = schema.rules.all_of.iter().map(|schema| validate(schema, at)).collect();
    let valid = all.iter().filter(|result| result.is_valid()).count();
    let is_complete = valid == all.len();
    for result in all {
        outcome.merge(result);
    }
    if !is_complete {
        let more = if valid == 0 { ". None validated" } else { "" };
        let text = format!("{:?} must validate all the schemas (allOf){more}", at.path);
        outcome.fail(Failure::composite(text));
    }
    if schema.rules.not.as_ref().is_some_and(|schema| validate(schema, at).is_valid()) {
        let text = format!("{:?} must not validate the schema (not)", at.path);
        outcome.fail(Failure::composite(text));
    }
    outcome.count(1);
    outcome
}

fn any_of(schema: &Schema, at: At<'_>, outcome: &mut Outcome) {
    let mut best: Option<Outcome> = None;
    for schema in &schema.rules.any_of {
        let result = validate(schema, at);
        if result.is_valid() {
            return outcome.merge(result);
        }
        if best.as_ref().is_none_or(|best| result.matches > best.matches) {
            best = Some(result);
        }
    }
    if let Some(best) = best {
        let text = format!("{:?} must validate at least one schema (anyOf)", at.path);
        outcome.fail(Failure::composite(text));
        outcome.merge(best);
    }
}

fn one_of(schema: &Schema, at: At<'_>, outcome: &mut Outcome) {
    if schema.rules.one_of.is_empty() {
        return;
    }
    let mut best: Option<Outcome> = None;
    let mut valid: Vec<Outcome> = Vec::new();
    for schema in &schema.rules.one_of {
        let result = validate(schema, at);
        if result.is_valid() {
            valid.push(result);
        } else if best.as_ref().is_none_or(|best| result.matches > best.matches) {
            best = Some(result);
        }
    }
    let found = match valid.len() {
        1 => return valid.into_iter().for_each(|result| outcome.merge(result)),
        0 => "Found none valid".to_owned(),
        several => format!("Found {several} valid alternatives"),
    };
    let text = format!("{:?} must validate one and only one schema (oneOf). {found}", at.path);
    outcome.fail(Failure::composite(text));
    if let (true, Some(best)) = (valid.is_empty(), best) {
        outcome.merge(best);
    }
}

fn list(schema: &Schema, at: At<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    let items = at.value.as_array().map(Vec::as_slice).unwrap_or_default();
    for (index, value) in items.iter().enumerate() {
        let Some(schema_of_items) = &schema.items else { break };
        let path = format!("{}[{index}]", at.path);
        let old = old_item(&schema.list, value, at.old);
        outcome.merge(validate(schema_of_items, At { path: &path, value, old }));
    }
    let count = u64::try_from(items.len()).unwrap_or(u64::MAX);
    if let Some(limit) = schema.rules.min_items.filter(|limit| count < *limit) {
        let rule = format!("should have at least {limit} items");
        outcome.fail(Failure::invalid(At { value: &Value::from(count), ..at }, &rule));
    }
    if let Some(limit) = schema.rules.max_items.filter(|limit| count > *limit) {
        let text = format!("{} in body should have at most {limit} items", at.path);
        outcome.fail(Failure {
            text,
            cause: Cause::too_many(field(at.path), items.len(), size(limit)),
        });
    }
    outcome.count(1);
    outcome
}

/// Finds what an item was before: only lists that are maps can tell.
fn old_item<'a>(list: &ListKind, item: &Value, old: Option<&'a Value>) -> Option<&'a Value> {
    let ListKind::Map(keys) = list else { return None };
    let is_same = |other: &&Value| keys.iter().all(|key| other.get(key) == item.get(key));
    old?.as_array()?.iter().find(is_same)
}

fn object(schema: &Schema, at: At<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    let nothing = Map::new();
    let members = at.value.as_object().unwrap_or(&nothing);
    let old = |name: &str| at.old.and_then(|old| old.get(name));
    let count = u64::try_from(members.len()).unwrap_or(u64::MAX);
    if let Some(limit) = schema.rules.min_properties.filter(|limit| count < *limit) {
        let rule = format!("should have at least {limit} properties");
        outcome.fail(Failure::invalid(At { value: &Value::from(count), ..at }, &rule));
    }
    if let Some(limit) = schema.rules.max_properties.filter(|limit| count > *limit) {
        let text = format!("{} in body should have at most {limit} properties", at.path);
        outcome.fail(Failure {
            text,
            cause: Cause::too_many(field(at.path), members.len(), size(limit)),
        });
    }
    if let Some(Additional::Schema(other)) = &schema.additional {
        for (name, value) in members {
            if !schema.properties.contains_key(name) {
                let path = format!("{}.{name}", at.path);
                outcome.merge(validate(other, At { path: &path, value, old: old(name) }));
            }
        }
    }
    for (name, schema) in &schema.properties {
        let Some(value) = members.get(name) else { continue };
        let path = if at.path.is_empty() { name.clone() } else { format!("{}.{name}", at.path) };
        outcome.merge(validate(schema, At { path: &path, value, old: old(name) }));
    }
    for name in &schema.rules.required {
        if !members.contains_key(name) {
            let path = format!("{}.{name}", at.path);
            let text = format!("{path} in body is required");
            outcome.fail(Failure { text, cause: Cause::required(field(&path), "") });
        }
    }
    outcome
}
