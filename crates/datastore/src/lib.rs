//! The Kubernetes API server: typed reads, compare-and-swap writes and watches.
//!
//! This is the only crate that talks to the API server. A program makes one [`Client`] and
//! clones it; all its requests, and those of every [`Client::watch`], travel as parallel streams
//! of one HTTP/2 connection.
//!
//! ```text
//! Options ─► config (kubeconfig, service account) ─► transport (one connection, credentials)
//!                                                       │
//!              Client: get list create update delete ◄──┤
//!              watch:  kube::runtime::watcher        ◄──┘ ─► item (one object at a time) ─► Mirror
//! ```
//!
//! Invariants:
//! * Every write is compare-and-swap: [`Client::update`] and [`Client::delete`] refuse an object
//!   that was not read from the server.
//! * A write whose answer was lost is [`Error::LostResponse`], never a plain failure: the caller
//!   must read again before it decides.
//! * One object that cannot be read never stops a list of others or a watch.
//! * Tokens, passwords and keys appear in no message, at no log level.
//!
//! Start reading at [`Client`], then [`WatchEvent`].

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

mod any;
mod client;
mod cni;
mod config;
mod credential;
mod error;
mod item;
mod joint;
mod mirror;
mod request;
mod token;
mod transport;
mod trust;
mod watch;

pub use any::Place;
pub use client::{Client, Filter, Object};
pub use config::{Inline, Options, Source};
pub use error::{Error, Target};
pub use item::ObjectKey;
pub use mirror::{Change, Mirror};
pub use token::Token;
pub use watch::WatchEvent;
