//! Rules as the kernel's expressions: load into registers, compare, act.

use std::net::IpAddr;

use model::endpoint::{Dscp, PacketRate};
use model::net::{Cidr, Family};
use model::policy::IcmpMatch;
use model::ruleset::{
    CtStates, InterfacePattern, Is, Mark, Match, Reject, Rule, Side, Statement, Verdict, Way,
};

use super::attr::Writer;
use super::names;

/// The first register of 16 bytes (`NFT_REG_1`) and the second.
const FIRST: u32 = 1;
const SECOND: u32 = 2;
/// The register of the verdict.
const VERDICT: u32 = 0;
/// The first register of four bytes, which is the first quarter of that one (`NFT_REG32_00`).
const FIRST_WORD: u32 = 8;
/// The register of four bytes behind those 16 (`NFT_REG32_04`).
const BEHIND_FIRST: u32 = 12;

/// `NFT_META_…`.
const META_MARK: u32 = 3;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_L4PROTO: u32 = 16;
const META_SDIFNAME: u32 = 34;
/// `NFT_CT_…`.
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const CT_MARK: u32 = 3;
const CT_ZONE: u32 = 17;
/// `IPS_DST_NAT`.
const STATUS_TRANSLATED: u32 = 1 << 5;
/// `NFT_CMP_EQ`, `NFT_CMP_NEQ`; ranges have the same two.
const EQUAL: u32 = 0;
const UNEQUAL: u32 = 1;
/// `NFT_NAT_SNAT`, `NFT_NAT_DNAT`.
const NAT_SOURCE: u32 = 0;
const NAT_DESTINATION: u32 = 1;
/// `NF_NAT_RANGE_PROTO_SPECIFIED`, `NF_NAT_RANGE_PROTO_RANDOM_FULLY`.
const NAT_PORTS: u32 = 1 << 1;
const NAT_RANDOM: u32 = 1 << 4;

/// `NFT_LIMIT_PKTS`, `NFT_LIMIT_F_INV` and `NFT_CONNLIMIT_F_INV`.
const LIMIT_PACKETS: u32 = 0;
const LIMIT_OVER: u32 = 1;
/// `NFT_PAYLOAD_CSUM_INET`, and where IPv4's header has its checksum.
const CHECKSUM_INET: u32 = 1;
const CHECKSUM_OFFSET: u32 = 10;

/// Which header (`NFT_PAYLOAD_…`), at which byte, how many bytes.
type Place = (u32, u32, u32);

const ETHER_SOURCE: Place = (0, 6, 6);
/// What the codepoint is in, of both families (RFC 791 §3.1, RFC 8200 §3).
const TRAFFIC_CLASS: Place = (1, 0, 2);
const ICMP_TYPE: Place = (2, 0, 1);
const ICMP_TYPE_AND_CODE: Place = (2, 0, 2);

const fn addr_place(side: Side, family: Family) -> Place {
    match (family, side) {
        (Family::V4, Side::Source) => (1, 12, 4),
        (Family::V4, Side::Destination) => (1, 16, 4),
        (Family::V6, Side::Source) => (1, 8, 16),
        (Family::V6, Side::Destination) => (1, 24, 16),
    }
}

const fn port_place(side: Side) -> Place {
    match side {
        Side::Source => (2, 0, 2),
        Side::Destination => (2, 2, 2),
    }
}

/// Writes the expressions of `rule` in the table of `family`.
pub(super) fn write_rule(rule: &Rule, family: Family) -> Expressions {
    let mut expressions = Expressions { list: Writer::default(), family };
    for one in &rule.matches {
        expressions.write_match(one);
    }
    expressions.push("counter", |_| ());
    for statement in &rule.statements {
        expressions.statement(statement);
    }
    expressions
}

/// A list of expressions.
#[derive(Debug)]
pub(super) struct Expressions {
    list: Writer,
    family: Family,
}

impl Expressions {
    /// Returns the list as the value of an attribute.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.list.into_bytes()
    }

    fn push(&mut self, name: &str, fill: impl FnOnce(&mut Writer)) {
        self.list.nest(names::LIST_ELEMENT, |element| {
            element.text(names::EXPRESSION_NAME, name);
            element.nest(names::EXPRESSION_DATA, fill);
        });
    }

    fn write_match(&mut self, one: &Match) {
        match one {
            Match::Ct(CtStates(states)) => self.ct_bits(CT_STATE, *states, Is::In),
            Match::CtMarked(mark) => self.ct_bits(CT_MARK, mark.value, Is::In),
            Match::Zone(is, zone) => {
                self.ct(CT_ZONE);
                self.compare(*is, &zone.to_ne_bytes());
            }
            Match::Translated(is) => self.ct_bits(CT_STATUS, STATUS_TRANSLATED, *is),
            Match::Interface(way, is, pattern) => self.interface(*way, *is, pattern),
            Match::Protocol(is, protocol) => {
                self.meta(META_L4PROTO, FIRST);
                self.compare(*is, &[protocol.0]);
            }
            Match::Net(side, is, net) => self.net(*side, *is, *net),
            Match::InSet(side, is, set) => {
                self.payload(addr_place(*side, self.family), FIRST);
                self.lookup(*is, set);
            }
            Match::Member(side, is, (number, set)) => {
                self.push("immediate", |data| {
                    data.number(1, FIRST);
                    data.nest(2, |value| value.bytes(names::DATA_VALUE, &number.to_be_bytes()));
                });
                self.concat_addr(*side, BEHIND_FIRST);
                self.lookup(*is, set);
            }
            Match::PortInSet(side, is, set) => {
                let behind = self.concat_addr(*side, FIRST_WORD);
                self.meta(META_L4PROTO, behind);
                self.payload(port_place(*side), behind.saturating_add(1));
                self.lookup(*is, set);
            }
            Match::Ports(side, is, (first, last)) => {
                self.payload(port_place(*side), FIRST);
                self.between(*is, &first.to_be_bytes(), &last.to_be_bytes());
            }
            Match::InPorts(side, is, set) => {
                self.payload(port_place(*side), FIRST);
                self.lookup(*is, set);
            }
            Match::Icmp(is, icmp) => self.icmp(*is, *icmp),
            Match::IcmpTypes(first, last) => {
                self.payload(ICMP_TYPE, FIRST);
                self.between(Is::In, &[*first], &[*last]);
            }
            Match::Marked(is, mark) => self.marked(*is, *mark),
            Match::Faster(rate) => self.faster(*rate),
            Match::MoreConnections(count) => self.more_connections(*count),
            Match::Source(is, set) => {
                self.meta(META_IIFNAME, FIRST);
                self.concat_addr(Side::Source, BEHIND_FIRST);
                self.lookup(*is, set);
            }
            Match::SourceWithMac(is, set) => {
                self.meta(META_IIFNAME, FIRST);
                self.payload(ETHER_SOURCE, BEHIND_FIRST);
                self.concat_addr(Side::Source, BEHIND_FIRST.saturating_add(2));
                self.lookup(*is, set);
            }
        }
    }

    fn marked(&mut self, is: Is, mark: Mark) {
        self.meta(META_MARK, FIRST);
        self.mask(&mark.mask.to_ne_bytes(), &[0; 4]);
        self.compare(is, &mark.value.to_ne_bytes());
    }

    fn faster(&mut self, rate: PacketRate) {
        self.push("limit", |data| {
            data.bytes(1, &u64::from(rate.per_second).to_be_bytes());
            data.bytes(2, &1_u64.to_be_bytes());
            data.number(3, rate.burst);
            data.number(4, LIMIT_PACKETS);
            data.number(5, LIMIT_OVER);
        });
    }

    fn more_connections(&mut self, count: u32) {
        self.push("connlimit", |data| {
            data.number(1, count);
            data.number(2, LIMIT_OVER);
        });
    }

    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::SetMark(Mark { mask, value }) => {
                self.meta(META_MARK, FIRST);
                self.mask(&(!mask).to_ne_bytes(), &value.to_ne_bytes());
                self.push("meta", |data| {
                    data.number(2, META_MARK);
                    data.number(3, FIRST);
                });
            }
            Statement::SetDscp(dscp) => self.set_dscp(*dscp),
            Statement::Log(prefix) => self.push("log", |data| data.text(2, prefix)),
            Statement::NoTrack => self.push("notrack", |_| ()),
            Statement::SetZone(zone) => {
                self.push("immediate", |data| {
                    data.number(1, FIRST);
                    data.nest(2, |value| value.bytes(names::DATA_VALUE, &zone.to_ne_bytes()));
                });
                self.push("ct", |data| {
                    data.number(2, CT_ZONE);
                    data.number(4, FIRST);
                });
            }
            Statement::Masquerade { ports } => self.masquerade(*ports),
            Statement::SourceNat { addr, ports } => self.source_nat(*addr, *ports),
            Statement::DestinationNat(addr) => self.destination_nat(*addr),
            Statement::Dispatch(way, map) => self.dispatch(*way, map),
            Statement::Reject(reject) => self.reject(*reject),
            Statement::Verdict(verdict) => self.push("immediate", |data| {
                data.number(1, VERDICT);
                data.nest(2, |value| write_verdict(value, verdict));
            }),
        }
    }

    /// Loads what is known beside the packet's bytes.
    fn meta(&mut self, key: u32, register: u32) {
        self.push("meta", |data| {
            data.number(1, register);
            data.number(2, key);
        });
    }

    /// Loads some of the packet's bytes.
    fn payload(&mut self, (header, offset, len): Place, register: u32) {
        self.push("payload", |data| {
            data.number(1, register);
            data.number(2, header);
            data.number(3, offset);
            data.number(4, len);
        });
    }

    /// Loads an address into registers of four bytes; returns the one behind.
    fn concat_addr(&mut self, side: Side, register: u32) -> u32 {
        let place = addr_place(side, self.family);
        self.payload(place, register);
        register.saturating_add(place.2 / 4)
    }

    /// Compares the first register.
    fn compare(&mut self, is: Is, value: &[u8]) {
        self.push("cmp", |data| {
            data.number(1, FIRST);
            data.number(2, operator(is));
            data.nest(3, |inner| inner.bytes(names::DATA_VALUE, value));
        });
    }

    /// Compares the first register with both ends of a range.
    fn between(&mut self, is: Is, first: &[u8], last: &[u8]) {
        if first == last {
            return self.compare(is, first);
        }
        self.push("range", |data| {
            data.number(1, FIRST);
            data.number(2, operator(is));
            data.nest(3, |inner| inner.bytes(names::DATA_VALUE, first));
            data.nest(4, |inner| inner.bytes(names::DATA_VALUE, last));
        });
    }

    /// Changes the first register: and with `mask`, then exclusive or with `xor`.
    fn mask(&mut self, mask: &[u8], xor: &[u8]) {
        self.push("bitwise", |data| {
            data.number(1, FIRST);
            data.number(2, FIRST);
            data.number(3, u32::try_from(mask.len()).unwrap_or_default());
            data.nest(4, |inner| inner.bytes(names::DATA_VALUE, mask));
            data.nest(5, |inner| inner.bytes(names::DATA_VALUE, xor));
        });
    }

    /// Looks what starts in the first register up in a set.
    fn lookup(&mut self, is: Is, set: &str) {
        self.push("lookup", |data| {
            data.text(1, set);
            data.number(2, FIRST);
            if is == Is::NotIn {
                data.number(5, 1);
            }
        });
    }

    fn dispatch(&mut self, way: Way, map: &str) {
        self.meta(name_key(way), FIRST);
        self.push("lookup", |data| {
            data.text(1, map);
            data.number(2, FIRST);
            data.number(3, VERDICT);
        });
    }

    /// Loads what is known of the packet's connection.
    fn ct(&mut self, key: u32) {
        self.push("ct", |data| {
            data.number(1, FIRST);
            data.number(2, key);
        });
    }

    fn ct_bits(&mut self, key: u32, bits: u32, is: Is) {
        self.ct(key);
        self.mask(&bits.to_ne_bytes(), &[0; 4]);
        // Any of the bits: what is left differs from nothing.
        self.compare(opposite(is), &[0; 4]);
    }

    fn interface(&mut self, way: Way, is: Is, pattern: &InterfacePattern) {
        self.meta(name_key(way), FIRST);
        match pattern {
            InterfacePattern::Name(name) => self.compare(is, &super::element::name_bytes(name)),
            InterfacePattern::Prefix(prefix) => self.compare(is, prefix.as_bytes()),
        }
    }

    fn net(&mut self, side: Side, is: Is, net: Cidr) {
        self.payload(addr_place(side, net.family()), FIRST);
        if !net.is_host() {
            let mask = mask_bytes(net);
            let zeros = vec![0; mask.len()];
            self.mask(&mask, &zeros);
        }
        self.compare(is, &super::element::addr_bytes(net.addr()));
    }

    fn icmp(&mut self, is: Is, icmp: IcmpMatch) {
        match icmp.code {
            None => {
                self.payload(ICMP_TYPE, FIRST);
                self.compare(is, &[icmp.kind]);
            }
            Some(code) => {
                self.payload(ICMP_TYPE_AND_CODE, FIRST);
                self.compare(is, &[icmp.kind, code]);
            }
        }
    }

    /// Writes the six bits in the middle of the first two bytes.
    fn set_dscp(&mut self, dscp: Dscp) {
        let number = dscp.number();
        let (kept, bits) = match self.family {
            Family::V4 => ([0xff, 0x03], [0, number << 2]),
            Family::V6 => ([0xf0, 0x3f], [number >> 2, (number & 3) << 6]),
        };
        self.payload(TRAFFIC_CLASS, FIRST);
        self.mask(&kept, &bits);
        let (header, offset, len) = TRAFFIC_CLASS;
        let is_v4 = self.family == Family::V4;
        self.push("payload", |data| {
            data.number(5, FIRST);
            data.number(2, header);
            data.number(3, offset);
            data.number(4, len);
            if is_v4 {
                data.number(6, CHECKSUM_INET);
                data.number(7, CHECKSUM_OFFSET);
            }
        });
    }

    fn load_ports(&mut self, ports: Option<(u16, u16)>) -> u32 {
        let Some((first, last)) = ports else { return NAT_RANDOM };
        for (register, port) in [(SECOND, first), (SECOND.saturating_add(1), last)] {
            self.push("immediate", |data| {
                data.number(1, register);
                data.nest(2, |value| value.bytes(names::DATA_VALUE, &port.to_be_bytes()));
            });
        }
        NAT_RANDOM | NAT_PORTS
    }

    fn masquerade(&mut self, ports: Option<(u16, u16)>) {
        let flags = self.load_ports(ports);
        self.push("masq", |data| {
            data.number(1, flags);
            if ports.is_some() {
                data.number(2, SECOND);
                data.number(3, SECOND.saturating_add(1));
            }
        });
    }

    fn source_nat(&mut self, addr: IpAddr, ports: Option<(u16, u16)>) {
        let flags = self.load_ports(ports);
        let family = self.load_addr(addr);
        self.push("nat", |data| {
            data.number(1, NAT_SOURCE);
            data.number(2, family);
            data.number(3, FIRST);
            if ports.is_some() {
                data.number(5, SECOND);
                data.number(6, SECOND.saturating_add(1));
            }
            data.number(7, flags);
        });
    }

    fn destination_nat(&mut self, addr: IpAddr) {
        let family = self.load_addr(addr);
        self.push("nat", |data| {
            data.number(1, NAT_DESTINATION);
            data.number(2, family);
            data.number(3, FIRST);
        });
    }

    /// Loads an address into the first register; returns the number of this table's family.
    fn load_addr(&mut self, addr: IpAddr) -> u32 {
        self.push("immediate", |data| {
            data.number(1, FIRST);
            let bytes = super::element::addr_bytes(addr);
            data.nest(2, |value| value.bytes(names::DATA_VALUE, &bytes));
        });
        u32::from(super::message::family_number(self.family))
    }

    fn reject(&mut self, reject: Reject) {
        // ICMP: type 3 code 3; ICMPv6: type 1 code 4 (port unreachable).
        let code = match self.family {
            Family::V4 => 3,
            Family::V6 => 4,
        };
        self.push("reject", |data| match reject {
            Reject::Unreachable => {
                data.number(1, 0);
                data.bytes(2, &[code]);
            }
            Reject::Reset => data.number(1, 1),
        });
    }
}

/// Writes a verdict as the value of data.
pub(super) fn write_verdict(value: &mut Writer, verdict: &Verdict) {
    let (code, chain) = match verdict {
        Verdict::Accept => (names::ACCEPT, None),
        Verdict::Drop => (names::DROP, None),
        Verdict::Return => (names::RETURN, None),
        Verdict::Jump(chain) => (names::JUMP, Some(chain)),
        Verdict::Goto(chain) => (names::GOTO, Some(chain)),
    };
    value.nest(names::DATA_VERDICT, |inner| {
        inner.bytes(names::VERDICT_CODE, &code.to_be_bytes());
        if let Some(chain) = chain {
            inner.text(names::VERDICT_CHAIN, chain);
        }
    });
}

const fn name_key(way: Way) -> u32 {
    match way {
        Way::In => META_IIFNAME,
        Way::Out => META_OIFNAME,
        Way::Slave => META_SDIFNAME,
    }
}

const fn operator(is: Is) -> u32 {
    match is {
        Is::In => EQUAL,
        Is::NotIn => UNEQUAL,
    }
}

const fn opposite(is: Is) -> Is {
    match is {
        Is::In => Is::NotIn,
        Is::NotIn => Is::In,
    }
}

fn mask_bytes(net: Cidr) -> Vec<u8> {
    let len = net.prefix_len();
    match net.family() {
        Family::V4 => {
            let host = u32::MAX.checked_shr(u32::from(len)).unwrap_or_default();
            (!host).to_be_bytes().to_vec()
        }
        Family::V6 => {
            let host = u128::MAX.checked_shr(u32::from(len)).unwrap_or_default();
            (!host).to_be_bytes().to_vec()
        }
    }
}
