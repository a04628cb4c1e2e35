//! A connection as the kernel tells of it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use model::net::Family;
use model::policy::Protocol;

use super::attributes;
use crate::nftables::attr::{Reader, Writer};

/// `CTA_…` of a connection.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
pub(super) const MARK: u16 = 8;
const ID: u16 = 12;
const ZONE: u16 = 18;
pub(super) const MARK_MASK: u16 = 21;
const FILTER: u16 = 25;
/// `CTA_TUPLE_…`.
const ADDRS: u16 = 1;
const PROTOCOL: u16 = 2;
/// `CTA_PROTO_…`.
const NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;
const ICMP: (u16, u16) = (5, 6);
const ICMP_V6: (u16, u16) = (8, 9);

/// A connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Flow {
    /// Its packets as they were sent by whoever began.
    pub original: Tuple,
    /// The answers, before any address in them is translated back.
    pub reply: Tuple,
    /// What it is marked with.
    pub mark: u32,
    /// Its zone: the same addresses in another one are others'.
    pub zone: u16,
    key: Key,
}

/// Addresses and ports of a connection's packets in one direction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tuple {
    /// The sender.
    pub source: IpAddr,
    /// The receiver, of the same family.
    pub destination: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The sender's port; zero for protocols without.
    pub source_port: u16,
    /// The receiver's port; zero for protocols without.
    pub destination_port: u16,
    /// Type and code of ICMP and `ICMPv6`.
    pub icmp: Option<(u8, u8)>,
}

/// What the kernel finds the connection by, as it has told us.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Key {
    original: Vec<u8>,
    zone: Option<Vec<u8>>,
    id: Option<Vec<u8>>,
}

/// An end of a connection, in one of its two directions.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    tuple: u16,
    is_source: bool,
}

impl End {
    /// All that an address can be.
    pub(super) const ALL: [Self; 4] = [
        Self { tuple: ORIGINAL, is_source: true },
        Self { tuple: ORIGINAL, is_source: false },
        Self { tuple: REPLY, is_source: true },
        Self { tuple: REPLY, is_source: false },
    ];

    /// Asks for the connections that have `addr` at this end (`CTA_FILTER`).
    pub(super) fn write_filter(self, body: &mut Writer, addr: IpAddr) {
        // `CTA_IP_V4_SRC`, `…_DST`, and those of IPv6.
        let ((source, destination), octets) = match addr {
            IpAddr::V4(addr) => ((1, 2), addr.octets().to_vec()),
            IpAddr::V6(addr) => ((3, 4), addr.octets().to_vec()),
        };
        let (kind, flags) = if self.is_source { (source, 1_u32) } else { (destination, 2) };
        body.nest(self.tuple, |tuple| tuple.nest(ADDRS, |addrs| addrs.bytes(kind, &octets)));
        // `CTA_FILTER_ORIG_FLAGS` and `…_REPLY_FLAGS`, in the machine's order of bytes.
        body.nest(FILTER, |filter| filter.bytes(self.tuple, &flags.to_ne_bytes()));
    }
}

impl Flow {
    /// Returns what no other connection has.
    pub(super) fn key(&self) -> Vec<u8> {
        [self.key.original.as_slice(), self.key.zone.as_deref().unwrap_or_default()].concat()
    }

    /// Does one of the two ends have one of these addresses, whatever was translated?
    #[must_use]
    pub fn is_of_any(&self, addrs: &BTreeSet<IpAddr>) -> bool {
        let ends = [&self.original, &self.reply];
        let mut ends = ends.iter().flat_map(|tuple| [tuple.source, tuple.destination]);
        ends.any(|addr| addrs.contains(&addr))
    }

    /// Does one of the two ends have one of these addresses in that zone?
    #[must_use]
    pub fn is_at_any(&self, places: &BTreeSet<(u16, IpAddr)>) -> bool {
        let ends = [&self.original, &self.reply];
        let mut ends = ends.iter().flat_map(|tuple| [tuple.source, tuple.destination]);
        ends.any(|addr| places.contains(&(self.zone, addr)))
    }

    /// Writes what the kernel finds it by; another one of the same addresses is not found.
    pub(super) fn write_key(&self, body: &mut Writer) {
        body.nest(ORIGINAL, |tuple| tuple.raw(&self.key.original));
        if let Some(zone) = &self.key.zone {
            body.bytes(ZONE, zone);
        }
        if let Some(id) = &self.key.id {
            body.bytes(ID, id);
        }
    }
}

impl Tuple {
    /// Returns the address family.
    #[must_use]
    pub const fn family(&self) -> Family {
        Family::of(self.destination)
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tuple { source, protocol, source_port, .. } = self.original;
        // Where the packets really go.
        let (destination, port) = (self.reply.source, self.reply.source_port);
        write!(f, "{protocol} {source} port {source_port} -> {destination} port {port}")?;
        if self.zone == 0 { Ok(()) } else { write!(f, " in zone {}", self.zone) }
    }
}

/// Reads the body of a message; `None` if it makes no sense, or is of another family.
pub(super) fn read(body: &[u8]) -> Option<Flow> {
    let all = attributes(body);
    let original = all.find(ORIGINAL)?;
    // None is said of those in zone 0.
    let zone = all.find(ZONE).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes);
    let owned = |kind| all.find(kind).map(<[u8]>::to_vec);
    Some(Flow {
        original: tuple(Reader(original))?,
        reply: tuple(all.within(REPLY))?,
        mark: all.number(MARK).unwrap_or_default(),
        zone: zone.unwrap_or_default(),
        key: Key { original: original.to_vec(), zone: owned(ZONE), id: owned(ID) },
    })
}

fn tuple(tuple: Reader<'_>) -> Option<Tuple> {
    let (addrs, protocol) = (tuple.within(ADDRS), tuple.within(PROTOCOL));
    // `CTA_IP_V4_SRC`, `…_DST`, and those of IPv6.
    let source = addr(addrs, 1, 3)?;
    let destination = addr(addrs, 2, 4)?;
    let byte = |kind| protocol.find(kind).and_then(|value| value.first().copied());
    let port = |kind| protocol.find(kind)?.try_into().ok().map(u16::from_be_bytes);
    let icmp = |(kind, code)| Some((byte(kind)?, byte(code)?));
    Some(Tuple {
        source,
        destination,
        protocol: Protocol(byte(NUMBER)?),
        source_port: port(SOURCE_PORT).unwrap_or_default(),
        destination_port: port(DESTINATION_PORT).unwrap_or_default(),
        icmp: icmp(ICMP).or_else(|| icmp(ICMP_V6)),
    })
}

fn addr(addrs: Reader<'_>, v4: u16, v6: u16) -> Option<IpAddr> {
    let of_v4 = addrs.find(v4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    let of_v6 = || addrs.find(v6).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    of_v4.map(IpAddr::from).or_else(|| of_v6().map(IpAddr::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(protocol: &[(u16, &[u8])]) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.raw(&[2, 0, 0, 0]);
        for kind in [ORIGINAL, REPLY] {
            writer.nest(kind, |tuple| {
                tuple.nest(ADDRS, |addrs| {
                    addrs.bytes(1, &[10, 0, 0, 1]);
                    addrs.bytes(2, &[10, 0, 0, 2]);
                });
                tuple.nest(PROTOCOL, |all| {
                    for (kind, value) in protocol {
                        all.bytes(*kind, value);
                    }
                });
            });
        }
        writer.number(MARK, 7);
        writer.number(ID, 9);
        writer.into_bytes()
    }

    #[test]
    fn ports_and_types_are_read() {
        let flow = read(&body(&[(1, &[17]), (2, &[0, 53]), (3, &[1, 0])])).unwrap();
        assert_eq!((flow.original.source_port, flow.original.destination_port), (53, 256));
        assert_eq!((flow.mark, flow.original.icmp), (7, None));
        let flow = read(&body(&[(1, &[1]), (4, &[0, 1]), (5, &[8]), (6, &[0])])).unwrap();
        assert_eq!(flow.original.icmp, Some((8, 0)));
        assert!(flow.is_of_any(&[[10, 0, 0, 2].into()].into()));
        assert!(!flow.is_of_any(&[[10, 0, 0, 3].into()].into()));
    }

    #[test]
    fn the_key_is_what_the_kernel_said() {
        let flow = read(&body(&[(1, &[17]), (2, &[0, 53]), (3, &[1, 0])])).unwrap();
        let mut writer = Writer::default();
        writer.raw(&[2, 0, 0, 0]);
        flow.write_key(&mut writer);
        let bytes = writer.into_bytes();
        assert_eq!(attributes(&bytes).find(ORIGINAL), Some(&flow.key.original[..]));
        assert_eq!(attributes(&bytes).number(ID), Some(9));
    }

    #[test]
    fn equal_addresses_of_two_zones_are_told_apart() {
        let plain = body(&[(1, &[17]), (2, &[0, 53]), (3, &[1, 0])]);
        let mut writer = Writer::default();
        writer.raw(&plain);
        writer.bytes(ZONE, &5001_u16.to_be_bytes());
        let (plain, zoned) = (read(&plain).unwrap(), read(&writer.into_bytes()).unwrap());
        assert_eq!((plain.zone, zoned.zone), (0, 5001));
        assert_ne!(plain.key(), zoned.key());
        let red = [(5001, [10, 0, 0, 2].into())].into();
        assert!(zoned.is_at_any(&red) && !plain.is_at_any(&red));
        assert!(
            zoned.to_string().ends_with(" in zone 5001") && !plain.to_string().contains("zone")
        );
        let mut writer = Writer::default();
        writer.raw(&[2, 0, 0, 0]);
        zoned.write_key(&mut writer);
        assert_eq!(attributes(&writer.into_bytes()).find(ZONE), Some(&[0x13, 0x89][..]));
    }

    #[test]
    fn reading_survives_any_bytes() {
        let whole = body(&[(1, &[17]), (2, &[0, 53]), (3, &[1, 0])]);
        for len in 0..whole.len() {
            let _read = read(&whole[..len]);
        }
        assert_eq!(read(&[255; 64]), None);
    }
}
