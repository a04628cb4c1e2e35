//! What a node says of the policies that it enforces.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::PolicyId;
use crate::id::NodeName;

/// What a node says of the policies that it enforces.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeReport {
    /// The node.
    pub node: NodeName,
    /// Which policies it has heard of.
    pub heard: Heard,
    /// Which state of its spec (`metadata.generation`) the kernel enforces of each policy that
    /// applies to an endpoint of the node.
    pub programmed: BTreeMap<PolicyId, i64>,
    /// Why the kernel does not hold what the node has heard of, if so.
    pub failure: Option<String>,
}

/// A digest of policies and their generations: equal where the same ones have been heard of,
/// in whatever order.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Heard(u64);

impl Heard {
    /// Takes note of a policy's generation, or forgets it again.
    pub fn toggle(&mut self, id: &PolicyId, generation: i64) {
        let hash = Sha256::digest(format!("{id}@{generation}"));
        let first = hash.iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte));
        self.0 ^= first;
    }
}

impl<'a> FromIterator<(&'a PolicyId, i64)> for Heard {
    fn from_iter<I: IntoIterator<Item = (&'a PolicyId, i64)>>(policies: I) -> Self {
        let mut heard = Self::default();
        for (id, generation) in policies {
            heard.toggle(id, generation);
        }
        heard
    }
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Text that is no digest.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is no digest of policies: use 16 hexadecimal digits")]
pub struct InvalidHeard(String);

impl FromStr for Heard {
    type Err = InvalidHeard;

    fn from_str(text: &str) -> Result<Self, InvalidHeard> {
        let bits = u64::from_str_radix(text, 16);
        bits.map(Self).map_err(|_| InvalidHeard(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> PolicyId {
        text.parse().unwrap()
    }

    #[test]
    fn who_has_heard_the_same_says_the_same() {
        let (a, b) = (id("np/shop/a"), id("gnp/b"));
        let mut one: Heard = [(&a, 1), (&b, 2)].into_iter().collect();
        let mut other = Heard::default();
        other.toggle(&b, 2);
        other.toggle(&a, 1);
        assert_eq!(one, other);
        other.toggle(&a, 1);
        other.toggle(&a, 2);
        assert_ne!(one, other);
        one.toggle(&a, 1);
        one.toggle(&a, 2);
        assert_eq!(one, other);
        assert_eq!(one.to_string().parse(), Ok(one));
        assert!("x".parse::<Heard>().is_err());
    }
}
