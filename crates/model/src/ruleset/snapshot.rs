//! What the kernel was found to hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sha2::{Digest, Sha256};

use super::{Base, ChainName, Element, ElementKind, Rule, Ruleset, SetName, Tables};
use crate::net::Family;

/// Changes when rules of one text are written to the kernel in another way.
const ENCODING: u8 = 1;

/// The identity of a rule: the same for the same rule on every run, so that what
/// the kernel holds can be compared without being understood.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RuleId([u8; 12]);

/// Our tables in the kernel at one time.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Snapshot {
    /// The kernel's count of changes then.
    pub generation: u32,
    /// The tables that are there.
    pub tables: BTreeMap<Family, TableSnapshot>,
}

/// A table in the kernel.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TableSnapshot {
    /// Has it flags, owners, objects or flow tables that we never give it?
    pub is_strange: bool,
    /// Its chains.
    pub chains: BTreeMap<ChainName, ChainSnapshot>,
    /// Its sets and maps.
    pub sets: BTreeMap<SetName, SetSnapshot>,
}

/// A chain in the kernel.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ChainSnapshot {
    /// Is it entered in a way that we never use?
    pub is_strange: bool,
    /// Where packets enter it.
    pub base: Option<Base>,
    /// Its rules; `None` are those that somebody else wrote.
    pub rules: Vec<Option<RuleId>>,
}

/// A set or a map in the kernel.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SetSnapshot {
    /// What its elements are; `None` if we never make such sets.
    pub kind: Option<ElementKind>,
    /// Has it elements that we never write?
    pub is_strange: bool,
    /// Its other elements.
    pub elements: BTreeSet<Element>,
}

impl RuleId {
    /// How many characters its text has.
    pub const TEXT_LEN: usize = 16;

    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    /// Returns the identity of `rule` in the table of `family`.
    #[must_use]
    pub fn of(rule: &Rule, family: Family) -> Self {
        let mut hash = Sha256::new();
        hash.update([ENCODING]);
        hash.update(rule.text(family));
        let mut id = [0; 12];
        for (to, from) in id.iter_mut().zip(hash.finalize()) {
            *to = from;
        }
        Self(id)
    }

    /// Reads what [`RuleId`]'s `Display` wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |c| Self::DIGITS.iter().position(|digit| *digit == c);
        let mut bits: u128 = 0;
        for c in text.bytes() {
            bits = bits << 6 | u128::try_from(digit(c)?).ok()?;
        }
        let id = *bits.to_be_bytes().last_chunk()?;
        (text.len() == Self::TEXT_LEN).then_some(Self(id))
    }
}

impl fmt::Display for RuleId {
    /// Writes it in base64url (RFC 4648 §5), as Calico does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0.iter().fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
        for place in (0..Self::TEXT_LEN).rev() {
            let digit = usize::try_from(bits >> place.saturating_mul(6) & 0x3f).unwrap_or_default();
            write!(f, "{}", char::from(Self::DIGITS.get(digit).copied().unwrap_or_default()))?;
        }
        Ok(())
    }
}

impl fmt::Debug for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Snapshot {
    /// Returns how the kernel looks that holds just `tables`.
    #[must_use]
    pub fn of(tables: &Tables, generation: u32) -> Self {
        let of =
            |(family, ruleset): (&Family, &Ruleset)| (*family, TableSnapshot::of(ruleset, *family));
        Self { generation, tables: tables.iter().map(of).collect() }
    }
}

impl TableSnapshot {
    /// Returns how a table looks that holds just `ruleset`.
    #[must_use]
    pub fn of(ruleset: &Ruleset, family: Family) -> Self {
        let chains = ruleset.chains.iter().map(|(name, chain)| {
            let rules = chain.rules.iter().map(|rule| Some(RuleId::of(rule, family))).collect();
            (name.clone(), ChainSnapshot { is_strange: false, base: chain.base, rules })
        });
        let sets = ruleset.sets.iter().map(|(name, set)| {
            let elements = set.elements.clone();
            let set = SetSnapshot { kind: Some(set.kind), is_strange: false, elements };
            (name.clone(), set)
        });
        Self { is_strange: false, chains: chains.collect(), sets: sets.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_round_trip() {
        let id = RuleId([0xfb, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 255]);
        let text = id.to_string();
        assert_eq!(text, "-wECAwQFBgcICQr_");
        assert_eq!(RuleId::parse(&text), Some(id));
        for wrong in ["", "-wECAwQFBgcICQr", "-wECAwQFBgcICQr_A", "+wECAwQFBgcICQr_"] {
            assert_eq!(RuleId::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn identities_tell_rules_apart() {
        let rule = |note: &str| Rule::default().noted(note);
        let id = RuleId::of(&rule("a"), Family::V4);
        assert_eq!(id, RuleId::of(&rule("a"), Family::V4));
        assert_ne!(id, RuleId::of(&rule("b"), Family::V4));
    }
}
