//! The addresses of Services in the datastore: what is held, and how that is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::names;
use datastore::{Client, Filter};
use ipam::{
    AddressRelease, Assignment, Candidates, Expected, Failure, Key, Op, Outcome, PoolReference,
    Record, Release, Request, Scene, Selectors, View, pools_for, pools_holding, seed_of,
};
use k8s_openapi::api::core::v1::Namespace;
use ledger::{Age, Driver, HostLock, surroundings};
use model::Labels;
use model::block::{IpamConfig, Owner};
use model::id::{HandleId, NodeName};
use model::net::Cidr;
use model::pool::{IpPool, Use};
use model::service::BalancerRequest;
use tracing::warn;

use super::plan::{self, Holding, Missing};

/// How many blocks are read at once.
const AT_ONCE: usize = 16;

/// What assignments rest on, read once for each look.
#[derive(Debug)]
pub(super) struct Books {
    client: Client,
    owner: NodeName,
    config: IpamConfig,
    reserved: Vec<Cidr>,
    /// All pools that can be read, for whatever use.
    pub(super) pools: Vec<IpPool>,
    /// Labels of namespaces, if a pool for Services selects by them.
    namespaces: BTreeMap<String, Labels>,
    no_labels: Labels,
}

impl Books {
    pub(super) async fn read(client: &Client) -> Result<Self, ledger::Error> {
        let all = Filter::default();
        let (config, reservations, pools) = futures::try_join!(
            client.get::<api::IpamConfig>("default"),
            client.list::<api::IpReservation>(&all),
            client.list::<api::IpPool>(&all),
        )?;
        let config = config.as_ref().map(IpamConfig::try_from).transpose()?.unwrap_or_default();
        let mut reserved = Vec::new();
        for reservation in &reservations {
            // Assigning from a range whose reservation we cannot read would be worse than failing.
            reserved.extend(reservation.ranges()?);
        }
        let pools: Vec<IpPool> = pools
            .iter()
            .filter_map(|object| {
                IpPool::try_from(object)
                    .inspect_err(|error| warn!(%error, "ignoring an IPPool"))
                    .ok()
            })
            .collect();
        // Services are everybody's.
        let pools = surroundings::of_vrf(pools, None);
        let is_choosy = |pool: &IpPool| {
            pool.allowed_uses.allow(Use::LoadBalancer) && pool.namespace_selector.is_some()
        };
        let namespaces = if pools.iter().any(is_choosy) {
            labels_of(client.list::<Namespace>(&all).await?)
        } else {
            BTreeMap::new()
        };
        let owner = NodeName::load_balancer();
        Ok(Self {
            client: client.clone(),
            owner,
            config,
            reserved,
            pools,
            namespaces,
            no_labels: Labels::default(),
        })
    }

    /// Returns what handles of Services hold, by the handles' names.
    pub(super) async fn held(&self) -> Result<BTreeMap<String, Vec<Holding>>, ledger::Error> {
        let mut driver = self.driver();
        let (claims, _) = self.claims(&mut driver, Age::Current).await?;
        let mut held: BTreeMap<String, Vec<Holding>> = BTreeMap::new();
        for some in claims.chunks(AT_ONCE) {
            let reads = some.iter().map(|cidr| Op::Read(Key::Block(*cidr))).collect();
            for (_, outcome) in driver.act(reads).await? {
                let Outcome::Found(Record::Block(block)) = outcome else { continue };
                for holding in plan::holdings(&block) {
                    held.entry(holding.handle.object_name()).or_default().push(holding);
                }
            }
        }
        Ok(held)
    }

    /// Assigns an address that a Service lacks.
    pub(super) async fn assign(
        &self,
        service: &BalancerRequest,
        handle: &HandleId,
        missing: &Missing,
    ) -> Result<Result<IpAddr, Failure>, ledger::Error> {
        let candidates = self.candidates(service, &missing.pools);
        let pools = match missing.addr {
            Some(addr) => pools_holding(&self.pools, addr, &candidates),
            None => pools_for(&self.pools, missing.family, &candidates),
        };
        let pools = match pools {
            Ok(pools) => pools,
            Err(failure) => return Ok(Err(failure)),
        };
        let mut driver = self.driver();
        let (newest_first, view) = self.claims(&mut driver, Age::Recent).await?;
        let (scene, request) = self.order(service, (handle, missing), pools);
        let scene = Scene { newest_first, ..scene };
        let mut machine = Assignment::for_service(request, scene, view);
        match driver.run(&mut machine).await {
            Ok(assigned) => Ok(Ok(assigned.addr)),
            Err(ledger::Error::Refused(failure)) => Ok(Err(failure)),
            Err(error) => Err(error),
        }
    }

    /// Gives an address back, if it is still held as it was seen.
    pub(super) async fn release(&self, holding: &Holding) -> Result<(), ledger::Error> {
        let expected = Expected {
            sequence_number: holding.sequence_number,
            handle: Some(holding.handle.clone()),
        };
        let machine = AddressRelease::new(holding.addr, expected, &self.config, ledger::now());
        match self.driver().run(&mut machine.in_block(holding.block)).await {
            Ok(_) => Ok(()),
            Err(ledger::Error::Refused(failure)) => {
                warn!(%failure, "left alone");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Gives back all that a handle holds; returns the addresses.
    pub(super) async fn release_all(
        &self,
        handle: &HandleId,
    ) -> Result<BTreeSet<IpAddr>, ledger::Error> {
        let mut machine = Release::new(handle.clone(), &self.config, ledger::now());
        let released = self.driver().run(&mut machine).await?;
        Ok(released.addrs)
    }

    /// Reads which blocks Services claim, the newest first, into a view to assign upon.
    async fn claims(
        &self,
        driver: &mut Driver,
        age: Age,
    ) -> Result<(Vec<Cidr>, View), ledger::Error> {
        let filter = names::affinities_of(&Owner::Virtual(self.owner.to_string()));
        let filter = Filter { labels: Some(filter), ..Filter::default() };
        let answer = ledger::list_affinities(&self.client, None, &filter, age).await?;
        Ok(driver.note_claims(answer))
    }

    fn candidates<'a>(
        &'a self,
        service: &BalancerRequest,
        requested: &'a [PoolReference],
    ) -> Candidates<'a> {
        Candidates {
            requested,
            node: &self.owner,
            node_labels: &self.no_labels,
            namespace_labels: self.namespaces.get(&service.id.namespace),
            intended: Use::LoadBalancer,
            selectors: Selectors::OfRequestedIgnored,
        }
    }

    fn driver(&self) -> Driver {
        Driver::new(self.client.clone(), HostLock::none())
    }

    fn order(
        &self,
        service: &BalancerRequest,
        (handle, missing): (&HandleId, &Missing),
        pools: Vec<IpPool>,
    ) -> (Scene, Request) {
        let now = ledger::now();
        let is_kept = |pool: &&IpPool| {
            pool.family() == missing.family && pool.allowed_uses.allow(Use::LoadBalancer)
        };
        let scene = Scene {
            config: self.config,
            reserved: self.reserved.clone(),
            selected: self.pools.iter().filter(is_kept).map(|pool| pool.cidr).collect(),
            pools,
            newest_first: Vec::new(),
            now,
        };
        let owner = [
            ("service", service.id.name.clone()),
            ("namespace", service.id.namespace.clone()),
            ("type", "LoadBalancer".to_owned()),
            ("timestamp", api::go_time(now)),
        ];
        let request = Request {
            node: self.owner.clone(),
            handle: handle.clone(),
            owner: owner.map(|(key, value)| (key.to_owned(), value)).into(),
            family: missing.family,
            addr: missing.addr,
            max_blocks: None,
            seed: seed_of(&self.owner),
        };
        (scene, request)
    }
}

fn labels_of(namespaces: Vec<Namespace>) -> BTreeMap<String, Labels> {
    let named = namespaces.into_iter().filter_map(|namespace| {
        let metadata = namespace.metadata;
        Some((metadata.name?, metadata.labels.unwrap_or_default()))
    });
    named.collect()
}
