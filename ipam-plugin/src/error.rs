//! What can go wrong, and the CNI code that the runtime gets for it.

use std::path::PathBuf;

use cni::ErrorCode;
use ledger::NotReady;

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
    #[error("Calico is currently not ready to process requests: {0}")]
    NotReady(NotReady),
    /// The Node object does not exist.
    #[error(
        "node {0} does not exist in the datastore: register it in Kubernetes, or correct \
         `nodename` in the network configuration"
    )]
    NoSuchNode(String),
    /// The runtime asks for ranges, which only pools decide here.
    #[error(
        "network configuration has `runtimeConfig.ipRanges`, which calico-ipam does not follow: \
         remove the capability `ipRanges`, and name pools by `ipam.ipv4_pools`, `ipam.ipv6_pools` \
         or the pod's annotations"
    )]
    Unsupported,
    /// The request makes no sense.
    #[error("{0}")]
    InvalidRequest(String),
    /// A handle, or a namespace, is of another VRF.
    #[error("{0}")]
    OtherVrf(String),
    /// The datastore did not answer in time.
    #[error("{0}")]
    TooSlow(String),
    /// CHECK found the addresses gone or somebody else's.
    #[error("{0}; delete the pod so that its controller makes a new one")]
    Differs(String),
    /// Addresses of host-local cannot be taken over.
    #[error(
        "{count} addresses in {} cannot be taken over from host-local; first: {first}; make an \
         IPPool that contains them, then start the upgrade again",
        directory.display()
    )]
    HostLocal {
        /// Where they are.
        directory: PathBuf,
        /// How many.
        count: usize,
        /// The first, with the reason.
        first: String,
    },
    /// A file of an upgrade could not be read or written.
    #[error("cannot use {}: {problem}; make it, and its directory, readable and writable", path.display())]
    Marker {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl From<ledger::Error> for Error {
    fn from(error: ledger::Error) -> Self {
        match error {
            ledger::Error::Datastore(error) => Self::Datastore(error),
            ledger::Error::Invalid(error) => Self::InvalidObject(error),
            ledger::Error::Refused(failure) => Self::Refused(failure),
            ledger::Error::NotReady(reason) => Self::NotReady(reason),
            ledger::Error::NoSuchNode(name) => Self::NoSuchNode(name),
            error @ (ledger::Error::OtherVrf { .. } | ledger::Error::NotItsVrf { .. }) => {
                Self::OtherVrf(error.to_string())
            }
            error @ ledger::Error::TooSlow { .. } => Self::TooSlow(error.to_string()),
        }
    }
}

impl Error {
    /// Returns the code that the runtime gets.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Datastore(error) => error.into(),
            Self::InvalidObject(_) => ErrorCode::Datastore,
            Self::NoSuchNode(_) => ErrorCode::UnknownNode,
            Self::NotReady(NotReady::NotSetUp) => ErrorCode::NotSetUp,
            Self::NotReady(NotReady::Locked) => ErrorCode::Locked,
            Self::Unsupported => ErrorCode::UnsupportedField,
            Self::Refused(failure) => code_of(failure),
            Self::Exhausted(_) => ErrorCode::NoFreeAddress,
            Self::TooSlow(_) | Self::OtherVrf(_) => ErrorCode::TryAgainLater,
            Self::InvalidRequest(_) => ErrorCode::InvalidConfig,
            Self::Differs(_) => ErrorCode::CheckFailed,
            Self::Marker { .. } | Self::HostLocal { .. } => ErrorCode::Io,
        }
    }
}

const fn code_of(failure: &ipam::Failure) -> ErrorCode {
    use ipam::{Failure, Limit};
    match failure {
        Failure::NoPool { .. } => ErrorCode::NoPool,
        Failure::Exhausted { reason: Limit::PoolsFull, .. } => ErrorCode::NoFreeAddress,
        Failure::Exhausted { .. } => ErrorCode::NotThisNode,
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
        if let Error::Datastore(error) = &error {
            return error.into();
        }
        Self::new(error.code(), error.to_string())
    }
}
