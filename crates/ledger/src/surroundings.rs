//! What an assignment depends on, read in one round.
//!
//! All of it may be a moment old: what the datastore keeps in its memory is
//! read without waiting. The writes that follow are compare-and-swap, and a
//! claim on a block is preceded by a listing that is not old. Nothing is
//! refused for what was old, though: whoever finds a reason to refuse reads
//! again with [`Age::Current`] first.

use std::collections::{BTreeMap, BTreeSet};

use datastore::{Client, Filter, Object};
use ipam::View;
use k8s_openapi::api::core::v1::{Namespace, Node};
use model::Labels;
use model::block::{IpamConfig, Owner};
use model::id::NodeName;
use model::net::Cidr;
use model::pool::IpPool;
use model::vrf::{VrfName, vrfs};
use tracing::warn;

use crate::objects::affinities;
use crate::stored::text;
use crate::{Age, Answer, Driver, Error, NotReady, list, list_affinities};

/// The name of each kind's only object.
const DEFAULT: &str = "default";

/// Everything that decides about addresses and changes rarely.
#[derive(Clone, Debug, PartialEq)]
pub struct Surroundings {
    /// The configuration.
    pub config: IpamConfig,
    /// Ranges that are not assigned unasked.
    pub reserved: Vec<Cidr>,
    /// All pools that can be understood, and that are of the driver's VRF.
    pub pools: Vec<IpPool>,
    /// The node's labels.
    pub node_labels: Labels,
    /// The labels of the workload's namespace, if it has one and a pool selects by them.
    pub namespace_labels: Option<Labels>,
    /// The blocks that the node claims, newest first.
    pub newest_first: Vec<Cidr>,
}

impl Surroundings {
    /// Reads it, and the affinities of `node` into the view that is returned; whether the cluster
    /// is ready is for [`check_ready`] to say.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchNode`] and [`Error::NotItsVrf`] whatever the age, and what the datastore fails
    /// with.
    pub async fn read(
        driver: &mut Driver,
        node: &NodeName,
        namespace: Option<&str>,
        age: Age,
    ) -> Result<(Self, View), Error> {
        let client = driver.client().clone();
        let vrf = driver.vrf().cloned();
        let filter = own_affinities(node);
        let (config, reserved, pools, node_labels, affinities) = futures::join!(
            read_config_of(&client, age),
            read_reserved(&client, age),
            read_pools(&client, age),
            read_node_labels(&client, node, age),
            list_affinities(&client, vrf.as_ref(), &filter, age),
        );
        let pools = of_vrf(pools?, vrf.as_ref());
        let selects_namespaces = pools.iter().any(|pool| pool.namespace_selector.is_some());
        let namespace_labels = match namespace {
            Some(namespace) if selects_namespaces => {
                Some(read_namespace_labels(&client, namespace, vrf.as_ref(), age).await?)
            }
            Some(_) | None => None,
        };
        let (newest_first, view) = driver.note_claims(affinities?);
        let (config, reserved, node_labels) = (config?, reserved?, node_labels?);
        Ok((Self { config, reserved, pools, node_labels, namespace_labels, newest_first }, view))
    }
}

/// Reads the blocks that `node` claims, the newest first, and a view that knows these claims.
///
/// # Errors
///
/// What the datastore fails with.
pub(crate) async fn claims(
    driver: &mut Driver,
    node: &NodeName,
    age: Age,
) -> Result<(Vec<Cidr>, View), Error> {
    let filter = own_affinities(node);
    let answer = list_affinities(driver.client(), driver.vrf(), &filter, age).await?;
    Ok(driver.note_claims(answer))
}

/// Reads what `node` claims, by VRF.
///
/// # Errors
///
/// What the datastore fails with.
pub async fn claims_by_vrf(
    client: &Client,
    node: &NodeName,
) -> Result<BTreeMap<Option<VrfName>, Answer>, Error> {
    let objects = client.list::<api::BlockAffinity>(&own_affinities(node)).await?;
    let named = objects.iter().filter_map(|object| api::vrf_of(object).ok());
    let scopes: BTreeSet<Option<VrfName>> = named.collect();
    let claims = scopes.into_iter().map(|vrf| {
        let claims = affinities(objects.clone(), vrf.as_ref());
        (vrf, claims)
    });
    Ok(claims.collect())
}

/// Keeps the pools of a VRF, or those of none; pools that contradict their VRF's others give
/// nothing out.
#[must_use]
pub fn of_vrf(mut pools: Vec<IpPool>, vrf: Option<&VrfName>) -> Vec<IpPool> {
    let known = vrf.and_then(|vrf| vrfs(&pools).by_name.remove(vrf));
    pools.retain(|pool| match (&pool.vrf, vrf) {
        (None, None) => true,
        (Some(said), Some(vrf)) => {
            said.name == *vrf && known.as_ref().is_some_and(|known| known.id == said.id)
        }
        (Some(_), None) | (None, Some(_)) => false,
    });
    pools
}

/// Fails unless the cluster is set up and the datastore is not locked.
///
/// # Errors
///
/// [`Error::NotReady`], and what the datastore fails with.
pub async fn check_ready(client: &Client) -> Result<(), Error> {
    match readiness(client, Age::Recent).await {
        Err(Error::NotReady(_)) => readiness(client, Age::Current).await,
        result => result,
    }
}

async fn readiness(client: &Client, age: Age) -> Result<(), Error> {
    match get::<api::ClusterInformation>(client, DEFAULT, age).await? {
        None => Err(Error::NotReady(NotReady::NotSetUp)),
        Some(information) if information.spec.datastore_ready == Some(true) => Ok(()),
        Some(_) => Err(Error::NotReady(NotReady::Locked)),
    }
}

/// Reads the configuration; one that does not exist has the defaults.
///
/// # Errors
///
/// What the datastore fails with, and [`Error::Invalid`].
pub async fn read_config(client: &Client) -> Result<IpamConfig, Error> {
    read_config_of(client, Age::Recent).await
}

async fn read_config_of(client: &Client, age: Age) -> Result<IpamConfig, Error> {
    match get::<api::IpamConfig>(client, DEFAULT, age).await? {
        Some(config) => Ok(IpamConfig::try_from(&config)?),
        None => Ok(IpamConfig::default()),
    }
}

async fn read_reserved(client: &Client, age: Age) -> Result<Vec<Cidr>, Error> {
    let reservations = list::<api::IpReservation>(client, &Filter::default(), age).await?;
    let mut reserved = Vec::new();
    for reservation in &reservations {
        // Assigning from a range whose reservation we cannot read would be worse than failing.
        reserved.extend(reservation.ranges()?);
    }
    Ok(reserved)
}

/// Reads all pools that can be understood, of whatever VRF.
///
/// # Errors
///
/// What the datastore fails with.
pub async fn read_pools(client: &Client, age: Age) -> Result<Vec<IpPool>, Error> {
    let objects = list::<api::IpPool>(client, &Filter::default(), age).await?;
    let pools = objects.iter().filter_map(|object| {
        let pool = IpPool::try_from(object);
        pool.inspect_err(|error| warn!(%error, "ignoring an IPPool")).ok()
    });
    Ok(pools.collect())
}

async fn read_node_labels(client: &Client, name: &NodeName, age: Age) -> Result<Labels, Error> {
    let node = find::<Node>(client, name.as_str(), age).await?;
    let node = node.ok_or_else(|| Error::NoSuchNode(name.to_string()))?;
    Ok(node.metadata.labels.unwrap_or_default())
}

/// Reads a namespace's labels; what the caller says of its VRF must be right.
async fn read_namespace_labels(
    client: &Client,
    name: &str,
    vrf: Option<&VrfName>,
    age: Age,
) -> Result<Labels, Error> {
    let mut namespace = find::<Namespace>(client, name, age).await?;
    if age == Age::Recent && vrf_of(namespace.as_ref())?.as_ref() != vrf {
        namespace = find::<Namespace>(client, name, Age::Current).await?;
    }
    let found = vrf_of(namespace.as_ref())?;
    if namespace.is_some() && found.as_ref() != vrf {
        let (found, said) = (text(found.as_ref()), text(vrf));
        return Err(Error::NotItsVrf { namespace: name.to_owned(), found, said });
    }
    Ok(namespace.and_then(|namespace| namespace.metadata.labels).unwrap_or_default())
}

fn vrf_of(namespace: Option<&Namespace>) -> Result<Option<VrfName>, Error> {
    Ok(namespace.map(api::kubernetes::namespace_vrf).transpose()?.flatten())
}

/// Reads one object that should exist; there being none is never old news.
async fn find<T: Object>(client: &Client, name: &str, age: Age) -> Result<Option<T>, Error> {
    match get(client, name, age).await? {
        None if age == Age::Recent => get(client, name, Age::Current).await,
        found => Ok(found),
    }
}

async fn get<T: Object>(client: &Client, name: &str, age: Age) -> Result<Option<T>, Error> {
    Ok(match age {
        Age::Recent => client.get_recent(name).await?,
        Age::Current => client.get(name).await?,
    })
}

/// Returns what selects a node's affinities, of whatever VRF.
#[must_use]
pub fn own_affinities(node: &NodeName) -> Filter {
    let labels = api::names::affinities_of(&Owner::Host(node.clone()));
    Filter { labels: Some(labels), ..Filter::default() }
}
