//! Carries out what a decision process of the `ipam` crate wants.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use datastore::Client;
use futures::future;
use ipam::{Key, Machine, Op, Outcome, Record, Step, View};
use model::net::{Cidr, Family};
use model::vrf::VrfName;
use tokio::time::{self, Instant};
use tracing::{debug, trace};

use crate::desk::{Desk, Edition, Seen, Submitted, Turn};
use crate::lock::{Guard, HostLock};
use crate::objects::{Answer, Objects};
use crate::{Error, Stored};

/// How long one command may take, the wait for the host's lock aside.
const LIMIT: Duration = Duration::from_secs(90);
/// The longest pause after a refused write.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// One connection to the datastore, and what was last read or written there.
#[derive(Debug)]
pub struct Driver {
    client: Client,
    others: Others,
    objects: Objects,
    /// Which states of blocks were seen at the desk.
    editions: BTreeMap<Cidr, Edition>,
    deadline: Instant,
    refused_writes: u32,
    /// What was taken before a machine asked for it.
    held: Option<Held>,
}

/// How one gets along with the others of this host.
#[derive(Debug)]
enum Others {
    /// They are other processes.
    Lock(HostLock),
    /// They are in this process, too.
    Desk(Desk),
}

/// What keeps the others from getting in the way.
#[derive(Debug)]
enum Held {
    Lock { _guard: Guard },
    Desk { _turn: Turn },
}

/// A request that was carried out, perhaps as another one.
type Done = (Op, Answer, Option<(Cidr, Edition)>);

impl Driver {
    /// Makes a driver; its clock starts now.
    #[must_use]
    pub fn new(client: Client, lock: HostLock) -> Self {
        Self::beside(client, Others::Lock(lock))
    }

    /// Makes one of several drivers of this process, whose writes of blocks are carried together.
    #[must_use]
    pub fn at_desk(client: Client, desk: Desk) -> Self {
        Self::beside(client, Others::Desk(desk))
    }

    fn beside(client: Client, others: Others) -> Self {
        let now = Instant::now();
        Self {
            client,
            others,
            objects: Objects::default(),
            editions: BTreeMap::new(),
            deadline: now.checked_add(LIMIT).unwrap_or(now),
            refused_writes: 0,
            held: None,
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
            self.editions.clear();
        }
    }

    /// Returns the block of that family that last gave an address to this host.
    ///
    /// It says only where to look first.
    #[must_use]
    pub fn last_block(&self, family: Family) -> Option<Cidr> {
        match &self.others {
            Others::Lock(lock) => lock.last_block(self.vrf(), family),
            Others::Desk(desk) => desk.last_block(self.vrf(), family),
        }
    }

    /// Remembers the block that gave an address.
    pub fn note_block(&self, block: Cidr) {
        match &self.others {
            Others::Lock(lock) => lock.note_block(self.vrf(), block),
            Others::Desk(desk) => desk.note_block(self.vrf(), block),
        }
    }

    /// Waits for the turn of one who wants an address of that family, and keeps it over whatever is
    /// run, until [`Driver::leave`].
    ///
    /// Whoever decides upon what others on this host do must not be overtaken while it waits.
    ///
    /// # Errors
    ///
    /// [`Error::TooSlow`] if its turn does not come.
    pub async fn enter_early(&mut self, family: Family) -> Result<(), Error> {
        let since = Instant::now();
        let held = match &self.others {
            Others::Lock(lock) => {
                let free = lock.try_take();
                let guard = match free {
                    Some(guard) => guard,
                    None => lock.take().await,
                };
                Held::Lock { _guard: guard }
            }
            Others::Desk(desk) => {
                // The clock runs on: who asked for this waits no longer than for the whole.
                let turn = time::timeout_at(self.deadline, desk.turn(self.vrf(), family)).await;
                let turn = turn.map_err(|_| Error::TooSlow { limit: LIMIT })?;
                self.held = Some(Held::Desk { _turn: turn });
                return Ok(());
            }
        };
        self.postpone(since);
        self.held = Some(held);
        Ok(())
    }

    /// Gives up what was taken early.
    pub fn leave(&mut self) {
        self.held = None;
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
                Step::Enter { before, inside } => match self.host_lock() {
                    None => self.act([before, inside].concat()).await?,
                    Some(lock) => {
                        let (held, answers) = self.enter(lock, before, inside).await?;
                        guard.replace(held);
                        answers
                    }
                },
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

    /// Returns the lock that a machine still has to wait for.
    fn host_lock(&self) -> Option<HostLock> {
        match (&self.others, &self.held) {
            (Others::Lock(lock), None) => Some(lock.clone()),
            (Others::Lock(_), Some(_)) | (Others::Desk(_), _) => None,
        }
    }

    /// Carries out `ops` side by side.
    ///
    /// What comes back are these, but for writes of blocks that rest on something old: in their
    /// place comes a reading of what is new.
    ///
    /// # Errors
    ///
    /// As [`Driver::run`]; the first failure counts.
    pub async fn act(&mut self, ops: Vec<Op>) -> Result<Vec<(Op, Outcome)>, Error> {
        let is_carried = |op: &Op| matches!(op, Op::Update(Record::Block(_)));
        let is_carried = matches!(self.others, Others::Desk(_)) && ops.iter().any(is_carried);
        let requests = future::join_all(ops.into_iter().map(|op| self.carry_out(op)));
        let answers = if is_carried && Instant::now() < self.deadline {
            // Others carry it: given up, it would still be done. A request has a limit of its own.
            requests.await
        } else {
            let answers = time::timeout_at(self.deadline, requests).await;
            answers.map_err(|_| Error::TooSlow { limit: LIMIT })?
        };
        let mut outcomes = Vec::new();
        let mut failure = None;
        for answer in answers {
            match answer {
                Ok((op, (outcome, news), seen)) => {
                    trace!(?op, ?outcome);
                    self.objects.learn(news);
                    self.note_edition(&op, seen);
                    outcomes.push((op, outcome));
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(outcomes), Err)
    }

    async fn carry_out(&self, op: Op) -> Result<Done, Error> {
        if let Others::Desk(desk) = &self.others {
            match op {
                Op::Read(Key::Block(cidr)) => return self.read_at(desk, cidr).await,
                Op::Update(Record::Block(ref block)) => {
                    let cidr = block.cidr;
                    return self.update_at(desk, cidr, op).await;
                }
                Op::Delete(Key::Block(cidr)) => return self.delete_at(desk, cidr, op).await,
                Op::Read(_)
                | Op::ListBlocks
                | Op::ListAffinities
                | Op::Create(_)
                | Op::Update(_)
                | Op::Delete(_) => {}
            }
        }
        let answer = self.objects.request(&self.client, &op).await?;
        Ok((op, answer, None))
    }

    /// Reads a block, or learns what it will be.
    async fn read_at(&self, desk: &Desk, cidr: Cidr) -> Result<Done, Error> {
        let place = (self.vrf().cloned(), cidr);
        let key = Key::Block(cidr);
        loop {
            if let Some(seen) = desk.under_way(&place) {
                return found(cidr, seen);
            }
            let before = desk.edition(&place);
            let Some(stored) = Stored::get(&self.client, self.vrf(), &key).await? else {
                desk.forget(&place);
                let absent = (Outcome::Absent, vec![(key.clone(), None)]);
                return Ok((Op::Read(key), absent, None));
            };
            if let Some(seen) = desk.note(&place, before, stored) {
                return found(cidr, seen);
            }
        }
    }

    /// Writes a block together with what others write of it.
    async fn update_at(&self, desk: &Desk, cidr: Cidr, op: Op) -> Result<Done, Error> {
        let place = (self.vrf().cloned(), cidr);
        let (Op::Update(record), Some(base)) = (&op, self.objects.known(&Key::Block(cidr))) else {
            return Ok((op, (Outcome::Conflict, Vec::new()), None));
        };
        let base = (base, self.editions.get(&cidr).copied());
        match desk.submit(&self.client, &place, base, record) {
            Submitted::Accepted(answer, edition) => {
                // The task that writes ends only with the process.
                let lost = (Outcome::Lost, vec![(Key::Block(cidr), None)]);
                let answer = answer.await.unwrap_or(Ok(lost))?;
                Ok((op, answer, Some((cidr, edition))))
            }
            Submitted::Outdated(seen) => found(cidr, seen),
            // What else is known, such as the handle, may have changed with it.
            Submitted::Unknown => {
                Ok((op, (Outcome::Conflict, vec![(Key::Block(cidr), None)]), None))
            }
        }
    }

    /// Deletes a block unless somebody is writing it.
    async fn delete_at(&self, desk: &Desk, cidr: Cidr, op: Op) -> Result<Done, Error> {
        let place = (self.vrf().cloned(), cidr);
        if let Some(seen) = desk.settled(&place).await
            && self.editions.get(&cidr) != Some(&seen.1)
        {
            return found(cidr, seen);
        }
        let answer = self.objects.request(&self.client, &op).await?;
        desk.forget(&place);
        Ok((op, answer, None))
    }

    fn note_edition(&mut self, op: &Op, seen: Option<(Cidr, Edition)>) {
        match (op, seen) {
            (_, Some((cidr, edition))) => {
                self.editions.insert(cidr, edition);
            }
            (Op::ListBlocks, None) => self.editions.clear(),
            (_, None) => {}
        }
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
        lock: HostLock,
        before: Vec<Op>,
        inside: Vec<Op>,
    ) -> Result<(Guard, Vec<(Op, Outcome)>), Error> {
        if let Some(guard) = lock.try_take() {
            let answers = self.act([before, inside].concat()).await?;
            return Ok((guard, answers));
        }
        let since = Instant::now();
        let (first, guard) = future::join(self.act(before), lock.take()).await;
        self.postpone(since);
        let mut answers = first?;
        answers.extend(self.act(inside).await?);
        Ok((guard, answers))
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

/// Returns the reading of a block that was seen at the desk.
fn found(cidr: Cidr, (stored, edition): Seen) -> Result<Done, Error> {
    let key = Key::Block(cidr);
    let record = stored.record()?;
    let news = vec![(key.clone(), Some(stored))];
    Ok((Op::Read(key), (Outcome::Found(record), news), Some((cidr, edition))))
}

/// Returns a number between zero and one that nobody can guess.
fn fraction() -> f64 {
    let bits = RandomState::new().hash_one(0_u8);
    f64::from(u32::try_from(bits >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}
