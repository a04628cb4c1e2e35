//! Carries out a plan, write by write.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use datastore::{Client, Error as StoreError};
use futures::{StreamExt as _, stream};
use ipam::audit::{self, Allocation, Change, Plan, Revisioned, Snapshot, Write};
use ipam::slots::Clock;
use ipam::{Key, Record};
use k8s_openapi::api::core::v1::{Node, Pod};
use model::id::{NamespacedName, NodeName};

use crate::scene::pod_use;
use crate::{Error, Scene, Stored, now};

/// How many requests may be under way.
const REQUESTS: usize = 16;

/// What became of one write.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was left out, for this reason; the next look decides anew.
    Left(String),
}

/// What a repair did.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Repaired {
    /// What became of each write, in the plan's order.
    pub outcomes: Vec<(Key, Outcome)>,
    /// The addresses that were given back.
    pub released: BTreeSet<IpAddr>,
}

/// Carries out `plan`, which was decided upon `scene`.
///
/// The pods and nodes whose addresses it releases are asked for once more, by name. A write
/// that is refused takes those with it that depend on it.
///
/// # Errors
///
/// What the datastore fails with, if it is not about one write; what is done then stays.
pub async fn repair(client: &Client, scene: &Scene, plan: &Plan) -> Result<Repaired, Error> {
    let releases = || plan.writes.iter().flat_map(|write| &write.releases);
    let fresh = holders(client, scene, releases()).await?;
    let alive: BTreeSet<IpAddr> =
        releases().filter(|held| !audit::is_gone(&fresh, held)).map(|held| held.addr).collect();
    let mut repaired = Repaired::default();
    let mut failed: BTreeSet<Key> = BTreeSet::new();
    for write in &plan.writes {
        let key = key_of(write);
        let outcome =
            if let Some(held) = write.releases.iter().find(|held| alive.contains(&held.addr)) {
                Outcome::Left(format!("{} of {} is in use after all", held.addr, held.holder()))
            } else if write.after.iter().any(|before| failed.contains(before)) {
                Outcome::Left("what it depends on was not written".to_owned())
            } else {
                carry_out(client, scene, write).await?
            };
        if outcome == Outcome::Done {
            repaired.released.extend(write.releases.iter().map(|held| held.addr));
        } else {
            failed.insert(key.clone());
        }
        repaired.outcomes.push((key, outcome));
    }
    Ok(repaired)
}

fn key_of(write: &Write) -> Key {
    match &write.change {
        Change::Put(record) => record.key(),
        Change::Delete(key) => key.clone(),
    }
}

async fn carry_out(client: &Client, scene: &Scene, write: &Write) -> Result<Outcome, Error> {
    let key = key_of(write);
    let result = match (scene.objects.get(&key), &write.change) {
        (Some(stored), Change::Put(record)) => stored.with(record).update(client).await.map(drop),
        (Some(stored), Change::Delete(_)) => stored.delete(client).await,
        (None, Change::Put(record)) => {
            Stored::of(record, scene.vrf.as_ref()).create(client).await.map(drop)
        }
        (None, Change::Delete(_)) => Ok(()),
    };
    match result {
        Ok(()) | Err(StoreError::NotFound { .. }) => Ok(Outcome::Done),
        Err(StoreError::Conflict { .. }) if !write.releases.is_empty() => {
            again(client, scene, write).await
        }
        Err(error @ (StoreError::Conflict { .. } | StoreError::AlreadyExists { .. })) => {
            Ok(Outcome::Left(error.to_string()))
        }
        Err(error) if error.may_be_applied() => Ok(Outcome::Left(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

/// Tries a release once more on the block as it is now, by sequence number.
async fn again(client: &Client, scene: &Scene, write: &Write) -> Result<Outcome, Error> {
    let left = |text: &str| Ok(Outcome::Left(text.to_owned()));
    let Some(stored) = Stored::get(client, scene.vrf.as_ref(), &key_of(write)).await? else {
        return left("the block is gone");
    };
    let Record::Block(block) = stored.record()? else { return left("it is no block") };
    let current =
        Revisioned { value: block, revision: stored.revision().to_owned(), created: None };
    let clock = Clock { now: now(), cooldown: scene.snapshot.config.cooldown };
    // A part would not do: handles that hang on it count all of it.
    let rebased = audit::rebase(write, current, clock)
        .filter(|rebased| rebased.releases.len() == write.releases.len());
    let Some(Change::Put(record)) = rebased.map(|rebased| rebased.change) else {
        return left("its allocations changed meanwhile");
    };
    match stored.with(&record).update(client).await {
        Ok(_) => Ok(Outcome::Done),
        Err(error) if error.is_contention() || error.may_be_applied() => {
            Ok(Outcome::Left(error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Reads the pods and nodes that the allocations name, each by its name.
async fn holders<'a>(
    client: &Client,
    scene: &Scene,
    allocations: impl Iterator<Item = &'a Allocation>,
) -> Result<Snapshot, Error> {
    let mut pods: BTreeSet<(String, String)> = BTreeSet::new();
    let mut nodes: BTreeMap<String, NodeName> = BTreeMap::new();
    for held in allocations {
        let fact = |key: &str| held.owner.get(key).cloned();
        if let (Some(namespace), Some(pod)) = (fact("namespace"), fact("pod")) {
            pods.insert((namespace, pod));
        }
        if let Some((text, Ok(name))) = fact("node").map(|text| (text.clone(), text.parse())) {
            nodes.insert(text, name);
        }
    }
    let mut fresh = Snapshot {
        now: scene.snapshot.now,
        tunnels: scene.snapshot.tunnels.clone(),
        services: scene.snapshot.services.clone(),
        ..Snapshot::default()
    };
    let found = stream::iter(pods).map(|(namespace, name)| async move {
        (client.get_in::<Pod>(&namespace, &name).await, NamespacedName { namespace, name })
    });
    for (pod, _) in found.buffer_unordered(REQUESTS).collect::<Vec<_>>().await {
        fresh.pods.extend(pod?.as_ref().map(|pod| pod_use(pod).0));
    }
    let found = stream::iter(nodes)
        .map(|(text, name)| async move { (client.get::<Node>(&text).await, name) });
    for (node, name) in found.buffer_unordered(REQUESTS).collect::<Vec<_>>().await {
        fresh.nodes.extend(node?.map(|_| name));
    }
    Ok(fresh)
}
