//! What a decision may do: read the state as the last decision left it, and change it.

use std::sync::Arc;

use rusqlite::{Connection, params};

use super::query::{self, Part, Position};
use super::{Entry, Event, EventKind, Key, Revision, Scope, error, writer};
use crate::{Object, Status};

/// The state of the store while one decision is taken; nobody else changes it.
#[derive(Debug)]
pub struct Transaction<'a> {
    pub(super) connection: &'a Connection,
    pub(super) position: Position,
    /// What the decisions of this commit did, in the order of the revisions.
    pub(super) events: Vec<Arc<Event>>,
    /// A write failed half-way: nothing more may be written, and the decision must not stay.
    pub(super) failed: bool,
}

impl Transaction<'_> {
    /// Returns the latest revision: that of the last change here or before.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.position.head
    }

    /// Reads an object.
    ///
    /// # Errors
    ///
    /// 500 if the disk fails.
    pub fn get(&self, key: &Key) -> Result<Option<Entry>, Status> {
        query::get(self.connection, key).map_err(|e| error::failure(&e))
    }

    /// Reads all objects of a scope, by namespace and name.
    ///
    /// # Errors
    ///
    /// 500 if the disk fails.
    pub fn list(&self, scope: &Scope) -> Result<Vec<Entry>, Status> {
        let part = Part { scope, at: None, after: ("", "") };
        query::list(self.connection, &part, None).map_err(|e| error::failure(&e))
    }

    /// Creates the object or replaces it, with the next revision in its `metadata.resourceVersion`.
    ///
    /// # Errors
    ///
    /// 503 if the disk is full, 500 if it fails; the decision fails then too, whatever it returns.
    pub fn put(&mut self, key: Key, object: Object) -> Result<Entry, Status> {
        let previous = self.get(&key)?;
        let kind = if previous.is_some() { EventKind::Updated } else { EventKind::Created };
        self.append(key, kind, object, previous)
    }

    /// Deletes the object; `last` is what its watchers see last.
    ///
    /// # Errors
    ///
    /// As [`Transaction::put`], and 500 if there is no such object.
    pub fn delete(&mut self, key: &Key, last: Object) -> Result<Entry, Status> {
        let Some(previous) = self.get(key)? else {
            return Err(error::internal("only an object that exists can be deleted"));
        };
        self.append(key.clone(), EventKind::Deleted, last, Some(previous))
    }

    fn append(
        &mut self,
        key: Key,
        kind: EventKind,
        mut object: Object,
        previous: Option<Entry>,
    ) -> Result<Entry, Status> {
        if self.failed {
            return Err(writer::failed());
        }
        let revision = self.position.head.saturating_add(1);
        object.set_meta("resourceVersion", revision.to_string());
        let json = serde_json::to_vec(&object)
            .map_err(|_| error::internal("the object cannot be written as JSON"))?;
        let entry = Entry { key, revision, json: json.into() };
        let (ended, previous) = previous.map(|entry| (entry.revision, entry.json)).unzip();
        let event = Event { revision, kind, entry: entry.clone(), previous };
        if let Err(error) = insert(self.connection, &event, ended) {
            self.failed = true;
            return Err(error::failure(&error));
        }
        self.position.head = revision;
        self.events.push(Arc::new(event));
        Ok(entry)
    }
}

fn insert(connection: &Connection, event: &Event, ended: Option<Revision>) -> rusqlite::Result<()> {
    let Entry { key: Key { resource, namespace, name }, revision, json } = &event.entry;
    let sql = "INSERT INTO revisions VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let change = event.kind.to_sql();
    let row = params![revision, resource, namespace, name, change, ended, &json[..]];
    connection.prepare_cached(sql)?.execute(row)?;
    if event.kind == EventKind::Deleted {
        let sql = "DELETE FROM current WHERE resource = ?1 AND namespace = ?2 AND name = ?3";
        connection.prepare_cached(sql)?.execute(params![resource, namespace, name])?;
    } else {
        let sql = "INSERT OR REPLACE INTO current VALUES (?1, ?2, ?3, ?4)";
        connection.prepare_cached(sql)?.execute(params![resource, namespace, name, revision])?;
    }
    Ok(())
}
