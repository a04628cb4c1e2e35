//! The file: its lock, its permissions, its format.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::Error;

/// "Cali" in ASCII; SQLite keeps it in the file's header.
const APPLICATION: u32 = 0x4361_6C69;
/// The format that [`FORMAT`] makes.
const VERSION: u32 = 1;

/// A change is a row of `revisions` and keeps the JSON; `current` points at the rows that hold now.
const FORMAT: &str = "
CREATE TABLE revisions (
    revision  INTEGER PRIMARY KEY,
    resource  TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name      TEXT NOT NULL,
    change    INTEGER NOT NULL, -- 0 created, 1 updated, 2 deleted
    previous  INTEGER,          -- the revision that this one ended
    json      BLOB NOT NULL
) STRICT;
CREATE TABLE current (
    resource  TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name      TEXT NOT NULL,
    revision  INTEGER NOT NULL,
    PRIMARY KEY (resource, namespace, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE settings (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO settings VALUES ('compacted', 1);
";

/// What only the writer has.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) connection: Connection,
    /// SQLite's own locks would let a second server in.
    pub(super) lock: Lock,
}

/// Opens a store for its only writer.
pub(super) fn open(path: &Path) -> Result<Opened, Error> {
    let lock = lock(path)?;
    private(path)?;
    let connection = connect(path).map_err(|e| Error::sqlite(path, e))?;
    prepare(&connection).map_err(|e| Error::sqlite(path, e))?;
    if format(&connection, path)? == Format::Empty {
        create(&connection).map_err(|e| Error::sqlite(path, e))?;
    }
    // A backup comes without a log.
    connection.pragma_update(None, "journal_mode", "WAL").map_err(|e| Error::sqlite(path, e))?;
    Ok(Opened { connection, lock })
}

/// Opens a connection that only reads.
pub(super) fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "cache_size", -256)?;
    Ok(connection)
}

/// Keeps other servers away from a store.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a process that is being started has the file as well for a moment.
        let _unlocked = self.0.unlock();
    }
}

pub(super) fn lock(path: &Path) -> Result<Lock, Error> {
    let name = lock_path(path);
    let lock = private(&name)?;
    match lock.try_lock() {
        Ok(()) => Ok(Lock(lock)),
        Err(TryLockError::WouldBlock) => Err(Error::Locked(path.to_path_buf())),
        Err(TryLockError::Error(source)) => Err(Error::io(&name, source)),
    }
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// Opens a file that only its owner may read, and makes it if it is missing.
pub(super) fn private(path: &Path) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path).map_err(|e| Error::io(path, e))?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(|e| Error::io(path, e))?;
    Ok(file)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    Ok(connection)
}

/// Full sync: a commit that was answered is on the disk. The log is folded into
/// the file every 1000 pages and cut to 8 MiB; the cache is small, since the
/// kernel has one as well.
fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -1024)?;
    connection.pragma_update(None, "journal_size_limit", 8 << 20)?;
    connection.pragma_update(None, "wal_autocheckpoint", 1000)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

/// What the file is, if it may be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Format {
    /// New.
    Empty,
    /// A store.
    Ours,
}

/// Tells what the file is, or why it may not be used.
pub(super) fn format(connection: &Connection, path: &Path) -> Result<Format, Error> {
    let sqlite = |e| Error::sqlite(path, e);
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, u32>(0));
    let count = "SELECT count(*) FROM sqlite_schema";
    let tables: u64 = connection.query_row(count, [], |row| row.get(0)).map_err(sqlite)?;
    let application = number("application_id").map_err(sqlite)?;
    let path = path.to_path_buf();
    match (application, number("user_version").map_err(sqlite)?) {
        (0, 0) if tables == 0 => Ok(Format::Empty),
        (APPLICATION, VERSION) => Ok(Format::Ours),
        (APPLICATION, found) if found > VERSION => {
            Err(Error::Newer { path, found, known: VERSION })
        }
        _ => Err(Error::Foreign(path)),
    }
}

/// Makes the tables. The format's number comes with them in one commit, so a crash leaves all or nothing.
fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(FORMAT)?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}
