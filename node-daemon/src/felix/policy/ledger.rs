//! Which policies have been heard of, as their objects were.

use std::collections::BTreeMap;

use model::id::NodeName;
use model::policy::{Heard, NodeReport, PolicyId};

use super::event::Known;

/// Which policies have been heard of.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: BTreeMap<PolicyId, Entry>,
    heard: Heard,
    faulty: usize,
    revision: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    generation: i64,
    is_faulty: bool,
}

impl Ledger {
    /// Takes note of a policy's new state, or that it is gone.
    pub(crate) fn put(&mut self, id: &PolicyId, known: Option<&Known>) {
        let new = known.map(|known| Entry {
            generation: known.generation,
            is_faulty: !known.faults.is_empty(),
        });
        let old = match new {
            Some(new) => self.entries.insert(id.clone(), new),
            None => self.entries.remove(id),
        };
        if let Some(old) = old {
            self.heard.toggle(id, old.generation);
            self.faulty = self.faulty.saturating_sub(usize::from(old.is_faulty));
        }
        if let Some(new) = new {
            self.heard.toggle(id, new.generation);
            self.faulty = self.faulty.saturating_add(usize::from(new.is_faulty));
        }
        self.changed();
    }

    /// Takes note that what is enforced has changed.
    pub(crate) const fn changed(&mut self) {
        self.revision = self.revision.wrapping_add(1);
    }

    /// Returns a number that is another one after every change.
    pub(crate) const fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns how many policies could not be read as a whole.
    pub(crate) const fn faulty(&self) -> usize {
        self.faulty
    }

    /// Returns what to report if the kernel enforces all that has been heard of, these policies.
    pub(crate) fn report<'a>(
        &self,
        node: NodeName,
        enforced: impl Iterator<Item = &'a PolicyId>,
    ) -> NodeReport {
        let generation = |id: &PolicyId| Some((id.clone(), self.entries.get(id)?.generation));
        NodeReport {
            node,
            heard: self.heard,
            programmed: enforced.filter_map(generation).collect(),
            failure: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use api::Reading;

    use super::*;

    fn known(id: &PolicyId, generation: i64, faults: &[&str]) -> Known {
        let reading = Reading::unreadable(id.clone(), String::new());
        let faults = faults.iter().map(|fault| (*fault).to_owned()).collect();
        Known { policy: Arc::new(reading.policy), generation, faults }
    }

    #[test]
    fn the_digest_is_of_what_is_there_now() {
        let ids: [PolicyId; 2] = ["gnp/a", "np/shop/b"].map(|id| id.parse().unwrap());
        let mut ledger = Ledger::default();
        ledger.put(&ids[0], Some(&known(&ids[0], 1, &["wrong"])));
        ledger.put(&ids[1], Some(&known(&ids[1], 1, &[])));
        assert_eq!(ledger.faulty(), 1);
        ledger.put(&ids[0], Some(&known(&ids[0], 2, &[])));
        ledger.put(&ids[1], None);
        assert_eq!(ledger.faulty(), 0);
        let report = ledger.report("node-1".parse().unwrap(), ids.iter());
        assert_eq!(report.programmed, [(ids[0].clone(), 2)].into());
        assert_eq!(report.heard, [(&ids[0], 2)].into_iter().collect());
    }
}
