//! The API objects behind what a machine knows: what it writes is based on these.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use datastore::{Client, Error as StoreError, Filter, Object};
use ipam::{Key, Op, Outcome};
use model::vrf::VrfName;
use tracing::warn;

use crate::{Error, Stored};

/// How old an answer of the datastore may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Age {
    /// It may miss what was written a moment ago.
    Recent,
    /// It holds everything that was written before the request.
    Current,
}

/// Objects as they were last read or written, with their revisions and with
/// the fields that we do not know.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    /// The VRF that they are of.
    vrf: Option<VrfName>,
    known: BTreeMap<Key, Stored>,
}

/// What a request brought: its outcome, and the objects to remember.
pub type Answer = (Outcome, Vec<(Key, Option<Stored>)>);

impl Objects {
    /// Starts without any, in a VRF or in none.
    pub(crate) fn of_vrf(vrf: Option<VrfName>) -> Self {
        Self { vrf, ..Self::default() }
    }

    /// Returns the VRF.
    pub(crate) const fn vrf(&self) -> Option<&VrfName> {
        self.vrf.as_ref()
    }

    /// Returns the object as it was last read or written.
    pub(crate) fn known(&self, key: &Key) -> Option<&Stored> {
        self.known.get(key)
    }

    /// Remembers what requests brought.
    pub(crate) fn learn(&mut self, news: Vec<(Key, Option<Stored>)>) {
        for (key, stored) in news {
            match stored {
                Some(stored) => self.known.insert(key, stored),
                None => self.known.remove(&key),
            };
        }
    }

    /// Carries out one request.
    pub(crate) async fn request(&self, client: &Client, op: &Op) -> Result<Answer, Error> {
        let vrf = self.vrf();
        match op {
            Op::Read(key) => read(client, vrf, key).await,
            Op::ListBlocks => list_blocks(client, vrf).await,
            Op::ListAffinities => {
                Ok(affinities(client.list(&within(&Filter::default(), vrf)).await?, vrf))
            }
            Op::Create(record) => {
                let created = Stored::of(record, vrf).create(client).await;
                written(record.key(), created.map(Some))
            }
            Op::Update(record) => match self.known.get(&record.key()) {
                Some(stored) => {
                    let updated = stored.with(record).update(client).await;
                    written(record.key(), updated.map(Some))
                }
                // The machine writes only what it was told; if that was taken back, so is this.
                None => Ok((Outcome::Conflict, Vec::new())),
            },
            Op::Delete(key) => match self.known.get(key) {
                Some(stored) => {
                    let deleted = stored.delete(client).await;
                    written(key.clone(), deleted.map(|()| None))
                }
                None => Ok((Outcome::Conflict, Vec::new())),
            },
        }
    }
}

/// Reads all objects that `filter` selects.
///
/// # Errors
///
/// What the datastore fails with.
pub async fn list<T: Object>(
    client: &Client,
    filter: &Filter,
    age: Age,
) -> Result<Vec<T>, StoreError> {
    match age {
        Age::Recent => client.list_recent(filter).await,
        Age::Current => client.list(filter).await,
    }
}

/// Reads the affinities that `filter` selects and that are of a VRF, or of none, the newest first.
///
/// # Errors
///
/// What the datastore fails with.
pub async fn list_affinities(
    client: &Client,
    vrf: Option<&VrfName>,
    filter: &Filter,
    age: Age,
) -> Result<Answer, Error> {
    let mut objects = list(client, &within(filter, vrf), age).await?;
    sort_newest_first(&mut objects);
    Ok(affinities(objects, vrf))
}

/// Returns the filter for what is of a VRF, or of none.
pub(crate) fn within(filter: &Filter, vrf: Option<&VrfName>) -> Filter {
    let scope = api::names::of_vrf(vrf);
    let labels = filter.labels.iter().cloned().chain([scope]).collect::<Vec<_>>().join(",");
    Filter { labels: Some(labels), ..filter.clone() }
}

/// Is the object of this VRF, or of none? What nobody can read is nobody's.
pub(crate) fn is_of<S: api::Kind>(object: &api::Object<S>, vrf: Option<&VrfName>) -> bool {
    api::vrf_of(object).is_ok_and(|found| found.as_ref() == vrf)
}

/// Times are of whole seconds; within one the last writes decide.
fn sort_newest_first(objects: &mut [api::BlockAffinity]) {
    objects.sort_by_cached_key(|object| {
        let metadata = &object.metadata;
        let created = metadata.creation_timestamp.as_ref().map(|time| time.0);
        let version = metadata.resource_version.as_ref();
        Reverse((created, version.and_then(|version| version.parse::<u64>().ok())))
    });
}

pub(crate) fn affinities(objects: Vec<api::BlockAffinity>, vrf: Option<&VrfName>) -> Answer {
    let mut affinities = Vec::new();
    let mut news = Vec::new();
    for object in objects.into_iter().filter(|object| is_of(object, vrf)) {
        match model::block::Affinity::try_from(&object) {
            Ok(affinity) => {
                let key = Key::Affinity(affinity.owner.clone(), affinity.cidr);
                news.push((key, Some(Stored::Affinity(Box::new(object)))));
                affinities.push(affinity);
            }
            Err(error) => warn!(%error, "ignoring a BlockAffinity"),
        }
    }
    (Outcome::Affinities(affinities), news)
}

async fn list_blocks(client: &Client, vrf: Option<&VrfName>) -> Result<Answer, Error> {
    let objects = client.list::<api::IpamBlock>(&within(&Filter::default(), vrf)).await?;
    let mut blocks = Vec::new();
    let mut news = Vec::new();
    for object in objects.into_iter().filter(|object| is_of(object, vrf)) {
        match model::block::Block::try_from(&object) {
            Ok(block) => {
                news.push((Key::Block(block.cidr), Some(Stored::Block(Box::new(object)))));
                blocks.push(block);
            }
            Err(error) => warn!(%error, "ignoring an IPAMBlock"),
        }
    }
    Ok((Outcome::Blocks(blocks), news))
}

async fn read(client: &Client, vrf: Option<&VrfName>, key: &Key) -> Result<Answer, Error> {
    let Some(stored) = Stored::get(client, vrf, key).await? else {
        return Ok((Outcome::Absent, vec![(key.clone(), None)]));
    };
    let record = stored.record()?;
    Ok((Outcome::Found(record), vec![(key.clone(), Some(stored))]))
}

/// Tells the outcomes that a decision depends on from failures.
pub(crate) fn written(
    key: Key,
    result: Result<Option<Stored>, StoreError>,
) -> Result<Answer, Error> {
    let outcome = match result {
        Ok(stored) => return Ok((Outcome::Written, vec![(key, stored)])),
        Err(StoreError::NotFound { .. }) => Outcome::Absent,
        Err(StoreError::AlreadyExists { .. }) => Outcome::AlreadyExists,
        Err(StoreError::Conflict { .. }) => Outcome::Conflict,
        Err(error) if error.may_be_applied() => {
            warn!(%error, "will read again");
            Outcome::Lost
        }
        Err(error) => return Err(error.into()),
    };
    Ok((outcome, vec![(key, None)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use model::block::{Affinity, AffinityState, Owner};

    #[test]
    fn the_newest_claim_comes_first() {
        let claim = |number: u8, second: &str, version: &str| {
            let mut object = api::BlockAffinity::from_model(&Affinity {
                owner: Owner::Host("a".parse().unwrap()),
                cidr: format!("10.0.{number}.0/26").parse().unwrap(),
                state: AffinityState::Confirmed,
                is_deleted: false,
            });
            object.metadata.creation_timestamp =
                Some(Time(format!("2026-01-01T00:00:{second}Z").parse().unwrap()));
            object.metadata.resource_version = Some(version.to_owned());
            object
        };
        let mut claims = [
            claim(1, "01", "99"),
            claim(2, "02", "7"),
            claim(3, "02", "10"),
            claim(4, "00", "100"),
        ];
        sort_newest_first(&mut claims);
        let order = claims.map(|claim| claim.spec.cidr.clone());
        assert_eq!(order, ["10.0.3.0/26", "10.0.2.0/26", "10.0.1.0/26", "10.0.4.0/26"]);
    }
}
