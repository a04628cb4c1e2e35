//! Carries out what a decision process of the `ipam` crate wants, at the datastore.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use datastore::{Client, Error as StoreError, Filter};
use futures::future;
use ipam::{Key, Machine, Op, Outcome, Step};
use ledger::Stored;
use model::block::{Affinity, Block};
use tokio::sync::Mutex;

use crate::error::Error;

/// The longest pause after a refused write.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// What was last read or written of each object: what is written is based on that.
#[derive(Debug)]
pub(crate) struct Carrier {
    client: Client,
    /// Keeps our own writers from refusing each other's writes; it is right without it, too.
    turn: Arc<Mutex<()>>,
    known: BTreeMap<Key, Stored>,
    refused: u32,
}

impl Carrier {
    pub(crate) const fn new(client: Client, turn: Arc<Mutex<()>>) -> Self {
        Self { client, turn, known: BTreeMap::new(), refused: 0 }
    }

    /// Runs `machine` to its end.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with the machine's reason, and what the datastore fails with.
    pub(crate) async fn run<M: Machine>(&mut self, machine: &mut M) -> Result<M::Output, Error> {
        let mut turn = None;
        loop {
            if !machine.is_critical() {
                drop(turn.take());
            }
            let ops = match machine.next() {
                Step::Act(ops) => ops,
                Step::Enter { before, inside } => {
                    turn.replace(Arc::clone(&self.turn).lock_owned().await);
                    [before, inside].concat()
                }
                Step::Done(output) => return Ok(output),
                Step::Failed(failure) => return Err(failure.into()),
            };
            let answers = self.act(ops).await?;
            let is_refused =
                |(_, outcome): &(Op, Outcome)| matches!(outcome, Outcome::Conflict | Outcome::Lost);
            let has_refused = answers.iter().any(is_refused);
            for (op, outcome) in answers {
                machine.feed(op, outcome);
            }
            if has_refused {
                tokio::time::sleep(self.pause()).await;
            }
        }
    }

    /// Returns how long to wait, so that two that refuse each other's writes do not meet again.
    fn pause(&mut self) -> Duration {
        self.refused = self.refused.saturating_add(1);
        let longest = 1_u64.checked_shl(self.refused).unwrap_or(u64::MAX);
        let fraction = getrandom::u32().map_or(1.0, |it| f64::from(it) / f64::from(u32::MAX));
        Duration::from_millis(longest).min(LONGEST_PAUSE).mul_f64(fraction)
    }

    /// Carries out `ops` side by side; the first failure counts.
    async fn act(&mut self, ops: Vec<Op>) -> Result<Vec<(Op, Outcome)>, Error> {
        let requests = ops.iter().map(|op| self.request(op));
        let answers = future::join_all(requests).await;
        let mut outcomes = Vec::new();
        let mut failure = None;
        for (op, answer) in ops.into_iter().zip(answers) {
            match answer {
                Ok((outcome, news)) => {
                    self.learn(news);
                    outcomes.push((op, outcome));
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(outcomes), Err)
    }

    fn learn(&mut self, news: Vec<(Key, Option<Stored>)>) {
        for (key, stored) in news {
            match stored {
                Some(stored) => self.known.insert(key, stored),
                None => self.known.remove(&key),
            };
        }
    }

    /// Reads the claims that a label selector finds, the newest first.
    ///
    /// # Errors
    ///
    /// What the datastore fails with.
    pub(crate) async fn claims(&mut self, labels: String) -> Result<Outcome, Error> {
        let filter = Filter { labels: Some(labels), ..Filter::default() };
        let mut objects = self.client.list_recent::<api::BlockAffinity>(&filter).await?;
        let created =
            |it: &api::BlockAffinity| it.metadata.creation_timestamp.as_ref().map(|time| time.0);
        objects.sort_by_cached_key(|object| Reverse(created(object)));
        let (outcome, news) = affinities(objects);
        self.learn(news);
        Ok(outcome)
    }

    async fn request(&self, op: &Op) -> Result<Answer, Error> {
        let client = &self.client;
        match op {
            Op::Read(key) => match Stored::get(client, key).await? {
                Some(stored) => {
                    Ok((Outcome::Found(stored.record()?), vec![(key.clone(), Some(stored))]))
                }
                None => Ok((Outcome::Absent, vec![(key.clone(), None)])),
            },
            Op::ListBlocks => Ok(blocks(client.list(&Filter::default()).await?)),
            Op::ListAffinities => Ok(affinities(client.list(&Filter::default()).await?)),
            Op::Create(record) => {
                let created = Stored::of(record).create(client).await;
                written(record.key(), created.map(Some))
            }
            Op::Update(record) => match self.known.get(&record.key()) {
                Some(stored) => {
                    let updated = stored.with(record).update(client).await;
                    written(record.key(), updated.map(Some))
                }
                // It writes only what it was told; if that was taken back, so is this.
                None => Ok((Outcome::Conflict, Vec::new())),
            },
            Op::Delete(key) => match self.known.get(key) {
                Some(stored) => written(key.clone(), stored.delete(client).await.map(|()| None)),
                None => Ok((Outcome::Conflict, Vec::new())),
            },
        }
    }
}

/// What a request brought: its outcome, and the objects to remember.
type Answer = (Outcome, Vec<(Key, Option<Stored>)>);

fn affinities(objects: Vec<api::BlockAffinity>) -> Answer {
    let (mut values, mut news) = (Vec::new(), Vec::new());
    for object in objects {
        match Affinity::try_from(&object) {
            Ok(value) => {
                let key = Key::Affinity(value.owner.clone(), value.cidr);
                news.push((key, Some(Stored::Affinity(Box::new(object)))));
                values.push(value);
            }
            Err(error) => tracing::warn!(%error, "ignoring a BlockAffinity"),
        }
    }
    (Outcome::Affinities(values), news)
}

fn blocks(objects: Vec<api::IpamBlock>) -> Answer {
    let (mut values, mut news) = (Vec::new(), Vec::new());
    for object in objects {
        match Block::try_from(&object) {
            Ok(value) => {
                news.push((Key::Block(value.cidr), Some(Stored::Block(Box::new(object)))));
                values.push(value);
            }
            Err(error) => tracing::warn!(%error, "ignoring an IPAMBlock"),
        }
    }
    (Outcome::Blocks(values), news)
}

/// Tells the outcomes that a decision depends on from failures.
fn written(key: Key, result: Result<Option<Stored>, StoreError>) -> Result<Answer, Error> {
    let outcome = match result {
        Ok(stored) => return Ok((Outcome::Written, vec![(key, stored)])),
        Err(StoreError::NotFound { .. }) => Outcome::Absent,
        Err(StoreError::AlreadyExists { .. }) => Outcome::AlreadyExists,
        Err(StoreError::Conflict { .. }) => Outcome::Conflict,
        Err(error) if error.may_be_applied() => {
            tracing::warn!(%error, "will read again");
            Outcome::Lost
        }
        Err(error) => return Err(error.into()),
    };
    Ok((outcome, vec![(key, None)]))
}
