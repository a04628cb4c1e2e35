//! Files that are whole or absent, never half written (rename(2)).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::libc;

/// Why a file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path has no directory or no file name.
    #[error("`{path}` is no path of a file: write a directory and a name")]
    InvalidPath {
        /// What was given.
        path: PathBuf,
    },
    /// The target is a symbolic link, perhaps put there to have us write elsewhere.
    #[error("`{path}` is a symbolic link, which is not followed: remove it or name its target")]
    SymbolicLink {
        /// What was given.
        path: PathBuf,
    },
    /// The file is longer than what it should hold.
    #[error("`{path}` is longer than {limit} bytes: it is not the file that was meant")]
    TooLong {
        /// What was given.
        path: PathBuf,
        /// The most bytes that are read.
        limit: u64,
    },
    /// The kernel refused.
    #[error("cannot {action} `{path}`: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error {
    /// May the same call succeed later, with nothing changed by us?
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::InvalidPath { .. } | Self::SymbolicLink { .. } | Self::TooLong { .. } => false,
            Self::Io { source, .. } => matches!(
                source.raw_os_error(),
                Some(libc::EINTR | libc::EMFILE | libc::ENFILE | libc::ENOSPC | libc::EDQUOT)
            ),
        }
    }

    /// Is the file simply not there?
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Writes a file so that a reader, or a crash, meets the old contents or the new.
///
/// `mode` is the file's permissions, such as `0o644`, whatever the umask.
///
/// # Errors
///
/// [`Error::SymbolicLink`] if there is one at `path`; [`Error::Io`]; the old
/// contents are untouched then.
pub fn write(path: &Path, contents: &[u8], mode: u32) -> Result<(), Error> {
    put(path, contents, mode, Lasting::Disk)
}

/// Writes a file as [`write()`] does, but for what is true only until the machine stops: it is
/// not waited for the disk.
///
/// # Errors
///
/// As for [`write()`].
pub fn publish(path: &Path, contents: &[u8], mode: u32) -> Result<(), Error> {
    put(path, contents, mode, Lasting::Memory)
}

/// What contents must outlive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Lasting {
    /// A power failure.
    Disk,
    /// The program.
    Memory,
}

fn put(path: &Path, contents: &[u8], mode: u32, lasting: Lasting) -> Result<(), Error> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::InvalidPath { path: path.to_owned() });
    };
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
        return Err(Error::SymbolicLink { path: path.to_owned() });
    }
    let directory = if directory == Path::new("") { Path::new(".") } else { directory };
    let temporary = Temporary::beside(directory, name);
    let failed = |action| move |source| Error::Io { action, path: path.to_owned(), source };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&temporary.0)
        .map_err(failed("create a file beside"))?;
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed("set the mode of"))?;
    file.write_all(contents).map_err(failed("write"))?;
    if lasting == Lasting::Disk {
        file.sync_all().map_err(failed("write to disk"))?;
    }
    fs::rename(&temporary.0, path).map_err(failed("replace"))?;
    if lasting == Lasting::Memory {
        return Ok(());
    }
    // The name, too, must survive a power failure.
    File::open(directory).and_then(|opened| opened.sync_all()).map_err(failed("write to disk"))
}

/// Gives a file another name, in place of whatever has it.
///
/// # Errors
///
/// [`Error::SymbolicLink`] if there is one at `path`; [`Error::Io`], also where the file system has
/// no such links; what was there is untouched then.
pub fn link(file: &Path, path: &Path) -> Result<(), Error> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::InvalidPath { path: path.to_owned() });
    };
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
        return Err(Error::SymbolicLink { path: path.to_owned() });
    }
    let temporary = Temporary::beside(directory, name);
    let failed = |action| move |source| Error::Io { action, path: path.to_owned(), source };
    fs::hard_link(file, &temporary.0).map_err(failed("link a file beside"))?;
    fs::rename(&temporary.0, path).map_err(failed("replace"))
}

/// Reads a file of text that has at most `limit` bytes.
///
/// # Errors
///
/// [`Error::is_missing`] if it is not there; [`Error::TooLong`]; [`Error::Io`].
pub fn read(path: &Path, limit: u64) -> Result<String, Error> {
    let failed = |source| Error::Io { action: "read", path: path.to_owned(), source };
    // O_NONBLOCK: a FIFO put in the way must not hang us.
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(limit.saturating_add(1)).read_to_string(&mut text).map_err(failed)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > limit {
        return Err(Error::TooLong { path: path.to_owned(), limit });
    }
    Ok(text)
}

/// Deletes a file; returns whether it was there.
///
/// # Errors
///
/// [`Error::Io`].
pub fn delete(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::Io { action: "delete", path: path.to_owned(), source }),
    }
}

/// A file on its way to another name; what does not get there is deleted.
struct Temporary(PathBuf);

static NEXT: AtomicU64 = AtomicU64::new(0);

impl Temporary {
    fn beside(directory: &Path, name: &std::ffi::OsStr) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!(".{}.{}.{number}.tmp", name.to_string_lossy(), std::process::id());
        Self(directory.join(name))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After the rename there is nothing of this name.
        drop(fs::remove_file(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn replaces_contents_and_mode() {
        let directory = directory();
        let path = directory.path().join("nodename");
        publish(&path, b"old", 0o600).unwrap();
        write(&path, b"new", 0o644).unwrap();
        assert_eq!(read(&path, 100).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn refuses_symbolic_links_and_leaves_their_target() {
        let directory = directory();
        let (target, link) = (directory.path().join("target"), directory.path().join("link"));
        fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(matches!(write(&link, b"x", 0o644), Err(Error::SymbolicLink { .. })));
        assert_eq!(read(&target, 100).unwrap(), "precious");
    }

    #[test]
    fn a_link_replaces_what_was_there_and_follows_nothing() {
        let directory = directory();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("one"), "1").unwrap();
        fs::write(path("two"), "2").unwrap();
        link(&path("one"), &path("two")).unwrap();
        link(&path("one"), &path("two")).unwrap();
        assert_eq!(read(&path("two"), 5).unwrap(), "1");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing else is left");
        std::os::unix::fs::symlink(path("one"), path("link")).unwrap();
        assert!(matches!(link(&path("two"), &path("link")), Err(Error::SymbolicLink { .. })));
    }

    #[test]
    fn a_failed_write_leaves_the_old_contents_and_no_litter() {
        let directory = directory();
        let path = directory.path().join("taken");
        fs::create_dir(&path).unwrap();
        assert!(write(&path, b"x", 0o644).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn reads_no_more_than_the_limit() {
        let directory = directory();
        let path = directory.path().join("long");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), "12345");
        assert!(matches!(read(&path, 4), Err(Error::TooLong { limit: 4, .. })));
    }

    #[test]
    fn absence_is_told_apart() {
        let missing = directory().path().join("none");
        assert!(read(&missing, 5).unwrap_err().is_missing());
        assert!(!delete(&missing).unwrap());
    }
}
