//! Files that only their owner may read, whole or absent, and never written through a link.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::libc;

/// The most bytes of a key, token or certificate that are read.
const LIMIT: u64 = 64 * 1024;
/// Neither a link nor a FIFO may stand in the way.
const PLAIN: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK;

/// Why a private file or directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What is at the path is not what should be there.
    #[error("{} is no {expected}: remove it, or choose another data directory", path.display())]
    Unexpected {
        /// What was given.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
    },
    /// Others may read the directory, and it is not for us to change that.
    #[error(
        "{} can be read by others (mode {mode:04o}) and holds other files: \
         choose an empty directory, or run `chmod 0700` on it",
        path.display()
    )]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Others may read the file, so that what is in it is no secret any more.
    #[error(
        "{} can be read by others (mode {mode:04o}): remove it to have it made anew, \
         or run `chmod 0600` on it if nobody has read it",
        path.display()
    )]
    Leaked {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The kernel refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Group and others have no right of any kind.
const fn is_private(mode: u32) -> bool {
    mode.trailing_zeros() >= 6
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

/// Makes `path` a directory of mode 0700, or checks that it is one.
///
/// An empty directory is closed to others; one that holds files is refused instead,
/// since it may be somebody's home or `/tmp`.
///
/// # Errors
///
/// [`Error::Open`], [`Error::Unexpected`], [`Error::Io`].
pub(crate) fn private_directory(path: &Path) -> Result<(), Error> {
    if let Some(parent) = path.parent().filter(|parent| *parent != Path::new("")) {
        fs::create_dir_all(parent).map_err(failed("create the directory", parent))?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed("create the directory", path)(error)),
    }
    let found = fs::metadata(path).map_err(failed("look at", path))?;
    if !found.is_dir() {
        return Err(Error::Unexpected { path: path.to_owned(), expected: "directory" });
    }
    let mode = found.permissions().mode() & 0o777;
    if is_private(mode) {
        return Ok(());
    }
    let mut files = fs::read_dir(path).map_err(failed("list", path))?;
    if files.next().is_some() {
        return Err(Error::Open { path: path.to_owned(), mode });
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        .map_err(failed("set the mode of", path))
}

/// Writes a file of mode 0600 so that a reader, or a crash, meets the old contents or the new.
///
/// # Errors
///
/// [`Error::Unexpected`] if a link or directory is in the way; [`Error::Io`].
pub(crate) fn write_private(path: &Path, contents: &[u8]) -> Result<(), Error> {
    if fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(Error::Unexpected { path: path.to_owned(), expected: "file" });
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    // Ours from a run that was killed, if there: the name holds a process id.
    drop(fs::remove_file(&temporary));
    let written = write_new(&temporary, contents)
        .and_then(|()| fs::rename(&temporary, path).map_err(failed("replace", path)));
    if written.is_err() {
        drop(fs::remove_file(&temporary));
    }
    written?;
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    let parent = parent.unwrap_or_else(|| Path::new("."));
    // The name, too, must survive a power failure.
    File::open(parent).and_then(|opened| opened.sync_all()).map_err(failed("sync", parent))
}

fn write_new(path: &Path, contents: &[u8]) -> Result<(), Error> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(PLAIN)
        .open(path)
        .map_err(failed("create", path))?;
    file.write_all(contents).map_err(failed("write", path))?;
    file.sync_all().map_err(failed("sync", path))
}

/// Reads a file that nobody else may read; `None` if there is none.
///
/// # Errors
///
/// [`Error::Unexpected`] for a link, or what is no file; [`Error::Leaked`]; [`Error::Io`].
pub(crate) fn read_private(path: &Path) -> Result<Option<String>, Error> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("look at", path)(error)),
        Ok(found) if !found.is_file() => {
            return Err(Error::Unexpected { path: path.to_owned(), expected: "file" });
        }
        Ok(_) => {}
    }
    let opened = OpenOptions::new().read(true).custom_flags(PLAIN).open(path);
    let file = opened.map_err(failed("open", path))?;
    let mode = file.metadata().map_err(failed("look at", path))?.permissions().mode() & 0o777;
    if !is_private(mode) {
        return Err(Error::Leaked { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.take(LIMIT).read_to_string(&mut text).map_err(failed("read", path))?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn makes_private_directories_with_their_parents() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        private_directory(&path).unwrap();
        private_directory(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn closes_an_empty_directory_and_refuses_a_full_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        private_directory(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        fs::write(path.join("file"), "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(private_directory(&path), Err(Error::Open { mode: 0o755, .. })));
    }

    #[test]
    fn writes_files_that_only_the_owner_reads() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        assert!(read_private(&path).unwrap().is_none());
        write_private(&path, b"old").unwrap();
        write_private(&path, b"new").unwrap();
        assert_eq!(read_private(&path).unwrap().as_deref(), Some("new"));
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn follows_no_links() {
        let directory = tempfile::tempdir().unwrap();
        let (target, link) = (directory.path().join("target"), directory.path().join("link"));
        fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(matches!(write_private(&link, b"x"), Err(Error::Unexpected { .. })));
        assert!(matches!(read_private(&link), Err(Error::Unexpected { .. })));
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    }

    #[test]
    fn refuses_secrets_that_others_may_have_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read_private(&path), Err(Error::Leaked { mode: 0o640, .. })));
    }
}
