//! What can go wrong with the file, and how clients hear of it.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::{Reason, Status};

/// Why a store cannot be opened, copied or restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lock is held.
    #[error("{}: another process serves this datastore; stop it, or choose another directory", .0.display())]
    Locked(PathBuf),
    /// The file is a database of something else, or no database.
    #[error("{}: no datastore of this program; choose another directory", .0.display())]
    Foreign(PathBuf),
    /// The file has a format that is not known yet.
    #[error("{}: format {found} of the datastore is newer than {known}; use the version of this program that wrote it", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The latest format that is known.
        known: u32,
    },
    /// The file contradicts itself.
    #[error("{}: the datastore is damaged: {finding}; restore the latest backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        finding: String,
    },
    /// The file is in the way.
    #[error("{}: exists; move it away, or choose another name", .0.display())]
    Exists(PathBuf),
    /// The file system refuses.
    #[error("{}: {source}; check the path, its permissions and the space on the disk", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// SQLite refuses.
    #[error("{}: {source}; check the permissions and the space on the disk, or restore the latest backup", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: rusqlite::Error,
    },
}

impl Error {
    pub(super) fn sqlite(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_path_buf();
        match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::Foreign(path),
            Some(ErrorCode::DatabaseCorrupt) => Self::Damaged { path, finding: source.to_string() },
            _ => Self::Sqlite { path, source },
        }
    }

    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }
}

/// Says to the client that this server is at fault.
pub(super) fn internal(message: &str) -> Status {
    Status::new(500, Reason::InternalError, format!("Internal error occurred: {message}"))
}

/// Says to the client that trying again later may help.
pub(super) fn unavailable(message: &str) -> Status {
    Status::new(503, Reason::ServiceUnavailable, message)
}

/// Logs what SQLite says, and says to the client what that means.
pub(super) fn failure(error: &rusqlite::Error) -> Status {
    tracing::error!(%error, "the datastore's file fails");
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => {
            unavailable("the disk of the datastore is full; nothing was written; make room on it")
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            unavailable("the datastore is busy; nothing was written; try again")
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            internal("the datastore is damaged; restore the latest backup")
        }
        _ => internal("the datastore's file cannot be read or written; see the log of the server"),
    }
}
