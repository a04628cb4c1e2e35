//! Changes of our tables that the kernel makes all or none of.

use std::fmt;

use super::{Base, ChainName, Element, ElementKind, Rule, SetName, TABLE, text};
use crate::net::Family;

/// Changes that the kernel makes all or none of; no packet sees a part of them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Transaction {
    /// The kernel's count of changes that these were planned for; it refuses
    /// them if anybody has changed anything since. `None` lets it not look.
    pub generation: Option<u32>,
    /// The changes, in order.
    pub steps: Vec<(Family, Step)>,
}

/// One change of a table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Makes the table if it is not there.
    CreateTable,
    /// Removes it and all that it holds.
    DeleteTable,
    /// Makes a set or a map without elements.
    CreateSet(SetName, ElementKind),
    /// Removes a set that no rule names.
    DeleteSet(SetName),
    /// Makes a chain without rules.
    CreateChain(ChainName, Option<Base>),
    /// Removes a chain without rules that nothing leads to.
    DeleteChain(ChainName),
    /// Removes all rules of a chain.
    FlushChain(ChainName),
    /// Puts a rule at a chain's end.
    Append(ChainName, Rule),
    /// Puts elements into a set; none may be there.
    Add(SetName, Vec<Element>),
    /// Removes elements of a set; all must be there.
    Remove(SetName, Vec<Element>),
}

impl Transaction {
    /// Changes it nothing?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl Step {
    /// Writes it as the command of nft(8) that does the same; of many elements only the first.
    #[must_use]
    pub fn text(&self, family: Family) -> String {
        let table = format!("{} {TABLE}", text::table_family(family));
        match self {
            Self::CreateTable => format!("add table {table}"),
            Self::DeleteTable => format!("delete table {table}"),
            Self::CreateSet(name, kind) => {
                format!("add {} {table} {name} {{ {} }}", kind.noun(), kind.text(family))
            }
            Self::DeleteSet(name) => format!("delete set {table} {name}"),
            Self::CreateChain(name, None) => format!("add chain {table} {name}"),
            Self::CreateChain(name, Some(base)) => format!("add chain {table} {name} {{ {base} }}"),
            Self::DeleteChain(name) => format!("delete chain {table} {name}"),
            Self::FlushChain(name) => format!("flush chain {table} {name}"),
            Self::Append(name, rule) => format!("add rule {table} {name} {}", rule.text(family)),
            Self::Add(name, elements) => {
                format!("add element {table} {name} {}", Elements(elements))
            }
            Self::Remove(name, elements) => {
                format!("delete element {table} {name} {}", Elements(elements))
            }
        }
    }
}

/// The first of some elements, and how many there are.
struct Elements<'a>(&'a [Element]);

impl fmt::Display for Elements<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => write!(f, "{{ }}"),
            [only] => write!(f, "{{ {only} }}"),
            [first, rest @ ..] => write!(f, "{{ {first}, … }} and {} more", rest.len()),
        }
    }
}
