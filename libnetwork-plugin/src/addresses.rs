//! Addresses of containers: taken and given back through address management, as for pods.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use datastore::{Client, Filter};
use ipam::{
    Assignment, Candidates, Op, Outcome, PoolReference, Release, Request, Selectors, View,
    pools_for, pools_holding, seed_of, slots,
};
use k8s_openapi::api::core::v1::Node;
use model::Labels;
use model::block::{Attributes, Block, IpamConfig};
use model::id::{HandleId, NodeName};
use model::net::Cidr;
use model::pool::{IpPool, Use};
use tokio::sync::Mutex;

use crate::carrier::Carrier;
use crate::error::Error;
use crate::pool::PoolId;
use crate::registry::HANDLES;
use crate::settings::Settings;

/// The name of each kind's only object.
const DEFAULT: &str = "default";
/// What is noted with an address instead of a pod's name.
const ORCHESTRATOR: &str = "orchestrator";

/// Address management for the containers of this host.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    client: Client,
    node: NodeName,
    turn: Arc<Mutex<()>>,
}

/// What an assignment depends on.
#[derive(Debug)]
struct Scene {
    config: IpamConfig,
    reserved: Vec<Cidr>,
    pools: Vec<IpPool>,
    node_labels: Labels,
    newest_first: Vec<Cidr>,
    view: View,
}

impl Addresses {
    pub(crate) fn new(settings: &Settings, client: Client) -> Self {
        Self { client, node: settings.node.clone(), turn: Arc::default() }
    }

    fn carrier(&self) -> Carrier {
        Carrier::new(self.client.clone(), Arc::clone(&self.turn))
    }

    /// Fails unless the datastore may be used.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] if it is not set up or locked.
    pub(crate) async fn check_ready(&self) -> Result<(), Error> {
        let information: Option<api::ClusterInformation> = self.client.get(DEFAULT).await?;
        match information {
            Some(information) if information.spec.datastore_ready == Some(true) => Ok(()),
            Some(_) => Err(Error::wrong(
                "the datastore is locked (ClusterInformation `default`): wait, or `calicoctl \
                 datastore migrate unlock`",
            )),
            None => {
                Err(Error::wrong("the datastore is not set up: start calico-node, which does that"))
            }
        }
    }

    /// Returns all pools that can be read.
    ///
    /// # Errors
    ///
    /// What the datastore fails with.
    pub(crate) async fn pools(&self) -> Result<Vec<IpPool>, Error> {
        Ok(readable(&self.client.list::<api::IpPool>(&Filter::default()).await?))
    }

    /// Takes an address: any of the pool, or this one.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with the reason, or what the datastore fails with.
    pub(crate) async fn assign(
        &self,
        pool: PoolId,
        addr: Option<IpAddr>,
        handle: &HandleId,
    ) -> Result<IpAddr, Error> {
        let mut carrier = self.carrier();
        self.check_ready().await?;
        let scene = Box::pin(self.scene(&mut carrier)).await?;
        let requested = match pool {
            PoolId::Any(_) => Vec::new(),
            PoolId::Range(cidr) => vec![PoolReference::Range(cidr)],
        };
        let candidates = Candidates {
            requested: &requested,
            node: &self.node,
            node_labels: &scene.node_labels,
            namespace_labels: None,
            intended: Use::Workload,
            selectors: Selectors::OfRequestedIgnored,
        };
        let family = pool.family();
        let pools = pools_for(&scene.pools, family, &candidates)?;
        let pools = match addr {
            Some(addr) => pools_holding(&pools, addr, &candidates)?,
            None => pools,
        };
        let now = ledger::now();
        let request = Request {
            node: self.node.clone(),
            handle: handle.clone(),
            owner: BTreeMap::from([
                ("node".to_owned(), self.node.to_string()),
                (ORCHESTRATOR.to_owned(), api::LIBNETWORK.to_owned()),
                ("timestamp".to_owned(), timestamp()),
            ]),
            family,
            addr,
            max_blocks: None,
            seed: seed_of(&self.node),
        };
        let keeps = |pool: &&IpPool| {
            pool.family() == family
                && !pool.is_disabled
                && pool.node_selector.matches(&scene.node_labels)
        };
        let selected = scene.pools.iter().filter(keeps).chain(&pools).map(|pool| pool.cidr);
        let order = ipam::Scene {
            config: scene.config,
            reserved: scene.reserved.clone(),
            selected: selected.collect(),
            pools: pools.clone(),
            newest_first: scene.newest_first.clone(),
            now,
        };
        let mut machine = Assignment::new(request, order, scene.view);
        let assigned = carrier.run(&mut machine).await?;
        tracing::info!(addr = %assigned.addr, block = %assigned.block, %handle, "assigned");
        Ok(assigned.addr)
    }

    /// Gives an address back that a container of this host held, and the other one of that
    /// container, which Docker gives back as well; there being none is fine.
    ///
    /// # Errors
    ///
    /// What the datastore fails with.
    pub(crate) async fn release(&self, addr: IpAddr, handle: Option<&str>) -> Result<(), Error> {
        let handle = match handle {
            Some(handle) => Some(handle.to_owned()),
            None => self.holder(addr).await?,
        };
        let Some(handle) = handle else { return Ok(()) };
        let addrs = self.release_all(&handle).await?;
        tracing::info!(?addrs, handle, "released");
        Ok(())
    }

    /// Gives back all that a handle holds.
    ///
    /// # Errors
    ///
    /// What the datastore fails with.
    pub(crate) async fn release_all(&self, handle: &str) -> Result<BTreeSet<IpAddr>, Error> {
        let config = self.config().await?;
        let mut machine = Release::new(HandleId(handle.to_owned()), &config, ledger::now());
        Ok(self.carrier().run(&mut machine).await?.addrs)
    }

    /// Returns all addresses that containers of this host hold, with their handles.
    ///
    /// # Errors
    ///
    /// What the datastore fails with.
    pub(crate) async fn held(&self) -> Result<BTreeMap<IpAddr, String>, Error> {
        let objects = self.client.list_recent::<api::IpamBlock>(&Filter::default()).await?;
        let blocks = objects.iter().filter_map(|object| Block::try_from(object).ok());
        Ok(blocks.flat_map(|block| held_here(&block, &self.node)).collect())
    }

    /// Returns the handle of a container of this host that holds the address.
    async fn holder(&self, addr: IpAddr) -> Result<Option<String>, Error> {
        Ok(self.held().await?.remove(&addr))
    }

    async fn config(&self) -> Result<IpamConfig, Error> {
        let config: Option<api::IpamConfig> = self.client.get_recent(DEFAULT).await?;
        Ok(config.as_ref().map(IpamConfig::try_from).transpose()?.unwrap_or_default())
    }

    async fn scene(&self, carrier: &mut Carrier) -> Result<Scene, Error> {
        let client = &self.client;
        let own = format!(
            "{}={},{}=host",
            api::names::HOSTNAME_HASH_LABEL,
            api::names::hostname_hash(self.node.as_str()),
            api::names::AFFINITY_TYPE_LABEL,
        );
        let all = Filter::default();
        let (config, reservations, pools, node, claims) = futures::join!(
            self.config(),
            client.list_recent::<api::IpReservation>(&all),
            client.list::<api::IpPool>(&all),
            client.get::<Node>(self.node.as_str()),
            carrier.claims(own),
        );
        let node = node?.ok_or_else(|| {
            Error::wrong(format!("node {} is unknown: start calico-node on it", self.node))
        })?;
        let reservations = reservations?;
        let reserved = reservations.iter().map(api::IpReservation::ranges);
        let reserved: Vec<Vec<Cidr>> = reserved.collect::<Result<_, _>>()?;
        let mut view = View::default();
        let affinities = claims?;
        let newest_first = if let Outcome::Affinities(claims) = &affinities {
            claims.iter().map(|claim| claim.cidr).collect()
        } else {
            Vec::new()
        };
        view.feed(Op::ListAffinities, affinities);
        Ok(Scene {
            config: config?,
            reserved: reserved.concat(),
            pools: readable(&pools?),
            node_labels: node.metadata.labels.unwrap_or_default(),
            newest_first,
            view,
        })
    }
}

fn readable(objects: &[api::IpPool]) -> Vec<IpPool> {
    let read = |object: &api::IpPool| {
        let pool = IpPool::try_from(object);
        pool.inspect_err(|error| tracing::warn!(%error, "ignoring an IPPool")).ok()
    };
    objects.iter().filter_map(read).collect()
}

/// Returns the time as Calico notes it with addresses.
fn timestamp() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()
}

/// Returns what containers of `node` hold of a block, with their handles.
fn held_here(block: &Block, node: &NodeName) -> Vec<(IpAddr, String)> {
    let is_here = |holder: &Attributes| {
        let fact = |name: &str| holder.owner.get(name).map(String::as_str);
        fact(ORCHESTRATOR) == Some(api::LIBNETWORK) && fact("node") == Some(node.as_str())
    };
    let count = u32::try_from(block.allocations.len()).unwrap_or(u32::MAX);
    let held = (0..count).filter_map(|ordinal| {
        let holder = slots::holder(block, ordinal).filter(|holder| is_here(holder))?;
        let handle = holder.handle.as_ref().filter(|handle| handle.0.starts_with(HANDLES))?;
        Some((slots::address(block, ordinal)?, handle.0.clone()))
    });
    held.collect()
}
