//! Assigning one address: the handle counts first, then the block gives.
//!
//! Where the address comes from is decided in [`place`]; this file is about
//! taking it. On a warm path, where the newest block of the node has room, the
//! steps are: create the handle and read the block side by side, then update
//! the block. Older blocks fill first, so that path is the usual one.

mod given;
mod guess;
mod place;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::block::{Affinity, Attributes, Block, Handle, IpamConfig, Owner};
use model::id::{HandleId, NodeName};
use model::net::{Cidr, Family};
use model::pool::IpPool;
use model::time::WallTime;

use crate::machine::{Key, Known, Machine, Op, Outcome, Record, Step, View};
use crate::slots::{self, Clock};
use crate::{Failure, Ranges};
use place::{Place, Survey};

/// How many of its writes may be refused before an operation gives up.
pub(crate) const MAX_REFUSED: u32 = 100;

/// Who wants an address, and which.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The node on which it will be used.
    pub node: NodeName,
    /// Who will hold it.
    pub handle: HandleId,
    /// Facts about the holder, kept with the address.
    pub owner: BTreeMap<String, String>,
    /// The family.
    pub family: Family,
    /// This very address; `None` for any.
    pub addr: Option<IpAddr>,
    /// The most blocks that the node may have, if lower than the configured number.
    pub max_blocks: Option<u32>,
    /// Where in a pool the search for a block begins: [`crate::seed_of`] the node.
    pub seed: u64,
}

/// What an assignment is decided upon, besides blocks, affinities and handles.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// The configuration.
    pub config: IpamConfig,
    /// Ranges that are not assigned unasked.
    pub reserved: Vec<Cidr>,
    /// The pools to assign from, in the order to try them: [`crate::pools_for`], or
    /// [`crate::pools_holding`] for a given address.
    pub pools: Vec<IpPool>,
    /// The ranges of all pools that select the node. Empty blocks of the node
    /// outside of them are given up.
    pub selected: Vec<Cidr>,
    /// The blocks that the node claims, newest first. Claims that are not
    /// among them count as newer. It says only where to look first.
    pub newest_first: Vec<Cidr>,
    /// The time.
    pub now: WallTime,
}

/// An address that was assigned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Assigned {
    /// The address.
    pub addr: IpAddr,
    /// Its block.
    pub block: Cidr,
}

/// The assignment of one address to one handle.
///
/// If the handle holds an address of that family already, because this is a
/// retry or the answer to an earlier attempt was lost, the result is that one.
#[derive(Clone, Debug)]
pub struct Assignment {
    request: Request,
    scene: Scene,
    reserved: Ranges,
    owner: Owner,
    view: View,
    survey: Survey,
    has_entered: bool,
    must_read_handle: bool,
    /// Blocks for which this run has raised the handle's count, and may lower
    /// it again. A count that was there may belong to a write under way.
    raised: BTreeSet<Cidr>,
    /// Blocks whose claim was looked at after the block was.
    proven: BTreeSet<Cidr>,
    /// Has this run written the handle? Until then a deletion that an earlier run
    /// sent may still be under way, and would be done at the handle's revision.
    has_written_handle: bool,
    refused_writes: u32,
    failure: Option<Failure>,
}

impl Assignment {
    /// Starts an assignment; `view` holds the node's affinities and whatever
    /// else is known, such as the handle after an assignment of the other family.
    #[must_use]
    pub fn new(request: Request, scene: Scene, view: View) -> Self {
        let reserved = Ranges::of(scene.reserved.iter().copied(), request.family);
        let owner = Owner::Host(request.node.clone());
        Self {
            request,
            scene,
            reserved,
            owner,
            view,
            survey: Survey::default(),
            has_entered: false,
            must_read_handle: false,
            raised: BTreeSet::new(),
            proven: BTreeSet::new(),
            has_written_handle: false,
            refused_writes: 0,
            failure: None,
        }
    }

    /// Starts the assignment of an address for a Service, from blocks that belong to no
    /// machine but to the virtual owner named by `request.node`: in Calico `load-balancer`.
    ///
    /// The limit of blocks per node is none for it.
    #[must_use]
    pub fn for_service(request: Request, mut scene: Scene, view: View) -> Self {
        scene.config.max_blocks_per_host = u32::MAX;
        let owner = Owner::Virtual(request.node.to_string());
        Self { owner, ..Self::new(request, scene, view) }
    }

    /// Returns what the machine knows, for an operation that follows.
    #[must_use]
    pub fn into_view(self) -> View {
        self.view
    }

    fn clock(&self) -> Clock {
        Clock { now: self.scene.now, cooldown: self.scene.config.cooldown }
    }

    fn handle_key(&self) -> Key {
        Key::Handle(self.request.handle.clone())
    }

    /// Returns the step that finds an address which the handle holds already,
    /// or `None` once it is known that there is none.
    fn inherited(&self) -> Option<Step<Assigned>> {
        let handle = self.view.handle(&self.request.handle)?;
        let mut reads = Vec::new();
        for cidr in handle.blocks.keys().filter(|cidr| self.may_hold(cidr)) {
            let key = Key::Block(*cidr);
            match self.view.get(&key) {
                Known::Present(Record::Block(block)) => {
                    if let Some(addr) = self.held(block) {
                        return Some(Step::Done(Assigned { addr, block: *cidr }));
                    }
                }
                // Our own count, of this run, for an address that was not taken yet.
                Known::Unknown if self.raised.contains(cidr) => {}
                Known::Unknown => reads.push(Op::Read(key)),
                Known::Deleted => reads.push(Op::Delete(key)),
                Known::Absent | Known::Present(_) => {}
            }
        }
        (!reads.is_empty()).then_some(Step::Act(reads))
    }

    fn may_hold(&self, cidr: &Cidr) -> bool {
        cidr.family() == self.request.family
            && self.request.addr.is_none_or(|addr| cidr.contains(addr))
    }

    /// Returns the address of `block` that answers the request already.
    fn held(&self, block: &Block) -> Option<IpAddr> {
        let held = slots::held_by(block, &self.request.handle);
        let mut addrs = held.into_iter().filter_map(|ordinal| slots::address(block, ordinal));
        addrs.find(|addr| self.request.addr.is_none_or(|wanted| wanted == *addr))
    }

    /// Returns the next step towards taking an address from the block `cidr`.
    fn take(&mut self, cidr: Cidr) -> Step<Assigned> {
        let before = self.count_up(cidr);
        if !self.has_entered {
            self.has_entered = true;
            let inside = vec![Op::Read(Key::Block(cidr))];
            return Step::Enter { before: before.into_iter().collect(), inside };
        }
        if let Some(op) = before.or_else(|| self.proof_of(cidr)) {
            return Step::Act(vec![op]);
        }
        let allocated = self.view.block(cidr).and_then(|block| self.allocated(block));
        match allocated {
            Some(block) => Step::Act(vec![Op::Update(Record::Block(block))]),
            None => Step::Act(vec![Op::Read(Key::Block(cidr))]),
        }
    }

    /// Returns the read that proves an empty block to be claimed, or `None` if it need not be.
    ///
    /// Who creates a block may be long dead when the datastore carries that out,
    /// its claim withdrawn and the addresses claimed by a block of another size.
    /// Such a block is empty, and has no claim when one looks after it was seen.
    fn proof_of(&self, cidr: Cidr) -> Option<Op> {
        let block = self.view.block(cidr)?;
        let owner = block.affinity.clone()?;
        let is_needed = !self.proven.contains(&cidr) && slots::is_empty(block, self.clock());
        is_needed.then_some(Op::Read(Key::Affinity(owner, cidr)))
    }

    /// Takes note of whether the claims known are younger than the blocks known.
    fn note_proof(&mut self, op: &Op, outcome: &Outcome) {
        match (op, outcome) {
            (Op::Read(Key::Affinity(_, cidr)), _)
            | (
                Op::Create(Record::Affinity(Affinity { cidr, .. }))
                | Op::Update(Record::Affinity(Affinity { cidr, .. })),
                Outcome::Written,
            ) if self.view.block(*cidr).is_some() => {
                self.proven.insert(*cidr);
            }
            (
                Op::Read(Key::Block(cidr))
                | Op::Delete(Key::Block(cidr))
                | Op::Create(Record::Block(Block { cidr, .. })),
                _,
            ) => {
                self.proven.remove(cidr);
            }
            (Op::ListBlocks, _) => self.proven.clear(),
            _ => {}
        }
    }

    fn allocated(&self, block: &Block) -> Option<Block> {
        let ordinal = match self.request.addr {
            Some(addr) => u32::try_from(block.cidr.ordinal_of(addr)?).ok()?,
            None => slots::next_free(block, &self.reserved, self.clock())?,
        };
        let holder = Attributes {
            handle: Some(self.request.handle.clone()),
            owner: self.request.owner.clone(),
            ..Attributes::default()
        };
        slots::allocate(block, ordinal, &holder, self.clock())
    }

    /// Returns the write that makes the handle count one address more in `cidr`
    /// than it holds there, or `None` if it does, by a write of this run.
    fn count_up(&self, cidr: Cidr) -> Option<Op> {
        let key = self.handle_key();
        let wanted = self.held_count(cidr).saturating_add(1);
        let op = match self.view.get(&key) {
            Known::Deleted => return Some(Op::Delete(key)),
            Known::Present(Record::Handle(handle)) => {
                let counted = handle.blocks.get(&cidr).copied().unwrap_or(0);
                if counted >= wanted && self.has_written_handle {
                    return None;
                }
                let mut handle = self.without_unused_counts(handle);
                // One too many is harmless, and makes a new revision.
                handle.blocks.insert(cidr, wanted.max(counted.saturating_add(1)));
                Op::Update(Record::Handle(handle))
            }
            Known::Unknown | Known::Absent | Known::Present(_) => {
                Op::Create(Record::Handle(Handle {
                    id: self.request.handle.clone(),
                    blocks: BTreeMap::from([(cidr, wanted)]),
                    is_deleted: false,
                }))
            }
        };
        Some(op)
    }

    fn held_count(&self, cidr: Cidr) -> u32 {
        let held = self.view.block(cidr).map(|block| slots::held_by(block, &self.request.handle));
        held.map_or(0, |held| u32::try_from(held.len()).unwrap_or(u32::MAX))
    }

    /// Returns the handle without the counts of this run that came to nothing.
    fn without_unused_counts(&self, handle: &Handle) -> Handle {
        let mut handle = handle.clone();
        for cidr in &self.raised {
            match (self.view.get(&Key::Block(*cidr)), self.held_count(*cidr)) {
                (Known::Unknown, _) => {}
                (_, 0) => {
                    handle.blocks.remove(cidr);
                }
                (_, held) => {
                    handle.blocks.insert(*cidr, held);
                }
            }
        }
        handle
    }

    /// Returns the step that takes back what the handle counts in vain, then the failure.
    fn undo(&mut self, failure: Failure) -> Step<Assigned> {
        let Some(handle) = self.view.handle(&self.request.handle) else {
            return Step::Failed(failure);
        };
        let lowered = self.without_unused_counts(handle);
        if lowered == *handle {
            return Step::Failed(failure);
        }
        self.raised.clear();
        Step::Act(vec![if lowered.blocks.is_empty() {
            Op::Delete(self.handle_key())
        } else {
            Op::Update(Record::Handle(lowered))
        }])
    }

    fn go_to(&mut self, place: Place) -> Step<Assigned> {
        match place {
            Place::Do(ops) if self.has_entered => Step::Act(ops),
            Place::Do(inside) => {
                self.has_entered = true;
                Step::Enter { before: Vec::new(), inside }
            }
            Place::Take(cidr) => self.take(cidr),
            Place::Held(assigned) => Step::Done(assigned),
            Place::Nowhere(failure) => {
                self.failure = Some(failure.clone());
                self.undo(failure)
            }
        }
    }

    /// Takes note of what a write that was done has counted.
    fn note_counts(&mut self, op: &Op) {
        let (Op::Create(Record::Handle(written)) | Op::Update(Record::Handle(written))) = op else {
            return;
        };
        self.has_written_handle = true;
        let before = self.view.handle(&written.id);
        for (cidr, count) in &written.blocks {
            let counted = before.and_then(|handle| handle.blocks.get(cidr)).copied().unwrap_or(0);
            if counted < *count && counted == self.held_count(*cidr) {
                self.raised.insert(*cidr);
            }
        }
    }

    fn note_refusal(&mut self, op: &Op, outcome: &Outcome) {
        let (Op::Create(record) | Op::Update(record)) = op else { return };
        match record {
            Record::Handle(_) => self.must_read_handle = true,
            // Whoever releases this handle may have written the block to keep
            // us from it, so the handle is looked at again as well.
            Record::Block(block) => {
                self.must_read_handle = self.view.handle(&self.request.handle).is_some();
                if *outcome == Outcome::Lost {
                    // It may still be done: the count must not be taken back.
                    self.raised.remove(&block.cidr);
                }
            }
            Record::Affinity(_) => {}
        }
    }
}

impl Machine for Assignment {
    type Output = Assigned;

    fn next(&mut self) -> Step<Assigned> {
        if self.refused_writes > MAX_REFUSED {
            return Step::Failed(Failure::Contention { attempts: self.refused_writes });
        }
        self.conclude_survey();
        if self.must_read_handle {
            return Step::Act(vec![Op::Read(self.handle_key())]);
        }
        if let Some(step) = self.inherited() {
            return step;
        }
        if let Some(failure) = self.failure.clone() {
            return self.undo(failure);
        }
        let place = self.place();
        self.go_to(place)
    }

    fn feed(&mut self, op: Op, outcome: Outcome) {
        let is_write = matches!(op, Op::Create(_) | Op::Update(_) | Op::Delete(_));
        if is_write && outcome != Outcome::Written {
            self.refused_writes = self.refused_writes.saturating_add(1);
            self.note_refusal(&op, &outcome);
        } else if is_write {
            self.note_counts(&op);
        }
        self.note_claim(&op, &outcome);
        self.note_proof(&op, &outcome);
        let is_handle_read = matches!(&op, Op::Read(Key::Handle(_)));
        if is_handle_read {
            self.must_read_handle = false;
        }
        self.view.feed(op, outcome);
    }

    fn is_critical(&self) -> bool {
        self.has_entered && self.failure.is_none()
    }
}
