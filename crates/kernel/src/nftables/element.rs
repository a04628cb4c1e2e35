//! Elements of sets as the kernel's keys and data: fields one behind the other,
//! each padded to four bytes.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::net::{Cidr, Family, IfName, MacAddr};
use model::policy::Protocol;
use model::ruleset::{Element, ElementKind, SetSnapshot, Verdict};

use super::attr::{Reader, Writer};
use super::expression::write_verdict;
use super::names;

/// How many bytes an interface's name takes (`IFNAMSIZ`).
const NAME_LEN: usize = 16;

/// nft(8)'s numbers of types (`enum datatypes`), which only it reads.
const IPV4: u32 = 7;
const IPV6: u32 = 8;
const ETHER: u32 = 9;
const PROTOCOL: u32 = 12;
const PORT: u32 = 13;
const NAME: u32 = 41;
/// How many bits of a concatenation's number each of its types takes.
const TYPE_BITS: u32 = 6;

/// How the kernel describes a set.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Form {
    pub(super) flags: u32,
    pub(super) key_type: u32,
    pub(super) key_len: u32,
    pub(super) data_type: Option<u32>,
    pub(super) data_len: Option<u32>,
}

/// Every kind there is.
pub(super) const KINDS: [ElementKind; 8] = [
    ElementKind::Addr,
    ElementKind::Member,
    ElementKind::Net,
    ElementKind::AddrPort,
    ElementKind::Ports,
    ElementKind::Source,
    ElementKind::SourceWithMac,
    ElementKind::Dispatch,
];

/// Returns how the kernel describes a set of `kind` in the table of `family`.
pub(super) fn form(kind: ElementKind, family: Family) -> Form {
    let (addr, addr_len) = match family {
        Family::V4 => (IPV4, 4),
        Family::V6 => (IPV6, 16),
    };
    let sum = |lens: &[u32]| lens.iter().fold(0_u32, |sum, len| sum.saturating_add(*len));
    let types = |types: &[u32]| types.iter().fold(0_u32, |all, one| all << TYPE_BITS | one);
    let plain = |flags, key_type, key_len| Form {
        flags,
        key_type,
        key_len,
        data_type: None,
        data_len: None,
    };
    match kind {
        ElementKind::Addr => plain(0, addr, addr_len),
        ElementKind::Member => plain(0, types(&[IPV6, addr]), sum(&[16, addr_len])),
        ElementKind::Net => plain(names::set::INTERVAL, addr, addr_len),
        ElementKind::AddrPort => plain(0, types(&[addr, PROTOCOL, PORT]), sum(&[addr_len, 4, 4])),
        ElementKind::Ports => plain(names::set::INTERVAL, PORT, 2),
        ElementKind::Source => plain(0, types(&[NAME, addr]), sum(&[16, addr_len])),
        ElementKind::SourceWithMac => {
            plain(0, types(&[NAME, ETHER, addr]), sum(&[16, 8, addr_len]))
        }
        ElementKind::Dispatch => {
            let map = plain(names::set::MAP, NAME, 16);
            Form { data_type: Some(names::VERDICT_TYPE), ..map }
        }
    }
}

pub(super) fn addr_bytes(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

/// Returns the name as the kernel compares it: filled up with zeros.
pub(super) fn name_bytes(name: &IfName) -> Vec<u8> {
    let mut bytes = name.as_str().as_bytes().to_vec();
    bytes.resize(NAME_LEN, 0);
    bytes
}

/// Writes an element as those that the kernel makes of it: two of a range.
pub(super) fn write(to: &mut Writer, element: &Element) {
    match element {
        Element::Net(net) => {
            let (first, behind) = ends(*net);
            write_one(to, &first, 0, |_| ());
            write_end(to, behind);
        }
        Element::Ports(first, last) => {
            write_one(to, &first.to_be_bytes(), 0, |_| ());
            write_end(to, last.checked_add(1).map(|behind| behind.to_be_bytes().to_vec()));
        }
        Element::Dispatch(name, chain) => write_one(to, &name_bytes(name), 0, |one| {
            let verdict = Verdict::Goto(chain.clone());
            one.nest(names::element::DATA, |data| write_verdict(data, &verdict));
        }),
        Element::Addr(_)
        | Element::Member(..)
        | Element::AddrPort(..)
        | Element::Source(..)
        | Element::SourceWithMac(..) => {
            write_one(to, &key(element), 0, |_| ());
        }
    }
}

/// Ends a range before `behind`; what reaches the last address has no end.
fn write_end(list: &mut Writer, behind: Option<Vec<u8>>) {
    if let Some(behind) = behind {
        write_one(list, &behind, names::element::INTERVAL_END, |_| ());
    }
}

fn write_one(list: &mut Writer, key: &[u8], flags: u32, fill: impl FnOnce(&mut Writer)) {
    list.nest(names::LIST_ELEMENT, |one| {
        one.nest(names::element::KEY, |data| data.bytes(names::DATA_VALUE, key));
        if flags != 0 {
            one.number(names::element::FLAGS, flags);
        }
        fill(one);
    });
}

fn key(element: &Element) -> Vec<u8> {
    match element {
        Element::Addr(addr) => addr_bytes(*addr),
        Element::Member(number, addr) => {
            [number.to_be_bytes().to_vec(), addr_bytes(*addr)].concat()
        }
        Element::AddrPort(addr, protocol, port) => {
            let [high, low] = port.to_be_bytes();
            [addr_bytes(*addr), vec![protocol.0, 0, 0, 0, high, low, 0, 0]].concat()
        }
        Element::Source(name, addr) => [name_bytes(name), addr_bytes(*addr)].concat(),
        Element::SourceWithMac(name, mac, addr) => {
            [name_bytes(name), mac.0.to_vec(), vec![0, 0], addr_bytes(*addr)].concat()
        }
        Element::Net(_) | Element::Ports(..) | Element::Dispatch(..) => Vec::new(),
    }
}

/// Returns the first address and the one behind the last, if there is one.
fn ends(net: Cidr) -> (Vec<u8>, Option<Vec<u8>>) {
    let first = addr_bytes(net.addr());
    let last = net.nth(net.size().saturating_sub(1));
    let behind = match (net.prefix_len(), last) {
        (1.., Some(IpAddr::V4(last))) => {
            u32::from(last).checked_add(1).map(|behind| behind.to_be_bytes().to_vec())
        }
        (1.., Some(IpAddr::V6(last))) => {
            u128::from(last).checked_add(1).map(|behind| behind.to_be_bytes().to_vec())
        }
        _ => None,
    };
    (first, behind)
}

/// Reads the elements of a set of `kind`.
pub(super) fn read(kind: ElementKind, family: Family, found: &[Vec<u8>]) -> SetSnapshot {
    let mut set = SetSnapshot { kind: Some(kind), ..SetSnapshot::default() };
    if matches!(kind, ElementKind::Net | ElementKind::Ports) {
        read_ranges(&mut set, kind, found);
        return set;
    }
    for attributes in found {
        match read_one(kind, family, Reader(attributes)) {
            Some(element) => drop(set.elements.insert(element)),
            None => set.is_strange = true,
        }
    }
    set
}

fn read_one(kind: ElementKind, family: Family, element: Reader<'_>) -> Option<Element> {
    let mut key = Fields(element.within(names::element::KEY).find(names::DATA_VALUE)?);
    let data = element.within(names::element::DATA);
    Some(match kind {
        ElementKind::Addr => Element::Addr(key.addr(family)?),
        ElementKind::Member => Element::Member(u128::from_be_bytes(key.take()?), key.addr(family)?),
        ElementKind::AddrPort => {
            let addr = key.addr(family)?;
            let [protocol, ..] = key.take::<4>()?;
            let [high, low, ..] = key.take::<4>()?;
            Element::AddrPort(addr, Protocol(protocol), u16::from_be_bytes([high, low]))
        }
        ElementKind::Source => Element::Source(key.name()?, key.addr(family)?),
        ElementKind::SourceWithMac => {
            let name = key.name()?;
            let mac = *key.take::<8>()?.first_chunk()?;
            Element::SourceWithMac(name, MacAddr(mac), key.addr(family)?)
        }
        ElementKind::Dispatch => {
            let verdict = data.within(names::DATA_VERDICT);
            let is_goto = verdict.number(names::VERDICT_CODE)? == names::GOTO.cast_unsigned();
            let chain = is_goto.then(|| verdict.text(names::VERDICT_CHAIN))??;
            Element::Dispatch(key.name()?, chain)
        }
        ElementKind::Net | ElementKind::Ports => return None,
    })
}

/// Pairs the starts and the ends of ranges.
fn read_ranges(set: &mut SetSnapshot, kind: ElementKind, found: &[Vec<u8>]) {
    // Of two at one place, the end comes first: it belongs to the range before.
    let mut marks = BTreeSet::new();
    for attributes in found {
        let element = Reader(attributes);
        let flags = element.number(names::element::FLAGS).unwrap_or_default();
        let key = element.within(names::element::KEY).find(names::DATA_VALUE);
        let is_start = flags & names::element::INTERVAL_END == 0;
        set.is_strange |= key.is_none();
        marks.extend(key.map(|key| (key.to_vec(), is_start)));
    }
    let mut start: Option<Vec<u8>> = None;
    for (key, is_start) in marks {
        match (start.take(), is_start) {
            (None, true) => start = Some(key),
            // The kernel's own mark before the first range.
            (None, false) if key.iter().all(|byte| *byte == 0) => {}
            (Some(first), false) => put_range(set, kind, &first, Some(&key)),
            (Some(_) | None, _) => set.is_strange = true,
        }
    }
    if let Some(first) = start {
        put_range(set, kind, &first, None);
    }
}

fn put_range(set: &mut SetSnapshot, kind: ElementKind, first: &[u8], behind: Option<&[u8]>) {
    let is_ports = kind == ElementKind::Ports;
    let element = if is_ports { port_range(first, behind) } else { net_range(first, behind) };
    match element {
        Some(element) => drop(set.elements.insert(element)),
        None => set.is_strange = true,
    }
}

fn port_range(first: &[u8], behind: Option<&[u8]>) -> Option<Element> {
    let port = |bytes: &[u8]| bytes.try_into().ok().map(u16::from_be_bytes);
    let last = behind.map_or(Some(u16::MAX), |behind| port(behind)?.checked_sub(1))?;
    Some(Element::Ports(port(first)?, last))
}

/// Returns the network that is just this range, if there is one.
fn net_range(first: &[u8], behind: Option<&[u8]>) -> Option<Element> {
    let addr = addr_of(first)?;
    let number = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => u128::from(u32::from(addr)),
        IpAddr::V6(addr) => u128::from(addr),
    };
    let bits = Family::of(addr).bits();
    // A range up to the last address has no end; for IPv6 the next number does not exist.
    let behind = match behind {
        Some(behind) => Some(number(addr_of(behind)?)),
        None => 1_u128.checked_shl(u32::from(bits)),
    };
    let size = behind.unwrap_or_default().wrapping_sub(number(addr));
    let host_bits = if size == 0 { 128 } else { size.trailing_zeros() };
    let net = Cidr::containing(addr, bits.checked_sub(u8::try_from(host_bits).ok()?)?).ok()?;
    let is_all = net.addr() == addr && (size == 0 || size.is_power_of_two());
    is_all.then_some(Element::Net(net))
}

fn addr_of(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(octets).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|octets| Ipv6Addr::from(octets).into())
}

/// The fields of a key, front to back.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn addr(&mut self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.take::<4>().map(|octets| Ipv4Addr::from(octets).into()),
            Family::V6 => self.take::<16>().map(|octets| Ipv6Addr::from(octets).into()),
        }
    }

    fn name(&mut self) -> Option<IfName> {
        let bytes = self.take::<NAME_LEN>()?;
        let name = bytes.split(|byte| *byte == 0).next()?;
        std::str::from_utf8(name).ok()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Element {
        Element::Net(text.parse().unwrap())
    }

    /// Reads back what was written, as the kernel returns it.
    fn round_trip(kind: ElementKind, family: Family, elements: &[Element]) -> SetSnapshot {
        let mut list = Writer::default();
        for element in elements {
            write(&mut list, element);
        }
        let bytes = list.into_bytes();
        let found: Vec<Vec<u8>> = Reader(&bytes).all().map(|(_, value)| value.to_vec()).collect();
        read(kind, family, &found)
    }

    #[test]
    fn networks_round_trip() {
        for (family, nets) in [
            (Family::V4, vec!["0.0.0.0/0"]),
            (Family::V4, vec!["0.0.0.0/1", "128.0.0.0/1"]),
            (
                Family::V4,
                vec!["10.0.0.0/25", "10.0.0.128/26", "10.0.0.192/32", "255.255.255.255/32"],
            ),
            (Family::V6, vec!["::/0"]),
            (Family::V6, vec!["::/1", "8000::/1"]),
            (Family::V6, vec!["fd00::/8", "fe80::1/128", "ffff::/16"]),
        ] {
            let elements: Vec<Element> = nets.iter().map(|text| net(text)).collect();
            let set = round_trip(ElementKind::Net, family, &elements);
            assert!(!set.is_strange, "{nets:?}");
            assert_eq!(set.elements, elements.into_iter().collect(), "{nets:?}");
        }
    }

    #[test]
    fn ranges_of_ports_round_trip() {
        let elements = [Element::Ports(0, 1), Element::Ports(80, 80), Element::Ports(81, 65_535)];
        let set = round_trip(ElementKind::Ports, Family::V4, &elements);
        assert_eq!(set.elements, elements.into_iter().collect());
    }

    #[test]
    fn keys_round_trip() {
        let name: IfName = "cali0123456789a".parse().unwrap();
        for (family, addr) in [(Family::V4, "10.0.0.1"), (Family::V6, "fd00::1")] {
            let addr: IpAddr = addr.parse().unwrap();
            for element in [
                Element::Addr(addr),
                Element::Member(0xdead_beef, addr),
                Element::AddrPort(addr, Protocol::SCTP, 8080),
                Element::Source(name.clone(), addr),
                Element::SourceWithMac(name.clone(), MacAddr([1, 2, 3, 4, 5, 6]), addr),
                Element::Dispatch(name.clone(), "cali-tw-7".to_owned()),
            ] {
                let set = round_trip(element.kind(), family, std::slice::from_ref(&element));
                assert!(!set.is_strange, "{element}");
                assert_eq!(set.elements, BTreeSet::from([element]));
            }
        }
    }

    #[test]
    fn ranges_that_are_no_networks_are_strange() {
        let mut list = Writer::default();
        write_one(&mut list, &[10, 0, 0, 1], 0, |_| ());
        write_one(&mut list, &[10, 0, 0, 4], names::element::INTERVAL_END, |_| ());
        let bytes = list.into_bytes();
        let found: Vec<Vec<u8>> = Reader(&bytes).all().map(|(_, value)| value.to_vec()).collect();
        let set = read(ElementKind::Net, Family::V4, &found);
        assert!(set.is_strange && set.elements.is_empty());
    }
}
