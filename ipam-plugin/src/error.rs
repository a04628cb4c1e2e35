//! What can go wrong, and the CNI code that the runtime gets for it.

use std::path::PathBuf;
use std::time::Duration;

use cni::ErrorCode;

/// Why a command failed. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The datastore could not be used.
    #[error(transparent)]
    Datastore(#[from] datastore::Error),
    /// The decision was: no.
    #[error(transparent)]
    Refused(#[from] ipam::Failure),
    /// There was no address a moment ago.
    #[error("{0}")]
    Exhausted(String),
    /// An object that everything depends on cannot be understood.
    #[error("{0}")]
    InvalidObject(#[from] api::Invalid),
    /// The cluster is not set up, or locked for a migration.
    #[error(
        "Calico is currently not ready to process requests: {0}; wait until calico-node has \
         started, or unlock the datastore (calicoctl datastore migrate unlock)"
    )]
    NotReady(&'static str),
    /// The Node object does not exist.
    #[error(
        "node {0} does not exist in the datastore: register it in Kubernetes, or correct \
         `nodename` in the network configuration"
    )]
    NoSuchNode(String),
    /// The request makes no sense.
    #[error("{0}")]
    InvalidRequest(String),
    /// The datastore did not answer in time.
    #[error(
        "address management took longer than {} s: look at the load of the API server and etcd",
        limit.as_secs()
    )]
    TooSlow {
        /// The limit.
        limit: Duration,
    },
    /// CHECK found the addresses gone or somebody else's.
    #[error("{0}; delete the pod so that its controller makes a new one")]
    Differs(String),
    /// The marker file of an upgrade could not be written.
    #[error("cannot write {}: {problem}; make its directory writable", path.display())]
    Marker {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl Error {
    /// Returns the code that the runtime gets.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Datastore(error) if error.is_retryable() => ErrorCode::TryAgainLater,
            Self::Datastore(_) | Self::InvalidObject(_) | Self::NoSuchNode(_) => {
                ErrorCode::Datastore
            }
            Self::Refused(failure) => code_of(failure),
            Self::Exhausted(_) => ErrorCode::NoFreeAddress,
            Self::NotReady(_) | Self::TooSlow { .. } => ErrorCode::TryAgainLater,
            Self::InvalidRequest(_) => ErrorCode::InvalidConfig,
            Self::Differs(_) => ErrorCode::CheckFailed,
            Self::Marker { .. } => ErrorCode::Io,
        }
    }
}

const fn code_of(failure: &ipam::Failure) -> ErrorCode {
    use ipam::Failure;
    match failure {
        Failure::NoPool { .. } | Failure::Exhausted { .. } => ErrorCode::NoFreeAddress,
        Failure::OutsidePools { .. }
        | Failure::Taken { .. }
        | Failure::NotOurs { .. }
        | Failure::Overlap { .. }
        | Failure::Changed { .. } => ErrorCode::AddressUnavailable,
        Failure::UnknownPool { .. } | Failure::UnusablePool { .. } => ErrorCode::InvalidConfig,
        Failure::BlockTooLarge { .. } => ErrorCode::Datastore,
        Failure::Contention { .. } | Failure::Unsettled { .. } => ErrorCode::TryAgainLater,
    }
}

impl From<Error> for cni::Error {
    fn from(error: Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
