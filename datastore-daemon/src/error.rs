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
