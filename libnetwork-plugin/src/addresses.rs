//! Addresses of containers: taken and given back through address management, as for pods.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use datastore::{Client, Filter};
use ipam::{PoolReference, Selectors, slots};
use ledger::{Driver, HostLock, Order, Wanted, surroundings};
use model::block::{Attributes, Block};
use model::id::{HandleId, NodeName};
use model::pool::IpPool;

use crate::error::Error;
use crate::pool::PoolId;
use crate::registry::HANDLES;
use crate::settings::Settings;

/// What is noted with an address instead of a pod's name.
const ORCHESTRATOR: &str = "orchestrator";

/// Address management for the containers of this host.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    client: Client,
    node: NodeName,
    lock: HostLock,
}

impl Addresses {
    pub(crate) fn new(settings: &Settings, client: Client) -> Self {
        let lock = HostLock::at(settings.ipam_lock_file.clone());
        Self { client, node: settings.node.clone(), lock }
    }

    fn driver(&self) -> Driver {
        Driver::new(self.client.clone(), self.lock.clone())
    }

    /// Fails unless the datastore may be used.
    ///
    /// # Errors
    ///
    /// [`Error::Ledger`] if it is not set up or locked.
    pub(crate) async fn check_ready(&self) -> Result<(), Error> {
        Ok(surroundings::check_ready(&self.client).await?)
    }

    /// Returns all pools that can be read.
    ///
    /// # Errors
    ///
    /// What the datastore fails with.
    pub(crate) async fn pools(&self) -> Result<Vec<IpPool>, Error> {
        let pools = surroundings::read_pools(&self.client, ledger::Age::Current).await?;
        Ok(surroundings::of_vrf(pools, None))
    }

    /// Takes an address: any of the pool, or this one.
    ///
    /// # Errors
    ///
    /// [`Error::Ledger`] with the reason, or what the datastore fails with.
    pub(crate) async fn assign(
        &self,
        pool: PoolId,
        addr: Option<IpAddr>,
        handle: &HandleId,
    ) -> Result<IpAddr, Error> {
        let wanted = match (addr, pool) {
            (Some(addr), _) => Wanted::This(addr),
            (None, PoolId::Any(family)) => Wanted::Any(family, Vec::new()),
            (None, PoolId::Range(cidr)) => {
                Wanted::Any(cidr.family(), vec![PoolReference::Range(cidr)])
            }
        };
        let order = Order {
            node: self.node.clone(),
            namespace: None,
            vrf: None,
            handle: handle.clone(),
            owner: BTreeMap::from([
                ("node".to_owned(), self.node.to_string()),
                (ORCHESTRATOR.to_owned(), api::LIBNETWORK.to_owned()),
                ("timestamp".to_owned(), api::go_time(ledger::now())),
            ]),
            wanted: vec![wanted],
            selectors: Selectors::OfRequestedIgnored,
        };
        let assigned = Box::pin(ledger::assign(&mut self.driver(), &order)).await?;
        let first = assigned.first().map(|assigned| assigned.addr);
        first.ok_or_else(|| Error::wrong("address management gave no address"))
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
            None => self.held().await?.remove(&addr),
        };
        let Some(handle) = handle else { return Ok(()) };
        self.release_all(&handle).await.map(drop)
    }

    /// Gives back all that a handle holds.
    ///
    /// # Errors
    ///
    /// What the datastore fails with.
    pub(crate) async fn release_all(&self, handle: &str) -> Result<BTreeSet<IpAddr>, Error> {
        let handles = [HandleId(handle.to_owned())];
        Ok(ledger::release(&mut self.driver(), &handles).await?)
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
