//! The difference between what a table should hold and what it holds.

use std::collections::BTreeMap;

/// Changes to one table, in the order of their keys so that runs are repeatable.
///
/// Whether deletes or upserts go first is the table's own rule: an IP set must
/// exist before a rule names it and outlive the last rule that does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan<K, V> {
    /// Keys that are there and not wanted.
    pub deletes: Vec<K>,
    /// Entries that are wanted and missing, or there with another value.
    pub upserts: Vec<(K, V)>,
}

impl<K: Ord + Clone, V: PartialEq + Clone> Plan<K, V> {
    /// Compares `desired` with `actual`; touches nothing.
    ///
    /// `actual` must hold only entries that are ours: anything else in it that
    /// is not desired will be deleted.
    #[must_use]
    pub fn between(desired: &BTreeMap<K, V>, actual: &BTreeMap<K, V>) -> Self {
        let is_new = |(key, value): &(&K, &V)| actual.get(*key) != Some(*value);
        Self {
            deletes: actual.keys().filter(|key| !desired.contains_key(*key)).cloned().collect(),
            upserts: desired
                .iter()
                .filter(is_new)
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
        }
    }

    /// Is there nothing to change?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deletes.is_empty() && self.upserts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every table with up to four keys and two values.
    fn tables() -> Vec<BTreeMap<u8, char>> {
        let mut tables = vec![BTreeMap::new()];
        for key in 0..4 {
            let with = |value| {
                move |table: &BTreeMap<u8, char>| {
                    let mut table = table.clone();
                    table.insert(key, value);
                    table
                }
            };
            let a: Vec<_> = tables.iter().map(with('a')).collect();
            let b: Vec<_> = tables.iter().map(with('b')).collect();
            tables.extend(a.into_iter().chain(b));
        }
        tables
    }

    #[test]
    fn the_plan_of_any_two_tables_leads_from_one_to_the_other() {
        let tables = tables();
        assert_eq!(tables.len(), 81);
        for desired in &tables {
            for actual in &tables {
                let plan = Plan::between(desired, actual);
                let mut after = actual.clone();
                for key in &plan.deletes {
                    assert!(after.remove(key).is_some(), "deletes only what is there");
                }
                after.extend(plan.upserts.iter().copied());
                assert_eq!(after, *desired);
                assert_eq!(plan.is_empty(), desired == actual);
            }
        }
    }
}
