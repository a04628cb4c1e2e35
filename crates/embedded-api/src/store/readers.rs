//! Reading: snapshots of the file on a few connections.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task;

use super::query::{self, Part, Position};
use super::{Entry, Key, Revision, Scope, error, file};
use crate::{Reason, Status};

/// How many snapshots are read at once.
const CONNECTIONS: usize = 4;

/// The connections that only read; they are opened when they are needed.
#[derive(Clone)]
pub(super) struct Readers(Arc<Pool>);

struct Pool {
    path: PathBuf,
    free: Mutex<Vec<Connection>>,
    turns: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(path: &Path) -> Self {
        let turns = Arc::new(Semaphore::new(CONNECTIONS));
        Self(Arc::new(Pool { path: path.to_path_buf(), free: Mutex::default(), turns }))
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Snapshot<'_>) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let turn = Arc::clone(&self.0.turns).acquire_owned().await;
        let turn = turn.map_err(|_| error::unavailable("the datastore is closed"))?;
        let pool = Arc::clone(&self.0);
        // The turn ends with the work, also when nobody waits for it any more.
        let work = task::spawn_blocking(move || {
            let answer = pool.read(read);
            drop(turn);
            answer
        });
        work.await.unwrap_or_else(|_| Err(error::internal("a read from the datastore was cut off")))
    }
}

impl Pool {
    fn read<T>(&self, read: impl FnOnce(&Snapshot<'_>) -> Result<T, Status>) -> Result<T, Status> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match free {
            Some(connection) => connection,
            None => file::reader(&self.path).map_err(|e| error::failure(&e))?,
        };
        let answer = snapshot(&connection, read);
        if connection.is_autocommit() {
            self.free.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        answer
    }
}

fn snapshot<T>(
    connection: &Connection,
    read: impl FnOnce(&Snapshot<'_>) -> Result<T, Status>,
) -> Result<T, Status> {
    let transaction = connection.unchecked_transaction().map_err(|e| error::failure(&e))?;
    let position = query::position(&transaction).map_err(|e| error::failure(&e))?;
    read(&Snapshot { connection: &transaction, position })
}

/// The store at one revision.
#[derive(Debug)]
pub struct Snapshot<'a> {
    pub(super) connection: &'a Connection,
    position: Position,
}

/// Some objects of a scope.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Page {
    /// By namespace and name.
    pub entries: Vec<Entry>,
    /// The revision at which they are like this.
    pub revision: Revision,
    /// How many come after them, if these are not all.
    pub remaining: Option<u64>,
}

impl Snapshot<'_> {
    /// Returns the latest revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.position.head
    }

    /// Returns the revision up to which the history is gone.
    #[must_use]
    pub fn compacted(&self) -> Revision {
        self.position.compacted
    }

    /// Reads an object.
    ///
    /// # Errors
    ///
    /// 500 if the disk fails.
    pub fn get(&self, key: &Key) -> Result<Option<Entry>, Status> {
        query::get(self.connection, key).map_err(|e| error::failure(&e))
    }

    /// Returns the resources of which there are objects.
    ///
    /// # Errors
    ///
    /// 500 if the disk fails.
    pub fn resources(&self) -> Result<Vec<Arc<str>>, Status> {
        query::resources(self.connection).map_err(|e| error::failure(&e))
    }

    /// Lists a scope as it is, or as it was at a revision: what comes after a
    /// namespace and name, and not more than `limit`.
    ///
    /// # Errors
    ///
    /// 410 Expired if the revision was compacted, 504 Timeout if there is no such
    /// revision yet, 500 if the disk fails.
    pub fn page(
        &self,
        scope: &Scope,
        at: Option<Revision>,
        after: Option<(&str, &str)>,
        limit: Option<usize>,
    ) -> Result<Page, Status> {
        let revision = at.unwrap_or(self.position.head);
        if revision < self.position.compacted {
            return Err(expired());
        }
        if revision > self.position.head {
            return Err(too_large(revision, self.position.head));
        }
        let at = Some(revision).filter(|revision| *revision != self.position.head);
        let part = Part { scope, at, after: after.unwrap_or_default() };
        self.cut(&part, limit)
            .map(|(entries, remaining)| Page { entries, revision, remaining })
            .map_err(|e| error::failure(&e))
    }

    fn cut(
        &self,
        part: &Part<'_>,
        limit: Option<usize>,
    ) -> rusqlite::Result<(Vec<Entry>, Option<u64>)> {
        // One more than asked for tells whether something remains.
        let mut entries =
            query::list(self.connection, part, limit.map(|limit| limit.saturating_add(1)))?;
        let Some(limit) = limit.filter(|limit| entries.len() > *limit) else {
            return Ok((entries, None));
        };
        entries.truncate(limit);
        let after = match entries.last() {
            Some(Entry { key, .. }) => (&*key.namespace, &*key.name),
            None => part.after,
        };
        let remaining = query::count(self.connection, &Part { after, ..*part })?;
        Ok((entries, Some(remaining)))
    }
}

fn expired() -> Status {
    let message = "The resourceVersion for the provided list is too old.";
    Status::new(410, Reason::Expired, message)
}

fn too_large(wanted: Revision, head: Revision) -> Status {
    let message = format!("Too large resource version: {wanted}, current: {head}");
    let cause =
        json!({ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" });
    let details = json!({ "causes": [cause], "retryAfterSeconds": 1 });
    Status { details: Some(details), ..Status::new(504, Reason::Timeout, message) }
}
