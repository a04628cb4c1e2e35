//! Prefixes (RFC 4632) and interface addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::IpNetwork;

use super::Family;

/// A network: an address without host bits, and the length of its prefix.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Cidr(IpNetwork);

/// Text or numbers that make no [`Cidr`] or [`InterfaceAddr`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidCidr {
    /// The text has no `address/length` form, or the length is out of range.
    #[error("`{0}` is no CIDR: use ADDRESS/LENGTH such as 10.244.0.0/16 or fd00::/48")]
    Syntax(String),
    /// The address has bits set behind the prefix.
    #[error("`{text}` has host bits set: use {masked}")]
    HostBits {
        /// What was given.
        text: String,
        /// The network it lies in.
        masked: Cidr,
    },
}

impl Cidr {
    /// Returns the network of `len` bits that `addr` lies in.
    ///
    /// # Errors
    ///
    /// [`InvalidCidr::Syntax`] if `len` is longer than the address.
    pub fn containing(addr: IpAddr, len: u8) -> Result<Self, InvalidCidr> {
        IpNetwork::new(addr, len)
            .and_then(|net| IpNetwork::new(net.network(), len))
            .map(Self)
            .map_err(|_| InvalidCidr::Syntax(format!("{addr}/{len}")))
    }

    /// Returns the network that holds only `addr`: a /32 or a /128.
    #[must_use]
    pub fn host(addr: IpAddr) -> Self {
        Self(IpNetwork::from(addr))
    }

    /// Returns the first address.
    #[must_use]
    pub fn addr(&self) -> IpAddr {
        self.0.ip()
    }

    /// Returns the length of the prefix, in bits.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        self.0.prefix()
    }

    /// Returns the address family.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.addr())
    }

    /// Is this the network of a single address?
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.prefix_len() == self.family().bits()
    }

    /// Does `addr` lie in this network?
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.0.contains(addr)
    }

    /// Does all of `other` lie in this network?
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.prefix_len() <= other.prefix_len() && self.contains(other.addr())
    }

    /// Do the two networks share an address?
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// Returns the number of addresses, `u128::MAX` for all of IPv6.
    #[must_use]
    pub fn size(&self) -> u128 {
        let host_bits = u32::from(self.family().bits().saturating_sub(self.prefix_len()));
        1_u128.checked_shl(host_bits).unwrap_or(u128::MAX)
    }

    /// Returns the address `ordinal` places after the first, if it is inside.
    #[must_use]
    pub fn nth(&self, ordinal: u128) -> Option<IpAddr> {
        if ordinal >= self.size() {
            return None;
        }
        match self.addr() {
            IpAddr::V4(first) => {
                let bits = u32::from(first).checked_add(u32::try_from(ordinal).ok()?)?;
                Some(Ipv4Addr::from(bits).into())
            }
            IpAddr::V6(first) => {
                Some(Ipv6Addr::from(u128::from(first).checked_add(ordinal)?).into())
            }
        }
    }

    /// Returns how many places `addr` is after the first, if it is inside.
    #[must_use]
    pub fn ordinal_of(&self, addr: IpAddr) -> Option<u128> {
        if !self.contains(addr) {
            return None;
        }
        match (self.addr(), addr) {
            (IpAddr::V4(first), IpAddr::V4(addr)) => {
                u32::from(addr).checked_sub(u32::from(first)).map(u128::from)
            }
            (IpAddr::V6(first), IpAddr::V6(addr)) => u128::from(addr).checked_sub(first.into()),
            _ => None,
        }
    }

    /// Returns the text that names this network in a Kubernetes object's name:
    /// `10.244.1.64/26` is `10-244-1-64-26`, `fd00:10::40/122` is `fd00-10--40-122`.
    #[must_use]
    pub fn object_name(&self) -> String {
        self.to_string().replace(['.', ':', '/'], "-")
    }
}

impl FromStr for Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Self, InvalidCidr> {
        let given: InterfaceAddr = text.parse()?;
        let masked = given.network();
        if masked.addr() == given.addr() {
            Ok(masked)
        } else {
            Err(InvalidCidr::HostBits { text: text.to_owned(), masked })
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An address on an interface together with the length of its network's prefix:
/// `10.0.0.1/24`. Unlike a [`Cidr`] it keeps the host bits.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct InterfaceAddr(IpNetwork);

impl InterfaceAddr {
    /// Makes an interface address of `addr` in a network of `len` bits.
    ///
    /// # Errors
    ///
    /// [`InvalidCidr::Syntax`] if `len` is longer than the address.
    pub fn new(addr: IpAddr, len: u8) -> Result<Self, InvalidCidr> {
        IpNetwork::new(addr, len)
            .map(Self)
            .map_err(|_| InvalidCidr::Syntax(format!("{addr}/{len}")))
    }

    /// Returns the address.
    #[must_use]
    pub fn addr(&self) -> IpAddr {
        self.0.ip()
    }

    /// Returns the length of the network's prefix, in bits.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        self.0.prefix()
    }

    /// Returns the network that the address lies in.
    #[must_use]
    pub fn network(&self) -> Cidr {
        // The length has been checked, so masking cannot fail; a host network is as true.
        Cidr::containing(self.addr(), self.prefix_len()).unwrap_or(Cidr::host(self.addr()))
    }
}

impl FromStr for InterfaceAddr {
    type Err = InvalidCidr;

    /// Parses `ADDRESS/LENGTH`; a bare address is refused, since its network is unknown.
    fn from_str(text: &str) -> Result<Self, InvalidCidr> {
        let invalid = || InvalidCidr::Syntax(text.to_owned());
        let (addr, len) = text.split_once('/').ok_or_else(invalid)?;
        if len.len() > 3 || !len.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid());
        }
        let addr: IpAddr = addr.parse().map_err(|_| invalid())?;
        Self::new(addr, len.parse().map_err(|_| invalid())?).map_err(|_| invalid())
    }
}

impl fmt::Display for InterfaceAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for InterfaceAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_host_bits_and_says_what_to_write() {
        let error = "10.244.0.1/16".parse::<Cidr>().unwrap_err();
        assert_eq!(error.to_string(), "`10.244.0.1/16` has host bits set: use 10.244.0.0/16");
    }

    #[test]
    fn refuses_what_is_no_cidr() {
        for wrong in
            ["", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "::/129", "/8", "a/8", "1.2.3.4/+8"]
        {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_networks_as_the_datastore_does() {
        let name = |text: &str| text.parse::<Cidr>().unwrap().object_name();
        assert_eq!(name("10.244.1.64/26"), "10-244-1-64-26");
        assert_eq!(name("fd00:10::40/122"), "fd00-10--40-122");
    }

    #[test]
    fn sizes_reach_the_whole_of_both_families() {
        assert_eq!("0.0.0.0/0".parse::<Cidr>().unwrap().size(), 1 << 32);
        assert_eq!("::/0".parse::<Cidr>().unwrap().size(), u128::MAX);
        assert_eq!("10.0.0.0/32".parse::<Cidr>().unwrap().size(), 1);
    }

    proptest! {
        #[test]
        fn ordinal_and_address_are_inverse(bits: u32, len in 0_u8..=32, ordinal: u32) {
            let cidr = Cidr::containing(Ipv4Addr::from(bits).into(), len).unwrap();
            let ordinal = u128::from(ordinal) % cidr.size();
            let addr = cidr.nth(ordinal).unwrap();
            prop_assert!(cidr.contains(addr));
            prop_assert_eq!(cidr.ordinal_of(addr), Some(ordinal));
        }

        #[test]
        fn text_round_trips(bits: u128, len in 0_u8..=128) {
            let cidr = Cidr::containing(Ipv6Addr::from(bits).into(), len).unwrap();
            prop_assert_eq!(cidr.to_string().parse::<Cidr>(), Ok(cidr));
        }
    }
}
