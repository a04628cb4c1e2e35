//! Sets of addresses that rules name.

use std::fmt;
use std::net::IpAddr;

use crate::net::Cidr;
use crate::policy::Protocol;
use crate::vrf::Zone;

/// A set's identity, the same for the same question on every node and run.
///
/// Its text is 27 characters that netfilter and ipset take in names.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SetId {
    kind: SetKind,
    digest: [u8; 16],
}

/// What a set's members answer, and so what they look like.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum SetKind {
    /// Networks of endpoints and network sets that a selector matches.
    Selected,
    /// Networks of a Service's endpoints.
    ServiceAddrs,
    /// Addresses, protocols and ports of a Service's endpoints.
    ServicePorts,
    /// Addresses, protocols and ports of endpoints that have a port of some name.
    NamedPort,
}

/// A member of a set.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum SetMember {
    /// A network, of either family.
    Net(Cidr),
    /// An address of either family, a protocol and a port.
    Port(IpAddr, Protocol, u16),
}

impl SetId {
    /// Makes the identity of a question whose text has the `digest`.
    #[must_use]
    pub const fn new(kind: SetKind, digest: [u8; 16]) -> Self {
        Self { kind, digest }
    }

    /// Returns the identity of the set that answers the same question for endpoints of `zone`.
    ///
    /// The default zone's has the question's own identity, which is what rules name. Of the set of
    /// another zone it returns the question's own identity.
    #[must_use]
    pub fn in_zone(self, zone: Zone) -> Self {
        // Digests are as good as random, so that no two questions' meet in any two zones.
        const SPREAD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
        let number = match zone {
            Zone::Default => 0,
            Zone::Vrfs(number) => u128::from(number),
            Zone::Nowhere => u128::from(u16::MAX).wrapping_add(1),
        };
        let digest = self.number() ^ SPREAD.wrapping_mul(number);
        Self { kind: self.kind, digest: digest.to_be_bytes() }
    }

    /// Returns the digest as a number.
    #[must_use]
    pub const fn number(self) -> u128 {
        u128::from_be_bytes(self.digest)
    }

    /// Returns what the members answer.
    #[must_use]
    pub const fn kind(self) -> SetKind {
        self.kind
    }
}

impl SetKind {
    /// Are the members [`SetMember::Port`]s?
    #[must_use]
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::ServicePorts | Self::NamedPort)
    }

    const fn letter(self) -> char {
        match self {
            Self::Selected => 's',
            Self::ServiceAddrs => 'a',
            Self::ServicePorts => 'v',
            Self::NamedPort => 'n',
        }
    }
}

impl fmt::Display for SetId {
    /// Writes the kind's letter and the digest in base 32 (RFC 4648 §6), in lower case.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind.letter())?;
        let bits = u128::from_be_bytes(self.digest);
        // 26 digits of 5 bits are 130: two zeros follow the digest's 128.
        for place in 0..26_u32 {
            let shift = 123_u32.checked_sub(place.saturating_mul(5));
            let digit = shift.map_or(bits << 2, |shift| bits >> shift) & 0x1f;
            let digit = u8::try_from(digit).unwrap_or_default();
            let letter = match digit.checked_sub(26) {
                None => b'a'.saturating_add(digit),
                Some(number) => b'2'.saturating_add(number),
            };
            write!(f, "{}", char::from(letter))?;
        }
        Ok(())
    }
}

impl fmt::Display for SetMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) => net.fmt(f),
            Self::Port(addr, protocol, port) => write!(f, "{addr},{protocol}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_the_digest_in_base_32() {
        // RFC 4648 §10: `foobar` is MZXW6YTBOI.
        let mut digest = [0; 16];
        digest[..6].copy_from_slice(b"foobar");
        let id = SetId::new(SetKind::Selected, digest);
        assert_eq!(id.to_string(), "smzxw6ytboiaaaaaaaaaaaaaaaa");
        let ones = SetId::new(SetKind::NamedPort, [0xff; 16]);
        assert_eq!(ones.to_string(), "n77777777777777777777777774");
    }

    #[test]
    fn every_zone_has_sets_of_its_own() {
        let id = SetId::new(SetKind::Selected, [7; 16]);
        assert_eq!(id.in_zone(Zone::Default), id);
        let others = [Zone::Vrfs(5001), Zone::Vrfs(5002), Zone::Nowhere].map(|z| id.in_zone(z));
        let all: std::collections::BTreeSet<SetId> = others.into_iter().chain([id]).collect();
        assert_eq!(all.len(), 4);
        assert!(all.iter().all(|id| id.kind() == SetKind::Selected));
        assert_eq!(id.in_zone(Zone::Vrfs(5001)).in_zone(Zone::Vrfs(5001)), id);
    }

    #[test]
    fn members_are_written_as_ipset_does() {
        let member = SetMember::Port("10.0.0.1".parse().unwrap(), Protocol::TCP, 80);
        assert_eq!(member.to_string(), "10.0.0.1,TCP:80");
    }
}
