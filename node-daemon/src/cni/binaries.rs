//! Copies of the CNI plugins on the node: whole or absent, and nobody else's to change.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use kernel::files;

/// Everybody may run them, and with no more rights than they have.
const PROGRAM: u32 = 0o755;
/// The installer itself, which is no plugin.
const INSTALLER: &str = "install";
/// The program that is both of our plugins.
const PROGRAM_OF_BOTH: &str = "calico";
/// Its other name.
const OTHER_NAME: &str = "calico-ipam";
/// What is ours alone, and goes when we go.
pub(crate) const OURS: [&str; 2] = [PROGRAM_OF_BOTH, OTHER_NAME];

/// Why plugins cannot be installed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A directory that anybody could replace files in.
    #[error(
        "{} can be written by others than its owner (mode {mode:o}): plugins there run as root; \
         set its mode to 755", path.display()
    )]
    OpenDirectory {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file or directory.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that cannot be put in place.
    #[error(transparent)]
    File(#[from] files::Error),
    /// None of the directories is there.
    #[error("no directory for CNI plugins is mounted: mount the node's /opt/cni/bin at {}", .0.display())]
    NoDirectory(PathBuf),
}

/// Copies the plugins of `source` into each of the directories that is mounted; returns how many
/// were written, which is none where they are there already.
pub(crate) fn install(
    source: &Path,
    directories: &[PathBuf],
    skipped: &BTreeSet<String>,
    is_update: bool,
) -> Result<usize, Error> {
    let mounted: Vec<&PathBuf> = directories.iter().filter(|path| path.is_dir()).collect();
    if mounted.is_empty() {
        return Err(Error::NoDirectory(directories.first().cloned().unwrap_or_default()));
    }
    let mut written: usize = 0;
    for directory in mounted {
        check(directory)?;
        for name in plugins(source)? {
            let path = directory.join(&name);
            if skipped.contains(&name) || (!is_update && path.exists()) {
                continue;
            }
            let from = source.join(&name);
            let contents =
                std::fs::read(&from).map_err(|source| Error::Io { path: from, source })?;
            // `calico` comes first, and its other name leads to the same file: so it knows that
            // it is both, and needs no process of its own for addresses.
            let other = (name == OTHER_NAME).then(|| directory.join(PROGRAM_OF_BOTH));
            let other = other.filter(|other| is_same(other, &contents));
            if is_same(&path, &contents) && other.as_deref().is_none_or(|it| is_one(it, &path)) {
                continue;
            }
            match other {
                Some(other) if files::link(&other, &path).is_ok() => {}
                // Some file systems have no links: then there are two programs.
                Some(_) | None => files::write(&path, &contents, PROGRAM)?,
            }
            written = written.saturating_add(1);
        }
    }
    Ok(written)
}

/// Deletes what [`install()`] put there that is ours alone.
pub(crate) fn remove(directories: &[PathBuf]) -> Result<(), Error> {
    for directory in directories {
        for name in OURS {
            files::delete(&directory.join(name))?;
        }
    }
    Ok(())
}

/// Refuses a directory where others could put another program in place of ours.
fn check(directory: &Path) -> Result<(), Error> {
    let failed = |source| Error::Io { path: directory.to_owned(), source };
    let found = std::fs::metadata(directory).map_err(failed)?;
    let mode = found.mode() & 0o7777;
    // The sticky bit keeps others from renaming what is not theirs.
    let is_open = mode & 0o022 != 0 && mode & 0o1000 == 0;
    if is_open { Err(Error::OpenDirectory { path: directory.to_owned(), mode }) } else { Ok(()) }
}

fn plugins(source: &Path) -> Result<Vec<String>, Error> {
    let failed = |error| Error::Io { path: source.to_owned(), source: error };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(source).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if name != INSTALLER {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Whether a file is what it should be: contents, a plain file of root's, and no more rights.
fn is_same(path: &Path, contents: &[u8]) -> bool {
    let is_plain = std::fs::symlink_metadata(path)
        .is_ok_and(|found| found.is_file() && found.mode() & 0o7777 == PROGRAM && found.uid() == 0);
    is_plain && std::fs::read(path).is_ok_and(|found| found == contents)
}

/// Are these two names of one file?
fn is_one(path: &Path, other: &Path) -> bool {
    let id = |path: &Path| path.symlink_metadata().ok().map(|found| (found.dev(), found.ino()));
    id(path).is_some() && id(path) == id(other)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn places() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let (source, target) = (directory.path().join("image"), directory.path().join("node"));
        fs::create_dir(&source).unwrap();
        fs::create_dir(&target).unwrap();
        fs::set_permissions(&target, Permissions::from_mode(0o755)).unwrap();
        for name in ["calico", "calico-ipam", "portmap", "install"] {
            fs::write(source.join(name), name).unwrap();
            fs::set_permissions(source.join(name), Permissions::from_mode(0o4755)).unwrap();
        }
        (directory, source, target)
    }

    fn put(
        source: &Path,
        target: &Path,
        skipped: &[&str],
        is_update: bool,
    ) -> Result<usize, Error> {
        let skipped = skipped.iter().map(|&name| name.to_owned()).collect();
        install(source, &[target.to_owned(), PathBuf::from("/none")], &skipped, is_update)
    }

    #[test]
    fn plugins_get_no_rights_beyond_those_of_who_calls_them() {
        let (_directory, source, target) = places();
        assert_eq!(put(&source, &target, &[], true).unwrap(), 3);
        assert!(!target.join("install").exists());
        for name in ["calico", "calico-ipam", "portmap"] {
            let mode = fs::metadata(target.join(name)).unwrap().mode() & 0o7777;
            assert_eq!(mode, 0o755, "{name}");
        }
        assert_eq!(put(&source, &target, &[], true).unwrap(), 0, "nothing to do");
        fs::set_permissions(target.join("calico"), Permissions::from_mode(0o6755)).unwrap();
        assert_eq!(put(&source, &target, &[], true).unwrap(), 1, "rights are taken back");
    }

    #[test]
    fn what_is_skipped_or_kept_stays_as_it_is() {
        let (_directory, source, target) = places();
        fs::write(target.join("portmap"), "mine").unwrap();
        assert_eq!(put(&source, &target, &["portmap"], true).unwrap(), 2);
        assert_eq!(put(&source, &target, &[], false).unwrap(), 0);
        assert_eq!(fs::read_to_string(target.join("portmap")).unwrap(), "mine");
    }

    #[test]
    fn the_plugin_with_two_names_is_one_file() {
        let (_directory, source, target) = places();
        assert_eq!(put(&source, &target, &[], true).unwrap(), 3);
        let are_one = || is_one(&target.join("calico"), &target.join("calico-ipam"));
        assert!(!are_one(), "these are two programs");
        fs::write(source.join("calico-ipam"), "calico").unwrap();
        assert_eq!(put(&source, &target, &[], true).unwrap(), 1);
        assert!(are_one());
        assert_eq!(put(&source, &target, &[], true).unwrap(), 0, "nothing to do");
        for name in ["calico", "calico-ipam"] {
            fs::write(source.join(name), "newer").unwrap();
        }
        assert_eq!(put(&source, &target, &[], true).unwrap(), 2);
        assert!(are_one());
        assert_eq!(fs::read_to_string(target.join("calico-ipam")).unwrap(), "newer");
        assert_eq!(fs::read_dir(&target).unwrap().count(), 3, "nothing else is left there");
    }

    #[test]
    fn links_are_not_followed() {
        let (directory, source, target) = places();
        let precious = directory.path().join("precious");
        fs::write(&precious, "shadow").unwrap();
        std::os::unix::fs::symlink(&precious, target.join("calico")).unwrap();
        let error = put(&source, &target, &[], true).unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{error}");
        assert_eq!(fs::read_to_string(&precious).unwrap(), "shadow");
    }

    #[test]
    fn a_directory_that_all_can_write_to_is_refused() {
        let (_directory, source, target) = places();
        fs::set_permissions(&target, Permissions::from_mode(0o777)).unwrap();
        let error = put(&source, &target, &[], true).unwrap_err().to_string();
        assert!(error.contains("mode 777") && error.contains("755"), "{error}");
        assert!(matches!(
            install(&source, &[], &BTreeSet::new(), true),
            Err(Error::NoDirectory(_))
        ));
    }

    #[test]
    fn others_plugins_stay_when_ours_go() {
        let (_directory, source, target) = places();
        put(&source, &target, &[], true).unwrap();
        remove(&[target.clone(), PathBuf::from("/none")]).unwrap();
        let left: Vec<_> =
            fs::read_dir(&target).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(left, ["portmap"]);
    }
}
