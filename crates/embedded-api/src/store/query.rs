//! The SQL of reading: objects as they are, as they were, and what happened to them.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{Entry, Event, EventKind, Key, Revision, Scope};

/// The ends of the history.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Position {
    /// The latest revision.
    pub(super) head: Revision,
    /// The revision up to which the history is gone.
    pub(super) compacted: Revision,
}

/// Reads where the history begins and ends.
pub(super) fn position(connection: &Connection) -> rusqlite::Result<Position> {
    let sql = "SELECT value, (SELECT max(revision) FROM revisions) FROM settings \
               WHERE name = 'compacted'";
    connection.prepare_cached(sql)?.query_row([], |row| {
        let compacted = row.get(0)?;
        let last: Option<Revision> = row.get(1)?;
        Ok(Position { head: last.unwrap_or(compacted).max(compacted), compacted })
    })
}

/// Reads an object as it is.
pub(super) fn get(connection: &Connection, key: &Key) -> rusqlite::Result<Option<Entry>> {
    let sql = "SELECT revision, json FROM revisions WHERE revision = (SELECT revision \
               FROM current WHERE resource = ?1 AND namespace = ?2 AND name = ?3)";
    let entry =
        |row: &Row<'_>| Ok(Entry { key: key.clone(), revision: row.get(0)?, json: bytes(row, 1)? });
    connection
        .prepare_cached(sql)?
        .query_row(params![key.resource, key.namespace, key.name], entry)
        .optional()
}

/// Reads of which resources there are objects.
pub(super) fn resources(connection: &Connection) -> rusqlite::Result<Vec<Arc<str>>> {
    let mut statement = connection.prepare_cached("SELECT DISTINCT resource FROM current")?;
    let rows = statement.query_map([], |row| shared(row, 0, None))?;
    rows.collect()
}

/// A part of a scope, in the order of the keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    pub(super) scope: &'a Scope,
    /// The revision to read at, if not the latest.
    pub(super) at: Option<Revision>,
    /// The namespace and name of the last key that is not wanted.
    pub(super) after: (&'a str, &'a str),
}

/// What makes the keys of a part: `current`, and for the past its difference to it.
///
/// A state that held at `at` and does not now is the one that an event after `at`
/// ended; there is one such event for a key at most.
fn keys(part: &Part<'_>) -> String {
    let bound = match part.scope {
        Scope::All { .. } => "t.resource = ?1 AND (t.namespace, t.name) > (?2, ?3)",
        Scope::Namespace { .. } => "t.resource = ?1 AND t.namespace = ?2 AND t.name > ?3",
        Scope::Name(_) => "t.resource = ?1 AND t.namespace = ?2 AND t.name = ?3",
    };
    let now = format!(
        "SELECT t.namespace, t.name, t.revision FROM current t WHERE {bound} AND t.revision <= ?4"
    );
    match part.at {
        None => now,
        Some(_) => format!(
            "{now} UNION ALL \
             SELECT t.namespace, t.name, t.previous FROM revisions t \
             WHERE t.revision > ?4 AND t.previous <= ?4 AND {bound}"
        ),
    }
}

/// Stands for the latest revision: the highest number that SQLite has.
const LATEST: Revision = i64::MAX.unsigned_abs();

/// Returns what stands for ?2 and ?3 in [`keys`].
fn bound<'a>(part: &Part<'a>) -> (&'a str, &'a str) {
    match part.scope {
        Scope::All { .. } => part.after,
        Scope::Namespace { namespace, .. } => {
            let after = if part.after.0 == &**namespace { part.after.1 } else { "" };
            (namespace, after)
        }
        Scope::Name(key) => (&key.namespace, &key.name),
    }
}

/// Lists a part; no more than `limit` objects, if there is one.
pub(super) fn list(
    connection: &Connection,
    part: &Part<'_>,
    limit: Option<usize>,
) -> rusqlite::Result<Vec<Entry>> {
    let sql = format!("{} ORDER BY 1, 2 LIMIT ?5", keys(part));
    let (namespace, name) = bound(part);
    let limit = limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
    let resource = part.scope.resource();
    let mut keys = connection.prepare_cached(&sql)?;
    let mut json = connection.prepare_cached("SELECT json FROM revisions WHERE revision = ?1")?;
    let mut rows =
        keys.query(params![resource, namespace, name, part.at.unwrap_or(LATEST), limit])?;
    let mut entries: Vec<Entry> = Vec::new();
    while let Some(row) = rows.next()? {
        let key = Key {
            resource: Arc::clone(resource),
            namespace: shared(row, 0, entries.last().map(|entry| &entry.key.namespace))?,
            name: shared(row, 1, None)?,
        };
        let revision = row.get(2)?;
        let json = json.query_row([revision], |row| bytes(row, 0))?;
        entries.push(Entry { key, revision, json });
    }
    Ok(entries)
}

/// Counts a part.
pub(super) fn count(connection: &Connection, part: &Part<'_>) -> rusqlite::Result<u64> {
    let sql = format!("SELECT count(*) FROM ({})", keys(part));
    let (namespace, name) = bound(part);
    let resource = part.scope.resource();
    let at = part.at.unwrap_or(LATEST);
    connection
        .prepare_cached(&sql)?
        .query_row(params![resource, namespace, name, at], |row| row.get(0))
}

/// Events of a scope, and how far they reach.
#[derive(Debug)]
pub(super) struct Stretch {
    pub(super) events: Vec<Event>,
    /// There is nothing of the scope after the last event and up to this revision.
    pub(super) through: Revision,
}

/// How much of the history is read at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    /// Revisions, whether they are of the scope or not.
    pub(super) revisions: u64,
    /// Bytes of events; one event is always read.
    pub(super) bytes: usize,
}

/// Reads what happened after a revision.
pub(super) fn events(
    connection: &Connection,
    scope: &Scope,
    after: Revision,
    reach: Reach,
) -> rusqlite::Result<Stretch> {
    let head = position(connection)?.head;
    let end = after.saturating_add(reach.revisions).min(head);
    let sql = "SELECT e.revision, e.namespace, e.name, e.change, e.json, p.json \
               FROM revisions e LEFT JOIN revisions p ON p.revision = e.previous \
               WHERE e.revision > ?1 AND e.revision <= ?2 AND e.resource = ?3 \
               AND (?4 IS NULL OR e.namespace = ?4) AND (?5 IS NULL OR e.name = ?5) \
               ORDER BY e.revision";
    let mut statement = connection.prepare_cached(sql)?;
    let parameters = params![after, end, scope.resource(), scope.namespace(), scope.name()];
    let mut rows = statement.query(parameters)?;
    let mut stretch = Stretch { events: Vec::new(), through: end.max(after) };
    let mut size = 0_usize;
    while let Some(row) = rows.next()? {
        let event = event(row, scope.resource())?;
        size = size.saturating_add(event.size());
        stretch.events.push(event);
        if size > reach.bytes {
            stretch.through = stretch.events.last().map_or(end, |event| event.revision);
            break;
        }
    }
    Ok(stretch)
}

fn event(row: &Row<'_>, resource: &Arc<str>) -> rusqlite::Result<Event> {
    let revision = row.get(0)?;
    let key = Key {
        resource: Arc::clone(resource),
        namespace: shared(row, 1, None)?,
        name: shared(row, 2, None)?,
    };
    let previous = row.get_ref(5)?.as_blob_or_null()?.map(Arc::from);
    let entry = Entry { key, revision, json: bytes(row, 4)? };
    Ok(Event { revision, kind: EventKind::from_sql(row.get(3)?), entry, previous })
}

impl Event {
    /// Returns about how many bytes it takes in memory.
    pub(super) fn size(&self) -> usize {
        let previous = self.previous.as_ref().map_or(0, |json| json.len());
        self.entry.json.len().saturating_add(previous).saturating_add(256)
    }
}

impl EventKind {
    /// Returns the number of the column `change`.
    pub(super) const fn to_sql(self) -> u8 {
        match self {
            Self::Created => 0,
            Self::Updated => 1,
            Self::Deleted => 2,
        }
    }

    const fn from_sql(number: u8) -> Self {
        match number {
            0 => Self::Created,
            1 => Self::Updated,
            _ => Self::Deleted,
        }
    }
}

/// Reads a text; neighbours in a list have their namespace in common.
fn shared(row: &Row<'_>, index: usize, last: Option<&Arc<str>>) -> rusqlite::Result<Arc<str>> {
    let text = row.get_ref(index)?.as_str()?;
    Ok(match last {
        Some(last) if **last == *text => Arc::clone(last),
        _ => Arc::from(text),
    })
}

fn bytes(row: &Row<'_>, index: usize) -> rusqlite::Result<Arc<[u8]>> {
    Ok(Arc::from(row.get_ref(index)?.as_blob()?))
}

/// Tells how SQLite lists a scope.
#[cfg(test)]
pub(super) fn plan(connection: &Connection, scope: &Scope) -> rusqlite::Result<String> {
    let part = Part { scope, at: None, after: ("", "") };
    let sql = format!("EXPLAIN QUERY PLAN {} ORDER BY 1, 2 LIMIT ?5", keys(&part));
    let mut statement = connection.prepare(&sql)?;
    let lines: rusqlite::Result<Vec<String>> =
        statement.query_map(params!["", "", "", 0, 0], |row| row.get(3))?.collect();
    Ok(lines?.join("; "))
}
