//! Giving addresses back: the block takes them first, then the handle forgets.

use std::collections::BTreeSet;
use std::net::IpAddr;

use model::block::{Attributes, Block, Handle, IpamConfig};
use model::id::HandleId;
use model::net::Cidr;
use model::time::WallTime;

use crate::Failure;
use crate::assign::MAX_REFUSED;
use crate::machine::{Key, Known, Machine, Op, Outcome, Record, Step, View};
use crate::slots::{self, Clock};

/// What a release gave back.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Released {
    /// The addresses, in order; empty if there was nothing to give back.
    pub addrs: BTreeSet<IpAddr>,
}

/// The release of everything that one handle holds.
///
/// A block that the handle counts but that holds nothing of it is written as
/// well, without a change: if a killed assignment still has a write to it under
/// way, that write will then be refused, or was done and is seen here. Without
/// this an address could be taken after its handle is gone.
#[derive(Clone, Debug)]
pub struct Release {
    handle: HandleId,
    clock: Clock,
    view: View,
    /// Blocks that hold nothing of the handle and that no older write can change.
    settled: BTreeSet<Cidr>,
    has_entered: bool,
    released: Released,
    refused_writes: u32,
}

impl Release {
    /// Starts the release of all addresses of `handle`.
    #[must_use]
    pub fn new(handle: HandleId, config: &IpamConfig, now: WallTime) -> Self {
        Self {
            handle,
            clock: Clock { now, cooldown: config.cooldown },
            view: View::default(),
            settled: BTreeSet::new(),
            has_entered: false,
            released: Released::default(),
            refused_writes: 0,
        }
    }

    fn unsettled<'a>(&'a self, handle: &'a Handle) -> impl Iterator<Item = Cidr> + 'a {
        handle.blocks.keys().copied().filter(|cidr| !self.settled.contains(cidr))
    }

    /// Returns the requests that bring the blocks of `handle` closer to being settled.
    fn block_ops(&self, handle: &Handle) -> Vec<Op> {
        let op = |cidr| {
            let key = Key::Block(cidr);
            match self.view.get(&key) {
                Known::Present(Record::Block(block)) => self.give_back(block),
                Known::Deleted => Op::Delete(key),
                Known::Unknown | Known::Absent | Known::Present(_) => Op::Read(key),
            }
        };
        self.unsettled(handle).map(op).collect()
    }

    fn give_back(&self, block: &Block) -> Op {
        let held = slots::held_by(block, &self.handle);
        written_back(slots::release(block, &held, self.clock), self.clock)
    }
}

impl Machine for Release {
    type Output = Released;

    fn next(&mut self) -> Step<Released> {
        if self.refused_writes > MAX_REFUSED {
            return Step::Failed(Failure::Contention { attempts: self.refused_writes });
        }
        let key = Key::Handle(self.handle.clone());
        let handle = match self.view.get(&key) {
            Known::Unknown => return Step::Act(vec![Op::Read(key)]),
            Known::Deleted => return Step::Act(vec![Op::Delete(key)]),
            Known::Present(Record::Handle(handle)) => handle.clone(),
            Known::Absent | Known::Present(_) => return Step::Done(self.released.clone()),
        };
        let ops = self.block_ops(&handle);
        if ops.is_empty() {
            return Step::Act(vec![Op::Delete(key)]);
        }
        if self.has_entered {
            return Step::Act(ops);
        }
        self.has_entered = true;
        Step::Enter { before: Vec::new(), inside: ops }
    }

    fn feed(&mut self, op: Op, outcome: Outcome) {
        match (&op, &outcome) {
            (Op::Update(Record::Block(block)), Outcome::Written) => {
                self.settled.insert(block.cidr);
                self.note_released(block.cidr);
            }
            (Op::Delete(Key::Block(cidr)), Outcome::Written) => {
                self.settled.insert(*cidr);
                self.note_released(*cidr);
            }
            (Op::Read(Key::Block(cidr)) | Op::Delete(Key::Block(cidr)), Outcome::Absent) => {
                self.settled.insert(*cidr);
            }
            (Op::Create(_) | Op::Update(_) | Op::Delete(_), outcome)
                if *outcome != Outcome::Written =>
            {
                self.refused_writes = self.refused_writes.saturating_add(1);
                if matches!(op, Op::Delete(Key::Handle(_))) {
                    // It counts something new, so what is known of its blocks is old.
                    self.settled.clear();
                    let blocks: Vec<Cidr> = self.view.blocks().map(|block| block.cidr).collect();
                    for cidr in blocks {
                        self.view.forget(&Key::Block(cidr));
                    }
                }
            }
            _ => {}
        }
        self.view.feed(op, outcome);
    }

    fn is_critical(&self) -> bool {
        let handle = self.view.handle(&self.handle);
        self.has_entered && handle.is_some_and(|handle| self.unsettled(handle).next().is_some())
    }
}

impl Release {
    /// Notes the addresses that the block held before it was written.
    fn note_released(&mut self, cidr: Cidr) {
        let Some(block) = self.view.block(cidr) else { return };
        let held = slots::held_by(block, &self.handle);
        let addrs = held.into_iter().filter_map(|ordinal| slots::address(block, ordinal));
        self.released.addrs.extend(addrs);
    }
}

/// The release of one address, if it is still held as the caller believes.
#[derive(Clone, Debug)]
pub struct AddressRelease {
    addr: IpAddr,
    expected: Expected,
    clock: Clock,
    view: View,
    /// The block the address lies in, once it was found.
    block: Option<Cidr>,
    /// Who held the address when its release was first tried.
    former: Option<Holding>,
    is_given_back: bool,
    has_entered: bool,
    refused_writes: u32,
}

/// What the caller of [`AddressRelease::new`] believes about the address.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Expected {
    /// The block's sequence number when the address was allocated; `None` is any.
    pub sequence_number: Option<u64>,
    /// The holder; `None` is any.
    pub handle: Option<HandleId>,
}

/// One allocation of an address, told apart from earlier and later ones.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Holding {
    ordinal: u32,
    handle: Option<HandleId>,
    since: Option<u64>,
}

impl AddressRelease {
    /// Starts the release of `addr`.
    #[must_use]
    pub fn new(addr: IpAddr, expected: Expected, config: &IpamConfig, now: WallTime) -> Self {
        Self {
            addr,
            expected,
            clock: Clock { now, cooldown: config.cooldown },
            view: View::default(),
            block: None,
            former: None,
            is_given_back: false,
            has_entered: false,
            refused_writes: 0,
        }
    }

    /// Says in which block the address is, so that it need not be looked for among all.
    #[must_use]
    pub const fn in_block(mut self, cidr: Cidr) -> Self {
        self.block = Some(cidr);
        self
    }

    fn block_step(&mut self) -> Step<Released> {
        let Some(cidr) = self.block else { return self.enter(Op::ListBlocks) };
        let key = Key::Block(cidr);
        let block = match self.view.get(&key) {
            Known::Unknown => return self.enter(Op::Read(key)),
            Known::Deleted => return Step::Act(vec![Op::Delete(key)]),
            Known::Absent => None,
            Known::Present(_) => self.view.block(cidr).cloned(),
        };
        let found = block.as_ref().and_then(|block| self.holding(block));
        if self.former.is_some() && self.former != found {
            // An earlier write was done after all; what is there now is not ours to release.
            self.is_given_back = true;
            return self.handle_step();
        }
        let (Some(block), Some(found)) = (block, found) else {
            return Step::Done(Released::default());
        };
        if let Err(reason) = self.expected.check(&found) {
            return Step::Failed(Failure::Changed { addr: self.addr, reason });
        }
        let released = slots::release(&block, &[found.ordinal], self.clock);
        self.former = Some(found);
        Step::Act(vec![written_back(released, self.clock)])
    }

    fn holding(&self, block: &Block) -> Option<Holding> {
        let ordinal = u32::try_from(block.cidr.ordinal_of(self.addr)?).ok()?;
        let handle = slots::holder(block, ordinal)?.handle.clone();
        Some(Holding { ordinal, handle, since: block.allocated_at.get(&ordinal).copied() })
    }

    fn handle_step(&self) -> Step<Released> {
        let done = Step::Done(Released { addrs: BTreeSet::from([self.addr]) });
        let former = self.former.as_ref().and_then(|former| former.handle.as_ref());
        let (Some(id), Some(cidr)) = (former, self.block) else { return done };
        let key = Key::Handle(id.clone());
        let handle = match self.view.get(&key) {
            Known::Unknown => return Step::Act(vec![Op::Read(key)]),
            Known::Deleted => return Step::Act(vec![Op::Delete(key)]),
            Known::Present(Record::Handle(handle)) => handle,
            Known::Absent | Known::Present(_) => return done,
        };
        let held = self.view.block(cidr).map_or(0, |block| slots::held_by(block, id).len());
        let held = u32::try_from(held).unwrap_or(u32::MAX);
        // What the block says, and not one less than the handle says: a write
        // whose answer was lost must not count twice.
        if handle.blocks.get(&cidr).is_none_or(|counted| *counted <= held) {
            return done;
        }
        let mut lowered = handle.clone();
        match held {
            0 => lowered.blocks.remove(&cidr),
            held => lowered.blocks.insert(cidr, held),
        };
        Step::Act(vec![if lowered.blocks.is_empty() {
            Op::Delete(key)
        } else {
            Op::Update(Record::Handle(lowered))
        }])
    }

    fn enter(&mut self, op: Op) -> Step<Released> {
        if self.has_entered {
            return Step::Act(vec![op]);
        }
        self.has_entered = true;
        Step::Enter { before: Vec::new(), inside: vec![op] }
    }

    fn locate_block(&mut self) {
        let found =
            self.view.blocks().map(|block| block.cidr).find(|cidr| cidr.contains(self.addr));
        // Without a block nobody holds it; a block of its own, known to be absent, says so.
        let cidr = found.unwrap_or_else(|| Cidr::host(self.addr));
        self.block = Some(cidr);
        if found.is_none() {
            self.view.remember_absent(Key::Block(cidr));
        }
    }
}

impl Expected {
    fn check(&self, found: &Holding) -> Result<(), String> {
        let same = |id: &HandleId| {
            let holder = Attributes { handle: found.handle.clone(), ..Attributes::default() };
            slots::is_handle(&holder, id)
        };
        if let Some(expected) = self.handle.as_ref().filter(|expected| !same(expected)) {
            let found = found.handle.as_ref().map_or("nobody", |handle| handle.0.as_str());
            return Err(format!("it is held by handle {found}, not {expected}"));
        }
        if let Some(expected) =
            self.sequence_number.filter(|expected| found.since != Some(*expected))
        {
            let found = found.since.map_or("none".to_owned(), |since| since.to_string());
            return Err(format!("it was allocated at sequence number {found}, not {expected}"));
        }
        Ok(())
    }
}

impl Machine for AddressRelease {
    type Output = Released;

    fn next(&mut self) -> Step<Released> {
        if self.refused_writes > MAX_REFUSED {
            return Step::Failed(Failure::Contention { attempts: self.refused_writes });
        }
        if self.is_given_back { self.handle_step() } else { self.block_step() }
    }

    fn feed(&mut self, op: Op, outcome: Outcome) {
        let is_block_write = matches!(op, Op::Update(Record::Block(_)) | Op::Delete(Key::Block(_)));
        let is_write = !matches!(op, Op::Read(_) | Op::ListBlocks | Op::ListAffinities);
        if is_write && outcome != Outcome::Written {
            self.refused_writes = self.refused_writes.saturating_add(1);
        } else if is_block_write && self.former.is_some() {
            self.is_given_back = true;
        }
        let is_listing = op == Op::ListBlocks;
        self.view.feed(op, outcome);
        if is_listing {
            self.locate_block();
        }
    }

    fn is_critical(&self) -> bool {
        self.has_entered && !self.is_given_back
    }
}

/// Returns the write of a block after a release: a block that nobody owns and
/// that holds nothing is deleted.
fn written_back(block: Block, clock: Clock) -> Op {
    if block.affinity.is_none() && slots::is_empty(&block, clock) {
        Op::Delete(Key::Block(block.cidr))
    } else {
        Op::Update(Record::Block(block))
    }
}
