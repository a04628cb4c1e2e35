//! Pools and tiers that are deleted stay until nothing depends on them.
//!
//! A deleted pool gives no new address, but routes and translation go on for the pods that have
//! one; it goes when the last is given back. A deleted tier goes with its last policy. This is
//! what finalizers are for (Kubernetes, "Finalizers"); without the controller an object that has
//! one cannot go, so they are set only where that is asked for, and taken away where it is not.

use std::collections::BTreeSet;

use datastore::{Client, Error as StoreError, Filter, Object};
use ipam::Key;
use ipam::slots::{self, Clock};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ledger::{Lists, Scene, described};
use model::block::{Block, Owner};
use model::net::Cidr;
use model::pool::IpPool;
use tracing::{info, warn};

/// The finalizer of pools, as Calico names it.
const POOL: &str = "projectcalico.org/ippool-finalizer";
/// The finalizer of tiers, as Calico names it.
const TIER: &str = "projectcalico.org/tier-controller";

/// Which objects are to be guarded.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Guards {
    /// Pools.
    pub(crate) pools: bool,
    /// Tiers.
    pub(crate) tiers: bool,
}

/// What to do with an object's finalizer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Action {
    /// It is as it should be.
    Nothing,
    /// Set it.
    Set,
    /// Take it away; a deleted object goes then.
    Remove,
    /// The object is deleted, and waits.
    Wait,
}

/// Sets and takes away finalizers.
///
/// # Errors
///
/// What the datastore fails with, if it is not about one object.
pub(crate) async fn reconcile(client: &Client, guards: Guards) -> Result<(), ledger::Error> {
    Box::pin(pools(client, guards.pools)).await?;
    Box::pin(tiers(client, guards.tiers)).await
}

async fn pools(client: &Client, is_guarded: bool) -> Result<(), ledger::Error> {
    let pools: Vec<api::IpPool> = client.list(&Filter::default()).await?;
    for pool in pools {
        match action(&pool.metadata, POOL, is_guarded) {
            Action::Wait => {
                let Ok(read) = IpPool::try_from(&pool) else {
                    // Nothing can have come from a pool that nobody can read.
                    write(client, pool, |metadata| remove(metadata, POOL)).await?;
                    continue;
                };
                let left = Box::pin(empty(client, &read)).await?;
                if left == 0 {
                    write(client, pool, |metadata| remove(metadata, POOL)).await?;
                } else {
                    info!(pool = read.name, addresses = left, "deleted, and still in use");
                }
            }
            Action::Nothing => {}
            Action::Set => write(client, pool, |metadata| set(metadata, POOL)).await?,
            Action::Remove => write(client, pool, |metadata| remove(metadata, POOL)).await?,
        }
    }
    Ok(())
}

async fn tiers(client: &Client, is_guarded: bool) -> Result<(), ledger::Error> {
    let tiers: Vec<api::Tier> = client.list(&Filter::default()).await?;
    let is_waiting = |tier: &api::Tier| action(&tier.metadata, TIER, is_guarded) == Action::Wait;
    let used = if tiers.iter().any(is_waiting) {
        Box::pin(tiers_in_use(client)).await?
    } else {
        BTreeSet::new()
    };
    for tier in tiers {
        let is_fixed = model::tier::Tier::fixed().iter().any(|(name, ..)| *name == tier.name());
        match action(&tier.metadata, TIER, is_guarded) {
            Action::Wait if is_fixed || used.contains(tier.name()) => {
                info!(tier = tier.name(), "deleted, and still in use");
            }
            Action::Nothing => {}
            Action::Set => write(client, tier, |metadata| set(metadata, TIER)).await?,
            Action::Wait | Action::Remove => {
                write(client, tier, |metadata| remove(metadata, TIER)).await?;
            }
        }
    }
    Ok(())
}

fn action(metadata: &ObjectMeta, finalizer: &str, is_guarded: bool) -> Action {
    let has = metadata.finalizers.iter().flatten().any(|one| one == finalizer);
    match (metadata.deletion_timestamp.is_some(), has, is_guarded) {
        (true, true, true) => Action::Wait,
        (_, true, false) => Action::Remove,
        (false, false, true) => Action::Set,
        (_, false, _) | (false, true, true) => Action::Nothing,
    }
}

fn set(metadata: &mut ObjectMeta, finalizer: &str) {
    metadata.finalizers.get_or_insert_default().push(finalizer.to_owned());
}

fn remove(metadata: &mut ObjectMeta, finalizer: &str) {
    metadata.finalizers.get_or_insert_default().retain(|one| one != finalizer);
}

async fn write<T: Object>(
    client: &Client,
    mut object: T,
    change: impl FnOnce(&mut ObjectMeta),
) -> Result<(), StoreError> {
    change(object.metadata_mut());
    let name = object.metadata().name.clone().unwrap_or_default();
    match client.update(&object).await {
        Ok(_) => info!(name, kind = T::KIND, "changed its finalizers"),
        Err(error) if error.is_contention() => warn!(%error, "will try again"),
        Err(StoreError::NotFound { .. }) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Deletes the empty blocks of a pool with their claims; returns how many addresses are in use.
async fn empty(client: &Client, pool: &IpPool) -> Result<usize, ledger::Error> {
    let all = Filter::default();
    let (blocks, affinities) = futures::try_join!(client.list(&all), client.list(&all))?;
    let config = client.get("default").await?;
    let lists = Lists { blocks, affinities, config, ..Lists::default() };
    let vrf = pool.vrf.as_ref().map(|vrf| vrf.name.clone());
    let (scene, pool) = (Scene::of(&lists, vrf, ledger::now()), pool.cidr);
    let clock = Clock { now: scene.snapshot.now, cooldown: scene.snapshot.config.cooldown };
    let mut in_use = 0_usize;
    for block in scene.blocks().filter(|block| pool.covers(&block.cidr)) {
        if slots::is_empty(block, clock) {
            delete(client, &scene, &Key::Block(block.cidr)).await?;
        } else {
            let rest = slots::count_free(block, &ipam::Ranges::default(), clock);
            let taken = block.cidr.size().saturating_sub(rest);
            in_use = in_use.saturating_add(usize::try_from(taken).unwrap_or(usize::MAX));
        }
    }
    let is_taken =
        |owner: &Owner, cidr: Cidr| scene.blocks().any(|block| keeps(block, owner, cidr, clock));
    for claim in scene.snapshot.affinities.iter().map(|claim| &claim.value) {
        if pool.covers(&claim.cidr) && !is_taken(&claim.owner, claim.cidr) {
            delete(client, &scene, &Key::Affinity(claim.owner.clone(), claim.cidr)).await?;
        }
    }
    Ok(in_use)
}

fn keeps(block: &Block, owner: &Owner, cidr: Cidr, clock: Clock) -> bool {
    block.cidr == cidr && block.affinity.as_ref() == Some(owner) && !slots::is_empty(block, clock)
}

async fn delete(client: &Client, scene: &Scene, key: &Key) -> Result<(), StoreError> {
    let Some(stored) = scene.objects.get(key) else { return Ok(()) };
    match stored.delete(client).await {
        Ok(()) => info!(object = described(key), "deleted: its pool is"),
        // Somebody took an address at the last moment: the next look counts it.
        Err(error) if error.is_contention() => {}
        Err(StoreError::NotFound { .. }) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Returns the names of the tiers that policies are in.
async fn tiers_in_use(client: &Client) -> Result<BTreeSet<String>, StoreError> {
    let all = Filter::default();
    let (namespaced, global, staged, staged_global) = futures::try_join!(
        client.list::<api::CalicoNetworkPolicy>(&all),
        client.list::<api::GlobalNetworkPolicy>(&all),
        client.list::<api::StagedNetworkPolicy>(&all),
        client.list::<api::StagedGlobalNetworkPolicy>(&all),
    )?;
    let tiers = namespaced
        .into_iter()
        .map(|policy| policy.spec.tier)
        .chain(global.into_iter().map(|policy| policy.spec.tier))
        .chain(staged.into_iter().map(|policy| policy.spec.tier))
        .chain(staged_global.into_iter().map(|policy| policy.spec.tier));
    Ok(tiers.flatten().collect())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn a_finalizer_is_set_while_it_is_wanted_and_goes_when_it_is_not() {
        let metadata = |is_deleted: bool, has: bool| ObjectMeta {
            deletion_timestamp: is_deleted.then_some(Time(jiff::Timestamp::UNIX_EPOCH)),
            finalizers: Some(if has { vec!["other".to_owned(), POOL.to_owned()] } else { vec![] }),
            ..ObjectMeta::default()
        };
        for (is_deleted, has, is_guarded, expected) in [
            (false, false, true, Action::Set),
            (false, true, true, Action::Nothing),
            (false, true, false, Action::Remove),
            (false, false, false, Action::Nothing),
            (true, true, true, Action::Wait),
            (true, true, false, Action::Remove),
            (true, false, true, Action::Nothing),
        ] {
            assert_eq!(action(&metadata(is_deleted, has), POOL, is_guarded), expected);
        }
        let mut both = metadata(true, true);
        remove(&mut both, POOL);
        assert_eq!(both.finalizers, Some(vec!["other".to_owned()]));
    }
}
