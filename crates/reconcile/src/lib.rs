//! What to change so that a table holds what it should.
//!
//! ```text
//!  wanted ──► ┌───────┐ ── due(now) ──► changes ──► the caller applies them
//!  listed ──► │ Table │                                      │
//!  seen   ──► └───────┘ ◄── succeeded / failed ──────────────┘
//! ```
//!
//! Pure: the caller lists the kernel's table, filters it to the entries that are
//! its own, applies the changes and says how that went. Two levels:
//!
//! * [`Plan`] is the difference between two tables, all at once.
//! * [`Table`] remembers across passes: what failed and when it is due again,
//!   what another life of this program left that must not go yet, and whether
//!   the table has to be listed again.
//!
//! Invariants: nothing is changed before the table was listed; a key has at most
//! one change at a time; a held key is never deleted; a failure delays its own key
//! only.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

mod backoff;
mod plan;
mod table;

pub use backoff::Backoff;
pub use plan::Plan;
pub use table::{Change, Table};
