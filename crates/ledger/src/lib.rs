//! The ledger: who holds which address, read from the datastore whole, and repaired there.
//!
//! [`Scene`] is everything that the audit looks at, with the objects to write back;
//! [`repair()`] carries out what [`ipam::audit::plan`] decided: each write by compare-and-swap,
//! and each release only if its holder is still gone when it is asked for by name.

mod repair;
mod scene;
mod stored;

pub use repair::{Outcome, Repaired, repair};
pub use scene::{Lists, Scene, now};
pub use stored::{Stored, described};

/// Why the ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The datastore.
    #[error(transparent)]
    Datastore(#[from] datastore::Error),
    /// An object.
    #[error(transparent)]
    Invalid(#[from] api::Invalid),
}
