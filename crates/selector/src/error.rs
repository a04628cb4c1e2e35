//! What is wrong with a selector, where, and what would have been right.

use std::fmt;

/// Text that is no selector.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("selector `{excerpt}`, character {position}: {problem}")]
pub struct InvalidSelector {
    /// The text, cut around the position if it is long.
    pub excerpt: String,
    /// Where the problem starts, counted in characters from 1.
    pub position: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong at one place of a selector.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Problem {
    /// Something else stands there than the grammar allows.
    Unexpected {
        /// What stands there.
        found: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// A quoted text has no end.
    Unterminated {
        /// The quote that is missing.
        quote: char,
    },
    /// A label's name is too long; holds its length in bytes.
    LongLabel(usize),
    /// The whole text is too long; holds its length in bytes.
    TooLong(usize),
    /// Too many parentheses are open at once.
    TooDeep,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unexpected { found, expected } => write!(f, "expected {expected}, found {found}"),
            Self::Unterminated { quote } => {
                write!(f, "text is not closed: add {quote} where it ends")
            }
            Self::LongLabel(len) => {
                write!(f, "label name has {len} characters: use at most {}", crate::MAX_LABEL_LEN)
            }
            Self::TooLong(len) => {
                write!(f, "text has {len} bytes: use at most {}", crate::MAX_LEN)
            }
            Self::TooDeep => {
                write!(
                    f,
                    "expression is nested too deeply: use at most {} levels",
                    crate::MAX_DEPTH
                )
            }
        }
    }
}

impl InvalidSelector {
    /// Reports `problem` at byte `offset` of `text`.
    pub(crate) fn at(text: &str, offset: usize, problem: Problem) -> Self {
        let before = text.char_indices().take_while(|(start, _)| *start < offset).count();
        Self { excerpt: excerpt(text, before), position: before.saturating_add(1), problem }
    }
}

/// Returns at most 60 characters of `text` around the one that has `before` others before it.
fn excerpt(text: &str, before: usize) -> String {
    const AROUND: usize = 30;
    let skipped = before.saturating_sub(AROUND);
    let mut rest = text.chars().skip(skipped);
    let shown: String = rest.by_ref().take(AROUND.saturating_mul(2)).collect();
    let start = if skipped > 0 { "…" } else { "" };
    let end = if rest.next().is_some() { "…" } else { "" };
    format!("{start}{shown}{end}")
}
