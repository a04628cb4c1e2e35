//! Locks between processes (flock(2)); the kernel releases those of the dead.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc;

/// How long to wait between two tries, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// A held lock; dropping it releases it.
#[derive(Debug)]
pub struct Lock {
    _held: Flock<File>,
}

/// Why a lock is not held.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be made or opened.
    #[error("cannot open lock file `{path}`: {source}; create its directory or make it writable")]
    Open {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Another process held the lock all the time.
    #[error(
        "`{path}` was locked for more than {timeout:?}: see fuser(1) for the process that holds it"
    )]
    TimedOut {
        /// The file.
        path: PathBuf,
        /// How long we waited.
        timeout: Duration,
    },
    /// The kernel refused.
    #[error("cannot lock `{path}`: {errno}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
}

impl Error {
    /// May the same call succeed later, with nothing changed by us?
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TimedOut { .. } => true,
            Self::Refused { errno, .. } => matches!(*errno, Errno::EINTR | Errno::ENOLCK),
            Self::Open { .. } => false,
        }
    }
}

impl Lock {
    /// Takes the lock of that file, which is made if it is not there, waiting up
    /// to `timeout` for its holder.
    ///
    /// The file stays: to delete it would let two processes hold "the" lock.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`], [`Error::Open`] or [`Error::Refused`].
    pub async fn acquire(path: &Path, timeout: Duration) -> Result<Self, Error> {
        let take = async {
            let mut pause = FIRST_PAUSE;
            loop {
                if let Some(lock) = Self::try_acquire(path)? {
                    return Ok(lock);
                }
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            }
        };
        tokio::time::timeout(timeout, take)
            .await
            .unwrap_or_else(|_| Err(Error::TimedOut { path: path.to_owned(), timeout }))
    }

    /// Takes the lock of that file if nobody holds it.
    ///
    /// # Errors
    ///
    /// [`Error::Open`] or [`Error::Refused`].
    pub fn try_acquire(path: &Path) -> Result<Option<Self>, Error> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .map_err(|source| Error::Open { path: path.to_owned(), source })?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => Ok(Some(Self { _held: held })),
            Err((_, Errno::EAGAIN)) => Ok(None),
            Err((_, errno)) => Err(Error::Refused { path: path.to_owned(), errno }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_one_holds_a_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = Lock::try_acquire(&path).unwrap().unwrap();
        let error = Lock::acquire(&path, Duration::from_millis(5)).await.unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }) && error.is_retryable(), "{error}");
        drop(held);
        assert!(Lock::acquire(&path, Duration::ZERO).await.is_ok());
    }

    #[tokio::test]
    async fn says_which_directory_is_missing() {
        let error = Lock::acquire(Path::new("/nonexistent/lock"), Duration::ZERO).await;
        assert!(error.unwrap_err().to_string().contains("/nonexistent/lock"));
    }
}
