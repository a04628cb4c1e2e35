//! The ledger: who holds which address, read from the datastore whole, and repaired there.
//!
//! [`Scene`] is everything that the audit looks at, or the suspicious part of a cluster that may be
//! too large to be held, with the objects to write back;
//! [`repair()`] carries out what [`ipam::audit::plan`] decided: each write by compare-and-swap,
//! and each release only if its holder is still gone when it is asked for by name.
//!
//! [`Driver`] carries out a single assignment or release, request by request, as an
//! [`ipam::Machine`] wants it; [`assign()`] is all that a workload's addresses need, from reading
//! what they depend on.
//!
//! All of it is about one VRF at a time, or about those who are in none: a [`Driver`] is told
//! which, names objects by it and sees no others; the decisions know nothing of it.

#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

use std::time::Duration;

mod ahead;
pub mod assign;
mod desk;
mod driver;
mod lock;
mod objects;
mod release;
mod repair;
mod scene;
mod screened;
mod stored;
pub mod surroundings;

pub use ahead::Ahead;
pub use assign::{Order, Wanted, assign};
pub use desk::Desk;
pub use driver::Driver;
pub use lock::{Guard, HostLock};
pub use objects::{Age, Answer, list, list_affinities};
pub use release::{read as read_handle, release};
pub use repair::{Outcome, Repaired, repair};
pub use scene::{Lists, Scene, now};
pub use screened::vrfs;
pub use stored::{Stored, described};
pub use surroundings::claims_by_vrf;

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
    /// The cluster is not set up, or locked for a migration.
    #[error("Calico is currently not ready to process requests: {0}")]
    NotReady(NotReady),
    /// The Node object does not exist.
    #[error(
        "node {0} does not exist in the datastore: start calico-node on it, or correct the name \
         that this host is to have"
    )]
    NoSuchNode(String),
    /// The addresses of one container are of one VRF.
    #[error(
        "{object} is of VRF {vrf}: nothing is taken or given back for it in another; delete what \
         holds it first"
    )]
    OtherVrf {
        /// The object.
        object: String,
        /// Whose it is.
        vrf: String,
    },
    /// The namespace is of another VRF than the caller says.
    #[error(
        "namespace {namespace} is of VRF {found}, not {said}: its annotation has just changed, so \
         try again"
    )]
    NotItsVrf {
        /// The namespace.
        namespace: String,
        /// Whose it is.
        found: String,
        /// Whose it is said to be.
        said: String,
    },
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

/// Why the cluster cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotReady {
    /// Nobody has set it up.
    #[error(
        "ClusterInformation `default` does not exist; calico-node makes it when it starts, so \
         check that it runs"
    )]
    NotSetUp,
    /// Somebody has locked it.
    #[error(
        "ClusterInformation `default` has no datastoreReady: true; whoever locked the datastore \
         must run `calicoctl datastore migrate unlock`"
    )]
    Locked,
}
