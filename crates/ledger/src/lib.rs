//! The ledger: who holds which address, read from the datastore whole, and repaired there.
//!
//! [`Scene`] is everything that the audit looks at, or the suspicious part of a cluster that may be
//! too large to be held, with the objects to write back;
//! [`repair()`] carries out what [`ipam::audit::plan`] decided: each write by compare-and-swap,
//! and each release only if its holder is still gone when it is asked for by name.
//!
//! [`Driver`] carries out a single assignment or release, request by request, as an
//! [`ipam::Machine`] wants it.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

use std::time::Duration;

mod driver;
mod lock;
mod objects;
mod repair;
mod scene;
mod screened;
mod stored;

pub use driver::Driver;
pub use lock::{Guard, HostLock};
pub use objects::{Age, Answer, list, list_affinities};
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
    /// The decision was: no.
    #[error(transparent)]
    Refused(#[from] ipam::Failure),
    /// The datastore did not answer in time.
    #[error(
        "address management took longer than {} s: look at the load of the API server and etcd",
        limit.as_secs()
    )]
    TooSlow {
        /// The limit.
        limit: Duration,
    },
}
