//! Where an address comes from: own blocks, a new block, or somebody else's.

use std::collections::BTreeSet;
use std::time::Duration;

use model::block::{Affinity, AffinityState, Block, Owner};
use model::net::Cidr;
use model::pool::IpPool;

use super::guess::Guess;
use super::{Assigned, Assignment};
use crate::failure::{Limit, PoolUsage};
use crate::machine::{Key, Known, Op, Outcome, Record};
use crate::{Failure, Ranges, ranges, slots};

/// How long a block belongs to its node even though it is empty.
const RECLAIM_AFTER: Duration = Duration::from_secs(60);

/// The next move towards an address.
pub(super) enum Place {
    /// Do this first.
    Do(Vec<Op>),
    /// The block has room, or is the newest one and probably has.
    Take(Cidr),
    /// The handle holds the address already.
    Held(Assigned),
    /// There is no place.
    Nowhere(Failure),
}

/// What is known about the blocks and affinities of the whole cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Survey {
    pub(super) under_way: Option<Purpose>,
    pub(super) guess: Guess,
    pub(super) is_done: bool,
    /// Own claims since whose writing everything was listed.
    verified: BTreeSet<Cidr>,
    /// An empty block that was deleted and whose affinity is to follow.
    discarding: Option<(Owner, Cidr)>,
    /// Another owner's block that had room.
    borrowing: Option<Cidr>,
}

/// Why everything, or all claims, are listed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// To guess a place that is free.
    Guess,
    /// To find a place.
    Search,
    /// To see who else claims the addresses of an own claim.
    Verify(Cidr),
}

impl Assignment {
    /// Returns where to take an address from, or what to do to find out.
    pub(super) fn place(&mut self) -> Place {
        if let Some(addr) = self.request.addr {
            return self.place_of(addr);
        }
        if let Some(place) = self.own_block() {
            return place;
        }
        if !self.survey.is_done {
            return self.guess().unwrap_or_else(|| self.list_everything(Purpose::Search));
        }
        if let Some(place) = self.discard() {
            return place;
        }
        let limit = match self.claim() {
            Ok(place) => return place,
            Err(limit) => limit,
        };
        if let Some(place) = self.borrow() {
            return place;
        }
        Place::Nowhere(Failure::Exhausted { pools: self.usage(), reason: limit })
    }

    /// Takes note that the listing under way has been fed.
    pub(super) fn conclude_survey(&mut self) {
        let Some(purpose) = self.survey.under_way.take() else { return };
        match purpose {
            Purpose::Guess => {
                self.survey.guess = Guess::ClaimsKnown;
                return;
            }
            Purpose::Search => {}
            Purpose::Verify(cidr) => {
                self.survey.verified.insert(cidr);
            }
        }
        self.survey.is_done = true;
        let own: Vec<Cidr> = self.own_claims().map(|claim| claim.cidr).collect();
        for key in own.into_iter().map(Key::Block) {
            if matches!(self.view.get(&key), Known::Unknown) {
                self.view.remember_absent(key);
            }
        }
    }

    /// Takes note of what a write does to our picture of who claims what.
    pub(super) fn note_claim(&mut self, op: &Op, outcome: &Outcome) {
        let is_done = *outcome == Outcome::Written;
        let key = match op {
            Op::Create(record) | Op::Update(record) => record.key(),
            Op::Delete(key) => key.clone(),
            Op::Read(_) | Op::ListBlocks | Op::ListAffinities => return,
        };
        match key {
            Key::Affinity(_, cidr) => {
                self.survey.verified.remove(&cidr);
                let block = Key::Block(cidr);
                let is_new = is_done && matches!(op, Op::Create(_));
                if is_new && matches!(self.view.get(&block), Known::Unknown) {
                    self.view.remember_absent(block);
                }
            }
            Key::Block(_) => {}
            Key::Handle(_) => return,
        }
        if !is_done {
            // The object is forgotten now, so it would be missed as an obstacle.
            self.survey.verified.clear();
            let is_retry = matches!(op, Op::Update(Record::Block(_)));
            self.survey.is_done = self.survey.is_done && is_retry;
        }
    }

    /// Finds room in the blocks that this node has, and mends half-made claims.
    ///
    /// One block is tried at first, unseen; the others are read if it is full.
    fn own_block(&mut self) -> Option<Place> {
        let in_pools = |claim: &&Affinity| self.pool_of(&claim.cidr).is_some();
        let mut claims: Vec<Affinity> = self.own_claims().filter(in_pools).cloned().collect();
        claims.sort_by_key(|claim| self.age_of(&claim.cidr));
        let is_settled =
            |claim: &&Affinity| claim.state == AffinityState::Confirmed && !claim.is_deleted;
        let key = |claim: &Affinity| Key::Block(claim.cidr);
        let is_unknown = |claim: &Affinity| matches!(self.view.get(&key(claim)), Known::Unknown);
        if let Some(newest) = claims.iter().find(is_settled)
            && is_unknown(newest)
        {
            return Some(if self.has_entered {
                Place::Do(vec![Op::Read(key(newest))])
            } else {
                Place::Take(newest.cidr)
            });
        }
        let (unknown, known): (Vec<_>, Vec<_>) = claims.into_iter().partition(is_unknown);
        if let Some(place) = known.iter().find_map(|claim| self.tend(claim)) {
            return Some(place);
        }
        let reads: Vec<Op> = unknown.iter().map(|claim| Op::Read(key(claim))).collect();
        (!reads.is_empty()).then_some(Place::Do(reads))
    }

    /// Returns a number that is lower for newer claims.
    fn age_of(&self, cidr: &Cidr) -> usize {
        let rank = self.scene.newest_first.iter().position(|one| one == cidr);
        rank.map_or(0, |rank| rank.saturating_add(1))
    }

    /// Brings a claim of this node in order; `None` if it is, and its block is full.
    pub(super) fn tend(&mut self, claim: &Affinity) -> Option<Place> {
        let affinity_key = Key::Affinity(claim.owner.clone(), claim.cidr);
        let block_key = Key::Block(claim.cidr);
        if claim.is_deleted {
            return Some(Place::Do(vec![Op::Delete(affinity_key)]));
        }
        let block = match self.view.get(&block_key) {
            Known::Unknown => return Some(Place::Do(vec![Op::Read(block_key)])),
            Known::Deleted => return Some(Place::Do(vec![Op::Delete(block_key)])),
            Known::Absent => None,
            Known::Present(_) => self.view.block(claim.cidr).cloned(),
        };
        let is_foreign = |block: &Block| block.affinity.as_ref() != Some(&self.owner);
        if block.as_ref().is_some_and(is_foreign) {
            return Some(Place::Do(vec![Op::Delete(affinity_key)]));
        }
        match block {
            Some(block) if claim.state == AffinityState::Confirmed => {
                self.has_room(&block).then_some(Place::Take(claim.cidr))
            }
            block => Some(self.settle(claim, block.as_ref())),
        }
    }

    /// Takes a claim one step from pending towards confirmed, or withdraws it.
    fn settle(&mut self, claim: &Affinity, block: Option<&Block>) -> Place {
        let with = |state| Op::Update(Record::Affinity(Affinity { state, ..claim.clone() }));
        if claim.state != AffinityState::Pending {
            return Place::Do(vec![with(AffinityState::Pending)]);
        }
        if !self.survey.verified.contains(&claim.cidr) {
            return self.list_everything(Purpose::Verify(claim.cidr));
        }
        let is_overlapped = self.is_overlapped(&claim.cidr);
        Place::Do(vec![match block {
            None if is_overlapped => Op::Delete(Key::Affinity(claim.owner.clone(), claim.cidr)),
            Some(block) if is_overlapped && slots::is_empty(block, self.clock()) => {
                Op::Delete(Key::Block(claim.cidr))
            }
            Some(_) => with(AffinityState::Confirmed),
            None => match slots::fresh(claim.cidr, self.owner.clone(), self.scene.now) {
                Some(block) => Op::Create(Record::Block(block)),
                None => return Place::Nowhere(Failure::BlockTooLarge { block: claim.cidr }),
            },
        }])
    }

    /// Returns the limit that forbids this node a further block.
    pub(super) fn limit(&self) -> Option<Limit> {
        let node = self.request.node.clone();
        if !self.scene.config.auto_allocate_blocks {
            return Some(Limit::NoAutomaticBlocks { node });
        }
        let owned = self.own_claims().count();
        let limit = self.scene.config.max_blocks_per_host;
        let limit = self.request.max_blocks.map_or(limit, |max| max.min(limit));
        let is_reached = u32::try_from(owned).map_or(true, |owned| owned >= limit);
        is_reached.then_some(Limit::BlocksPerNode { node, owned, limit })
    }

    /// Claims a new block, or says which limit forbids it.
    fn claim(&mut self) -> Result<Place, Limit> {
        if let Some(limit) = self.limit() {
            return Err(limit);
        }
        let gap = self.scene.pools.iter().find_map(|pool| self.gap_in(pool));
        if let Some(cidr) = self.unclaimed().or(gap) {
            return Ok(Place::Do(vec![self.claim_of(cidr)]));
        }
        let idle = self.view.blocks().find(|block| self.is_reclaimable(block));
        if let Some((owner, cidr)) = idle.and_then(|one| Some((one.affinity.clone()?, one.cidr))) {
            self.survey.discarding = Some((owner, cidr));
            return Ok(Place::Do(vec![Op::Delete(Key::Block(cidr))]));
        }
        Err(if self.scene.config.is_strict_affinity {
            Limit::StrictAffinity { node: self.request.node.clone() }
        } else {
            Limit::PoolsFull
        })
    }

    /// Returns a block of this node that has room and no claim: its claim was lost or withdrawn.
    fn unclaimed(&self) -> Option<Cidr> {
        let mut blocks = self.view.blocks().filter(|block| {
            block.affinity.as_ref() == Some(&self.owner)
                && !block.is_deleted
                && self.pool_of(&block.cidr).is_some()
                && self.claim_on(block).is_none()
                && self.has_room(block)
        });
        blocks.next().map(|block| block.cidr)
    }

    pub(super) fn claim_of(&self, cidr: Cidr) -> Op {
        Op::Create(Record::Affinity(Affinity {
            owner: self.owner.clone(),
            cidr,
            state: AffinityState::Pending,
            is_deleted: false,
        }))
    }

    fn gap_in(&self, pool: &IpPool) -> Option<Cidr> {
        let family = self.request.family;
        let blocks = self.view.blocks().map(|block| block.cidr);
        // Claims of equal size need no room: of two, the one that creates the block wins.
        let claims = self.view.affinities().map(|claim| claim.cidr);
        let claims = claims.filter(|cidr| cidr.prefix_len() != pool.block_len);
        let taken = Ranges::of(blocks.chain(claims), family);
        ranges::first_gap(pool, &taken, &self.reserved, self.seed_in(pool))
    }

    /// Returns where to begin in `pool`; blocks of one address are too many to
    /// start at the same place every time.
    pub(super) fn seed_in(&self, pool: &IpPool) -> u64 {
        if pool.block_len == pool.family().bits() {
            self.request.seed.wrapping_add(self.scene.now.as_unsigned_nanos())
        } else {
            self.request.seed
        }
    }

    /// Gives up own empty blocks of pools that no longer select this node, and
    /// finishes the removal of a block that was reclaimed.
    fn discard(&mut self) -> Option<Place> {
        if let Some((owner, cidr)) = self.survey.discarding.clone() {
            let is_gone = matches!(self.view.get(&Key::Block(cidr)), Known::Absent);
            let affinity = Key::Affinity(owner, cidr);
            if is_gone && matches!(self.view.get(&affinity), Known::Present(_) | Known::Deleted) {
                return Some(Place::Do(vec![Op::Delete(affinity)]));
            }
            self.survey.discarding = None;
        }
        let is_unwanted = |claim: &&Affinity| self.is_unwanted(claim);
        let is_idle = |claim: &&Affinity| match self.view.block(claim.cidr) {
            Some(block) => {
                block.affinity.as_ref() == Some(&self.owner) && slots::is_empty(block, self.clock())
            }
            None => false,
        };
        let cidr = self.own_claims().filter(is_unwanted).find(is_idle)?.cidr;
        self.survey.discarding = Some((self.owner.clone(), cidr));
        Some(Place::Do(vec![Op::Delete(Key::Block(cidr))]))
    }

    pub(super) fn is_unwanted(&self, claim: &Affinity) -> bool {
        !self.scene.selected.iter().any(|pool| pool.covers(&claim.cidr))
    }

    /// Finds room in a block that is not ours.
    fn borrow(&mut self) -> Option<Place> {
        if self.scene.config.is_strict_affinity {
            return None;
        }
        if let Some(cidr) = self.survey.borrowing
            && matches!(self.view.get(&Key::Block(cidr)), Known::Unknown)
        {
            return Some(Place::Do(vec![Op::Read(Key::Block(cidr))]));
        }
        let lender = self.scene.pools.iter().find_map(|pool| {
            let turn = |block: &&Block| ranges::turn(pool, &block.cidr, self.seed_in(pool));
            let blocks = self.view.blocks().filter(|block| pool.cidr.covers(&block.cidr));
            blocks.filter(|block| self.lends(block)).min_by_key(turn)
        });
        let cidr = lender?.cidr;
        self.survey.borrowing = Some(cidr);
        Some(Place::Take(cidr))
    }

    fn lends(&self, block: &Block) -> bool {
        let is_lendable = !matches!(block.affinity, Some(Owner::Virtual(_)));
        is_lendable
            && !block.is_deleted
            && self.is_settled(block)
            && self.has_room(block)
            && !self.meets_block(&block.cidr)
    }

    /// Is the block nobody's, or its owner's by a confirmed claim?
    pub(super) fn is_settled(&self, block: &Block) -> bool {
        block.affinity.is_none()
            || self.claim_on(block).is_some_and(|claim| claim.state == AffinityState::Confirmed)
    }

    /// Returns the claim of the block's owner on it.
    pub(super) fn claim_on(&self, block: &Block) -> Option<&Affinity> {
        let owner = block.affinity.clone()?;
        match self.view.get(&Key::Affinity(owner, block.cidr)) {
            Known::Present(Record::Affinity(claim)) => Some(claim),
            Known::Unknown | Known::Absent | Known::Deleted | Known::Present(_) => None,
        }
    }

    pub(super) fn list_everything(&mut self, purpose: Purpose) -> Place {
        self.survey.under_way = Some(purpose);
        Place::Do(vec![Op::ListBlocks, Op::ListAffinities])
    }

    pub(super) fn own_claims(&self) -> impl Iterator<Item = &Affinity> {
        self.view
            .affinities()
            .filter(|claim| claim.owner == self.owner && claim.cidr.family() == self.request.family)
    }

    fn pool_of(&self, cidr: &Cidr) -> Option<&IpPool> {
        self.scene.pools.iter().find(|pool| pool.cidr.covers(cidr))
    }

    fn has_room(&self, block: &Block) -> bool {
        slots::next_free(block, &self.reserved, self.clock()).is_some()
    }

    /// Does another block, or a claim on one, share addresses with `cidr`?
    pub(super) fn is_overlapped(&self, cidr: &Cidr) -> bool {
        let meets = |claim: &Affinity| claim.cidr != *cidr && claim.cidr.overlaps(cidr);
        self.meets_block(cidr) || self.view.affinities().any(meets)
    }

    pub(super) fn meets_block(&self, cidr: &Cidr) -> bool {
        self.view.blocks().any(|block| block.cidr != *cidr && block.cidr.overlaps(cidr))
    }

    fn is_reclaimable(&self, block: &Block) -> bool {
        let limit = i128::try_from(RECLAIM_AFTER.as_nanos()).unwrap_or(i128::MAX);
        let is_old = |at: model::time::WallTime| at.0.saturating_add(limit) <= self.scene.now.0;
        let is_others =
            matches!(&block.affinity, Some(owner @ Owner::Host(_)) if *owner != self.owner);
        is_others
            && !block.is_deleted
            && block.claimed_at.is_some_and(is_old)
            && self.pool_of(&block.cidr).is_some()
            && slots::is_empty(block, self.clock())
    }

    fn usage(&self) -> Vec<PoolUsage> {
        let usage = |pool: &IpPool| {
            let inside = |block: &&Block| pool.cidr.covers(&block.cidr);
            let mut free = pool.cidr.size().saturating_sub(self.reserved.count_in(&pool.cidr));
            for block in self.view.blocks().filter(inside) {
                let unclaimed =
                    block.cidr.size().saturating_sub(self.reserved.count_in(&block.cidr));
                free = free.saturating_sub(unclaimed).saturating_add(slots::count_free(
                    block,
                    &self.reserved,
                    self.clock(),
                ));
            }
            PoolUsage { pool: pool.name.clone(), cidr: pool.cidr, free, total: pool.cidr.size() }
        };
        self.scene.pools.iter().map(usage).collect()
    }
}
