//! The part of `JSONPath` that printer columns use, as client-go's `jsonpath` reads it.
//!
//! Members (`.spec.a`, `['a']`; `\.` is a dot in a name), items (`[0]`, `[-1]`, `[*]`, `.*`) and
//! filters that compare a member with a text, number or boolean (`[?(@.type=="Ready")]`). No
//! slices, unions and recursive descents.

use std::cmp::Ordering;

use serde_json::Value;

/// A parsed path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Path {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Step {
    Member(String),
    Item(i64),
    All,
    Filter(Filter),
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Filter {
    path: Path,
    operator: &'static str,
    value: Value,
}

impl Path {
    /// Parses a path: `.status.conditions[?(@.type=="Ready")].status`; `None` if it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut rest = text.trim();
        let mut steps = Vec::new();
        while !rest.is_empty() && rest != "." {
            let (step, after) = if let Some(inner) = rest.strip_prefix("[?(") {
                let (filter, after) = inner.split_once(")]")?;
                (Step::Filter(Filter::parse(filter)?), after)
            } else if let Some(inner) = rest.strip_prefix("['") {
                let (names, after) = inner.split_once("']")?;
                if names.contains('\'') {
                    return None; // a union
                }
                // Also within quotes a dot separates, unless a backslash precedes it.
                let mut names = Self::parse(&format!(".{names}"))?.steps;
                let last = names.pop()?;
                steps.append(&mut names);
                (last, after)
            } else if let Some(inner) = rest.strip_prefix('[') {
                let (index, after) = inner.split_once(']')?;
                let is_all = index.trim() == "*";
                (if is_all { Step::All } else { Step::Item(index.trim().parse().ok()?) }, after)
            } else {
                member(rest.strip_prefix('.')?)?
            };
            steps.push(step);
            rest = after;
        }
        Some(Self { steps })
    }

    /// Returns the first value at the path.
    pub(super) fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        let mut found = if self.steps.is_empty() { Vec::new() } else { vec![value] };
        for step in &self.steps {
            found = found.into_iter().flat_map(|value| step.apply(value)).collect();
        }
        found.into_iter().next()
    }
}

fn member(text: &str) -> Option<(Step, &str)> {
    let mut is_escaped = false;
    let end = text.find(|c: char| {
        let ends = matches!(c, '.' | '[') && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        ends
    });
    let (name, after) = text.split_at_checked(end.unwrap_or(text.len()))?;
    match name {
        "" => None,
        "*" => Some((Step::All, after)),
        name => Some((Step::Member(unescape(name)), after)),
    }
}

fn unescape(name: &str) -> String {
    let mut chars = name.chars();
    let mut plain = String::with_capacity(name.len());
    while let Some(c) = chars.next() {
        plain.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    plain
}

impl Step {
    fn apply<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let items = || match value {
            Value::Array(list) => list.iter().collect(),
            Value::Object(map) => map.values().collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
        };
        match self {
            Self::Member(name) => value.get(name).into_iter().collect(),
            Self::Item(index) => item(value, *index).into_iter().collect(),
            Self::All => items(),
            Self::Filter(filter) => {
                items().into_iter().filter(|item| filter.matches(item)).collect()
            }
        }
    }
}

fn item(value: &Value, index: i64) -> Option<&Value> {
    let list = value.as_array()?;
    let length = i64::try_from(list.len()).ok()?;
    let index = if index < 0 { index.checked_add(length)? } else { index };
    list.get(usize::try_from(index).ok()?)
}

impl Filter {
    fn parse(text: &str) -> Option<Self> {
        let operators = ["==", "!=", "<=", ">=", "<", ">"];
        let mut found =
            operators.iter().filter_map(|operator| Some((text.find(operator)?, *operator)));
        let (at, operator) = found.next()?;
        let (left, right) = text.split_at_checked(at)?;
        let path = Path::parse(left.trim().strip_prefix('@')?)?;
        let right = right.strip_prefix(operator)?.trim();
        let single = right.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
        let value = match single {
            Some(text) => Value::from(text),
            None => serde_json::from_str(right).ok()?,
        };
        Some(Self { path, operator, value })
    }

    fn matches(&self, item: &Value) -> bool {
        let Some(found) = self.path.first(item) else { return false };
        let order = match (found, &self.value) {
            (Value::String(found), Value::String(value)) => Some(found.cmp(value)),
            (found, value) => match (found.as_f64(), value.as_f64()) {
                (Some(found), Some(value)) => found.partial_cmp(&value),
                _ => None,
            },
        };
        match self.operator {
            "==" => *found == self.value,
            "!=" => *found != self.value,
            "<=" => order.is_some_and(Ordering::is_le),
            ">=" => order.is_some_and(Ordering::is_ge),
            "<" => order.is_some_and(Ordering::is_lt),
            _ => order.is_some_and(Ordering::is_gt),
        }
    }
}
