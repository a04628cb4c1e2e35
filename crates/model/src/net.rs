//! Addresses, prefixes and the names and numbers that links carry.

mod cidr;
mod link;
pub mod zone;

pub use cidr::{Cidr, InterfaceAddr, InvalidCidr};
pub use link::{IfIndex, IfName, InvalidIfName, InvalidMac, MacAddr, Mtu};

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An address family.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, IPv4 first.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Returns the family of `addr`.
    #[must_use]
    pub const fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Returns the length of an address in bits: 32 or 128.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// Returns the version number as people write it: 4 or 6.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IPv{}", self.number())
    }
}

/// An Autonomous System number of four octets (RFC 6793).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Asn(pub u32);

impl Asn {
    /// The AS of a cluster that configures none.
    pub const DEFAULT: Self = Self(64_512);
    /// What a speaker puts in a two-octet field when its AS needs four (RFC 6793 §9).
    pub const TRANS: Self = Self(23_456);
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Text that is no AS number.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is no AS number: use 1 to 4294967295, or the dotted form 1.10")]
pub struct InvalidAsn(String);

impl FromStr for Asn {
    type Err = InvalidAsn;

    /// Parses the plain and the dotted form (`asdot+`, RFC 5396); zero is refused (RFC 7607).
    fn from_str(text: &str) -> Result<Self, InvalidAsn> {
        let invalid = || InvalidAsn(text.to_owned());
        let number = match text.split_once('.') {
            None => text.parse().map_err(|_| invalid())?,
            Some((high, low)) => {
                let high: u16 = high.parse().map_err(|_| invalid())?;
                let low: u16 = low.parse().map_err(|_| invalid())?;
                u32::from(high) << 16 | u32::from(low)
            }
        };
        if number == 0 { Err(invalid()) } else { Ok(Self(number)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_numbers_parse_plain_and_dotted() {
        assert_eq!("64512".parse(), Ok(Asn(64_512)));
        assert_eq!("1.10".parse(), Ok(Asn(65_546)));
        for wrong in ["", "0", "0.0", "-1", "1.2.3", "65536.1", "4294967296", "x"] {
            assert!(wrong.parse::<Asn>().is_err(), "{wrong}");
        }
    }
}
