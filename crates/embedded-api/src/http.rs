//! What happens between a connection and a verb: paths, media types, limits, streams.

pub(crate) mod info;
pub(crate) mod media;

pub(crate) mod query;
