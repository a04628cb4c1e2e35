//! Addresses for this node's tunnels: has them assigned, noted on the Node, and given back.
//!
//! What to do next is [`ipam::tunnel::step`]'s to say; this carries it out, step by step, and
//! begins again after a failure, or when something else is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use api::{annotations, names};
use datastore::{Client, Filter};
use ipam::tunnel::{TunnelStep, step};
use ipam::{
    Assignment, Candidates, Key, Op, Outcome, PoolReference, Record, Release, Request, Scene,
    Selectors, View, pools_for, seed_of, slots,
};
use k8s_openapi::api::core::v1::Node;
use ledger::{Age, Driver, Error, HostLock, surroundings};
use model::block::IpamConfig;
use model::desired::TunnelAddrDemand;
use model::id::{HandleId, NodeName};
use model::net::{Cidr, Family};
use model::node::TunnelKind;
use model::pool::{IpPool, Use};
use serde_json::json;
use tokio::sync::watch;

use super::demand::{Whose, affinities};
use super::event::TunnelNeeds;
use crate::startup::StartedNode;

/// The lock that the CNI plugin takes, too.
const LOCK: &str = "/var/run/calico/ipam.lock";
/// How long to wait after a failure, and at most.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// More steps than any address needs, unless somebody works against us.
const STEPS: usize = 8;

/// What gets this node's tunnels their addresses.
#[derive(Debug)]
pub(crate) struct TunnelAddrs {
    client: Client,
    node: NodeName,
    kubernetes_name: NodeName,
    /// Kinds of which nothing is held, as far as anybody knows.
    clean: BTreeSet<TunnelKind>,
}

impl TunnelAddrs {
    pub(crate) fn new(client: &Client, started: &StartedNode) -> Self {
        Self {
            client: client.clone(),
            node: started.name.clone(),
            kubernetes_name: started.kubernetes_name.clone(),
            clean: BTreeSet::new(),
        }
    }

    /// Follows what is needed until nobody needs anything any more.
    pub(crate) async fn run(mut self, mut needs: watch::Receiver<Option<TunnelNeeds>>) {
        let mut pause = PAUSE;
        loop {
            let wanted = needs.borrow_and_update().clone();
            let result = match &wanted {
                Some(wanted) => Box::pin(self.settle_all(wanted)).await,
                None => Ok(()),
            };
            let changed = match result {
                Ok(()) => {
                    pause = PAUSE;
                    needs.changed().await
                }
                Err(error) => {
                    tracing::warn!(%error, "this node's tunnels lack an address, will be retried");
                    let changed = tokio::time::timeout(pause, needs.changed()).await;
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                    changed.unwrap_or(Ok(()))
                }
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Settles every kind; one that fails does not keep the others from their addresses.
    async fn settle_all(&mut self, needs: &TunnelNeeds) -> Result<(), Error> {
        let mut result = Ok(());
        for kind in TunnelKind::ALL {
            let demand = needs.demands.get(&kind);
            let is_absent = demand.is_none() && needs.annotated.get(kind).is_none();
            if is_absent && self.clean.contains(&kind) {
                continue;
            }
            self.clean.remove(&kind);
            match self.settle(kind, demand).await {
                Ok(()) if demand.is_none() => drop(self.clean.insert(kind)),
                Ok(()) => {}
                Err(error) => result = Err(error),
            }
        }
        result
    }

    async fn settle(
        &self,
        kind: TunnelKind,
        demand: Option<&TunnelAddrDemand>,
    ) -> Result<(), Error> {
        let handle = names::tunnel_handle(kind, &self.node);
        let mut driver = Driver::new(self.client.clone(), HostLock::at(PathBuf::from(LOCK)));
        for _ in 0..STEPS {
            // What the datastore says now: the engine may have heard of it, or not yet.
            let Some(node) = self.client.get::<Node>(self.kubernetes_name.as_str()).await? else {
                return Ok(());
            };
            let annotated = api::kubernetes::node(&node)?.tunnel_addrs.get(kind);
            let held = held(&mut driver, &handle).await?;
            match step(demand, annotated, &held) {
                TunnelStep::Settled => return Ok(()),
                TunnelStep::Annotate(addr) => self.annotate(kind, addr).await?,
                TunnelStep::Release => release(&mut driver, &handle).await?,
                TunnelStep::Assign => {
                    let demand = demand.map_or(&[][..], |demand| demand.assigned.as_slice());
                    self.assign(&mut driver, kind, demand).await?;
                }
            }
        }
        Ok(())
    }

    async fn annotate(&self, kind: TunnelKind, addr: Option<IpAddr>) -> Result<(), Error> {
        let name = annotations::tunnel_addr(kind);
        let value = addr.map(|addr| addr.to_string());
        let patch = json!({"metadata": {"annotations": {name: value}}});
        let node = self.kubernetes_name.as_str();
        self.client.patch_status::<Node>(None, node, &patch).await?;
        tracing::info!(?kind, ?addr, "this node's tunnel has an address");
        Ok(())
    }

    async fn assign(
        &self,
        driver: &mut Driver,
        kind: TunnelKind,
        ranges: &[Cidr],
    ) -> Result<(), Error> {
        let (scene, view) = Box::pin(self.scene(driver, kind.family(), ranges)).await?;
        let owner = [("node", self.node.as_str()), ("type", names::tunnel_type(kind))];
        let owner = owner.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let request = Request {
            node: self.node.clone(),
            handle: names::tunnel_handle(kind, &self.node),
            owner: owner.into(),
            family: kind.family(),
            addr: None,
            max_blocks: None,
            seed: seed_of(&self.node),
        };
        driver.run(&mut Assignment::new(request, scene, view)).await.map(drop)
    }

    /// Reads what an assignment depends on.
    async fn scene(
        &self,
        driver: &mut Driver,
        family: Family,
        ranges: &[Cidr],
    ) -> Result<(Scene, View), Error> {
        let client = &self.client;
        let everything = Filter::default();
        let own = affinities(&self.node, Whose::Own);
        let (node, config, reservations, pools, claims) = futures::try_join!(
            async { Ok::<_, Error>(client.get::<Node>(self.kubernetes_name.as_str()).await?) },
            config(client),
            async { Ok(client.list::<api::IpReservation>(&everything).await?) },
            async { Ok(client.list::<api::IpPool>(&everything).await?) },
            ledger::list_affinities(client, None, &own, Age::Current),
        )?;
        let labels = node.and_then(|node| node.metadata.labels).unwrap_or_default();
        let pools: Vec<IpPool> =
            pools.iter().filter_map(|pool| IpPool::try_from(pool).ok()).collect();
        // Tunnels are everybody's.
        let pools = surroundings::of_vrf(pools, None);
        let requested: Vec<PoolReference> =
            ranges.iter().copied().map(PoolReference::Range).collect();
        let candidates = Candidates {
            requested: &requested,
            node: &self.node,
            node_labels: &labels,
            namespace_labels: None,
            intended: Use::Tunnel,
            selectors: Selectors::OfRequestedIgnored,
        };
        let is_selected = |pool: &&IpPool| {
            pool.family() == family && !pool.is_disabled && pool.node_selector.matches(&labels)
        };
        let (newest_first, view) = driver.note_claims(claims);
        let mut reserved = Vec::new();
        for reservation in &reservations {
            reserved.extend(reservation.ranges()?);
        }
        let scene = Scene {
            config,
            reserved,
            selected: pools.iter().filter(is_selected).map(|pool| pool.cidr).collect(),
            pools: pools_for(&pools, family, &candidates)?,
            newest_first,
            now: ledger::now(),
        };
        Ok((scene, view))
    }
}

async fn config(client: &Client) -> Result<IpamConfig, Error> {
    let found = client.get::<api::IpamConfig>("default").await?;
    Ok(found.as_ref().map(IpamConfig::try_from).transpose()?.unwrap_or_default())
}

/// Returns the addresses that a handle holds.
async fn held(driver: &mut Driver, id: &HandleId) -> Result<BTreeSet<IpAddr>, Error> {
    let answers = driver.act(vec![Op::Read(Key::Handle(id.clone()))]).await?;
    let mut blocks = BTreeMap::new();
    for (_, outcome) in answers {
        if let Outcome::Found(Record::Handle(handle)) = outcome {
            blocks = handle.blocks;
        }
    }
    let reads = blocks.into_keys().map(|cidr| Op::Read(Key::Block(cidr))).collect();
    let mut addrs = BTreeSet::new();
    for (_, outcome) in driver.act(reads).await? {
        if let Outcome::Found(Record::Block(block)) = outcome {
            let held = slots::held_by(&block, id).into_iter();
            addrs.extend(held.filter_map(|ordinal| slots::address(&block, ordinal)));
        }
    }
    Ok(addrs)
}

async fn release(driver: &mut Driver, id: &HandleId) -> Result<(), Error> {
    let config = config(driver.client()).await?;
    driver.run(&mut Release::new(id.clone(), &config, ledger::now())).await?;
    Ok(())
}
