//! Reads objects and makes model values of them; what cannot be read is said on standard error.

use api::{Invalid, IpReservation};
use datastore::{Client, Filter, Object};
use model::block::{Block, IpamConfig};
use model::net::Cidr;
use model::pool::IpPool;
use model::vrf::VrfName;

use crate::Error;

/// Reads the pools of a VRF, or of none.
///
/// # Errors
///
/// What the datastore fails with.
pub async fn pools(client: &Client, vrf: Option<&VrfName>) -> Result<Vec<IpPool>, Error> {
    let objects = client.list::<api::IpPool>(&Filter::default()).await?;
    let mut pools: Vec<IpPool> = readable(&objects, |object| IpPool::try_from(object));
    pools.retain(|pool| pool.vrf.as_ref().map(|vrf| &vrf.name) == vrf);
    pools.sort_by(|one, other| (one.cidr, &one.name).cmp(&(other.cidr, &other.name)));
    Ok(pools)
}

/// Reads all blocks of a VRF, or of none, but those whose deletion has begun.
///
/// # Errors
///
/// What the datastore fails with.
pub async fn blocks(client: &Client, vrf: Option<&VrfName>) -> Result<Vec<Block>, Error> {
    let filter = Filter { labels: Some(api::names::of_vrf(vrf)), ..Filter::default() };
    let objects = client.list::<api::IpamBlock>(&filter).await?;
    let mut blocks: Vec<Block> = readable(&objects, |object| Block::try_from(object));
    blocks.retain(|block| !block.is_deleted);
    blocks.sort_by_key(|block| block.cidr);
    Ok(blocks)
}

/// Reads the ranges that are not assigned.
///
/// # Errors
///
/// What the datastore fails with.
pub async fn reserved(client: &Client) -> Result<Vec<Cidr>, Error> {
    let objects = client.list::<IpReservation>(&Filter::default()).await?;
    Ok(readable(&objects, IpReservation::ranges).concat())
}

/// Reads how addresses are assigned; without an object there are the defaults.
///
/// # Errors
///
/// What the datastore fails with, and [`Error::InvalidObject`].
pub async fn config(client: &Client) -> Result<IpamConfig, Error> {
    let object = client.get::<api::IpamConfig>("default").await?;
    Ok(object.as_ref().map(IpamConfig::try_from).transpose()?.unwrap_or_default())
}

/// Returns the values of the objects that have one.
pub(crate) fn readable<T: Object, M>(
    objects: &[T],
    read: impl Fn(&T) -> Result<M, Invalid>,
) -> Vec<M> {
    let value = |object| read(object).inspect_err(|error| eprintln!("calicoctl: {error}")).ok();
    objects.iter().filter_map(value).collect()
}
