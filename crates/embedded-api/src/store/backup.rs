//! Copies: taken while a server writes, checked before they are used, and put back.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::query;
use super::{Error, Revision, file};

/// How far a restored store jumps ahead: further than what was written after the backup,
/// so no client takes a revision of the lost time for one of the new time.
const JUMP: Revision = 1_000_000_000;

/// Copies the store to a new file (mode 0600) as it is at one moment, and returns its
/// revision. A server may go on writing to it meanwhile, in this process or another.
///
/// # Errors
///
/// `from` is no store or is damaged, `to` exists or cannot be written.
pub fn backup(from: &Path, to: &Path) -> Result<Revision, Error> {
    let source = existing(from)?;
    let partial = Partial::new(to)?;
    copy(&source, from, &partial.0)?;
    let revision = verify(&file::reader(&partial.0).map_err(|e| Error::sqlite(from, e))?, from)?;
    partial.finish(to)?;
    Ok(revision)
}

/// Makes a new store from a backup, and returns its revision. Everything is as it
/// was, but without a history, so every client lists again.
///
/// # Errors
///
/// `from` is no backup or is damaged, `to` exists, is served or cannot be written.
pub fn restore(from: &Path, to: &Path) -> Result<Revision, Error> {
    let source = existing(from)?;
    let revision = verify(&source, from)?;
    let _lock = file::lock(to)?;
    let partial = Partial::new(to)?;
    copy(&source, from, &partial.0)?;
    let revision = revision.saturating_add(JUMP);
    jump(&partial.0, revision).map_err(|e| Error::sqlite(&partial.0, e))?;
    partial.finish(to)?;
    Ok(revision)
}

/// Checks a store: the file, and whether its tables agree with each other.
///
/// # Errors
///
/// What is wrong with it.
pub fn check(path: &Path) -> Result<Revision, Error> {
    verify(&existing(path)?, path)
}

/// A file that becomes the copy when it is complete, and is gone otherwise.
struct Partial(PathBuf);

impl Partial {
    fn new(to: &Path) -> Result<Self, Error> {
        if to.try_exists().map_err(|e| Error::io(to, e))? {
            return Err(Error::Exists(to.to_path_buf()));
        }
        let mut name = to.as_os_str().to_owned();
        name.push(".partial");
        let path = PathBuf::from(name);
        // A backup that was cut off may have left one; SQLite wants it to be empty.
        file::private(&path)?.set_len(0).map_err(|e| Error::io(&path, e))?;
        Ok(Self(path))
    }

    /// Gives it its name, when its bytes are on the disk.
    fn finish(self, to: &Path) -> Result<(), Error> {
        let finish = || {
            File::open(&self.0)?.sync_all()?;
            fs::rename(&self.0, to)?;
            let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
        };
        finish().map_err(|e| Error::io(to, e))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After `finish` there is none.
        let _gone = fs::remove_file(&self.0);
    }
}

fn existing(path: &Path) -> Result<Connection, Error> {
    fs::metadata(path).map_err(|e| Error::io(path, e))?;
    let connection = file::reader(path).map_err(|e| Error::sqlite(path, e))?;
    match file::format(&connection, path)? {
        file::Format::Ours => Ok(connection),
        file::Format::Empty => Err(Error::Foreign(path.to_path_buf())),
    }
}

fn copy(source: &Connection, from: &Path, to: &Path) -> Result<(), Error> {
    let name = to.to_str().ok_or_else(|| Error::Foreign(to.to_path_buf()))?;
    source.execute("VACUUM INTO ?1", [name]).map_err(|e| Error::sqlite(from, e))?;
    Ok(())
}

fn jump(path: &Path, revision: Revision) -> rusqlite::Result<()> {
    let connection = Connection::open(path)?;
    let transaction = connection.unchecked_transaction()?;
    let history = "DELETE FROM revisions WHERE revision NOT IN (SELECT revision FROM current)";
    transaction.execute(history, [])?;
    transaction.execute("UPDATE settings SET value = ?1 WHERE name = 'compacted'", [revision])?;
    transaction.commit()
}

/// What must not be found: a name for it, and how often it is there.
const CONTRADICTIONS: [(&str, &str); 3] = [
    (
        "objects without their state",
        "SELECT count(*) FROM current c LEFT JOIN revisions r USING (revision, resource, \
         namespace, name) WHERE r.change IS NULL OR r.change = 2",
    ),
    (
        "states without an object",
        "SELECT count(*) FROM revisions WHERE change <> 2 \
         AND revision NOT IN (SELECT revision FROM current) \
         AND revision NOT IN (SELECT previous FROM revisions WHERE previous IS NOT NULL)",
    ),
    (
        "gaps in the history",
        "SELECT max(coalesce(max(revision), 0) - value, 0) - count(revision) \
         FROM settings LEFT JOIN revisions ON revision > value WHERE settings.name = 'compacted'",
    ),
];

fn verify(connection: &Connection, path: &Path) -> Result<Revision, Error> {
    let sqlite = |e| Error::sqlite(path, e);
    let damaged = |finding| Err(Error::Damaged { path: path.to_path_buf(), finding });
    let transaction = connection.unchecked_transaction().map_err(sqlite)?;
    let text = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
    let finding = transaction.query_row("PRAGMA integrity_check(1)", [], text).map_err(sqlite)?;
    if finding != "ok" {
        return damaged(finding);
    }
    for (name, sql) in CONTRADICTIONS {
        let times: i64 = transaction.query_row(sql, [], |row| row.get(0)).map_err(sqlite)?;
        if times != 0 {
            return damaged(format!("{name}: {times}"));
        }
    }
    Ok(query::position(&transaction).map_err(sqlite)?.head)
}
