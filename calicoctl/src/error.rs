//! What can end a command, and with which exit code.

use std::io;
use std::path::PathBuf;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Logging.
    #[error(transparent)]
    Log(#[from] telemetry::logging::Error),
    /// The runtime.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
    /// The datastore.
    #[error(transparent)]
    Datastore(#[from] datastore::Error),
    /// An object that everything depends on cannot be understood.
    #[error("{0}")]
    InvalidObject(#[from] api::Invalid),
    /// The configuration says what this program cannot do.
    #[error("{origin}: {problem}")]
    Config {
        /// The file, or `environment`.
        origin: String,
        /// The setting, its value, and the remedy.
        problem: String,
    },
    /// The cluster is of another release.
    #[error(
        "the cluster is of Calico {cluster} and calicoctl of {client}: use the calicoctl of that release, or --allow-version-mismatch"
    )]
    VersionMismatch {
        /// The cluster's release.
        cluster: String,
        /// Ours.
        client: &'static str,
    },
    /// A file.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file has other contents than it should have.
    #[error("{}: {problem}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and the remedy.
        problem: String,
    },
    /// What was asked for is refused.
    #[error("{0}")]
    Refused(String),
    /// A result cannot be printed.
    #[error("cannot print the result: {0}; give standard output a place to go")]
    Unprintable(String),
}

impl From<ledger::Error> for Error {
    fn from(error: ledger::Error) -> Self {
        match error {
            ledger::Error::Datastore(error) => Self::Datastore(error),
            ledger::Error::Invalid(error) => Self::InvalidObject(error),
            error @ (ledger::Error::Refused(_)
            | ledger::Error::NotReady(_)
            | ledger::Error::NoSuchNode(_)
            | ledger::Error::OtherVrf { .. }
            | ledger::Error::NotItsVrf { .. }
            | ledger::Error::TooSlow { .. }) => Self::Refused(error.to_string()),
        }
    }
}
