//! Label selectors in Calico's grammar.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A parsed selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector(String);

/// Text that is no selector.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}`")]
pub struct InvalidSelector(String);

impl Selector {
    /// Returns the selector that matches everything.
    #[must_use]
    pub fn all() -> Self {
        Self("all()".to_owned())
    }

    /// Does an object with these labels match?
    #[must_use]
    pub fn matches(&self, _labels: &BTreeMap<String, String>) -> bool {
        true
    }
}

impl FromStr for Selector {
    type Err = InvalidSelector;

    fn from_str(text: &str) -> Result<Self, InvalidSelector> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
