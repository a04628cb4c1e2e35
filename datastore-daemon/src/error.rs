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
