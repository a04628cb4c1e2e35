//! What the two servers answered differently, less what differs on purpose.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use crate::suite;

/// A deliberate difference: an entry of `differences.yaml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Deliberate {
    /// Why.
    reason: String,
    /// The steps: `topic/step`; `*` stands for any text.
    steps: Vec<String>,
    /// Where in the answers: JSON pointers; `*` stands for any part between two slashes.
    at: Vec<String>,
    /// What the embedded datastore has there instead.
    #[serde(default)]
    embedded: Option<Value>,
}

/// One place in which two answers differ.
#[derive(Debug)]
pub(crate) struct Difference {
    step: String,
    pointer: String,
    kubernetes: Option<Value>,
    embedded: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &Option<Value>| {
            let text = value.as_ref().map_or("(absent)".to_owned(), Value::to_string);
            text.chars().take(600).collect::<String>()
        };
        let Self { step, pointer, kubernetes, embedded } = self;
        writeln!(formatter, "{step} {pointer}")?;
        write!(formatter, "    kubernetes {}\n    embedded   {}", show(kubernetes), show(embedded))
    }
}

/// Reads the list of deliberate differences.
pub(crate) fn deliberate() -> Vec<Deliberate> {
    suite::read(&suite::directory().join("differences.yaml"))
}

/// Compares all answers of two servers.
pub(crate) fn between(
    kubernetes: &BTreeMap<String, Value>,
    embedded: &BTreeMap<String, Value>,
) -> Vec<Difference> {
    let mut found = Vec::new();
    for step in
        kubernetes.keys().chain(embedded.keys().filter(|step| !kubernetes.contains_key(*step)))
    {
        compare(step, "", kubernetes.get(step), embedded.get(step), &mut found);
    }
    found
}

/// Returns what is wrong: differences that are not on the list, and entries without a difference.
pub(crate) fn judge(
    differences: &[Difference],
    list: &[Deliberate],
    is_all_played: bool,
) -> Vec<String> {
    let mut problems = Vec::new();
    for difference in differences {
        if !list.iter().any(|entry| entry.excuses(difference)) {
            problems.push(difference.to_string());
        }
    }
    for entry in list.iter().filter(|_| is_all_played) {
        problems.extend(entry.unused(differences));
    }
    problems
}

impl Deliberate {
    fn excuses(&self, difference: &Difference) -> bool {
        let is_value = match (&self.embedded, &difference.embedded) {
            (Some(wanted), found) => found.as_ref() == Some(wanted),
            (None, _) => true,
        };
        is_value
            && self.steps.iter().any(|step| matches(step, &difference.step))
            && self.at.iter().any(|at| is_at_or_below(at, &difference.pointer))
    }

    /// Returns the steps and places of the entry at which nothing differs any more.
    fn unused(&self, differences: &[Difference]) -> Vec<String> {
        let is_step = |step: &str| {
            differences.iter().any(|found| matches(step, &found.step) && self.excuses(found))
        };
        let is_place = |at: &str| {
            differences
                .iter()
                .any(|found| is_at_or_below(at, &found.pointer) && self.excuses(found))
        };
        let steps = self.steps.iter().filter(|step| !is_step(step));
        let places = self.at.iter().filter(|at| !is_place(at));
        let problem = |what: &String| format!("nothing differs any more: {what} ({})", self.reason);
        steps.chain(places).map(problem).collect()
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == text };
    text.len() >= before.len() + after.len() && text.starts_with(before) && text.ends_with(after)
}

fn is_at_or_below(pattern: &str, pointer: &str) -> bool {
    let mut parts = pointer.split('/');
    pattern
        .split('/')
        .all(|wanted| parts.next().is_some_and(|part| wanted == "*" || wanted == part))
}

fn compare(
    step: &str,
    pointer: &str,
    kubernetes: Option<&Value>,
    embedded: Option<&Value>,
    found: &mut Vec<Difference>,
) {
    match (kubernetes, embedded) {
        (Some(Value::Object(left)), Some(Value::Object(right))) => {
            for key in left.keys().chain(right.keys().filter(|key| !left.contains_key(*key))) {
                let escaped = key.replace('~', "~0").replace('/', "~1");
                compare(
                    step,
                    &format!("{pointer}/{escaped}"),
                    left.get(key),
                    right.get(key),
                    found,
                );
            }
        }
        (Some(Value::Array(left)), Some(Value::Array(right))) => {
            for index in 0..left.len().max(right.len()) {
                compare(
                    step,
                    &format!("{pointer}/{index}"),
                    left.get(index),
                    right.get(index),
                    found,
                );
            }
        }
        (left, right) if left == right => {}
        (left, right) => found.push(Difference {
            step: step.to_owned(),
            pointer: pointer.to_owned(),
            kubernetes: left.cloned(),
            embedded: right.cloned(),
        }),
    }
}
