//! The store: every object of the API, revision by revision, in one SQLite file.
//!
//! One thread writes. It takes one decision after another, so a decision may
//! compare before it swaps, and commits those that wait together: one flush of
//! the disk for all. Nobody is answered, and no watcher hears anything, before
//! the commit is on the disk. Reads see a snapshot and never wait for the writer.
//!
//! Revisions are etcd's: one counter for everything, one step for each change.

mod backup;
mod compaction;
mod error;
mod file;
mod hub;
mod query;
mod readers;
mod transaction;
mod watch;
mod writer;

#[cfg(test)]
mod histories;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod torn;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

pub use self::backup::{backup, check, restore};
pub use self::compaction::Keep;
pub use self::error::Error;
pub use self::readers::{Page, Snapshot};
pub use self::transaction::Transaction;
pub use self::watch::Watch;

use self::hub::Hub;
use self::readers::Readers;
use self::writer::Writer;
use crate::{Object, Status};

/// The place of a state in the history of the store; its decimal text is the `resourceVersion`.
pub type Revision = u64;

/// What an object is called.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// The plural, with the group behind a dot if there is one: `pods`, `leases.coordination.k8s.io`.
    pub resource: Arc<str>,
    /// Empty for what belongs to no namespace.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

/// An object as it was at some revision.
#[derive(Clone, Eq, PartialEq)]
pub struct Entry {
    /// Its name.
    pub key: Key,
    /// The revision that made this state.
    pub revision: Revision,
    /// The whole object, with its `metadata.resourceVersion`.
    pub json: Arc<[u8]>,
}

impl Entry {
    /// Decodes the object.
    ///
    /// # Errors
    ///
    /// An internal error if the file was damaged.
    pub fn object(&self) -> Result<Object, Status> {
        decode(&self.json)
    }
}

/// Decodes what the store keeps.
///
/// # Errors
///
/// An internal error if the file was damaged.
pub fn decode(json: &[u8]) -> Result<Object, Status> {
    serde_json::from_slice(json).map_err(|_| {
        error::internal("an object in the datastore is not JSON; restore the latest backup")
    })
}

// An object may be a Secret.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Key { resource, namespace, name } = &self.key;
        write!(f, "{resource}/{namespace}/{name}@{}", self.revision)
    }
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EventKind {
    /// There was none.
    Created,
    /// There was one.
    Updated,
    /// There is none any more.
    Deleted,
}

/// One step of the history.
#[derive(Clone, Eq, PartialEq)]
pub struct Event {
    /// The number of the step.
    pub revision: Revision,
    /// What happened.
    pub kind: EventKind,
    /// The state after it; for a deletion the last state, with the revision of the deletion.
    pub entry: Entry,
    /// The JSON before it, if there was an object.
    pub previous: Option<Arc<[u8]>>,
}

// An object may be a Secret.
impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.kind, self.entry)
    }
}

/// Which objects of one resource.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Scope {
    /// In every namespace, or in none.
    All {
        /// As in [`Key`].
        resource: Arc<str>,
    },
    /// In one namespace.
    Namespace {
        /// As in [`Key`].
        resource: Arc<str>,
        /// As in [`Key`].
        namespace: Arc<str>,
    },
    /// One object.
    Name(Key),
}

impl Scope {
    /// Returns the resource.
    #[must_use]
    pub fn resource(&self) -> &Arc<str> {
        match self {
            Self::All { resource } | Self::Namespace { resource, .. } => resource,
            Self::Name(key) => &key.resource,
        }
    }

    /// Returns the namespace, if there is only one.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::All { .. } => None,
            Self::Namespace { namespace, .. } => Some(namespace),
            Self::Name(key) => Some(&key.namespace),
        }
    }

    /// Returns the name, if there is only one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::All { .. } | Self::Namespace { .. } => None,
            Self::Name(key) => Some(&key.name),
        }
    }

    /// Returns whether the object is one of these.
    #[must_use]
    pub fn contains(&self, key: &Key) -> bool {
        *self.resource() == key.resource
            && self.namespace().is_none_or(|namespace| *namespace == *key.namespace)
            && self.name().is_none_or(|name| *name == *key.name)
    }
}

/// How the store behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How much of the history stays.
    pub keep: Keep,
    /// How many bytes of recent events stay in memory for the watchers.
    pub recent: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { keep: Keep::default(), recent: 4 << 20 }
    }
}

/// An open store; a clone is another handle to it. The last one closes it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

// The writer is dropped first: the file is free again when the last handle is gone.
struct Inner {
    writer: Writer,
    readers: Readers,
    hub: Arc<Hub>,
}

impl Store {
    /// Opens the file, or makes it (mode 0600); its directory must exist.
    ///
    /// # Errors
    ///
    /// The file belongs to another process, another program or a newer version,
    /// or cannot be read or written.
    pub fn open(path: &Path, options: Options) -> Result<Self, Error> {
        let file = file::open(path)?;
        let position = query::position(&file.connection).map_err(|e| Error::sqlite(path, e))?;
        let hub = Arc::new(Hub::new(position, options.recent));
        let writer = Writer::start(path, file, options.keep, Arc::clone(&hub))?;
        Ok(Self(Arc::new(Inner { writer, readers: Readers::new(path), hub })))
    }

    /// Has the writer take a decision, and answers when that is on the disk.
    ///
    /// Decisions run one after another, each on what the last one left. One that
    /// fails leaves nothing.
    ///
    /// # Errors
    ///
    /// The decision's own, or 503 and 500 if the disk fails; then nothing was written.
    pub async fn write<T: Send + 'static>(
        &self,
        decide: impl FnOnce(&mut Transaction<'_>) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        self.0.writer.write(decide).await
    }

    /// Reads from a snapshot that has every write that was answered.
    ///
    /// # Errors
    ///
    /// The reader's own, or 500 if the disk fails.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Snapshot<'_>) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        self.0.readers.read(read).await
    }

    /// Follows the changes of a scope after a revision: what happened since, then what happens.
    #[must_use]
    pub fn watch(&self, scope: Scope, from: Revision) -> Watch {
        Watch::new(scope, from, Arc::clone(&self.0.hub), self.0.readers.clone())
    }

    /// Returns the latest revision that watchers know.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.0.hub.position().head
    }

    /// Returns the revision up to which the history is gone.
    #[must_use]
    pub fn compacted(&self) -> Revision {
        self.0.hub.position().compacted
    }

    /// Forgets the history before a revision, or before the latest if that is less;
    /// states of it that still hold stay.
    ///
    /// # Errors
    ///
    /// As [`Store::write`]; what was forgotten until then stays so.
    pub async fn compact(&self, to: Revision) -> Result<(), Status> {
        while !self.write(move |transaction| transaction.compact(to)).await? {}
        Ok(())
    }
}
