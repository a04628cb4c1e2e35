//! What happens between a connection and a verb: paths, media types, limits, streams.

mod answer;
pub(crate) mod api;
mod body;
mod discovery;
mod duplicates;
pub(crate) mod info;
pub(crate) mod limit;
pub(crate) mod listen;
pub(crate) mod media;

mod openapi;
mod protobuf;
pub(crate) mod query;
mod table;
mod verbs;
mod view;
