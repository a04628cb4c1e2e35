//! What to change so that a table holds what it should.
//!
//! Pure: the caller lists the table, filters it to the entries that are ours,
//! and applies the [`Plan`].

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

mod plan;

pub use plan::Plan;
