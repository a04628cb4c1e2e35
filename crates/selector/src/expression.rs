//! The tree of a selector: how it answers and how it is written.

use std::collections::BTreeSet;
use std::fmt;

use crate::Labelled;

/// The label that every object in a namespace has.
const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";

/// A node of the tree.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Expression {
    /// `all()`.
    All,
    /// `global()`.
    Global,
    /// `has(label)`.
    Has(String),
    /// A label is compared with one text.
    Compare(String, Comparison, String),
    /// A label is looked up in a set of texts.
    Member(String, Membership, BTreeSet<String>),
    /// `!` in front of anything but another `!`.
    Not(Box<Expression>),
    /// Two or more, joined by `&&`.
    Every(Vec<Expression>),
    /// Two or more, joined by `||`.
    Any(Vec<Expression>),
}

/// How a label is compared with a text.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Contains,
    StartsWith,
    EndsWith,
}

/// How a label is looked up in a set.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Membership {
    In,
    NotIn,
}

impl Expression {
    /// Returns the opposite, so that no two `!` ever follow each other.
    pub(crate) fn negated(self) -> Self {
        if let Self::Not(inner) = self { *inner } else { Self::Not(Box::new(self)) }
    }

    /// Returns how many parentheses of the canonical text are open at once.
    pub(crate) fn depth(&self) -> usize {
        match self {
            Self::All | Self::Global | Self::Has(_) | Self::Compare(..) | Self::Member(..) => 0,
            Self::Not(inner) => inner.depth(),
            Self::Every(parts) | Self::Any(parts) => {
                parts.iter().map(Self::depth).max().unwrap_or(0).saturating_add(1)
            }
        }
    }

    pub(crate) fn matches(&self, labels: &impl Labelled) -> bool {
        match self {
            Self::All => true,
            Self::Global => labels.label(NAMESPACE_LABEL).is_none(),
            Self::Has(label) => labels.label(label).is_some(),
            Self::Compare(label, comparison, text) => comparison.holds(labels.label(label), text),
            Self::Member(label, membership, texts) => {
                let is_member = labels.label(label).is_some_and(|value| texts.contains(value));
                match membership {
                    Membership::In => is_member,
                    Membership::NotIn => !is_member,
                }
            }
            Self::Not(inner) => !inner.matches(labels),
            Self::Every(parts) => parts.iter().all(|part| part.matches(labels)),
            Self::Any(parts) => parts.iter().any(|part| part.matches(labels)),
        }
    }

    pub(crate) fn prefixed(self, prefix: &str) -> Self {
        let rename = |label: String| format!("{prefix}{label}");
        let all = |parts: Vec<Self>| parts.into_iter().map(|part| part.prefixed(prefix)).collect();
        match self {
            Self::All | Self::Global => self,
            Self::Has(label) => Self::Has(rename(label)),
            Self::Compare(label, comparison, text) => {
                Self::Compare(rename(label), comparison, text)
            }
            Self::Member(label, membership, texts) => {
                Self::Member(rename(label), membership, texts)
            }
            Self::Not(inner) => Self::Not(Box::new(inner.prefixed(prefix))),
            Self::Every(parts) => Self::Every(all(parts)),
            Self::Any(parts) => Self::Any(all(parts)),
        }
    }
}

impl Comparison {
    /// Does it hold between a label's `value`, `None` if it is missing, and `text`?
    fn holds(self, value: Option<&str>, text: &str) -> bool {
        match self {
            Self::Equal => value == Some(text),
            Self::NotEqual => value != Some(text),
            Self::Contains => value.is_some_and(|value| value.contains(text)),
            Self::StartsWith => value.is_some_and(|value| value.starts_with(text)),
            Self::EndsWith => value.is_some_and(|value| value.ends_with(text)),
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Contains => "contains",
            Self::StartsWith => "starts with",
            Self::EndsWith => "ends with",
        }
    }
}

impl Membership {
    const fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::NotIn => "not in",
        }
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all()"),
            Self::Global => f.write_str("global()"),
            Self::Has(label) => write!(f, "has({label})"),
            Self::Compare(label, comparison, text) => {
                write!(f, "{label} {} {}", comparison.as_str(), Quoted(text))
            }
            Self::Member(label, membership, texts) => {
                write!(f, "{label} {} {{", membership.as_str())?;
                for (index, text) in texts.iter().enumerate() {
                    write!(f, "{}{}", if index == 0 { "" } else { ", " }, Quoted(text))?;
                }
                f.write_str("}")
            }
            Self::Not(inner) => write!(f, "!{inner}"),
            Self::Every(parts) => write_joined(f, parts, " && "),
            Self::Any(parts) => write_joined(f, parts, " || "),
        }
    }
}

fn write_joined(f: &mut fmt::Formatter<'_>, parts: &[Expression], joint: &str) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        write!(f, "{}{part}", if index == 0 { "(" } else { joint })?;
    }
    f.write_str(")")
}

/// A text in double quotes; in single ones if it holds a double quote.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('"') { '\'' } else { '"' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}
