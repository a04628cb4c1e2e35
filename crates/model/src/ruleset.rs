//! The rules of one table of nftables as data (nft(8)).
//!
//! `render` decides what a [`Ruleset`] holds, `kernel` writes it and reads it
//! back as a [`Snapshot`], which knows rules only by their [`RuleId`]. There is
//! one table for each address family, so a ruleset never names its own.
//!
//! ```text
//!  base chain ── rules ──► chains ── rules ──► sets ── elements
//! ```

mod element;
mod rule;
mod snapshot;
mod text;
mod transaction;

pub use element::{Element, ElementKind};
pub use rule::{
    CtStates, InterfacePattern, Is, Mark, Match, Reject, Rule, Side, Statement, Verdict, Way,
};
pub use snapshot::{ChainSnapshot, RuleId, SetSnapshot, Snapshot, TableSnapshot};
pub use transaction::{Step, Transaction};

use std::collections::{BTreeMap, BTreeSet};

use crate::net::Family;

/// The name of our tables, which is also that of Calico's.
pub const TABLE: &str = "calico";

/// The name of a chain: at most 255 letters, digits and `/ - _ .`, a letter first.
pub type ChainName = String;

/// The name of a set or a map, written as a chain's.
pub type SetName = String;

/// What our tables hold; a family that is absent has no table.
pub type Tables = BTreeMap<Family, Ruleset>;

/// What one table holds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ruleset {
    /// The chains.
    pub chains: BTreeMap<ChainName, Chain>,
    /// The sets and the maps.
    pub sets: BTreeMap<SetName, Set>,
}

/// Rules that are looked at one after the other.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Chain {
    /// Where packets enter it; `None` if only other chains lead here.
    pub base: Option<Base>,
    /// The rules.
    pub rules: Vec<Rule>,
}

/// Where packets enter a chain. What reaches its end is accepted.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Base {
    /// What it may do to packets.
    pub kind: BaseKind,
    /// The place on a packet's way.
    pub hook: Hook,
    /// Smaller ones come first.
    pub priority: i32,
}

/// What a base chain may do to packets.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum BaseKind {
    /// Let them pass, or not.
    Filter,
    /// Translate addresses; sees the first packet of each connection.
    Nat,
}

/// A place on a packet's way through the machine.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Hook {
    /// It has arrived.
    Prerouting,
    /// It is for this machine.
    Input,
    /// It is for another machine.
    Forward,
    /// This machine sends it.
    Output,
    /// It leaves.
    Postrouting,
}

/// A set or a map.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Set {
    /// What its elements are.
    pub kind: ElementKind,
    /// The elements, all of that kind, no two with one key; networks do not overlap.
    pub elements: BTreeSet<Element>,
}

impl Set {
    /// Makes a set without elements.
    #[must_use]
    pub const fn empty(kind: ElementKind) -> Self {
        Self { kind, elements: BTreeSet::new() }
    }
}
