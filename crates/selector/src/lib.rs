//! Label selectors in Calico's grammar: parsing, evaluation, canonical text.
//!
//! ```text
//! selector  = [ any ]                                   (nothing means all())
//! any       = every { "||" every }
//! every     = operand { "&&" operand }
//! operand   = { "!" } ( "has(" LABEL ")" | "all()" | "global()" | "(" any ")" | test )
//! test      = LABEL ( "==" | "!=" | "contains" | "starts with" | "ends with" ) TEXT
//!           | LABEL ( "in" | "not in" ) "{" [ TEXT { "," TEXT } ] "}"
//! LABEL     = 1 to 512 of letters, digits, "_", ".", "/", "-"
//! TEXT      = characters between two " or two ', without escapes
//! ```
//!
//! White space is space and tab. The space inside `not in`, `starts with` and
//! `ends with` may be left out. `!=` and `not in` hold for objects that lack
//! the label.
//!
//! [`Selector`]'s `Display` is the canonical text, from which the identities of
//! IP sets are made: two texts that mean the same by grammar (quotes, spaces,
//! order of a set) have one canonical text, and parsing that gives it back.
//!
//! The parser descends once per parenthesis and refuses more than
//! [`MAX_DEPTH`], so that no text can exhaust the stack.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

mod error;
mod expression;
mod lexer;
mod needs;
mod parser;

pub use error::{InvalidSelector, Problem};
pub use needs::Need;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use expression::Expression;

/// The most parentheses that may be open at once.
pub const MAX_DEPTH: usize = 100;

/// The longest text of a selector, in bytes: more than a Kubernetes object holds in one field.
pub const MAX_LEN: usize = 1 << 20;

/// The longest name of a label, in bytes.
pub const MAX_LABEL_LEN: usize = 512;

/// Something that has labels, however it keeps them.
pub trait Labelled {
    /// Returns the value of the label `name`, if it is there.
    fn label(&self, name: &str) -> Option<&str>;
}

impl Labelled for BTreeMap<String, String> {
    fn label(&self, name: &str) -> Option<&str> {
        self.get(name).map(String::as_str)
    }
}

/// A parsed selector: a question that labels answer with yes or no.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Selector(Expression);

impl Selector {
    /// Returns the selector that matches everything, `all()`.
    #[must_use]
    pub const fn all() -> Self {
        Self(Expression::All)
    }

    /// Returns the selector that matches nothing, `!all()`.
    #[must_use]
    pub fn none() -> Self {
        Self(Expression::Not(Box::new(Expression::All)))
    }

    /// Does an object with these labels match?
    ///
    /// `global()` matches objects outside every namespace: those without the
    /// label `projectcalico.org/namespace`.
    #[must_use]
    pub fn matches(&self, labels: &impl Labelled) -> bool {
        self.0.matches(labels)
    }

    /// Returns the selector that matches what both match: `(self && other)`.
    ///
    /// Nothing is simplified, since the canonical text is an identity.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(Expression::Every(vec![self.0, other.0]))
    }

    /// Returns the selector that asks the same of the labels whose names start
    /// with `prefix`: `pcns.` for a namespace's, `pcsa.` for a service account's.
    #[must_use]
    pub fn prefixed(self, prefix: &str) -> Self {
        Self(self.0.prefixed(prefix))
    }
}

impl Default for Selector {
    fn default() -> Self {
        Self::all()
    }
}

impl FromStr for Selector {
    type Err = InvalidSelector;

    fn from_str(text: &str) -> Result<Self, InvalidSelector> {
        parser::parse(text).map(Self)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests;
