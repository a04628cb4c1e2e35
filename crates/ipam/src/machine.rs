//! The protocol between a machine that decides and a driver that acts.

use std::collections::BTreeMap;

use model::block::{Affinity, Block, Handle, Owner};
use model::id::HandleId;
use model::net::Cidr;

use crate::Failure;

/// A decision process that is carried out by somebody else.
///
/// The driver calls [`next`](Self::next), carries out every [`Op`] of the
/// step, hands each back through [`feed`](Self::feed) with its outcome, and
/// repeats until the step is the last.
pub trait Machine {
    /// What a successful run yields.
    type Output;

    /// Returns what to do next.
    fn next(&mut self) -> Step<Self::Output>;

    /// Takes note of how `op` went.
    fn feed(&mut self, op: Op, outcome: Outcome);

    /// Is the machine between reading a block and writing it?
    ///
    /// A driver that holds a lock of its own to keep processes of one host
    /// from getting in each other's way may give it up when this turns false.
    fn is_critical(&self) -> bool;
}

/// What a [`Machine`] wants next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step<T> {
    /// Carry out all of these, in any order or at the same time.
    Act(Vec<Op>),
    /// Carry out `before`; meanwhile wait for the host's lock, if there is
    /// one, and carry out `inside` when it is held.
    Enter {
        /// Needs no lock.
        before: Vec<Op>,
        /// Reads that should be fresh: nobody on this host writes behind them.
        inside: Vec<Op>,
    },
    /// It is done.
    Done(T),
    /// It cannot be done.
    Failed(Failure),
}

/// The identity of an object that address management writes.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Key {
    /// A block.
    Block(Cidr),
    /// A claim on a block.
    Affinity(Owner, Cidr),
    /// A holder of addresses.
    Handle(HandleId),
}

/// An object that address management writes.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A block.
    Block(Block),
    /// A claim on a block.
    Affinity(Affinity),
    /// A holder of addresses.
    Handle(Handle),
}

impl Record {
    /// Returns the object's identity.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Block(block) => Key::Block(block.cidr),
            Self::Affinity(affinity) => Key::Affinity(affinity.owner.clone(), affinity.cidr),
            Self::Handle(handle) => Key::Handle(handle.id.clone()),
        }
    }

    /// Is a deletion of the object under way?
    ///
    /// Whoever meets such an object finishes the deletion and goes on as if it
    /// were absent.
    #[must_use]
    pub const fn is_deleted(&self) -> bool {
        match self {
            Self::Block(block) => block.is_deleted,
            Self::Affinity(affinity) => affinity.is_deleted,
            Self::Handle(handle) => handle.is_deleted,
        }
    }
}

/// One request to the datastore.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Read one object. Outcomes: `Found`, `Absent`.
    Read(Key),
    /// Read all blocks. Outcome: `Blocks`.
    ListBlocks,
    /// Read all affinities, of every owner. Outcome: `Affinities`.
    ListAffinities,
    /// Create the object unless it exists.
    Create(Record),
    /// Replace the object, if it is still as the machine was last told.
    Update(Record),
    /// Delete the object, if it is still as the machine was last told.
    Delete(Key),
}

/// How an [`Op`] went.
///
/// A read that fails has no outcome: the driver repeats it or gives up.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The object was read.
    Found(Record),
    /// The object does not exist: it was not found by a read, an update or a deletion.
    Absent,
    /// All blocks were read.
    Blocks(Vec<Block>),
    /// All affinities were read.
    Affinities(Vec<Affinity>),
    /// The write was done.
    Written,
    /// Refused: somebody wrote the object first.
    Conflict,
    /// Refused: the object exists already.
    AlreadyExists,
    /// Nobody knows whether the write was done, or still will be.
    Lost,
}

/// What a machine knows about one object.
#[derive(Debug)]
pub enum Known<'a> {
    /// Nothing: read it.
    Unknown,
    /// It does not exist.
    Absent,
    /// Its deletion has begun: finish it.
    Deleted,
    /// This is its content.
    Present(&'a Record),
}

/// What a machine was last told of each object.
#[derive(Clone, Debug, Default)]
pub struct View {
    objects: BTreeMap<Key, Option<Record>>,
}

impl View {
    /// Returns what is known about the object.
    #[must_use]
    pub fn get(&self, key: &Key) -> Known<'_> {
        match self.objects.get(key) {
            None => Known::Unknown,
            Some(None) => Known::Absent,
            Some(Some(record)) if record.is_deleted() => Known::Deleted,
            Some(Some(record)) => Known::Present(record),
        }
    }

    /// Returns the block, if it is known to exist.
    #[must_use]
    pub fn block(&self, cidr: Cidr) -> Option<&Block> {
        match self.get(&Key::Block(cidr)) {
            Known::Present(Record::Block(block)) => Some(block),
            Known::Unknown | Known::Absent | Known::Deleted | Known::Present(_) => None,
        }
    }

    /// Returns the handle, if it is known to exist.
    #[must_use]
    pub fn handle(&self, id: &HandleId) -> Option<&Handle> {
        match self.get(&Key::Handle(id.clone())) {
            Known::Present(Record::Handle(handle)) => Some(handle),
            Known::Unknown | Known::Absent | Known::Deleted | Known::Present(_) => None,
        }
    }

    /// Returns the blocks that are known to exist, those being deleted included.
    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.objects.values().filter_map(|record| match record {
            Some(Record::Block(block)) => Some(block),
            _ => None,
        })
    }

    /// Returns the affinities that are known to exist, those being deleted included.
    pub fn affinities(&self) -> impl Iterator<Item = &Affinity> {
        self.objects.values().filter_map(|record| match record {
            Some(Record::Affinity(affinity)) => Some(affinity),
            _ => None,
        })
    }

    /// Takes the claims that `other` knows in the place of its own.
    #[must_use]
    pub fn with_claims_of(mut self, other: Self) -> Self {
        let is_claim = |key: &Key| matches!(key, Key::Affinity(..));
        self.objects.retain(|key, _| !is_claim(key));
        self.objects.extend(other.objects.into_iter().filter(|(key, _)| is_claim(key)));
        self
    }

    /// Takes note of how `op` went.
    pub fn feed(&mut self, op: Op, outcome: Outcome) {
        match (op, outcome) {
            (Op::Read(key), Outcome::Found(record)) => self.know(key, Some(record)),
            (Op::Read(key) | Op::Delete(key), Outcome::Absent)
            | (Op::Delete(key), Outcome::Written) => self.know(key, None),
            (Op::ListBlocks, Outcome::Blocks(blocks)) => {
                self.objects.retain(|key, _| !matches!(key, Key::Block(_)));
                for block in blocks {
                    self.remember(Record::Block(block));
                }
            }
            (Op::ListAffinities, Outcome::Affinities(affinities)) => {
                self.objects.retain(|key, _| !matches!(key, Key::Affinity(..)));
                for affinity in affinities {
                    self.remember(Record::Affinity(affinity));
                }
            }
            (Op::Create(record) | Op::Update(record), Outcome::Written) => self.remember(record),
            (Op::Create(record) | Op::Update(record), _) => self.forget(&record.key()),
            (Op::Read(key) | Op::Delete(key), _) => self.forget(&key),
            (Op::ListBlocks | Op::ListAffinities, _) => {}
        }
    }

    /// Takes note of an object that was read.
    pub fn remember(&mut self, record: Record) {
        self.know(record.key(), Some(record));
    }

    /// Takes note of an object that does not exist.
    pub(crate) fn remember_absent(&mut self, key: Key) {
        self.know(key, None);
    }

    /// Forgets the object, so that it is read again when it matters.
    pub(crate) fn forget(&mut self, key: &Key) {
        self.objects.remove(key);
    }

    fn know(&mut self, key: Key, record: Option<Record>) {
        self.objects.insert(key, record);
    }
}
