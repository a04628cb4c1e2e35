//! Bidirectional Forwarding Detection over one hop, without IO (RFC 5880, RFC 5881).
//!
//! [`Watch`] is told what happened ([`Input`]) and what time it is, and says what to do
//! ([`Output`]): which packets to send, and when the path to a neighbour has gone down.
//! It opens no socket, reads no clock and draws no random number. Sockets are the shell's:
//! UDP to port 3784 from a port of 49152 to 65535, sent with a TTL of 255 (RFC 5881 §4, §5).
//!
//! Asynchronous mode without authentication, echo or demand of our own. Its control plane
//! lives in the same program as the watch, so packets never claim independence (C is zero).
//!
//! Invariants:
//! * Bytes from a neighbour never panic and allocate nothing.
//! * A packet that came over more than one hop changes nothing.
//! * Only a path that was up goes down.
//!
//! Where to start reading: [`watch`], then [`session`] for the state machine, [`packet`]
//! for the bytes.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod packet;
pub mod session;
pub mod watch;

pub use packet::{Diagnostic, Packet, Refused, State};
pub use watch::{Input, NeighbourStatus, Output, Watch};
