//! The objects that repairs write, of any of the three kinds.

use datastore::Client;
use ipam::{Key, Record};
use model::block::Owner;

use crate::Error;

/// An object as the API server has it, with the fields that we do not know.
#[derive(Clone, Debug, PartialEq)]
pub enum Stored {
    /// A block.
    Block(Box<api::IpamBlock>),
    /// A claim.
    Affinity(Box<api::BlockAffinity>),
    /// A handle.
    Handle(Box<api::IpamHandle>),
}

impl Stored {
    /// Makes a new object.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        match record {
            Record::Block(block) => Self::Block(Box::new(api::IpamBlock::from_model(block))),
            Record::Affinity(claim) => {
                Self::Affinity(Box::new(api::BlockAffinity::from_model(claim)))
            }
            Record::Handle(handle) => Self::Handle(Box::new(api::IpamHandle::from_model(handle))),
        }
    }

    /// Returns the object with `record` in it; what this version does not know stays.
    #[must_use]
    pub fn with(&self, record: &Record) -> Self {
        let mut changed = self.clone();
        match (&mut changed, record) {
            (Self::Block(object), Record::Block(block)) => object.set(block),
            (Self::Affinity(object), Record::Affinity(claim)) => object.set(claim),
            (Self::Handle(object), Record::Handle(handle)) => object.set(handle),
            // Objects are kept under their record's key, so the kinds agree.
            _ => {}
        }
        changed
    }

    /// Returns what it says.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`].
    pub fn record(&self) -> Result<Record, Error> {
        Ok(match self {
            Self::Block(object) => Record::Block((&**object).try_into()?),
            Self::Affinity(object) => Record::Affinity((&**object).try_into()?),
            Self::Handle(object) => Record::Handle((&**object).try_into()?),
        })
    }

    /// Returns the revision; empty for an object that is not on the server.
    #[must_use]
    pub fn revision(&self) -> &str {
        let metadata = match self {
            Self::Block(object) => &object.metadata,
            Self::Affinity(object) => &object.metadata,
            Self::Handle(object) => &object.metadata,
        };
        metadata.resource_version.as_deref().unwrap_or_default()
    }

    /// Returns the object as it was before it came to the server.
    #[must_use]
    pub fn detached(&self) -> Self {
        let mut detached = self.clone();
        let metadata = match &mut detached {
            Self::Block(object) => &mut object.metadata,
            Self::Affinity(object) => &mut object.metadata,
            Self::Handle(object) => &mut object.metadata,
        };
        metadata.resource_version = None;
        metadata.uid = None;
        metadata.creation_timestamp = None;
        metadata.generation = None;
        detached
    }

    /// Reads the object of `key`.
    ///
    /// # Errors
    ///
    /// What the datastore fails with.
    pub async fn get(client: &Client, key: &Key) -> Result<Option<Self>, Error> {
        let name = object_name(key);
        Ok(match key {
            Key::Block(_) => client.get(&name).await?.map(|one| Self::Block(Box::new(one))),
            Key::Affinity(..) => client.get(&name).await?.map(|one| Self::Affinity(Box::new(one))),
            Key::Handle(_) => client.get(&name).await?.map(|one| Self::Handle(Box::new(one))),
        })
    }

    /// Creates the object.
    ///
    /// # Errors
    ///
    /// As [`Client::create`].
    pub async fn create(&self, client: &Client) -> Result<Self, datastore::Error> {
        Ok(match self {
            Self::Block(object) => Self::Block(Box::new(client.create(&**object).await?)),
            Self::Affinity(object) => Self::Affinity(Box::new(client.create(&**object).await?)),
            Self::Handle(object) => Self::Handle(Box::new(client.create(&**object).await?)),
        })
    }

    /// Replaces the object, if it is still the version that this is.
    ///
    /// # Errors
    ///
    /// As [`Client::update`].
    pub async fn update(&self, client: &Client) -> Result<Self, datastore::Error> {
        Ok(match self {
            Self::Block(object) => Self::Block(Box::new(client.update(&**object).await?)),
            Self::Affinity(object) => Self::Affinity(Box::new(client.update(&**object).await?)),
            Self::Handle(object) => Self::Handle(Box::new(client.update(&**object).await?)),
        })
    }

    /// Deletes the object, if it is still the version that this is.
    ///
    /// # Errors
    ///
    /// As [`Client::delete`].
    pub async fn delete(&self, client: &Client) -> Result<(), datastore::Error> {
        match self {
            Self::Block(object) => client.delete(&**object).await,
            Self::Affinity(object) => client.delete(&**object).await,
            Self::Handle(object) => client.delete(&**object).await,
        }
    }
}

/// Returns the name of the object of `key`.
fn object_name(key: &Key) -> String {
    match key {
        Key::Block(cidr) => api::names::block_name(*cidr),
        Key::Affinity(Owner::Host(node), cidr) => api::names::affinity_name(node.as_str(), *cidr),
        Key::Affinity(Owner::Virtual(name), cidr) => api::names::affinity_name(name, *cidr),
        Key::Handle(id) => id.object_name(),
    }
}

/// Names the object of `key` for people: `block 10.0.0.0/29`.
#[must_use]
pub fn described(key: &Key) -> String {
    match key {
        Key::Block(cidr) => format!("block {cidr}"),
        Key::Affinity(owner, cidr) => format!("claim of {owner} on block {cidr}"),
        Key::Handle(id) => format!("handle {id}"),
    }
}
