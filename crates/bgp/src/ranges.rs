//! Sets of prefixes that are asked whether they cover another one.

use std::collections::BTreeSet;

use model::net::{Cidr, Family};

/// Prefixes, found by the few lengths that they have.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Ranges {
    prefixes: BTreeSet<Cidr>,
    lengths: BTreeSet<(Family, u8)>,
}

impl Ranges {
    /// Does all of `cidr` lie in one of the prefixes?
    pub(crate) fn cover(&self, cidr: &Cidr) -> bool {
        let family = cidr.family();
        self.lengths.range((family, 0)..=(family, cidr.prefix_len())).any(|(_, len)| {
            Cidr::containing(cidr.addr(), *len).is_ok_and(|range| self.prefixes.contains(&range))
        })
    }

    /// Returns the prefixes that only one of the two sets has.
    pub(crate) fn difference(&self, other: &Self) -> Self {
        self.prefixes.symmetric_difference(&other.prefixes).copied().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }
}

impl FromIterator<Cidr> for Ranges {
    fn from_iter<I: IntoIterator<Item = Cidr>>(prefixes: I) -> Self {
        let prefixes: BTreeSet<Cidr> = prefixes.into_iter().collect();
        let lengths = prefixes.iter().map(|cidr| (cidr.family(), cidr.prefix_len())).collect();
        Self { prefixes, lengths }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_covered_by_itself_and_by_wider_ones() {
        let ranges: Ranges = ["10.0.0.0/8", "192.0.2.0/25", "fd00::/48"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        for (cidr, expected) in [
            ("10.0.0.0/8", true),
            ("10.1.2.3/32", true),
            ("0.0.0.0/0", false),
            ("192.0.2.0/24", false),
            ("192.0.2.128/26", false),
            ("fd00::1/128", true),
            ("fd00:0:1::/48", false),
        ] {
            assert_eq!(ranges.cover(&cidr.parse().unwrap()), expected, "{cidr}");
        }
    }
}
