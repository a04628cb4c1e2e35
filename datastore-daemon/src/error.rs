//! What can end a command, and with which exit code.

use std::io;
use std::path::PathBuf;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Logging.
    #[error(transparent)]
    Log(#[from] telemetry::logging::Error),
    /// Threads.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
    /// The server.
    #[error(transparent)]
    Server(#[from] embedded_api::server::Error),
    /// The store's file.
    #[error(transparent)]
    Store(#[from] embedded_api::store::Error),
    /// What the API refuses.
    #[error("{0}")]
    Refused(#[from] embedded_api::Status),
    /// There is no datastore.
    #[error("{} holds no datastore: name another with --data-dir, or make one with `calico-datastore serve`", .0.display())]
    NoDatastore(PathBuf),
    /// The server to import into.
    #[error(transparent)]
    Datastore(#[from] datastore::Error),
    /// What is in the file is not YAML of Kubernetes.
    #[error("{}: {problem}; correct the file", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Some objects were refused, each with a warning in the log.
    #[error(
        "{refused} of {total} objects were refused, see above: correct them and run this again; what exists is left alone"
    )]
    Incomplete {
        /// How many.
        refused: usize,
        /// Of how many.
        total: usize,
    },
    /// An object cannot be written down.
    #[error("cannot write {0} as YAML")]
    Yaml(String),
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
}
