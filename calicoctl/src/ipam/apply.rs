//! Carries out a plan: each write only if its object is still as it was when it was planned.

use std::collections::BTreeSet;

use datastore::{Client, Error as StoreError};
use ipam::audit::{self, Change, Plan, Revisioned, Write};
use ipam::slots::Clock;
use ipam::{Key, Record};

use crate::Error;
use ledger::{Scene, Stored, described};
use model::vrf::VrfName;

/// How often a release is decided anew on a block that others write at the same time.
const MAX_REBASES: u32 = 10;

/// How a write went.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Done; with the object's revision now, empty if it was deleted.
    Done(String),
    /// Somebody else was first, or there was nothing left to do.
    Changed,
    /// A write that had to be done before was not.
    Skipped,
    /// Nobody knows whether it was done, or it was refused.
    Failed(String),
}

/// Returns the identity of the object that a write is about.
#[must_use]
pub fn key_of(write: &Write) -> Key {
    match (&write.base, &write.change) {
        (Some(base), _) => base.value.key(),
        (None, Change::Put(record)) => record.key(),
        (None, Change::Delete(key)) => key.clone(),
    }
}

/// Carries out the writes of a plan in their order; returns how each went.
pub async fn apply(client: &Client, plan: &Plan, scene: &Scene, clock: Clock) -> Vec<Outcome> {
    let mut undone: BTreeSet<Key> = BTreeSet::new();
    let mut outcomes = Vec::new();
    for write in &plan.writes {
        let key = key_of(write);
        let outcome = if write.after.is_disjoint(&undone) {
            Box::pin(carry_out(client, write, scene, clock)).await
        } else {
            Outcome::Skipped
        };
        if !matches!(outcome, Outcome::Done(_)) {
            undone.insert(key);
        }
        outcomes.push(outcome);
    }
    outcomes
}

async fn carry_out(client: &Client, write: &Write, scene: &Scene, clock: Clock) -> Outcome {
    let vrf = scene.vrf.as_ref();
    let (mut write, mut stored) = (write.clone(), scene.objects.get(&key_of(write)).cloned());
    for _ in 0..MAX_REBASES {
        match request((client, vrf), &write, stored.as_ref()).await {
            Ok(revision) => return Outcome::Done(revision),
            Err(StoreError::Conflict { .. }) if !write.releases.is_empty() => {
                match rebased((client, vrf), &write, clock).await {
                    Ok(Some((newer, object))) => (write, stored) = (newer, Some(object)),
                    Ok(None) => return Outcome::Changed,
                    Err(error) => return Outcome::Failed(error.to_string()),
                }
            }
            Err(error) if error.is_contention() => return Outcome::Changed,
            Err(StoreError::NotFound { .. }) => return Outcome::Changed,
            Err(error) => return Outcome::Failed(error.to_string()),
        }
    }
    Outcome::Changed
}

/// Decides a refused release anew; `None` if what it would give back is somebody else's now.
async fn rebased(
    (client, vrf): (&Client, Option<&VrfName>),
    write: &Write,
    clock: Clock,
) -> Result<Option<(Write, Stored)>, Error> {
    let Some(object) = Stored::get(client, vrf, &key_of(write)).await? else { return Ok(None) };
    let Record::Block(value) = object.record()? else { return Ok(None) };
    let revision = object.revision().to_owned();
    let newer = audit::rebase(write, Revisioned { value, revision, created: None }, clock);
    Ok(newer.map(|newer| (newer, object)))
}

async fn request(
    (client, vrf): (&Client, Option<&VrfName>),
    write: &Write,
    stored: Option<&Stored>,
) -> Result<String, StoreError> {
    let written = match (stored, &write.change) {
        (None, Change::Put(record)) => Stored::of(record, vrf).create(client).await?,
        (Some(stored), Change::Put(record)) => stored.with(record).update(client).await?,
        (Some(stored), Change::Delete(_)) => {
            stored.delete(client).await?;
            return Ok(String::new());
        }
        (None, Change::Delete(_)) => return Ok(String::new()),
    };
    Ok(written.revision().to_owned())
}

/// Says in a line what a write does.
#[must_use]
pub fn summary(write: &Write) -> String {
    let verb = match (&write.base, &write.change) {
        (_, Change::Delete(_)) => "delete",
        (Some(_), Change::Put(_)) => "update",
        (None, Change::Put(_)) => "create",
    };
    let released: Vec<String> =
        write.releases.iter().map(|held| format!("{} of {}", held.addr, held.holder())).collect();
    let released = match released.as_slice() {
        [] => String::new(),
        some => format!(", gives back {}", some.join(", ")),
    };
    format!("{verb} {}{released}", described(&key_of(write)))
}
