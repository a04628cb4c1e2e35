//! Who may look for an address beside others, and who must do so alone.
//!
//! As many as the last block has room for may take addresses of it side by side. Who finds none
//! left there claims another block, and everybody who came later waits for that: else each of a
//! hundred would claim one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipam::Record;
use model::net::{Cidr, Family};
use model::vrf::VrfName;
use tokio::sync::{Mutex as Queue, OwnedMutexGuard};

use super::{Desk, Place};

/// The turns of one process.
#[derive(Debug, Default)]
pub(super) struct Turns {
    queue: Arc<Queue<()>>,
    last: Mutex<BTreeMap<(Option<VrfName>, Family), Cidr>>,
    beside: Mutex<BTreeMap<Place, usize>>,
}

/// Somebody's turn, until it is dropped.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Nobody who came later looks meanwhile.
    Alone {
        /// Nobody else has it.
        _queue: OwnedMutexGuard<()>,
    },
    /// Others do, too: there is room for all of them.
    Beside {
        /// Where.
        place: Place,
        /// Where it is given back.
        desk: Desk,
    },
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Self::Beside { place, desk } = self {
            let mut beside = locked(&desk.shared.turns.beside);
            if let Some(count) = beside.get_mut(place) {
                *count = count.saturating_sub(1);
            }
            beside.retain(|_, count| *count > 0);
        }
    }
}

impl Desk {
    /// Waits for the turn of one who wants an address of that family.
    pub(crate) async fn turn(&self, vrf: Option<&VrfName>, family: Family) -> Turn {
        let queue = Arc::clone(&self.shared.turns.queue).lock_owned().await;
        let last = self.last_block(vrf, family).map(|cidr| (vrf.cloned(), cidr));
        let Some(place) = last else { return Turn::Alone { _queue: queue } };
        let mut beside = locked(&self.shared.turns.beside);
        let taken = beside.get(&place).copied().unwrap_or(0);
        if self.room(&place) <= taken {
            return Turn::Alone { _queue: queue };
        }
        beside.insert(place.clone(), taken.saturating_add(1));
        Turn::Beside { place, desk: self.clone() }
    }

    /// Returns the block of that family that last gave an address of a VRF.
    pub(crate) fn last_block(&self, vrf: Option<&VrfName>, family: Family) -> Option<Cidr> {
        locked(&self.shared.turns.last).get(&(vrf.cloned(), family)).copied()
    }

    /// Remembers the block that gave an address.
    pub(crate) fn note_block(&self, vrf: Option<&VrfName>, block: Cidr) {
        locked(&self.shared.turns.last).insert((vrf.cloned(), block.family()), block);
    }

    /// Returns how many addresses the block still has, as far as is known.
    fn room(&self, place: &Place) -> usize {
        let blocks = self.lock();
        let record = blocks.get(place).and_then(|entry| match &entry.accepted {
            Some(record) => Some(record.clone()),
            None => entry.written.record().ok(),
        });
        match record {
            Some(Record::Block(block)) => block.unallocated.len(),
            Some(_) | None => 0,
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
