//! Blocks that many assignments and releases of one process write at the same time.
//!
//! A write of a block is accepted at once, upon all that were accepted before it, and one request
//! carries what was accepted while the one before was under way:
//!
//! ```text
//! look at the block ──► decide ──► accept ─┐
//! look at the block ──► decide ──► accept ─┼──► one compare-and-swap ──► done, all of them
//! look at the block ──► decide ──► accept ─┘
//! ```
//!
//! Nobody's decision is changed: each is the next one's base, as if each had been written alone, in
//! the order of acceptance. What the server refuses is refused to all that it carried, and to those
//! who built upon it.

mod turn;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use datastore::Client;
use ipam::{Key, Outcome, Record};
use model::net::Cidr;
use model::vrf::VrfName;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::objects::{Answer, written};
use crate::{Error, Stored};

pub(crate) use turn::Turn;

/// How long what was written last is remembered: as long as somebody may still decide upon an
/// earlier edition, and is spared a refused write.
const REMEMBERED: Duration = Duration::from_secs(10);

/// The blocks of one process; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Desk {
    shared: Arc<Shared>,
}

/// A block, of a VRF or of none.
pub(crate) type Place = (Option<VrfName>, Cidr);

/// Which state of a block a decision rests on.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Edition(u64);

/// A block, and which state of it that is.
pub(crate) type Seen = (Stored, Edition);

#[derive(Debug, Default)]
struct Shared {
    blocks: Mutex<BTreeMap<Place, Entry>>,
    editions: AtomicU64,
    /// Tells that a write is over, or that the block is known anew.
    moved: Notify,
    turns: turn::Turns,
}

/// One block.
#[derive(Debug)]
struct Entry {
    /// As the server has it.
    written: Stored,
    /// As it will be when everything that was accepted is written.
    accepted: Option<Record>,
    edition: Edition,
    /// The edition that was read of the server; all later ones were accepted here.
    first: Edition,
    /// Those whose writes the next request carries.
    waiting: Vec<Waiting>,
    is_writing: bool,
    touched: Instant,
}

/// Who waits for a write.
type Waiting = oneshot::Sender<Result<Answer, Error>>;

/// What became of a write.
pub(crate) enum Submitted {
    /// It will be carried out; the receiver tells how that went.
    Accepted(oneshot::Receiver<Result<Answer, Error>>, Edition),
    /// Not accepted: this is what the block is, or will be, by nobody's writes but those that were
    /// accepted here.
    Outdated(Seen),
    /// Not accepted: somebody else may have written the block, as after a conflict.
    Unknown,
}

impl Entry {
    const fn is_busy(&self) -> bool {
        self.is_writing || self.accepted.is_some()
    }

    /// Returns the block as it is, or will be.
    fn head(&self) -> Stored {
        self.accepted.as_ref().map_or_else(|| self.written.clone(), |head| self.written.with(head))
    }
}

impl Desk {
    /// Returns the block as it will be, if a write of it is under way.
    pub(crate) fn under_way(&self, place: &Place) -> Option<Seen> {
        let blocks = self.lock();
        let entry = blocks.get(place).filter(|entry| entry.is_busy())?;
        Some((entry.head(), entry.edition))
    }

    /// Returns which state of the block is known before it is read, for [`Desk::note`].
    pub(crate) fn edition(&self, place: &Place) -> Option<Edition> {
        self.lock().get(place).map(|entry| entry.edition)
    }

    /// Takes note of a block that was read, and returns what is newer: that, or what was accepted
    /// since `before`; `None` if nobody can say.
    pub(crate) fn note(
        &self,
        place: &Place,
        before: Option<Edition>,
        read: Stored,
    ) -> Option<Seen> {
        let mut blocks = self.lock();
        let entry = match blocks.remove(place) {
            Some(entry) if entry.is_busy() => entry,
            Some(entry) if entry.written.revision() == read.revision() => entry,
            // It was written while it was read: the answer may be of before, or of after.
            Some(entry) if before != Some(entry.edition) => {
                blocks.insert(place.clone(), entry);
                return None;
            }
            Some(_) | None => self.entry(read),
        };
        let seen = (entry.head(), entry.edition);
        blocks.insert(place.clone(), Entry { touched: Instant::now(), ..entry });
        Some(seen)
    }

    /// Accepts the write of a block that was decided upon `base`, unless there is something newer.
    ///
    /// A base of no edition comes from a listing: only its revision tells how old it is.
    ///
    /// | known here | base | |
    /// |---|---|---|
    /// | nothing | listed | accepted: the server compares |
    /// | nothing | an edition | unknown: it may rest on what came to nothing |
    /// | an edition | the same | accepted |
    /// | an edition | an earlier one since it was read of the server | outdated |
    /// | an edition | one of before that | unknown: somebody else has written it |
    /// | an edition, as written | listed, of that revision | accepted |
    /// | an edition | listed, otherwise | unknown |
    pub(crate) fn submit(
        &self,
        client: &Client,
        place: &Place,
        (base, edition): (&Stored, Option<Edition>),
        record: &Record,
    ) -> Submitted {
        let mut blocks = self.lock();
        match (blocks.get(place), edition) {
            (None, None) => {
                blocks.insert(place.clone(), self.entry(base.clone()));
            }
            (Some(entry), Some(edition)) if edition == entry.edition => {}
            (Some(entry), Some(edition)) if edition >= entry.first => {
                return Submitted::Outdated((entry.head(), entry.edition));
            }
            (Some(entry), None)
                if !entry.is_busy() && entry.written.revision() == base.revision() => {}
            (_, _) => return Submitted::Unknown,
        }
        let Some(entry) = blocks.get_mut(place) else { return Submitted::Unknown };
        let (sender, receiver) = oneshot::channel();
        entry.accepted = Some(record.clone());
        entry.edition = self.next();
        entry.waiting.push(sender);
        let edition = entry.edition;
        if !std::mem::replace(&mut entry.is_writing, true) {
            // A task of its own: it carries others' writes, too.
            let (desk, client, place) = (self.clone(), client.clone(), place.clone());
            tokio::spawn(async move { desk.write(&client, &place).await });
        }
        Submitted::Accepted(receiver, edition)
    }

    /// Waits until no write of the block is under way, and returns what is known of it then.
    pub(crate) async fn settled(&self, place: &Place) -> Option<Seen> {
        loop {
            let moved = self.shared.moved.notified();
            tokio::pin!(moved);
            // Whoever looks first and listens then may miss it.
            moved.as_mut().enable();
            {
                let blocks = self.lock();
                let entry = blocks.get(place)?;
                if !entry.is_busy() {
                    return Some((entry.head(), entry.edition));
                }
            }
            moved.await;
        }
    }

    /// Forgets what is known of the block, which somebody else writes, or deletes.
    pub(crate) fn forget(&self, place: &Place) {
        let mut blocks = self.lock();
        if blocks.get(place).is_some_and(|entry| !entry.is_busy()) {
            blocks.remove(place);
        }
    }

    /// Carries out what was accepted, until there is nothing left.
    async fn write(&self, client: &Client, place: &Place) {
        while let Some((stored, edition, carried)) = self.next_write(place) {
            let result = stored.update(client).await;
            let is_done = result.is_ok();
            self.conclude(place, edition, carried, &result);
            if !is_done {
                break;
            }
        }
        self.shared.moved.notify_waiters();
    }

    /// Returns the object to write next, which edition that is, and who waits for it.
    fn next_write(&self, place: &Place) -> Option<(Stored, Edition, Vec<Waiting>)> {
        let mut blocks = self.lock();
        let entry = blocks.get_mut(place)?;
        let carried = std::mem::take(&mut entry.waiting);
        match &entry.accepted {
            Some(record) if !carried.is_empty() => {
                Some((entry.written.with(record), entry.edition, carried))
            }
            _ => {
                entry.accepted = None;
                entry.is_writing = false;
                entry.touched = Instant::now();
                clear_old(&mut blocks);
                None
            }
        }
    }

    /// Tells those who wait how a write went; if it was refused, nothing is known of the block.
    fn conclude(
        &self,
        place: &Place,
        edition: Edition,
        carried: Vec<Waiting>,
        result: &Result<Stored, datastore::Error>,
    ) {
        let mut blocks = self.lock();
        let mut followers = Vec::new();
        match result {
            Ok(stored) => {
                if let Some(entry) = blocks.get_mut(place) {
                    entry.written = stored.clone();
                    // What was accepted since is still to come.
                    if entry.edition == edition {
                        entry.accepted = None;
                    }
                }
            }
            Err(_) => {
                followers = blocks.remove(place).map(|entry| entry.waiting).unwrap_or_default();
            }
        }
        drop(blocks);
        let key = Key::Block(place.1);
        for sender in carried {
            // Whoever has given up misses nothing.
            let _ = sender.send(written(key.clone(), result.clone().map(Some)));
        }
        for sender in followers {
            let news = vec![(key.clone(), None)];
            let _ = sender.send(Ok((Outcome::Conflict, news)));
        }
    }

    fn entry(&self, written: Stored) -> Entry {
        let first = self.next();
        Entry {
            written,
            accepted: None,
            edition: first,
            first,
            waiting: Vec::new(),
            is_writing: false,
            touched: Instant::now(),
        }
    }

    fn next(&self) -> Edition {
        Edition(self.shared.editions.fetch_add(1, Ordering::Relaxed).saturating_add(1))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Place, Entry>> {
        self.shared.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn clear_old(blocks: &mut BTreeMap<Place, Entry>) {
    let now = Instant::now();
    blocks.retain(|_, entry| {
        entry.is_busy() || now.saturating_duration_since(entry.touched) < REMEMBERED
    });
}
