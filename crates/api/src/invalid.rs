//! What is wrong with an object.

use std::fmt;

/// A field of an object that cannot be followed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Invalid {
    /// The object's kind and name: `IPPool default-ipv4-ippool`.
    pub object: String,
    /// The field's path: `spec.blockSize`.
    pub field: String,
    /// The value, as it stands there.
    pub value: String,
    /// What is wrong with it and what to write instead.
    pub problem: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, field, value, problem } = self;
        write!(f, "{object}: {field} `{value}`: {problem}")
    }
}

impl std::error::Error for Invalid {}
