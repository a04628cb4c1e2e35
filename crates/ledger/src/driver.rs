//! Carries out what a decision process of the `ipam` crate wants.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use datastore::Client;
use futures::future;
use ipam::{Machine, Op, Outcome, Step, View};
use model::net::Cidr;
use model::vrf::VrfName;
use tokio::time::{self, Instant};
use tracing::{debug, trace};

use crate::Error;
use crate::lock::{Guard, HostLock};
use crate::objects::{Answer, Objects};

/// How long one command may take, the wait for the host's lock aside.
const LIMIT: Duration = Duration::from_secs(90);
/// The longest pause after a refused write.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// One connection to the datastore, and what was last read or written there.
#[derive(Debug)]
pub struct Driver {
    client: Client,
    lock: HostLock,
    objects: Objects,
    deadline: Instant,
    refused_writes: u32,
    /// The lock, if it was taken before a machine asked for it.
    guard: Option<Guard>,
}

impl Driver {
    /// Makes a driver; its clock starts now.
    #[must_use]
    pub fn new(client: Client, lock: HostLock) -> Self {
        let now = Instant::now();
        Self {
            client,
            lock,
            objects: Objects::default(),
            deadline: now.checked_add(LIMIT).unwrap_or(now),
            refused_writes: 0,
            guard: None,
        }
    }

    /// Returns the connection.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the VRF that everything is about; `None` is those who are in none.
    #[must_use]
    pub const fn vrf(&self) -> Option<&VrfName> {
        self.objects.vrf()
    }

    /// Has everything from now on be about a VRF, or about those who are in none.
    pub fn enter_vrf(&mut self, vrf: Option<VrfName>) {
        if self.vrf() != vrf.as_ref() {
            self.objects = Objects::of_vrf(vrf);
        }
    }

    /// Returns the host's lock.
    #[must_use]
    pub const fn lock(&self) -> &HostLock {
        &self.lock
    }

    /// Takes the host's lock now and keeps it over whatever is run, until [`Driver::leave`].
    ///
    /// Whoever decides upon what others on this host do must not be overtaken while it waits.
    pub async fn enter_early(&mut self) {
        let guard = match self.lock.try_take() {
            Some(guard) => guard,
            None => self.wait_for_lock().await,
        };
        self.guard = Some(guard);
    }

    /// Gives the host's lock up that was taken early.
    pub fn leave(&mut self) {
        self.guard = None;
    }

    /// Runs `machine` to its end.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with the machine's reason, [`Error::TooSlow`] after
    /// 90 seconds, and what the datastore fails with.
    pub async fn run<M: Machine>(&mut self, machine: &mut M) -> Result<M::Output, Error> {
        let mut guard: Option<Guard> = None;
        loop {
            if !machine.is_critical() {
                drop(guard.take());
            }
            let answers = match machine.next() {
                Step::Act(ops) => self.act(ops).await?,
                Step::Enter { before, inside } if self.guard.is_some() => {
                    self.act([before, inside].concat()).await?
                }
                Step::Enter { before, inside } => {
                    let (held, answers) = self.enter(before, inside).await?;
                    guard.replace(held);
                    answers
                }
                Step::Done(output) => return Ok(output),
                Step::Failed(failure) => return Err(failure.into()),
            };
            let pause = self.pause_after(&answers);
            for (op, outcome) in answers {
                machine.feed(op, outcome);
            }
            if let Some(pause) = pause {
                time::sleep(pause).await;
            }
        }
    }

    /// Carries out `ops` side by side.
    ///
    /// # Errors
    ///
    /// As [`Driver::run`]; the first failure counts.
    pub async fn act(&mut self, ops: Vec<Op>) -> Result<Vec<(Op, Outcome)>, Error> {
        let (client, objects) = (&self.client, &self.objects);
        let requests = ops.iter().map(|op| objects.request(client, op));
        let answers = time::timeout_at(self.deadline, future::join_all(requests)).await;
        let answers = answers.map_err(|_| Error::TooSlow { limit: LIMIT })?;
        let mut outcomes = Vec::new();
        let mut failure = None;
        for (op, answer) in ops.into_iter().zip(answers) {
            match answer {
                Ok((outcome, news)) => {
                    trace!(?op, ?outcome);
                    self.objects.learn(news);
                    outcomes.push((op, outcome));
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(outcomes), Err)
    }

    /// Takes note of objects that were read outside of a machine.
    pub fn learn(&mut self, answer: Answer) -> Outcome {
        let (outcome, news) = answer;
        self.objects.learn(news);
        outcome
    }

    /// Takes note of claims that were read; returns their blocks, in the order of the answer, and a
    /// view that knows them.
    pub fn note_claims(&mut self, answer: Answer) -> (Vec<Cidr>, View) {
        let outcome = self.learn(answer);
        let mut blocks = Vec::new();
        if let Outcome::Affinities(claims) = &outcome {
            blocks.extend(claims.iter().map(|claim| claim.cidr));
        }
        let mut view = View::default();
        view.feed(Op::ListAffinities, outcome);
        (blocks, view)
    }

    /// Takes the lock and carries out `before` without it, if it is not free, and `inside` with it.
    async fn enter(
        &mut self,
        before: Vec<Op>,
        inside: Vec<Op>,
    ) -> Result<(Guard, Vec<(Op, Outcome)>), Error> {
        if let Some(guard) = self.lock.try_take() {
            let answers = self.act([before, inside].concat()).await?;
            return Ok((guard, answers));
        }
        let since = Instant::now();
        let lock = self.lock.clone();
        let (first, guard) = future::join(self.act(before), lock.take()).await;
        self.postpone(since);
        let mut answers = first?;
        answers.extend(self.act(inside).await?);
        Ok((guard, answers))
    }

    async fn wait_for_lock(&mut self) -> Guard {
        let since = Instant::now();
        let guard = self.lock.take().await;
        self.postpone(since);
        guard
    }

    /// The clock starts when the others are done (calico issue 11824).
    fn postpone(&mut self, since: Instant) {
        self.deadline = self.deadline.checked_add(since.elapsed()).unwrap_or(self.deadline);
    }

    /// Returns how long to wait after these answers, so that two that refuse
    /// each other's writes do not meet again at once.
    fn pause_after(&mut self, answers: &[(Op, Outcome)]) -> Option<Duration> {
        let is_refused = |outcome: &Outcome| matches!(outcome, Outcome::Conflict | Outcome::Lost);
        if !answers.iter().any(|(_, outcome)| is_refused(outcome)) {
            return None;
        }
        self.refused_writes = self.refused_writes.saturating_add(1);
        let longest = 1_u64.checked_shl(self.refused_writes).unwrap_or(u64::MAX);
        let longest = Duration::from_millis(longest).min(LONGEST_PAUSE);
        let pause = longest.mul_f64(fraction());
        debug!(refused = self.refused_writes, ?pause, "a write was refused");
        Some(pause)
    }
}

/// Returns a number between zero and one that nobody can guess.
fn fraction() -> f64 {
    let bits = RandomState::new().hash_one(0_u8);
    f64::from(u32::try_from(bits >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}
