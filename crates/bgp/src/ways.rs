//! Which interface leads to a next hop, for rules that ask for it (`interface` of Calico's filters).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::net::{Cidr, Family, IfName};

/// The interfaces by the ranges that they lead to; the longest one counts.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Ways {
    by_range: BTreeMap<Cidr, IfName>,
    lengths: BTreeSet<(Family, u8)>,
}

impl Ways {
    /// Returns the interface that leads to `addr`.
    pub(crate) fn interface(&self, addr: IpAddr) -> Option<&IfName> {
        let family = Family::of(addr);
        let lengths = self.lengths.range((family, 0)..=(family, family.bits())).rev();
        let mut found =
            lengths.filter_map(|(_, len)| self.by_range.get(&Cidr::containing(addr, *len).ok()?));
        found.next()
    }
}

impl From<BTreeMap<Cidr, IfName>> for Ways {
    fn from(by_range: BTreeMap<Cidr, IfName>) -> Self {
        let lengths = by_range.keys().map(|cidr| (cidr.family(), cidr.prefix_len())).collect();
        Self { by_range, lengths }
    }
}

/// Is `text` as `pattern` says? `*` stands for any text, `?` for any one character.
pub(crate) fn fits(pattern: &str, text: &str) -> bool {
    let mut chars = pattern.chars();
    match chars.next() {
        None => text.is_empty(),
        Some('*') => {
            let rest = chars.as_str();
            let mut tails = text.char_indices().map(|(at, _)| text.get(at..).unwrap_or_default());
            fits(rest, "") || tails.any(|tail| fits(rest, tail))
        }
        Some(wanted) => {
            let mut others = text.chars();
            let is_same = others.next().is_some_and(|other| wanted == '?' || wanted == other);
            is_same && fits(chars.as_str(), others.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_names() {
        for (pattern, text, expected) in [
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("eth*", "eth01", true),
            ("*.calico", "vxlan.calico", true),
            ("*.cali", "vxlan.calico", false),
            ("*", "", true),
            ("e?h0", "eth0", true),
            ("?", "", false),
            ("*a*b", "xaxxb", true),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn the_longest_range_says_the_interface() {
        let ways = [("0.0.0.0/0", "eth0"), ("10.1.0.0/16", "eth1"), ("fe80:7::/32", "eth2")];
        let ways = ways.map(|(cidr, name)| (cidr.parse().unwrap(), name.parse().unwrap()));
        let ways = Ways::from(BTreeMap::<Cidr, IfName>::from(ways));
        let interface = |addr: &str| ways.interface(addr.parse().unwrap()).map(IfName::as_str);
        assert_eq!(interface("10.1.2.3"), Some("eth1"));
        assert_eq!(interface("192.0.2.1"), Some("eth0"));
        assert_eq!(interface("fe80:7::1"), Some("eth2"));
        assert_eq!(interface("fd00::1"), None);
    }
}
