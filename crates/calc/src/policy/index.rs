//! Which things which selectors match, kept up to date without trying all against all.
//!
//! A selector is filed under one of its [`Need`]s: a label's values, or a
//! label. A thing whose labels change is tried only by selectors that are
//! filed under labels it has, and a new selector tries only things that have
//! the labels it is filed under. Selectors without needs (`all()`, `!has(x)`)
//! try, and are tried by, all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use selector::{Labelled as _, Need, Selector};

use super::labels::{LabelSet, Pair};

/// A selector's number.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct SelectorKey(u32);

/// A thing's number.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct ItemKey(pub(super) u32);

/// Selectors, things, and who matches whom.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: BTreeMap<SelectorKey, Entry>,
    keys: BTreeMap<Arc<Selector>, SelectorKey>,
    next: u32,
    /// Selectors by what they are filed under.
    by_value: BTreeMap<Pair, Vec<SelectorKey>>,
    by_label: BTreeMap<Arc<str>, Vec<SelectorKey>>,
    others: BTreeSet<SelectorKey>,
    /// Things by the labels that they have.
    items: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Vec<ItemKey>>>,
    /// What each thing is matched by, sorted.
    matches: BTreeMap<ItemKey, Vec<SelectorKey>>,
    /// How often a selector was tried.
    tries: u64,
}

#[derive(Debug)]
struct Entry {
    selector: Arc<Selector>,
    place: Place,
    /// What it matches, sorted.
    items: Vec<ItemKey>,
}

/// What a selector is filed under.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Place {
    Values(Vec<Pair>),
    Label(Arc<str>),
    Others,
}

/// What a thing's new labels change.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Difference {
    pub(super) gained: Vec<SelectorKey>,
    pub(super) lost: Vec<SelectorKey>,
}

impl Index {
    /// Returns how often a selector was tried so far.
    pub(super) const fn tries(&self) -> u64 {
        self.tries
    }

    /// Returns how much is kept of anything.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        let selectors = self.entries.len() + self.keys.len() + self.others.len();
        let places = self.by_value.len() + self.by_label.len();
        selectors + places + self.items.len() + self.matches.len()
    }

    /// Returns the selectors that match a thing, sorted.
    pub(super) fn selectors_of(&self, item: ItemKey) -> &[SelectorKey] {
        self.matches.get(&item).map_or(&[], Vec::as_slice)
    }

    /// Returns the things that a selector matches, sorted.
    pub(super) fn items_of(&self, key: SelectorKey) -> &[ItemKey] {
        self.entries.get(&key).map_or(&[], |entry| entry.items.as_slice())
    }

    /// Adds a selector, or finds the same one, and returns its number.
    pub(super) fn add<'a>(
        &mut self,
        selector: &Selector,
        labels_of: impl Fn(ItemKey) -> Option<&'a LabelSet>,
    ) -> SelectorKey {
        if let Some(key) = self.keys.get(selector) {
            return *key;
        }
        let key = SelectorKey(self.next);
        self.next = self.next.wrapping_add(1);
        let place = self.place(selector);
        let candidates = self.candidates(&place);
        self.tries = self.tries.saturating_add(candidates.len().try_into().unwrap_or(u64::MAX));
        let is_match = |item: &ItemKey| labels_of(*item).is_some_and(|set| selector.matches(set));
        let items: Vec<ItemKey> = candidates.into_iter().filter(is_match).collect();
        for item in &items {
            insert(self.matches.entry(*item).or_default(), key);
        }
        self.file(&place, key);
        let selector = Arc::new(selector.clone());
        self.keys.insert(Arc::clone(&selector), key);
        self.entries.insert(key, Entry { selector, place, items });
        key
    }

    /// Removes a selector.
    pub(super) fn remove(&mut self, key: SelectorKey) {
        let Some(entry) = self.entries.remove(&key) else { return };
        self.keys.remove(&entry.selector);
        self.unfile(&entry.place, key);
        for item in entry.items {
            if let Some(matches) = self.matches.get_mut(&item) {
                remove(matches, &key);
            }
        }
    }

    /// Replaces a thing's labels; `None` is a thing that is not there.
    pub(super) fn update(
        &mut self,
        item: ItemKey,
        old: Option<&LabelSet>,
        new: Option<&LabelSet>,
    ) -> Difference {
        let has = |set: Option<&LabelSet>, (name, value): &&Pair| {
            set.is_some_and(|set| set.label(name) == Some(&**value))
        };
        let gone = old.into_iter().flat_map(LabelSet::pairs).filter(|pair| !has(new, pair));
        for (name, value) in gone {
            self.forget(item, name, value);
        }
        let come = new.into_iter().flat_map(LabelSet::pairs).filter(|pair| !has(old, pair));
        for (name, value) in come {
            let values = self.items.entry(Arc::clone(name)).or_default();
            insert(values.entry(Arc::clone(value)).or_default(), item);
        }
        let after = new.map(|set| self.try_all(set)).unwrap_or_default();
        let before = match new {
            Some(_) => self.matches.insert(item, after.clone()),
            None => self.matches.remove(&item),
        };
        let before = before.unwrap_or_default();
        let only = |these: &[SelectorKey], those: &[SelectorKey]| {
            let is_new = |key: &&SelectorKey| those.binary_search(key).is_err();
            these.iter().filter(is_new).copied().collect::<Vec<_>>()
        };
        let difference = Difference { gained: only(&after, &before), lost: only(&before, &after) };
        for key in &difference.gained {
            if let Some(entry) = self.entries.get_mut(key) {
                insert(&mut entry.items, item);
            }
        }
        for key in &difference.lost {
            if let Some(entry) = self.entries.get_mut(key) {
                remove(&mut entry.items, &item);
            }
        }
        difference
    }

    /// Returns the selectors that match `labels`, sorted.
    fn try_all(&mut self, labels: &LabelSet) -> Vec<SelectorKey> {
        let mut candidates: Vec<SelectorKey> = self.others.iter().copied().collect();
        for pair in labels.pairs() {
            candidates.extend(self.by_value.get(pair).into_iter().flatten().copied());
            candidates.extend(self.by_label.get(&pair.0).into_iter().flatten().copied());
        }
        self.tries = self.tries.saturating_add(candidates.len().try_into().unwrap_or(u64::MAX));
        let is_match = |key: &SelectorKey| {
            self.entries.get(key).is_some_and(|entry| entry.selector.matches(labels))
        };
        candidates.retain(is_match);
        candidates.sort_unstable();
        candidates
    }

    /// Returns the place where the fewest things and selectors are.
    fn place(&self, selector: &Selector) -> Place {
        let places = selector.needs().into_iter().map(|need| match need {
            Need::Value(name, values) => {
                let name: Arc<str> = name.into();
                Place::Values(
                    values.into_iter().map(|value| (Arc::clone(&name), value.into())).collect(),
                )
            }
            Need::Presence(name) => Place::Label(name.into()),
        });
        places.min_by_key(|place| self.crowd(place)).unwrap_or(Place::Others)
    }

    /// Returns how many things and selectors are at a place.
    fn crowd(&self, place: &Place) -> usize {
        match place {
            Place::Values(pairs) => pairs.iter().fold(0_usize, |sum, pair| {
                let items = self.items.get(&pair.0).and_then(|values| values.get(&pair.1));
                let selectors = self.by_value.get(pair).map_or(0, Vec::len);
                sum.saturating_add(items.map_or(0, Vec::len)).saturating_add(selectors)
            }),
            Place::Label(name) => {
                let items = self.items.get(name).into_iter().flat_map(BTreeMap::values);
                let items = items.fold(0_usize, |sum, items| sum.saturating_add(items.len()));
                items.saturating_add(self.by_label.get(name).map_or(0, Vec::len))
            }
            Place::Others => usize::MAX,
        }
    }

    /// Returns the things that a selector at `place` may match, sorted.
    fn candidates(&self, place: &Place) -> Vec<ItemKey> {
        let mut found: Vec<ItemKey> = match place {
            Place::Values(pairs) => {
                let of = |pair: &Pair| self.items.get(&pair.0).and_then(|all| all.get(&pair.1));
                pairs.iter().filter_map(of).flatten().copied().collect()
            }
            Place::Label(name) => self
                .items
                .get(name)
                .into_iter()
                .flat_map(BTreeMap::values)
                .flatten()
                .copied()
                .collect(),
            Place::Others => return self.matches.keys().copied().collect(),
        };
        found.sort_unstable();
        found
    }

    fn file(&mut self, place: &Place, key: SelectorKey) {
        match place {
            Place::Values(pairs) => {
                for pair in pairs {
                    self.by_value.entry(pair.clone()).or_default().push(key);
                }
            }
            Place::Label(name) => self.by_label.entry(Arc::clone(name)).or_default().push(key),
            Place::Others => {
                self.others.insert(key);
            }
        }
    }

    fn unfile(&mut self, place: &Place, key: SelectorKey) {
        match place {
            Place::Values(pairs) => {
                for pair in pairs {
                    take(&mut self.by_value, pair, key);
                }
            }
            Place::Label(name) => take(&mut self.by_label, name, key),
            Place::Others => {
                self.others.remove(&key);
            }
        }
    }

    fn forget(&mut self, item: ItemKey, name: &Arc<str>, value: &Arc<str>) {
        let Some(values) = self.items.get_mut(name) else { return };
        if let Some(items) = values.get_mut(value) {
            remove(items, &item);
            if items.is_empty() {
                values.remove(value);
            }
        }
        if values.is_empty() {
            self.items.remove(name);
        }
    }
}

/// Removes `key` from the list at `place`, and the list if nothing is left.
fn take<P: Ord>(lists: &mut BTreeMap<P, Vec<SelectorKey>>, place: &P, key: SelectorKey) {
    if let Some(list) = lists.get_mut(place) {
        list.retain(|other| *other != key);
        if list.is_empty() {
            lists.remove(place);
        }
    }
}

/// Inserts into a sorted list what is not there.
fn insert<T: Ord>(list: &mut Vec<T>, value: T) {
    if let Err(index) = list.binary_search(&value) {
        list.insert(index, value);
    }
}

/// Removes from a sorted list.
fn remove<T: Ord>(list: &mut Vec<T>, value: &T) {
    if let Ok(index) = list.binary_search(value) {
        list.remove(index);
    }
}

#[cfg(test)]
mod tests;
