//! Where a given address comes from.

use std::net::IpAddr;

use model::block::Block;
use model::net::Cidr;

use super::place::{Place, Purpose};
use super::{Assigned, Assignment};
use crate::machine::{Key, Known, Op, Record};
use crate::{Failure, slots};

impl Assignment {
    /// Returns where a given address is taken from.
    pub(super) fn place_of(&mut self, addr: IpAddr) -> Place {
        let Some(pool) = self.scene.pools.iter().find(|pool| pool.cidr.contains(addr)) else {
            return Place::Nowhere(Failure::OutsidePools { addr });
        };
        let existing = self.view.blocks().map(|block| block.cidr).find(|cidr| cidr.contains(addr));
        let Some(cidr) = existing.or_else(|| pool.block_of(addr)) else {
            return Place::Nowhere(Failure::OutsidePools { addr });
        };
        let key = Key::Block(cidr);
        match self.view.get(&key) {
            Known::Unknown => Place::Do(vec![Op::Read(key)]),
            Known::Deleted => Place::Do(vec![Op::Delete(key)]),
            Known::Present(Record::Block(block)) => {
                let block = block.clone();
                self.place_in(&block, addr)
            }
            Known::Absent | Known::Present(_) => self.place_in_new(cidr, addr),
        }
    }

    fn place_in(&mut self, block: &Block, addr: IpAddr) -> Place {
        let ordinal = block.cidr.ordinal_of(addr).and_then(|at| u32::try_from(at).ok());
        let holder = ordinal.and_then(|ordinal| slots::holder(block, ordinal));
        if let Some(holder) = holder {
            if slots::is_handle(holder, &self.request.handle) {
                return Place::Held(Assigned { addr, block: block.cidr });
            }
            let holder = match &holder.handle {
                Some(handle) => format!("handle {handle}"),
                None => "an owner without handle".to_owned(),
            };
            return Place::Nowhere(Failure::Taken { addr, holder });
        }
        if self.allocated(block).is_none() {
            let holder = "nobody, but rests after its release".to_owned();
            return Place::Nowhere(Failure::Taken { addr, holder });
        }
        if block.affinity.as_ref() == Some(&self.owner) {
            let key = Key::Affinity(self.owner.clone(), block.cidr);
            return match self.view.get(&key) {
                Known::Unknown => Place::Do(vec![Op::Read(key)]),
                Known::Present(Record::Affinity(claim)) => {
                    let claim = claim.clone();
                    self.tend(&claim).unwrap_or(Place::Take(block.cidr))
                }
                Known::Deleted => Place::Do(vec![Op::Delete(key)]),
                Known::Absent | Known::Present(_) => Place::Do(vec![self.claim_of(block.cidr)]),
            };
        }
        if self.scene.config.is_strict_affinity {
            let owner = block.affinity.as_ref().map_or("nobody".to_owned(), ToString::to_string);
            return Place::Nowhere(Failure::NotOurs { addr, block: block.cidr, owner });
        }
        self.place_in_lent(block, addr)
    }

    /// Borrows a given address, unless its block may turn out to be nobody's.
    fn place_in_lent(&mut self, block: &Block, addr: IpAddr) -> Place {
        if !self.survey.is_done {
            return self.list_everything(Purpose::Search);
        }
        if self.meets_block(&block.cidr) {
            let is_left_over =
                slots::is_empty(block, self.clock()) && self.claim_on(block).is_none();
            return if is_left_over {
                Place::Do(vec![Op::Delete(Key::Block(block.cidr))])
            } else {
                Place::Nowhere(Failure::Overlap { addr, block: block.cidr })
            };
        }
        if self.is_settled(block) {
            return Place::Take(block.cidr);
        }
        let owner = block.affinity.as_ref().map_or("nobody".to_owned(), ToString::to_string);
        Place::Nowhere(Failure::Unsettled { addr, block: block.cidr, owner })
    }

    fn place_in_new(&mut self, cidr: Cidr, addr: IpAddr) -> Place {
        if !self.survey.is_done {
            return self.list_everything(Purpose::Search);
        }
        let own = self.own_claims().find(|claim| claim.cidr == cidr).cloned();
        match own {
            Some(claim) => self.tend(&claim).unwrap_or(Place::Take(cidr)),
            None if self.is_overlapped(&cidr) => {
                Place::Nowhere(Failure::Overlap { addr, block: cidr })
            }
            None => Place::Do(vec![self.claim_of(cidr)]),
        }
    }
}
