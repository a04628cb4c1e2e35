//! Rules and sets as nft(8) would list them, for people and golden files.

use std::fmt::{self, Write as _};

use super::{
    Base, BaseKind, CtStates, ElementKind, Hook, InterfacePattern, Is, Match, Reject, Rule,
    Ruleset, Side, Statement, TABLE, Verdict, Way,
};
use crate::endpoint::PacketRate;
use crate::net::Family;
use crate::policy::IcmpMatch;

/// Returns what nft(8) calls a table of `family`.
pub(super) const fn table_family(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

impl Ruleset {
    /// Writes the table of `family` that holds this.
    #[must_use]
    pub fn text(&self, family: Family) -> String {
        let mut lines = vec![format!("table {} {TABLE} {{", table_family(family))];
        for (name, set) in &self.sets {
            lines.push(format!("\t{} {name} {{", set.kind.noun()));
            lines.push(format!("\t\t{}", set.kind.text(family)));
            lines.extend(set.elements.iter().map(|element| format!("\t\t{element}")));
            lines.push("\t}".to_owned());
        }
        for (name, chain) in &self.chains {
            lines.push(format!("\tchain {name} {{"));
            lines.extend(chain.base.map(|base| format!("\t\t{base}")));
            lines.extend(chain.rules.iter().map(|rule| format!("\t\t{}", rule.text(family))));
            lines.push("\t}".to_owned());
        }
        lines.push("}\n".to_owned());
        lines.join("\n")
    }
}

impl Rule {
    /// Writes the rule, without its counter.
    #[must_use]
    pub fn text(&self, family: Family) -> String {
        let matches = self.matches.iter().map(|one| one.text(family));
        let statements = self.statements.iter().map(Statement::to_string);
        let mut text = matches.chain(statements).collect::<Vec<_>>().join(" ");
        if !self.note.is_empty() {
            let _ = write!(text, " # {}", self.note);
        }
        text
    }
}

impl Match {
    fn text(&self, family: Family) -> String {
        let ip = table_family(family);
        let icmp = match family {
            Family::V4 => "icmp",
            Family::V6 => "icmpv6",
        };
        match self {
            Self::Ct(states) => format!("ct state {states}"),
            Self::CtMarked(mark) => format!("ct mark & {:#010x} != 0", mark.value),
            Self::Zone(is, zone) => format!("ct zone {is}{zone}"),
            Self::Translated(is) => format!("ct status {is}dnat"),
            Self::Interface(way, is, pattern) => format!("{way} {is}\"{pattern}\""),
            Self::Protocol(is, protocol) => {
                format!("meta l4proto {is}{}", protocol.to_string().to_lowercase())
            }
            Self::Net(side, is, net) if net.is_host() => {
                format!("{ip} {}addr {is}{}", side.letter(), net.addr())
            }
            Self::Net(side, is, net) => format!("{ip} {}addr {is}{net}", side.letter()),
            Self::InSet(side, is, set) => format!("{ip} {}addr {is}@{set}", side.letter()),
            Self::Member(side, is, (number, set)) => {
                format!("{number:#034x} . {ip} {}addr {is}@{set}", side.letter())
            }
            Self::PortInSet(side, is, set) => {
                let side = side.letter();
                format!("{ip} {side}addr . meta l4proto . th {side}port {is}@{set}")
            }
            Self::Ports(side, is, (first, last)) if first == last => {
                format!("th {}port {is}{first}", side.letter())
            }
            Self::Ports(side, is, (first, last)) => {
                format!("th {}port {is}{first}-{last}", side.letter())
            }
            Self::InPorts(side, is, set) => format!("th {}port {is}@{set}", side.letter()),
            Self::Icmp(is, IcmpMatch { kind, code: None }) => format!("{icmp} type {is}{kind}"),
            Self::Icmp(is, IcmpMatch { kind, code: Some(code) }) => {
                format!("{icmp} type . {icmp} code {is}{kind} . {code}")
            }
            Self::IcmpTypes(first, last) if first == last => format!("{icmp} type {first}"),
            Self::IcmpTypes(first, last) => format!("{icmp} type {first}-{last}"),
            Self::Marked(is, mark) => {
                let is = if *is == Is::In { "==" } else { "!=" };
                format!("meta mark & {:#010x} {is} {:#010x}", mark.mask, mark.value)
            }
            Self::Faster(PacketRate { per_second, burst }) => {
                format!("limit rate over {per_second}/second burst {burst} packets")
            }
            Self::MoreConnections(count) => format!("ct count over {count}"),
            Self::Source(is, set) => format!("iifname . {ip} saddr {is}@{set}"),
            Self::SourceWithMac(is, set) => {
                format!("iifname . ether saddr . {ip} saddr {is}@{set}")
            }
        }
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = |ports: &Option<(u16, u16)>| {
            ports.map(|(first, last)| format!(" to :{first}-{last}")).unwrap_or_default()
        };
        match self {
            Self::SetMark(mark) => {
                write!(f, "meta mark set mark & {:#010x} | {:#010x}", !mark.mask, mark.value)
            }
            Self::SetDscp(dscp) => write!(f, "dscp set {}", dscp.number()),
            Self::Log(prefix) => write!(f, "log prefix \"{prefix}\""),
            Self::NoTrack => write!(f, "notrack"),
            Self::SetZone(zone) => write!(f, "ct zone set {zone}"),
            Self::Masquerade { ports: range } => {
                write!(f, "masquerade{} fully-random", ports(range))
            }
            Self::SourceNat { addr, ports: range } => {
                write!(f, "snat to {addr}{} fully-random", ports(range).replace(" to ", ""))
            }
            Self::DestinationNat(addr) => write!(f, "dnat to {addr}"),
            Self::Dispatch(way, map) => write!(f, "{way} vmap @{map}"),
            Self::Reject(Reject::Unreachable) => write!(f, "reject"),
            Self::Reject(Reject::Reset) => write!(f, "reject with tcp reset"),
            Self::Verdict(verdict) => verdict.fmt(f),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => write!(f, "accept"),
            Self::Drop => write!(f, "drop"),
            Self::Return => write!(f, "return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

impl ElementKind {
    /// Returns what nft(8) calls a set of such elements.
    #[must_use]
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Dispatch => "map",
            Self::Addr
            | Self::Member
            | Self::Net
            | Self::AddrPort
            | Self::Ports
            | Self::Source
            | Self::SourceWithMac => "set",
        }
    }

    /// Writes the type of such a set.
    #[must_use]
    pub fn text(self, family: Family) -> String {
        let addr = match family {
            Family::V4 => "ipv4_addr",
            Family::V6 => "ipv6_addr",
        };
        match self {
            Self::Addr => format!("type {addr}"),
            Self::Member => format!("type ipv6_addr . {addr}"),
            Self::Net => format!("type {addr}; flags interval"),
            Self::AddrPort => format!("type {addr} . inet_proto . inet_service"),
            Self::Ports => "type inet_service; flags interval".to_owned(),
            Self::Source => format!("type ifname . {addr}"),
            Self::SourceWithMac => format!("type ifname . ether_addr . {addr}"),
            Self::Dispatch => "type ifname : verdict".to_owned(),
        }
    }
}

impl Side {
    const fn letter(self) -> char {
        match self {
            Self::Source => 's',
            Self::Destination => 'd',
        }
    }
}

impl fmt::Display for Is {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::In => "",
            Self::NotIn => "!= ",
        })
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::In => "iifname",
            Self::Out => "oifname",
            Self::Slave => "sdifname",
        })
    }
}

impl fmt::Display for InterfacePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl fmt::Display for CtStates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [(1, "invalid"), (2, "established"), (4, "related"), (8, "new")];
        let mut separator = "";
        for (_, name) in names.iter().filter(|(bit, _)| self.0 & bit != 0) {
            write!(f, "{separator}{name}")?;
            separator = ",";
        }
        Ok(())
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            BaseKind::Filter => "filter",
            BaseKind::Nat => "nat",
        };
        let hook = match self.hook {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
        };
        write!(f, "type {kind} hook {hook} priority {}; policy accept;", self.priority)
    }
}
