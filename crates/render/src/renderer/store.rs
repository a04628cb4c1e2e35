//! Tables as the sum of fragments, and what has changed in them.

use std::collections::{BTreeMap, BTreeSet};

use model::net::Family;
use model::ruleset::{
    Chain, ChainName, ChainSnapshot, Element, ElementKind, RuleId, Ruleset, Set, SetName,
    SetSnapshot, TableSnapshot, Tables,
};

use crate::fragment::Fragment;

/// How many fragments add each chain or each set.
type Counts = BTreeMap<(Family, String), usize>;

/// Tables as the sum of fragments.
#[derive(Clone, Debug)]
pub(super) struct Store {
    tables: Tables,
    chains: Counts,
    sets: Counts,
    changes: BTreeMap<Family, Changes>,
}

/// What was, where something has changed since; `None` was not there.
#[derive(Clone, Debug, Default)]
struct Changes {
    chains: BTreeMap<ChainName, Option<Chain>>,
    sets: BTreeMap<SetName, Option<ElementKind>>,
    /// Was an element there?
    elements: BTreeMap<SetName, BTreeMap<Element, bool>>,
}

impl Store {
    pub(super) const fn new(tables: Tables) -> Self {
        Self { tables, chains: Counts::new(), sets: Counts::new(), changes: BTreeMap::new() }
    }

    pub(super) const fn tables(&self) -> &Tables {
        &self.tables
    }

    pub(super) fn into_tables(self) -> Tables {
        self.tables
    }

    /// Puts the fragment `after` in the place of `before`, which was put so earlier.
    pub(super) fn replace(&mut self, before: Fragment, mut after: Fragment) {
        for ((family, name), old) in before.sets {
            match after.sets.remove(&(family, name.clone())) {
                Some(new) => self.replace_elements(family, &name, &old.elements, &new.elements),
                None => self.release_set(family, name),
            }
        }
        for ((family, name), old) in before.chains {
            match after.chains.remove(&(family, name.clone())) {
                Some(new) if new == old => {}
                Some(new) => self.put_chain(family, name, Some(new)),
                None => self.release_chain(family, name),
            }
        }
        for (family, set, element) in before.elements.difference(&after.elements) {
            self.remove_element(*family, set, element.clone());
        }
        for ((family, name), set) in after.sets {
            if count_up(&mut self.sets, family, &name) {
                self.put_set(family, name, Some(set));
            }
        }
        for ((family, name), chain) in after.chains {
            if count_up(&mut self.chains, family, &name) {
                self.put_chain(family, name, Some(chain));
            }
        }
        for (family, set, element) in after.elements.difference(&before.elements) {
            self.add_element(*family, set, element.clone());
        }
    }

    fn replace_elements(
        &mut self,
        family: Family,
        set: &str,
        before: &BTreeSet<Element>,
        after: &BTreeSet<Element>,
    ) {
        for element in before.difference(after) {
            self.remove_element(family, set, element.clone());
        }
        for element in after.difference(before) {
            self.add_element(family, set, element.clone());
        }
    }

    fn release_set(&mut self, family: Family, name: SetName) {
        if count_down(&mut self.sets, family, &name) {
            self.put_set(family, name, None);
        }
    }

    fn release_chain(&mut self, family: Family, name: ChainName) {
        if count_down(&mut self.chains, family, &name) {
            self.put_chain(family, name, None);
        }
    }

    fn put_chain(&mut self, family: Family, name: ChainName, chain: Option<Chain>) {
        let chains = &mut self.tables.entry(family).or_default().chains;
        let before = match chain {
            Some(chain) => chains.insert(name.clone(), chain),
            None => chains.remove(&name),
        };
        self.changes.entry(family).or_default().chains.entry(name).or_insert(before);
    }

    fn put_set(&mut self, family: Family, name: SetName, set: Option<Set>) {
        let sets = &mut self.tables.entry(family).or_default().sets;
        let changes = self.changes.entry(family).or_default();
        let elements = changes.elements.entry(name.clone()).or_default();
        for element in set.iter().flat_map(|set| &set.elements) {
            elements.entry(element.clone()).or_insert(false);
        }
        let before = match set {
            Some(set) => sets.insert(name.clone(), set),
            None => sets.remove(&name),
        };
        let kind = before.as_ref().map(|set| set.kind);
        for element in before.into_iter().flat_map(|set| set.elements) {
            elements.entry(element).or_insert(true);
        }
        changes.sets.entry(name).or_insert(kind);
    }

    /// Puts an element into a set that is there.
    pub(super) fn add_element(&mut self, family: Family, set: &str, element: Element) {
        let Some(found) = self.set_mut(family, set) else { return };
        let is_new = found.elements.insert(element.clone());
        self.note_element(family, set, element, !is_new);
    }

    /// Takes an element out of a set that is there.
    pub(super) fn remove_element(&mut self, family: Family, set: &str, element: Element) {
        let Some(found) = self.set_mut(family, set) else { return };
        let was_there = found.elements.remove(&element);
        self.note_element(family, set, element, was_there);
    }

    fn set_mut(&mut self, family: Family, name: &str) -> Option<&mut Set> {
        self.tables.get_mut(&family)?.sets.get_mut(name)
    }

    fn note_element(&mut self, family: Family, set: &str, element: Element, was_there: bool) {
        let changes = self.changes.entry(family).or_default();
        let elements = changes.elements.entry(set.to_owned()).or_default();
        elements.entry(element).or_insert(was_there);
    }

    pub(super) fn forget_changes(&mut self) {
        self.changes.clear();
    }

    /// Returns what was, and what is now, where something has changed since the last call.
    pub(super) fn take_changes(&mut self) -> Vec<(Family, TableSnapshot, Ruleset)> {
        let nothing = Ruleset::default();
        let of = |(family, changes): (Family, Changes)| {
            let table = self.tables.get(&family).unwrap_or(&nothing);
            (family, changes.before(family, table), changes.after(table))
        };
        std::mem::take(&mut self.changes).into_iter().map(of).collect()
    }
}

impl Changes {
    fn before(&self, family: Family, table: &Ruleset) -> TableSnapshot {
        let chain = |chain: &Chain| ChainSnapshot {
            is_strange: false,
            base: chain.base,
            rules: chain.rules.iter().map(|rule| Some(RuleId::of(rule, family))).collect(),
        };
        let chains = self.chains.iter().filter_map(|(name, before)| {
            before.as_ref().map(|before| (name.clone(), chain(before)))
        });
        let sets = self.elements.iter().filter_map(|(name, elements)| {
            let now = table.sets.get(name).map(|set| set.kind);
            let kind = self.sets.get(name).copied().unwrap_or(now)?;
            let were = elements.iter().filter(|(_, was)| **was);
            let elements = were.map(|(element, _)| element.clone()).collect();
            Some((name.clone(), SetSnapshot { kind: Some(kind), is_strange: false, elements }))
        });
        TableSnapshot { is_strange: false, chains: chains.collect(), sets: sets.collect() }
    }

    fn after(&self, table: &Ruleset) -> Ruleset {
        let chains = self
            .chains
            .keys()
            .filter_map(|name| table.chains.get(name).map(|chain| (name.clone(), chain.clone())));
        let sets = self.elements.iter().filter_map(|(name, elements)| {
            let now = table.sets.get(name)?;
            let are = elements.keys().filter(|element| now.elements.contains(*element));
            Some((name.clone(), Set { kind: now.kind, elements: are.cloned().collect() }))
        });
        Ruleset { chains: chains.collect(), sets: sets.collect() }
    }
}

/// Counts one more; returns whether it is the first.
fn count_up(counts: &mut Counts, family: Family, name: &str) -> bool {
    let count = counts.entry((family, name.to_owned())).or_default();
    *count = count.saturating_add(1);
    *count == 1
}

/// Counts one less; returns whether it was the last.
fn count_down(counts: &mut Counts, family: Family, name: &str) -> bool {
    let key = (family, name.to_owned());
    let left = counts.get(&key).copied().unwrap_or_default().saturating_sub(1);
    if left == 0 {
        counts.remove(&key)
    } else {
        counts.insert(key, left)
    };
    left == 0
}
