//! Packets, and what becomes of them.

use std::fmt;
use std::net::IpAddr;

use model::id::NamespacedName;
use model::net::Family;
use model::policy::{PolicyId, Protocol};

/// The first packet of a connection, as far as rules can tell.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Packet {
    /// The sender.
    pub source: IpAddr,
    /// The receiver, of the same family.
    pub destination: IpAddr,
    /// The protocol, and what it is asked by.
    pub protocol: Protocol,
    /// The sender's port; zero for protocols without.
    pub source_port: u16,
    /// The receiver's port; zero for protocols without.
    pub destination_port: u16,
    /// Type and code of ICMP and `ICMPv6`.
    pub icmp: Option<(u8, u8)>,
}

impl Packet {
    /// Returns the address family.
    #[must_use]
    pub const fn family(&self) -> Family {
        Family::of(self.destination)
    }
}

/// Whose packets.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Endpoint {
    /// A pod's.
    Workload(NamespacedName),
    /// Those of a host endpoint, by its object's name.
    Host(String),
}

/// Where an endpoint meets a packet.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Way {
    /// It is sent to the endpoint.
    Ingress,
    /// The endpoint sends it.
    Egress,
    /// It comes in by a host endpoint, and is forwarded.
    ForwardIngress,
    /// It is forwarded, and leaves by a host endpoint.
    ForwardEgress,
    /// It comes in by a host endpoint, before destinations are translated.
    PreDnat,
    /// It comes in by a host endpoint, before connections are tracked.
    UntrackedIngress,
    /// It leaves by a host endpoint, before connections are tracked.
    UntrackedEgress,
}

impl Way {
    /// Every way.
    pub const ALL: [Self; 7] = [
        Self::Ingress,
        Self::Egress,
        Self::ForwardIngress,
        Self::ForwardEgress,
        Self::PreDnat,
        Self::UntrackedIngress,
        Self::UntrackedEgress,
    ];

    /// Are the rules those for packets to the endpoint?
    #[must_use]
    pub const fn is_ingress(self) -> bool {
        matches!(
            self,
            Self::Ingress | Self::ForwardIngress | Self::PreDnat | Self::UntrackedIngress
        )
    }

    /// Do only rules decide, and neither tiers' default actions nor profiles?
    #[must_use]
    pub const fn is_early(self) -> bool {
        matches!(self, Self::PreDnat | Self::UntrackedIngress | Self::UntrackedEgress)
    }

    /// Do profiles decide what no tier does?
    #[must_use]
    pub const fn has_profiles(self) -> bool {
        matches!(self, Self::Ingress | Self::Egress)
    }
}

/// What becomes of a packet, and who says so.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decision {
    /// A rule lets it pass.
    Allowed(Cause),
    /// It is dropped.
    Denied(Cause),
    /// Nothing decides here: it goes on, which lets it pass if it is forwarded.
    Undecided,
}

/// Who decides.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Cause {
    /// A rule of a policy, by its index.
    Policy(PolicyId, usize),
    /// A tier that has policies for the endpoint, none of whose rules matches.
    TierDefault(String),
    /// A rule of a profile, by its index.
    Profile(String, usize),
    /// No profile allows it.
    NoProfile,
}

impl Decision {
    /// Does it not end here?
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        !matches!(self, Self::Denied(_))
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed(cause) => write!(f, "allowed by {cause}"),
            Self::Denied(cause) => write!(f, "denied by {cause}"),
            Self::Undecided => f.write_str("goes on, since nothing decides"),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(id, index) => write!(f, "rule {index} of {id}"),
            Self::TierDefault(tier) => write!(f, "the default action of tier {tier}"),
            Self::Profile(name, index) => write!(f, "rule {index} of profile {name}"),
            Self::NoProfile => f.write_str("no profile allowing it"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(pod) => write!(f, "pod {pod}"),
            Self::Host(name) => write!(f, "host endpoint {name}"),
        }
    }
}
