//! The objects that repairs write, of any of the three kinds.

use datastore::Client;
use ipam::{Key, Record};
use model::block::Owner;
use model::vrf::VrfName;

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
    /// Makes a new object, of a VRF or of none.
    #[must_use]
    pub fn of(record: &Record, vrf: Option<&VrfName>) -> Self {
        match record {
            Record::Block(block) => Self::Block(Box::new(api::IpamBlock::of_vrf(vrf, block))),
            Record::Affinity(claim) => {
                Self::Affinity(Box::new(api::BlockAffinity::of_vrf(vrf, claim)))
            }
            Record::Handle(handle) => Self::Handle(Box::new(api::IpamHandle::of_vrf(vrf, handle))),
        }
    }

    /// Returns the VRF that the object is of.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`].
    pub fn vrf(&self) -> Result<Option<VrfName>, Error> {
        Ok(match self {
            Self::Block(object) => api::vrf_of(object)?,
            Self::Affinity(object) => api::vrf_of(object)?,
            Self::Handle(object) => api::vrf_of(object)?,
        })
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

    /// Reads the object of `key` in a VRF, or in none.
    ///
    /// # Errors
    ///
    /// [`Error::OtherVrf`] for a handle that holds addresses elsewhere, and what the datastore
    /// fails with.
    pub async fn get(
        client: &Client,
        vrf: Option<&VrfName>,
        key: &Key,
    ) -> Result<Option<Self>, Error> {
        let name = object_name(vrf, key);
        let found = match key {
            Key::Block(_) => client.get(&name).await?.map(|one| Self::Block(Box::new(one))),
            Key::Affinity(..) => client.get(&name).await?.map(|one| Self::Affinity(Box::new(one))),
            Key::Handle(_) => client.get(&name).await?.map(|one| Self::Handle(Box::new(one))),
        };
        let holder = found.as_ref().map(Self::vrf).transpose()?;
        match holder {
            Some(holder) if holder.as_ref() != vrf => {
                Err(Error::OtherVrf { object: described(key), vrf: text(holder.as_ref()) })
            }
            Some(_) | None => Ok(found),
        }
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
fn object_name(vrf: Option<&VrfName>, key: &Key) -> String {
    match key {
        Key::Block(cidr) => api::names::block_name(vrf, *cidr),
        Key::Affinity(Owner::Host(node), cidr) => {
            api::names::affinity_name(vrf, node.as_str(), *cidr)
        }
        Key::Affinity(Owner::Virtual(name), cidr) => api::names::affinity_name(vrf, name, *cidr),
        Key::Handle(id) => id.object_name(),
    }
}

/// Names a VRF for people, and none as pools do.
pub(crate) fn text(vrf: Option<&VrfName>) -> String {
    vrf.map_or(VrfName::DEFAULT, VrfName::as_str).to_owned()
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
