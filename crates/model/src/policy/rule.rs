//! Rules: what a packet must be like, and what happens to it then.

use std::fmt;
use std::str::FromStr;

use selector::Selector;

use crate::Labels;
use crate::id::NamespacedName;
use crate::net::{Cidr, Family};

/// What happens to packets that have all the marks that are set here.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// What happens.
    pub action: Action,
    /// The address family.
    pub family: Option<Family>,
    /// The protocol.
    pub protocol: Option<Protocol>,
    /// A protocol that it must not be.
    pub not_protocol: Option<Protocol>,
    /// The message of ICMP or `ICMPv6`.
    pub icmp: Option<IcmpMatch>,
    /// A message that it must not be.
    pub not_icmp: Option<IcmpMatch>,
    /// The sender.
    pub source: EntityMatch,
    /// The receiver.
    pub destination: EntityMatch,
    /// The request, for proxies that see it.
    pub http: Option<HttpMatch>,
    /// Notes of whoever wrote it.
    pub annotations: Labels,
    /// Why it could not be read, if so: it denies then.
    pub refused: Option<String>,
}

impl Rule {
    /// Makes the rule in whose place one was that could not be read: it denies everything.
    #[must_use]
    pub fn refused(reason: String) -> Self {
        Self { refused: Some(reason), ..Self::of(Action::Deny) }
    }

    /// Makes a rule for all packets.
    #[must_use]
    pub fn of(action: Action) -> Self {
        Self {
            action,
            family: None,
            protocol: None,
            not_protocol: None,
            icmp: None,
            not_icmp: None,
            source: EntityMatch::default(),
            destination: EntityMatch::default(),
            http: None,
            annotations: Labels::new(),
            refused: None,
        }
    }
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// It passes.
    Allow,
    /// It is dropped.
    Deny,
    /// It is logged, and the next rule is looked at.
    Log,
    /// The next tier decides, or the profiles after the last.
    Pass,
}

/// What one end of a packet's way must be like.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EntityMatch {
    /// Its address lies in one of these; `None` is anywhere.
    pub nets: Option<Vec<Cidr>>,
    /// Its address lies in none of these.
    pub not_nets: Vec<Cidr>,
    /// It is an endpoint or a network set that this matches.
    pub selector: Option<Selector>,
    /// It is no endpoint or network set that this matches.
    pub not_selector: Option<Selector>,
    /// It is an address, and with it a port, of this Service's endpoints.
    pub service: Option<NamespacedName>,
    /// Its port is one of these; `None` is any.
    pub ports: Option<Vec<PortMatch>>,
    /// Its port is none of these.
    pub not_ports: Vec<PortMatch>,
}

/// Ports.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum PortMatch {
    /// The first to the last, both included.
    Range(u16, u16),
    /// What the endpoint calls so.
    Named(String),
}

impl fmt::Display for PortMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(first, last) if first == last => first.fmt(f),
            Self::Range(first, last) => write!(f, "{first}:{last}"),
            Self::Named(name) => name.fmt(f),
        }
    }
}

/// A message of ICMP (RFC 792) or `ICMPv6` (RFC 4443).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IcmpMatch {
    /// The type.
    pub kind: u8,
    /// The code; `None` is any.
    pub code: Option<u8>,
}

/// A request that a proxy sees.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HttpMatch {
    /// One of these methods; any if empty.
    pub methods: Vec<String>,
    /// One of these paths; any if empty.
    pub paths: Vec<HttpPath>,
}

/// The path of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HttpPath {
    /// This one.
    Exact(String),
    /// One that starts so.
    Prefix(String),
}

/// The number of a protocol above IP (IANA, "Protocol Numbers").
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Protocol(pub u8);

/// Text that names no protocol.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is no protocol: use TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite, or 1 to 255")]
pub struct UnknownProtocol(String);

impl Protocol {
    /// ICMP (RFC 792).
    pub const ICMP: Self = Self(1);
    /// TCP (RFC 9293).
    pub const TCP: Self = Self(6);
    /// UDP (RFC 768).
    pub const UDP: Self = Self(17);
    /// `ICMPv6` (RFC 4443).
    pub const ICMP_V6: Self = Self(58);
    /// SCTP (RFC 9260).
    pub const SCTP: Self = Self(132);
    /// UDP-Lite (RFC 3828).
    pub const UDP_LITE: Self = Self(136);

    const NAMES: [(&'static str, Self); 6] = [
        ("TCP", Self::TCP),
        ("UDP", Self::UDP),
        ("ICMP", Self::ICMP),
        ("ICMPv6", Self::ICMP_V6),
        ("SCTP", Self::SCTP),
        ("UDPLite", Self::UDP_LITE),
    ];

    /// Can rules name ports of it?
    #[must_use]
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::SCTP)
    }
}

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        let named = Self::NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        match (named, text.parse()) {
            (Some((_, protocol)), _) => Ok(*protocol),
            (None, Ok(number @ 1..)) => Ok(Self(number)),
            (None, _) => Err(UnknownProtocol(text.to_owned())),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(_, protocol)| protocol == self) {
            Some((name, _)) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_names_or_numbers() {
        assert_eq!("TCP".parse(), Ok(Protocol::TCP));
        assert_eq!("tcp".parse(), Ok(Protocol::TCP));
        assert_eq!("58".parse(), Ok(Protocol::ICMP_V6));
        assert_eq!(Protocol(4).to_string(), "4");
        assert_eq!(Protocol(136).to_string(), "UDPLite");
        for wrong in ["", "0", "256", "-1", "HTTP", "6.0"] {
            assert!(wrong.parse::<Protocol>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn ports_are_written_as_they_are_read() {
        assert_eq!(PortMatch::Range(80, 80).to_string(), "80");
        assert_eq!(PortMatch::Range(80, 90).to_string(), "80:90");
        assert_eq!(PortMatch::Named("http".into()).to_string(), "http");
    }
}
