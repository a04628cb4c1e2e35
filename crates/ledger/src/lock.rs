//! The lock that keeps the processes of one host from refusing each other's writes.
//!
//! Best effort: without it everything is still right, only slower under load.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use model::net::{Cidr, Family};
use model::vrf::VrfName;
use tokio::task;
use tracing::{debug, warn};

/// How long to wait for the others before going on without the lock.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the lock is.
#[derive(Clone, Debug)]
pub struct HostLock {
    path: Option<PathBuf>,
}

/// The lock, held until it is dropped.
#[derive(Debug)]
pub struct Guard {
    _file: Option<File>,
}

impl HostLock {
    /// Makes a lock on the file at `path`, which need not exist.
    #[must_use]
    pub const fn at(path: PathBuf) -> Self {
        Self { path: Some(path) }
    }

    /// Makes a lock that everybody gets at once.
    #[must_use]
    pub const fn none() -> Self {
        Self { path: None }
    }

    /// Takes the lock if nobody has it.
    #[must_use]
    pub fn try_take(&self) -> Option<Guard> {
        let file = match self.path.as_deref().map(open) {
            None => return Some(Guard { _file: None }),
            Some(Err(error)) => return Some(self.go_without(&error)),
            Some(Ok(file)) => file,
        };
        match file.try_lock() {
            Ok(()) => Some(Guard { _file: Some(file) }),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Error(error)) => Some(self.go_without(&error)),
        }
    }

    /// Returns the block of that family that last gave an address of a VRF to this host.
    ///
    /// It says only where to look first.
    #[must_use]
    pub fn last_block(&self, vrf: Option<&VrfName>, family: Family) -> Option<Cidr> {
        let text = fs::read_to_string(self.memory(vrf, family)?).ok()?;
        text.trim().parse().ok()
    }

    /// Remembers the block that gave an address; there being no file is no loss.
    pub fn note_block(&self, vrf: Option<&VrfName>, block: Cidr) {
        let family = block.family();
        if self.last_block(vrf, family) != Some(block)
            && let Some(path) = self.memory(vrf, family)
            && let Err(error) = fs::write(&path, block.to_string())
        {
            debug!(%error, path = %path.display(), "the next ADD will search again");
        }
    }

    fn memory(&self, vrf: Option<&VrfName>, family: Family) -> Option<PathBuf> {
        let extension = match family {
            Family::V4 => "last-ipv4",
            Family::V6 => "last-ipv6",
        };
        let extension = match vrf {
            None => extension.to_owned(),
            Some(vrf) => format!("{vrf}.{extension}"),
        };
        Some(self.path.as_ref()?.with_extension(extension))
    }

    /// Waits for the lock.
    pub async fn take(&self) -> Guard {
        let Some(path) = self.path.clone() else { return Guard { _file: None } };
        let since = Instant::now();
        // A thread of its own, since the kernel serves those who wait in the
        // order in which they came; it ends with the process if we give up.
        let waiting = task::spawn_blocking(move || {
            let file = open(&path)?;
            file.lock().map(|()| file)
        });
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(Ok(Ok(file))) => {
                debug!(waited = ?since.elapsed(), "took the host's lock");
                Guard { _file: Some(file) }
            }
            Ok(Ok(Err(error))) => self.go_without(&error),
            Ok(Err(_)) | Err(_) => {
                warn!(lock = ?self.path, waited = ?since.elapsed(), "going on without the host's lock");
                Guard { _file: None }
            }
        }
    }

    fn go_without(&self, error: &std::io::Error) -> Guard {
        warn!(lock = ?self.path, %error, "going on without the host's lock");
        Guard { _file: None }
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_holds_it() {
        let directory = std::env::temp_dir().join(format!("ipam-lock-{}", std::process::id()));
        let lock = HostLock::at(directory.join("sub/ipam.lock"));
        let held = lock.try_take();
        assert!(held.is_some());
        assert!(lock.try_take().is_none());
        drop(held);
        assert!(lock.try_take().is_some());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn the_block_that_had_room_is_remembered_per_family() {
        let directory = std::env::temp_dir().join(format!("ipam-last-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let lock = HostLock::at(directory.join("ipam.lock"));
        assert_eq!(lock.last_block(None, Family::V4), None);
        let block: Cidr = "10.0.0.64/26".parse().unwrap();
        lock.note_block(None, block);
        let red = "red".parse().unwrap();
        assert_eq!(lock.last_block(Some(&red), Family::V4), None, "another's block");
        assert_eq!(lock.last_block(None, Family::V4), Some(block));
        assert_eq!(lock.last_block(None, Family::V6), None);
        fs::write(directory.join("ipam.last-ipv4"), "no block").unwrap();
        assert_eq!(lock.last_block(None, Family::V4), None);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_lock_that_cannot_be_made_stops_nobody() {
        let lock = HostLock::at(PathBuf::from("/proc/no/such/ipam.lock"));
        assert!(lock.try_take().is_some());
        assert!(HostLock::none().try_take().is_some());
    }
}
