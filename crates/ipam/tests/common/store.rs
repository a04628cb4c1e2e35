//! A store with compare-and-swap, which checks itself after every write.

use std::collections::BTreeMap;

use ipam::{Key, Op, Outcome, Record, slots};
use model::block::{Affinity, Block};

/// The objects with their revisions.
#[derive(Default)]
pub(crate) struct Store {
    objects: BTreeMap<Key, (u64, Record)>,
    revision: u64,
}

/// What one client was last told of the revision of each object.
pub(crate) type Revisions = BTreeMap<Key, u64>;

impl Store {
    /// Carries out `op` for a client that knows `revisions`.
    pub(crate) fn apply(&mut self, op: &Op, revisions: &mut Revisions) -> Outcome {
        match op {
            Op::Read(key) => match self.objects.get(key) {
                Some((revision, record)) => {
                    revisions.insert(key.clone(), *revision);
                    Outcome::Found(record.clone())
                }
                None => Outcome::Absent,
            },
            Op::ListBlocks => {
                let (keys, blocks): (Vec<_>, Vec<_>) = self.blocks_with_revision().unzip();
                revisions.extend(keys);
                Outcome::Blocks(blocks)
            }
            Op::ListAffinities => {
                let (keys, affinities): (Vec<_>, Vec<_>) = self.affinities_with_revision().unzip();
                revisions.extend(keys);
                Outcome::Affinities(affinities)
            }
            Op::Create(record) if self.objects.contains_key(&record.key()) => {
                Outcome::AlreadyExists
            }
            Op::Create(record) => self.put(record, revisions),
            Op::Update(record) => match self.objects.get(&record.key()) {
                None => Outcome::Absent,
                Some((revision, _)) if revisions.get(&record.key()) != Some(revision) => {
                    Outcome::Conflict
                }
                Some(_) => self.put(record, revisions),
            },
            Op::Delete(key) => match self.objects.get(key) {
                None => Outcome::Absent,
                Some((revision, _)) if revisions.get(key) != Some(revision) => Outcome::Conflict,
                Some(_) => {
                    self.objects.remove(key);
                    self.check();
                    Outcome::Written
                }
            },
        }
    }

    /// Puts an object there, as a crash or another program left it.
    pub(crate) fn insert(&mut self, record: Record) {
        self.revision += 1;
        self.objects.insert(record.key(), (self.revision, record));
    }

    fn put(&mut self, record: &Record, revisions: &mut Revisions) -> Outcome {
        // As the real one: a write that changes nothing makes no revision.
        let is_same = self.objects.get(&record.key()).is_some_and(|(_, old)| old == record);
        if !is_same {
            self.revision += 1;
            self.objects.insert(record.key(), (self.revision, record.clone()));
        }
        revisions.insert(record.key(), self.objects[&record.key()].0);
        if matches!(record, Record::Block(_)) {
            self.check();
        }
        Outcome::Written
    }

    pub(crate) fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.objects.values().filter_map(|(_, record)| match record {
            Record::Block(block) => Some(block),
            Record::Affinity(_) | Record::Handle(_) => None,
        })
    }

    fn blocks_with_revision(&self) -> impl Iterator<Item = ((Key, u64), Block)> {
        self.objects.iter().filter_map(|(key, (revision, record))| match record {
            Record::Block(block) => Some(((key.clone(), *revision), block.clone())),
            Record::Affinity(_) | Record::Handle(_) => None,
        })
    }

    fn affinities_with_revision(&self) -> impl Iterator<Item = ((Key, u64), Affinity)> {
        self.objects.iter().filter_map(|(key, (revision, record))| match record {
            Record::Affinity(one) => Some(((key.clone(), *revision), one.clone())),
            Record::Block(_) | Record::Handle(_) => None,
        })
    }

    /// No address may be taken twice, in one block or in two; each block is sound.
    fn check(&self) {
        let mut taken = BTreeMap::new();
        for block in self.blocks() {
            check_block(block);
            for (ordinal, slot) in (0_u32..).zip(&block.allocations) {
                let Some(slot) = slot else { continue };
                let addr = slots::address(block, ordinal).unwrap();
                let holder = &block.attributes[*slot];
                if holder.released_at.is_none()
                    && let Some(other) = taken.insert(addr, (block.cidr, holder.handle.clone()))
                {
                    panic!(
                        "{addr} of {} is taken by {:?} and {other:?}",
                        block.cidr, holder.handle
                    );
                }
            }
        }
    }

    /// Every address that is held must be counted by its handle.
    pub(crate) fn check_handles_lead_to_addresses(&self) {
        for block in self.blocks() {
            for id in block.attributes.iter().filter_map(|one| one.handle.as_ref()) {
                let held = slots::held_by(block, id).len();
                let Some((_, Record::Handle(handle))) = self.objects.get(&Key::Handle(id.clone()))
                else {
                    panic!("{id} holds {held} addresses in {} and has no handle", block.cidr);
                };
                let counted = handle.blocks.get(&block.cidr).copied().unwrap_or(0);
                assert!(
                    usize::try_from(counted).unwrap() >= held,
                    "{id} counts {counted} and holds {held} addresses in {}",
                    block.cidr
                );
            }
        }
    }

    /// Returns all objects, of every kind.
    pub(crate) fn records(&self) -> impl Iterator<Item = (u64, &Record)> {
        self.objects.values().map(|(revision, record)| (*revision, record))
    }

    /// Takes an object away, as a repair does that nobody gets in the way of.
    pub(crate) fn remove(&mut self, key: &Key) {
        self.objects.remove(key);
    }

    pub(crate) fn handle_count(&self) -> usize {
        self.objects.keys().filter(|key| matches!(key, Key::Handle(_))).count()
    }
}

/// The invariants of a block by itself.
pub(crate) fn check_block(block: &Block) {
    let free: Vec<u32> = (0_u32..)
        .zip(&block.allocations)
        .filter(|(_, slot)| slot.is_none())
        .map(|(ordinal, _)| ordinal)
        .collect();
    let mut listed = block.unallocated.clone();
    listed.sort_unstable();
    assert_eq!(listed, free, "unallocated is not what is free");
    for index in 0..block.attributes.len() {
        assert!(block.allocations.contains(&Some(index)), "attribute {index} is unused");
        assert!(
            !block.attributes[..index].contains(&block.attributes[index]),
            "attribute {index} is a duplicate"
        );
    }
    for slot in block.allocations.iter().flatten() {
        assert!(*slot < block.attributes.len(), "allocation of an unknown attribute");
    }
    for ordinal in block.allocated_at.keys() {
        assert!(
            block.allocations[usize::try_from(*ordinal).unwrap()].is_some(),
            "sequence number of a free address"
        );
    }
}
