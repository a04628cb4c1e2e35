//! What one object adds to the tables.

use std::collections::{BTreeMap, BTreeSet};

use model::net::Family;
use model::ruleset::{Base, Chain, ChainName, Element, ElementKind, Rule, Set, SetName};

/// What one object adds to the tables. Objects may add the same: a chain or a
/// set lives as long as one of them does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fragment {
    pub(crate) chains: BTreeMap<(Family, ChainName), Chain>,
    /// Sets with those of their elements that are this object's.
    pub(crate) sets: BTreeMap<(Family, SetName), Set>,
    /// Elements of another object's sets; no two objects add the same.
    pub(crate) elements: BTreeSet<(Family, SetName, Element)>,
}

/// What one object adds to the table of one family.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    pub(crate) family: Family,
    fragment: &'a mut Fragment,
}

impl Fragment {
    pub(crate) const fn part(&mut self, family: Family) -> Part<'_> {
        Part { family, fragment: self }
    }
}

impl Part<'_> {
    /// Adds a chain that other chains lead to.
    pub(crate) fn chain(&mut self, name: impl Into<String>, rules: Vec<Rule>) {
        let chain = Chain { base: None, rules };
        self.fragment.chains.insert((self.family, name.into()), chain);
    }

    /// Adds a chain that packets enter.
    pub(crate) fn base(&mut self, name: &str, base: Base, rules: Vec<Rule>) {
        let chain = Chain { base: Some(base), rules };
        self.fragment.chains.insert((self.family, name.to_owned()), chain);
    }

    /// Adds a set.
    pub(crate) fn set(
        &mut self,
        name: impl Into<String>,
        kind: ElementKind,
        elements: impl IntoIterator<Item = Element>,
    ) {
        let set = Set { kind, elements: elements.into_iter().collect() };
        self.fragment.sets.insert((self.family, name.into()), set);
    }

    /// Adds an element of another object's set.
    pub(crate) fn element(&mut self, set: impl Into<String>, element: Element) {
        self.fragment.elements.insert((self.family, set.into(), element));
    }
}
