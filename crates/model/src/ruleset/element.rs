//! Elements of sets and maps.

use std::fmt;
use std::net::IpAddr;

use super::ChainName;
use crate::net::{Cidr, IfName, MacAddr};
use crate::policy::Protocol;

/// What the elements of a set are.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ElementKind {
    /// Addresses of the table's family, found by hashing.
    Addr,
    /// Numbers of sets with addresses that are in them: many sets in one.
    Member,
    /// Networks of the table's family, found in a tree; they do not overlap.
    Net,
    /// Addresses with a protocol and a port.
    AddrPort,
    /// Ranges of ports; they do not overlap.
    Ports,
    /// Interfaces with an address that may send from there.
    Source,
    /// Interfaces with an Ethernet address and an address that may send from there.
    SourceWithMac,
    /// From interfaces to the chains that their packets go to.
    Dispatch,
}

/// An element of a set, or a pair of a map.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Element {
    /// An address.
    Addr(IpAddr),
    /// The number of a set, and an address in it.
    Member(u128, IpAddr),
    /// A network.
    Net(Cidr),
    /// An address, a protocol and a port.
    AddrPort(IpAddr, Protocol, u16),
    /// The first to the last port, both included.
    Ports(u16, u16),
    /// An interface and an address.
    Source(IfName, IpAddr),
    /// An interface, an Ethernet address and an address.
    SourceWithMac(IfName, MacAddr, IpAddr),
    /// An interface, and the chain that its packets go to.
    Dispatch(IfName, ChainName),
}

impl Element {
    /// Returns what it is.
    #[must_use]
    pub const fn kind(&self) -> ElementKind {
        match self {
            Self::Addr(_) => ElementKind::Addr,
            Self::Member(..) => ElementKind::Member,
            Self::Net(_) => ElementKind::Net,
            Self::AddrPort(..) => ElementKind::AddrPort,
            Self::Ports(..) => ElementKind::Ports,
            Self::Source(..) => ElementKind::Source,
            Self::SourceWithMac(..) => ElementKind::SourceWithMac,
            Self::Dispatch(..) => ElementKind::Dispatch,
        }
    }
}

impl fmt::Display for Element {
    /// Writes it as nft(8) does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Member(number, addr) => write!(f, "{number:#034x} . {addr}"),
            Self::Net(net) if net.is_host() => net.addr().fmt(f),
            Self::Net(net) => net.fmt(f),
            Self::AddrPort(addr, protocol, port) => {
                write!(f, "{addr} . {} . {port}", protocol.to_string().to_lowercase())
            }
            Self::Ports(first, last) if first == last => first.fmt(f),
            Self::Ports(first, last) => write!(f, "{first}-{last}"),
            Self::Source(name, addr) => write!(f, "\"{name}\" . {addr}"),
            Self::SourceWithMac(name, mac, addr) => write!(f, "\"{name}\" . {mac} . {addr}"),
            Self::Dispatch(name, chain) => write!(f, "\"{name}\" : goto {chain}"),
        }
    }
}
