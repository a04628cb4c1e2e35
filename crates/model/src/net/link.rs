//! What a link is called and carries.

use std::fmt;
use std::str::FromStr;

/// The name of a network interface, as netdevice(7) allows it: 1 to 15 bytes
/// without `/`, `:` or white space, and not `.` or `..`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct IfName(String);

/// Text that the kernel would refuse as an interface's name.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is no interface name: use 1 to 15 characters without `/`, `:` or spaces")]
pub struct InvalidIfName(pub String);

impl IfName {
    /// The most bytes that a name may have.
    pub const MAX_LEN: usize = 15;

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IfName {
    type Err = InvalidIfName;

    fn from_str(text: &str) -> Result<Self, InvalidIfName> {
        let is_odd = |c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace();
        let is_wrong = text.is_empty()
            || text.len() > Self::MAX_LEN
            || text == "."
            || text == ".."
            || text.contains(is_odd);
        if is_wrong { Err(InvalidIfName(text.to_owned())) } else { Ok(Self(text.to_owned())) }
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The kernel's number for a link, unique within its network namespace.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct IfIndex(pub u32);

/// The largest packet that a link carries, in bytes.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Mtu(pub u32);

/// An Ethernet address.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MacAddr(pub [u8; 6]);

/// Text that is no Ethernet address.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is no MAC address: use six hexadecimal bytes such as ee:ee:ee:ee:ee:ee")]
pub struct InvalidMac(pub String);

impl MacAddr {
    /// The address that the host's side of every workload's veth has, so that a
    /// workload's neighbour entry stays right wherever the workload moves.
    pub const WORKLOAD_HOST_SIDE: Self = Self([0xee; 6]);
}

impl FromStr for MacAddr {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let invalid = || InvalidMac(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let is_byte =
                |part: &&str| part.len() == 2 && part.bytes().all(|c| c.is_ascii_hexdigit());
            let part = parts.next().filter(is_byte).ok_or_else(invalid)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_some() { Err(invalid()) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if index == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_obey_the_kernel() {
        for right in ["eth0", "cali0123456789a", "vxlan.calico", "a"] {
            assert!(right.parse::<IfName>().is_ok(), "{right}");
        }
        for wrong in
            ["", ".", "..", "a/b", "a b", "a:b", "a\0b", "0123456789abcdef", "ä234567890123456"]
        {
            assert!(wrong.parse::<IfName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn mac_addresses_round_trip() {
        assert_eq!("ee:ee:ee:ee:ee:ee".parse(), Ok(MacAddr::WORKLOAD_HOST_SIDE));
        assert_eq!(MacAddr([0, 1, 2, 0xab, 4, 5]).to_string(), "00:01:02:ab:04:05");
        for wrong in [
            "",
            "ee:ee:ee:ee:ee",
            "ee:ee:ee:ee:ee:ee:ee",
            "eee:e:ee:ee:ee:ee",
            "+e:ee:ee:ee:ee:ee",
            "zz:ee:ee:ee:ee:ee",
        ] {
            assert!(wrong.parse::<MacAddr>().is_err(), "{wrong}");
        }
    }
}
