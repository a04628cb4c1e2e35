//! Rules: what a packet must be like, and what happens to it then.

use std::net::IpAddr;

use super::{ChainName, SetName};
use crate::endpoint::{Dscp, PacketRate};
use crate::net::{Cidr, IfName};
use crate::policy::{IcmpMatch, Protocol};

/// What happens to packets that have all the marks.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rule {
    /// The marks; a rule without is for all packets.
    pub matches: Vec<Match>,
    /// What happens, one after the other; packets are counted before.
    pub statements: Vec<Statement>,
    /// Whose rule it is, for people.
    pub note: String,
}

/// A mark that a packet has or has not.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Match {
    /// Its connection is in one of these states.
    Ct(CtStates),
    /// Its connection's mark has these bits, of which there is one.
    CtMarked(Mark),
    /// Its connection is, or is not, of this zone.
    Zone(Is, u16),
    /// Its connection's destination is, or is not, translated.
    Translated(Is),
    /// It comes in, or goes out, by such an interface.
    Interface(Way, Is, InterfacePattern),
    /// Its protocol.
    Protocol(Is, Protocol),
    /// One end's address lies in a network.
    Net(Side, Is, Cidr),
    /// One end's address is in a set of addresses or networks.
    InSet(Side, Is, SetName),
    /// A number with one end's address is in a set of [`ElementKind::Member`](super::ElementKind::Member).
    Member(Side, Is, (u128, SetName)),
    /// One end's address, the protocol and that end's port are in a set.
    PortInSet(Side, Is, SetName),
    /// One end's port lies in a range; the protocol must have been compared before.
    Ports(Side, Is, (u16, u16)),
    /// One end's port is in a set of ranges; the protocol must have been compared before.
    InPorts(Side, Is, SetName),
    /// The message of ICMP or `ICMPv6`; the protocol must have been compared before.
    Icmp(Is, IcmpMatch),
    /// The message's type lies in a range; the protocol must have been compared before.
    IcmpTypes(u8, u8),
    /// The bits of the packet's mark.
    Marked(Is, Mark),
    /// It comes faster than that: counted by the rule, of all packets that came so far.
    Faster(PacketRate),
    /// Its connection, and those that came so far and still are, are more than that.
    MoreConnections(u32),
    /// The interface that it comes in by and its source address are in a set.
    Source(Is, SetName),
    /// That interface, the source's Ethernet address and its address are in a set.
    SourceWithMac(Is, SetName),
}

/// Must a mark be there, or must it not?
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Is {
    /// It must.
    In,
    /// It must not.
    NotIn,
}

/// States of a connection, as bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CtStates(pub u32);

impl CtStates {
    /// The packet belongs to no connection that could be.
    pub const INVALID: Self = Self(1);
    /// The packet is its connection's first.
    pub const NEW: Self = Self(8);
    /// Packets went both ways, or the connection was expected by another one.
    pub const KNOWN: Self = Self(2 | 4);
}

/// Coming in or going out.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Way {
    /// In by an interface.
    In,
    /// Out by an interface.
    Out,
    /// In by an interface that is under another one (a VRF's device), by which it seems to have
    /// come; only known of what is for this machine, or forwarded.
    Slave,
}

/// Which end of a packet's way.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Side {
    /// The sender.
    Source,
    /// The receiver.
    Destination,
}

/// Names of interfaces.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum InterfacePattern {
    /// This one.
    Name(IfName),
    /// All that start so; at most 15 bytes.
    Prefix(String),
}

/// Bits of a packet's mark.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mark {
    /// Which bits.
    pub mask: u32,
    /// What they are.
    pub value: u32,
}

/// What happens to a packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Statement {
    /// Bits of its mark are written.
    SetMark(Mark),
    /// It is marked with a codepoint; its bits of explicit congestion stay.
    SetDscp(Dscp),
    /// The kernel's log gets a line that starts so.
    Log(String),
    /// Its connection is not tracked.
    NoTrack,
    /// Its connection is of this zone, if it is not tracked yet.
    SetZone(u16),
    /// It gets the address of the interface that it leaves by.
    Masquerade {
        /// The source ports to choose from.
        ports: Option<(u16, u16)>,
    },
    /// It gets this source address.
    SourceNat {
        /// The address.
        addr: IpAddr,
        /// The source ports to choose from.
        ports: Option<(u16, u16)>,
    },
    /// It goes to this address instead.
    DestinationNat(IpAddr),
    /// It goes to the chain that a map of [`ElementKind::Dispatch`](super::ElementKind::Dispatch)
    /// has for its interface, or else to the next rule.
    Dispatch(Way, SetName),
    /// It is refused, and its sender told.
    Reject(Reject),
    /// Where it goes on.
    Verdict(Verdict),
}

/// How a sender is told that its packet is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reject {
    /// By ICMP: the port is unreachable.
    Unreachable,
    /// By a TCP reset.
    Reset,
}

/// Where a packet goes on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Past this base chain.
    Accept,
    /// Nowhere.
    Drop,
    /// To the chain that led here.
    Return,
    /// To another chain, and back.
    Jump(ChainName),
    /// To another chain, and from there back to where this one would return to.
    Goto(ChainName),
}

impl Rule {
    /// Makes a rule.
    #[must_use]
    pub fn new(matches: Vec<Match>, statements: Vec<Statement>) -> Self {
        Self { matches, statements, note: String::new() }
    }

    /// Says whose rule it is.
    #[must_use]
    pub fn noted(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

impl From<Verdict> for Statement {
    fn from(verdict: Verdict) -> Self {
        Self::Verdict(verdict)
    }
}
