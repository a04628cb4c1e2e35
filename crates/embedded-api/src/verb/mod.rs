//! What each verb does to an object: pure functions over what is stored and what is asked.

pub(crate) mod create;
pub(crate) mod decode;
pub(crate) mod delete;
pub(crate) mod list;
pub(crate) mod meta;
pub(crate) mod names;
pub(crate) mod options;
pub(crate) mod rules;
pub(crate) mod update;
pub(crate) mod watch;

use jiff::Timestamp;

pub use options::{DeleteOptions, FieldValidation, ListOptions, Match, Query, WriteOptions};

/// What a decision takes from outside: the time and chance.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// Now, as the API writes times.
    pub(crate) now: String,
    /// A UID that nothing has yet.
    pub(crate) uid: String,
    /// Random bytes for a name.
    pub(crate) random: [u8; 5],
    /// A random number, where a search for a free address begins.
    pub(crate) start: u32,
}

/// Writes a time as the API does: RFC 3339, whole seconds, UTC.
pub(crate) fn stamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
