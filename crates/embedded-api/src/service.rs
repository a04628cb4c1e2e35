//! What the server does, without the network: every verb on the store.

mod items;
mod read;
mod remove;
mod seed;
mod stream;
mod token;
mod write;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use jiff::Timestamp;

use crate::resource::{Registry, Resource, Subresource};
use crate::status::Status;
use crate::store::{Key, Revision, Scope, Store};
use crate::verb::list::Filter;
use crate::verb::{Context, decode, stamp};

pub use self::read::List;
pub use self::stream::{Stream, StreamEvent};
pub use self::token::{Grant, Signer};
pub use self::write::{Patch, PatchKind};

/// What a request is about.
#[derive(Clone, Debug)]
pub struct Target {
    /// The kind.
    pub resource: Arc<Resource>,
    /// The namespace; empty for none, or for all of them.
    pub namespace: String,
    /// The name; empty for a collection.
    pub name: String,
    /// The part of the object.
    pub subresource: Option<Subresource>,
}

/// What a request with one object is answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// The HTTP status code.
    pub code: u16,
    /// The object, or a Status.
    pub json: Arc<[u8]>,
    /// What the client should know, for `Warning` headers.
    pub warnings: Vec<String>,
}

impl Answer {
    fn ok(json: Arc<[u8]>) -> Self {
        Self { code: 200, json, warnings: Vec::new() }
    }
}

/// The verbs, on one store; a clone is another handle to the same.
#[derive(Clone)]
pub struct Service {
    store: Store,
    /// The kinds, and the revision at which they were these.
    registry: Arc<RwLock<(Revision, Arc<Registry>)>>,
    /// What each definition came to when it was parsed last.
    known: Arc<Mutex<Known>>,
}

/// The kinds of each definition, by its name, and the revision of the definition.
type Known = BTreeMap<Arc<str>, (Revision, Vec<Resource>)>;

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

impl Service {
    /// Takes over a store: makes what every cluster has, and learns its kinds.
    ///
    /// # Errors
    ///
    /// 500 or 503 if the store fails.
    pub async fn open(store: Store) -> Result<Self, Status> {
        let registry = Arc::new(RwLock::new((0, Arc::new(Registry::new([])))));
        let this = Self { store, registry, known: Arc::default() };
        this.seed().await?;
        this.refresh().await?;
        Ok(this)
    }

    /// Returns the store, for what is no request: backup, compaction, revisions.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the kinds that there are now.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry.read().unwrap_or_else(PoisonError::into_inner).1)
    }
}

impl Target {
    fn names(&self) -> (&str, &str) {
        (&self.resource.plural, &self.resource.group)
    }

    fn key(&self) -> Key {
        self.key_of(&self.name)
    }

    fn key_of(&self, name: &str) -> Key {
        let resource = decode::stored_as(&self.resource).into();
        Key { resource, namespace: self.namespace.as_str().into(), name: name.into() }
    }

    /// Returns what to read for a list; one that can only have one object reads only that.
    fn scope(&self, filter: &Filter) -> Scope {
        let resource = decode::stored_as(&self.resource).into();
        let is_one_place = !self.namespace.is_empty() || !self.resource.namespaced;
        if let Some(name) = filter.name().filter(|_| is_one_place) {
            return Scope::Name(self.key_of(name));
        }
        if self.namespace.is_empty() {
            Scope::All { resource }
        } else {
            Scope::Namespace { resource, namespace: self.namespace.as_str().into() }
        }
    }

    fn not_found(&self) -> Status {
        Status::not_found(self.names(), &self.name)
    }
}

/// Takes the time and chance for one decision.
fn context() -> Result<Context, Status> {
    let (mut uid, mut random, mut start) = ([0; 16], [0; 5], [0; 4]);
    for bytes in [&mut uid[..], &mut random[..], &mut start[..]] {
        getrandom::fill(bytes).map_err(Status::internal)?;
    }
    let start = u32::from_be_bytes(start);
    Ok(Context { now: stamp(Timestamp::now()), uid: uuid(uid), random, start })
}

/// Writes a random UUID (RFC 9562 §5.4).
fn uuid(mut bytes: [u8; 16]) -> String {
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut bytes;
    *version = (*version & 0x0f) | 0x40;
    *variant = (*variant & 0x3f) | 0x80;
    let hex = data_encoding::HEXLOWER.encode(&bytes);
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|at| hex.get(at).unwrap_or_default());
    parts.join("-")
}

#[cfg(test)]
mod tests;
