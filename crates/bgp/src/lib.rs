//! A BGP-4 speaker that does no IO (RFC 4271).
//!
//! [`Speaker`] is told what happened ([`Input`]) and what time it is, and says
//! what to do ([`Output`]). It opens no socket, reads no clock and draws no
//! random number, so a test plays a whole network in microseconds, and the same
//! inputs always give the same outputs.
//!
//! ```text
//!  Input ─► speaker ─► session (one per peer) ─► connection (one per TCP connection)
//!              │            collision, retry          framing, timers
//!              │  UPDATE
//!              ▼
//!           rib::Table ─ best_path ─► Output::RoutesChanged (the kernel's routes)
//!              │
//!              └─ export ─► rib::Stream (one per group of peers) ─ wire ─► Output::Send
//! ```
//!
//! Invariants:
//! * Connections are numbers here ([`ConnectionId`]); sockets belong to the shell.
//! * Bytes from a peer never panic, and never allocate more than a small multiple
//!   of their own number.
//! * The routes that come out depend on the paths that are held, not on the order
//!   in which they came.
//! * Nothing is announced before both the sessions and the advertisements are
//!   known, so a restart never withdraws what it merely has not read yet.
//!
//! Where to start reading: [`speaker`], then [`session`] for the state machine,
//! [`rib`] for the tables, [`wire`] for the messages.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

mod connection;
mod counts;
mod export;
mod filter;
mod hold_time;
mod import;
mod ranges;
pub mod rib;
pub mod session;
pub mod speaker;
mod ways;
pub mod wire;

pub use connection::ConnectionId;
pub use counts::{MessageCounts, RouteCounts};
pub use hold_time::{HoldTime, UnacceptableHoldTime};
pub use session::State;
pub use speaker::{Input, Output, PathFate, PeerStatus, Problem, Speaker, SpeakerConfig, Status};
pub use wire::BgpIdentifier;
