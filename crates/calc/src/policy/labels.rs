//! The labels by which policies find things: own ones, and those inherited from profiles.
//!
//! An own label wins over an inherited one, and an earlier profile's over a
//! later one's.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::Labels;
use model::network_set::NetworkSet;
use selector::Labelled;

/// Returns the own labels that count.
///
/// Differs from Calico: labels of pods and namespaced network sets that start
/// with `pcns.` or `pcsa.` do not, so that nobody can pretend to be in another
/// namespace or of another service account.
pub(super) fn own(
    labels: &Labels,
    is_namespaced: bool,
) -> impl Iterator<Item = (&String, &String)> {
    labels.iter().filter(move |(name, _)| {
        !is_namespaced || !(name.starts_with("pcns.") || name.starts_with("pcsa."))
    })
}

/// Returns the profile that a network set inherits labels from: its namespace's.
pub(super) fn profile_of(set: &NetworkSet) -> Option<String> {
    set.namespace.as_ref().map(|namespace| format!("kns.{namespace}"))
}

/// A label's name and value.
pub(super) type Pair = (Arc<str>, Arc<str>);

/// Labels with sorted names, shared by whoever has the same.
pub(super) type Pairs = Arc<[Pair]>;

/// The labels of one thing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct LabelSet {
    pub(super) own: Pairs,
    /// Those of its profiles, first one first.
    pub(super) inherited: Box<[Pairs]>,
}

impl LabelSet {
    /// Returns all labels that count, in no order.
    pub(super) fn pairs(&self) -> impl Iterator<Item = &Pair> {
        let inherited = self.inherited.iter().enumerate().flat_map(move |(index, pairs)| {
            let earlier = self.inherited.iter().take(index);
            pairs.iter().filter(move |(name, _)| {
                find(&self.own, name).is_none()
                    && earlier.clone().all(|pairs| find(pairs, name).is_none())
            })
        });
        self.own.iter().chain(inherited)
    }
}

impl Labelled for LabelSet {
    fn label(&self, name: &str) -> Option<&str> {
        let inherited = || self.inherited.iter().find_map(|pairs| find(pairs, name));
        find(&self.own, name).or_else(inherited)
    }
}

fn find<'a>(pairs: &'a [Pair], name: &str) -> Option<&'a str> {
    let index = pairs.binary_search_by(|(other, _)| (**other).cmp(name)).ok()?;
    pairs.get(index).map(|(_, value)| &**value)
}

/// One copy of every text that labels are made of.
#[derive(Debug, Default)]
pub(super) struct Texts {
    texts: BTreeSet<Arc<str>>,
    /// How many texts there may be before the unused ones are dropped.
    limit: usize,
}

impl Texts {
    /// Returns the copy of `text`.
    pub(super) fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some(text) = self.texts.get(text) {
            return Arc::clone(text);
        }
        if self.texts.len() >= self.limit {
            self.texts.retain(|text| Arc::strong_count(text) > 1);
            self.limit = self.texts.len().saturating_mul(2).max(1024);
        }
        let text: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&text));
        text
    }

    /// Returns labels, whose names come sorted, made of the copies.
    pub(super) fn pairs<'a>(
        &mut self,
        labels: impl Iterator<Item = (&'a String, &'a String)>,
    ) -> Pairs {
        labels.map(|(name, value)| (self.intern(name), self.intern(value))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn nobody_in_a_namespace_forges_inherited_labels() {
        let forged = labels(&[("pcns.team", "x"), ("pcsa.name", "x"), ("team", "y")]);
        let names = |is_namespaced| own(&forged, is_namespaced).map(|(name, _)| name.as_str());
        assert_eq!(names(true).collect::<Vec<_>>(), ["team"]);
        assert_eq!(names(false).count(), 3);
    }

    #[test]
    fn the_first_to_say_a_label_is_followed() {
        let mut texts = Texts::default();
        let mut pairs = |list: &[(&str, &str)]| texts.pairs(labels(list).iter());
        let set = LabelSet {
            own: pairs(&[("a", "own"), ("b", "own")]),
            inherited: Box::new([
                pairs(&[("b", "first"), ("c", "first")]),
                pairs(&[("a", "second"), ("c", "second"), ("d", "second")]),
            ]),
        };
        for (name, value) in
            [("a", Some("own")), ("b", Some("own")), ("c", Some("first")), ("d", Some("second"))]
        {
            assert_eq!(set.label(name), value);
        }
        assert_eq!(set.label("e"), None);
        assert_eq!(set.pairs().count(), 4);
    }

    #[test]
    fn unused_texts_are_dropped_in_time() {
        let mut texts = Texts::default();
        let kept = texts.intern("kept");
        for number in 0..10_000 {
            texts.intern(&number.to_string());
        }
        assert!(texts.texts.len() <= 2048);
        assert!(Arc::ptr_eq(&kept, &texts.intern("kept")));
    }
}
