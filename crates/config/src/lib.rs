//! Settings of the node daemon: one table yields parsing, precedence and the manual.
//!
//! [`felix`] holds what Calico calls Felix configuration, [`startup`] the
//! environment that only matters while the daemon starts. A row of a table
//! is one field of a struct: its documentation, type, default, names and whether
//! anything acts upon it yet. The macro in [`table`] makes the struct, its
//! `Default`, its reading and its chapter of the manual out of it, so that none
//! of them can say something else than the others.
//!
//! ```text
//! environment ─┐
//! felix.cfg   ─┤  Sources ──► FelixConfig::resolve ──► FelixConfig, Vec<Problem>
//! node.<name> ─┤
//! default     ─┘
//! ```
//!
//! The first source that has a value decides. A value that is refused becomes a
//! [`Problem`] that says what would be right, and the default is used: no
//! setting is fatal here. Nothing in this crate reads the environment or a
//! file; the program hands their contents in.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

pub mod felix;
pub mod manual;
pub mod source;
pub mod startup;
pub mod table;
pub mod value;

pub use felix::FelixConfig;
pub use source::{Problem, Sources};
pub use startup::StartupConfig;

#[cfg(test)]
mod tests;
