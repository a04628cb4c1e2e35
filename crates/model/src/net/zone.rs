//! Link-local addresses with the link that they are on (RFC 4007 §6).
//!
//! `fe80::1` means another neighbour on every link. Where addresses are compared, sorted and
//! kept, the link's number stands in the second group, `fe80:5::1`, which RFC 4291 §2.5.6 wants
//! to be zero on the wire. Sockets, routes and messages get the plain address and the number.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::IfIndex;

/// Where the link's number stands, in bits from the right.
const SHIFT: u32 = 96;
/// The bits of the number.
const MASK: u128 = 0xffff << SHIFT;
/// The bits that are zero in every link-local address that a link gives itself.
const ZERO: u128 = ((1 << 54) - 1) << 64;

/// Returns `addr` on the link `index`; `None` if `addr` is not link-local, or the number is none
/// that fits.
#[must_use]
pub fn on_link(addr: Ipv6Addr, index: IfIndex) -> Option<IpAddr> {
    let is_plain = addr.is_unicast_link_local() && addr.to_bits() & ZERO == 0;
    let index = u16::try_from(index.0).ok().filter(|index| *index != 0 && is_plain)?;
    Some(Ipv6Addr::from_bits(addr.to_bits() | u128::from(index) << SHIFT).into())
}

/// Returns the address as it is on the wire, and the link that it is on if it names one.
#[must_use]
pub fn split(addr: IpAddr) -> (IpAddr, Option<IfIndex>) {
    let IpAddr::V6(v6) = addr else { return (addr, None) };
    let number = u32::try_from((v6.to_bits() & MASK) >> SHIFT).unwrap_or_default();
    if !v6.is_unicast_link_local() || number == 0 {
        return (addr, None);
    }
    (Ipv6Addr::from_bits(v6.to_bits() & !MASK).into(), Some(IfIndex(number)))
}

/// Returns the link that an address names.
#[must_use]
pub fn of(addr: IpAddr) -> Option<IfIndex> {
    split(addr).1
}

/// Is it link-local, with a link or without?
#[must_use]
pub fn is_link_local(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local())
}

/// Returns the socket address with the link as the kernel wants it.
#[must_use]
pub fn to_socket(addr: SocketAddr) -> SocketAddr {
    match split(addr.ip()) {
        (IpAddr::V6(plain), Some(IfIndex(index))) => {
            SocketAddrV6::new(plain, addr.port(), 0, index).into()
        }
        _ => addr,
    }
}

/// Returns the address of a socket address, with the link that the kernel names.
#[must_use]
pub fn of_socket(addr: SocketAddr) -> IpAddr {
    let SocketAddr::V6(v6) = addr else { return addr.ip() };
    on_link(*v6.ip(), IfIndex(v6.scope_id())).unwrap_or(addr.ip())
}

/// Returns the address as people write it: `fe80::1%5`.
#[must_use]
pub fn to_text(addr: IpAddr) -> String {
    match split(addr) {
        (plain, Some(IfIndex(index))) => format!("{plain}%{index}"),
        (plain, None) => plain.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_its_link_go_together_and_come_apart() {
        let plain: Ipv6Addr = "fe80::a00:27ff:fe00:1".parse().unwrap();
        let zoned = on_link(plain, IfIndex(5)).unwrap();
        assert_eq!(zoned.to_string(), "fe80:5::a00:27ff:fe00:1");
        assert_eq!(split(zoned), (plain.into(), Some(IfIndex(5))));
        assert_eq!(to_text(zoned), "fe80::a00:27ff:fe00:1%5");
        let socket = to_socket(SocketAddr::new(zoned, 179));
        assert_eq!(socket.to_string(), "[fe80::a00:27ff:fe00:1%5]:179");
        assert_eq!(of_socket(socket), zoned);
    }

    #[test]
    fn other_addresses_name_no_link() {
        for text in ["192.0.2.1", "fd00:5::1", "fe80::1"] {
            let addr: IpAddr = text.parse().unwrap();
            assert_eq!(split(addr), (addr, None), "{text}");
            assert_eq!(to_text(addr), text);
        }
    }

    #[test]
    fn nobody_else_chooses_the_link() {
        for (text, index) in [("fd00::1", 5), ("fe80::1", 0), ("fe80::1", 65_536), ("fe80:7::1", 5)]
        {
            assert_eq!(on_link(text.parse().unwrap(), IfIndex(index)), None, "{text} {index}");
        }
    }
}
