//! What labels must be like for a selector to match at all: the keys of an index.

use std::collections::BTreeSet;

use crate::Selector;
use crate::expression::{Comparison, Expression, Membership};

/// A condition without which a selector matches nothing; it may need more.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Need<'a> {
    /// The label has one of these values; with none of them, nothing matches.
    Value(&'a str, BTreeSet<&'a str>),
    /// The label is there.
    Presence(&'a str),
}

impl<'a> Need<'a> {
    fn label(&self) -> &'a str {
        match self {
            Self::Value(label, _) | Self::Presence(label) => label,
        }
    }

    /// Returns what is needed if one of two needs of the same label is enough.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Value(label, mut values), Self::Value(_, more)) => {
                values.extend(more);
                Self::Value(label, values)
            }
            (Self::Presence(label), _) | (_, Self::Presence(label)) => Self::Presence(label),
        }
    }
}

impl Selector {
    /// Returns conditions that all objects that match fulfil; each of them alone
    /// finds every object that matches, and some that do not.
    ///
    /// None at all means that any object may match.
    #[must_use]
    pub fn needs(&self) -> Vec<Need<'_>> {
        needs(&self.0)
    }
}

fn needs(expression: &Expression) -> Vec<Need<'_>> {
    match expression {
        Expression::All
        | Expression::Global
        | Expression::Not(_)
        | Expression::Member(_, Membership::NotIn, _) => Vec::new(),
        Expression::Has(label) => vec![Need::Presence(label)],
        Expression::Compare(label, comparison, text) => match comparison {
            Comparison::Equal => vec![Need::Value(label, BTreeSet::from([text.as_str()]))],
            Comparison::NotEqual => Vec::new(),
            Comparison::Contains | Comparison::StartsWith | Comparison::EndsWith => {
                vec![Need::Presence(label)]
            }
        },
        Expression::Member(label, Membership::In, texts) => {
            vec![Need::Value(label, texts.iter().map(String::as_str).collect())]
        }
        Expression::Every(parts) => parts.iter().flat_map(needs).collect(),
        Expression::Any(parts) => any(parts),
    }
}

/// Returns what each of the alternatives needs: of the same label, one or the other.
fn any(parts: &[Expression]) -> Vec<Need<'_>> {
    let mut parts = parts.iter().map(needs);
    let first = parts.next().unwrap_or_default();
    parts.fold(first, |common, part| {
        let both = common.into_iter().filter_map(|need| {
            let same = part.iter().find(|other| other.label() == need.label());
            same.cloned().map(|other| need.or(other))
        });
        both.collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needed(text: &str) -> Vec<String> {
        let selector: Selector = text.parse().unwrap();
        let written = selector.needs().into_iter().map(|need| match need {
            Need::Value(label, values) => {
                format!("{label}={}", values.into_iter().collect::<Vec<_>>().join("|"))
            }
            Need::Presence(label) => label.to_owned(),
        });
        written.collect()
    }

    #[test]
    fn needs_follow_the_grammar() {
        for (text, expected) in [
            ("", &[][..]),
            ("global() || a == 'x'", &[]),
            ("a == 'x'", &["a=x"]),
            ("a in {'x', 'y'} && has(b)", &["a=x|y", "b"]),
            ("a in {}", &["a="]),
            ("a != 'x' && b not in {'y'} && !has(c)", &[]),
            ("a contains 'x' && b starts with 'y'", &["a", "b"]),
            ("a == 'x' || a == 'y'", &["a=x|y"]),
            ("a == 'x' || has(a)", &["a"]),
            ("a == 'x' && b == 'y' || b == 'z'", &["b=y|z"]),
            ("a == 'x' || b == 'y'", &[]),
            ("(a == 'x' || a == 'y') && (b == '1' || has(b))", &["a=x|y", "b"]),
        ] {
            assert_eq!(needed(text), expected, "{text}");
        }
    }
}
