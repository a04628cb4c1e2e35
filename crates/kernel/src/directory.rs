//! Directories: what is in one, and when that changes (inotify(7)).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

/// Why a directory cannot be made, read or watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} directory `{}`: {source}", path.display())]
pub struct Error {
    /// What was being done.
    pub action: &'static str,
    /// The directory.
    pub path: PathBuf,
    /// The kernel's answer.
    pub source: io::Error,
}

/// Makes a directory and those above it, if they are not there yet.
///
/// # Errors
///
/// [`Error`].
pub fn make(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(failed("make", path))
}

/// Returns the text files in a directory, by their names, without what is not UTF-8, is
/// longer than `limit` bytes or is gone by then.
///
/// # Errors
///
/// [`Error`] if the directory cannot be listed.
pub fn read(path: &Path, limit: u64) -> Result<BTreeMap<String, String>, Error> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(path).map_err(failed("list", path))? {
        let entry = entry.map_err(failed("list", path))?;
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        let Ok(name) = entry.file_name().into_string() else { continue };
        if let (true, Ok(text)) = (is_file, crate::files::read(&entry.path(), limit)) {
            found.insert(name, text);
        }
    }
    Ok(found)
}

/// Tells when files come to a directory.
#[derive(Debug)]
pub struct Watch {
    events: AsyncFd<OwnedFd>,
    path: PathBuf,
}

impl Watch {
    /// Starts to watch; needs a tokio runtime with IO.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no such directory, or if too many are watched already.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let open = || -> io::Result<AsyncFd<OwnedFd>> {
            let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
            let wanted = AddWatchFlags::IN_CREATE
                | AddWatchFlags::IN_MOVED_TO
                | AddWatchFlags::IN_CLOSE_WRITE
                | AddWatchFlags::IN_ONLYDIR;
            inotify.add_watch(path, wanted)?;
            #[expect(deprecated, reason = "an OwnedFd is open as long as it lives")]
            AsyncFd::new(OwnedFd::from(inotify))
        };
        let events = open().map_err(failed("watch", path))?;
        Ok(Self { events, path: path.to_owned() })
    }

    /// Waits until a file has come, or has been written, since the watch began or since
    /// the last time.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kernel tells no more.
    pub async fn changed(&mut self) -> Result<(), Error> {
        // Room for many events; which they are does not matter.
        let mut bytes = vec![0; 1 << 12];
        loop {
            let mut ready = self.events.readable().await.map_err(failed("watch", &self.path))?;
            let read = ready.try_io(|events| Ok(nix::unistd::read(events.get_ref(), &mut bytes)?));
            if let Ok(read) = read {
                return read.map(drop).map_err(failed("watch", &self.path));
            }
        }
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_comes_is_told_of() {
        let directory = tempfile::tempdir().unwrap();
        let mut watch = Watch::open(directory.path()).unwrap();
        crate::files::publish(&directory.path().join("pod"), b"here", 0o644).unwrap();
        watch.changed().await.unwrap();
        let found = read(directory.path(), 10).unwrap();
        assert_eq!(found, [("pod".to_owned(), "here".to_owned())].into());
    }

    #[tokio::test]
    async fn what_is_no_directory_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("none");
        let said = Watch::open(&path).unwrap_err().to_string();
        assert!(said.contains("none"), "{said}");
        make(&path).unwrap();
        Watch::open(&path).unwrap();
    }
}
