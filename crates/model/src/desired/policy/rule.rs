//! Rules that compare nothing but addresses, protocols and ports.

use super::SetId;
use crate::net::{Cidr, Family};
use crate::policy::{Action, IcmpMatch, Protocol};

/// The rules of a policy or a profile.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PolicyRules {
    /// For packets to an endpoint, in the order and with the indices of the object.
    pub ingress: Vec<CompiledRule>,
    /// For packets from an endpoint, in the order and with the indices of the object.
    pub egress: Vec<CompiledRule>,
}

/// A rule: what happens to packets that have all the marks that are set here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CompiledRule {
    /// What happens.
    pub action: Action,
    /// The address family; `None` is both.
    pub family: Option<Family>,
    /// The protocol.
    pub protocol: Option<Protocol>,
    /// A protocol that it must not be.
    pub not_protocol: Option<Protocol>,
    /// The message of ICMP or `ICMPv6`; `protocol` says which.
    pub icmp: Option<IcmpMatch>,
    /// A message that it must not be; `protocol` says which.
    pub not_icmp: Option<IcmpMatch>,
    /// The sender.
    pub source: CompiledEntity,
    /// The receiver.
    pub destination: CompiledEntity,
    /// Why it could not be followed, for whoever wrote it; `action` is Deny
    /// then, and what could not be compared is left out of the marks.
    pub never: Option<String>,
}

impl CompiledRule {
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
            source: CompiledEntity::default(),
            destination: CompiledEntity::default(),
            never: None,
        }
    }
}

/// What one end of a packet's way must be like; all that is set here must hold.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CompiledEntity {
    /// Its address lies in one of these; `None` is anywhere. Networks of the
    /// packet's other family hold none of its addresses.
    pub nets: Option<Vec<Cidr>>,
    /// Its address lies in none of these.
    pub not_nets: Vec<Cidr>,
    /// Its address lies in every one of these sets of networks.
    pub in_sets: Vec<SetId>,
    /// Its address lies in none of these sets of networks.
    pub not_in_sets: Vec<SetId>,
    /// Its port is one of these; `None` is any.
    pub ports: Option<Ports>,
    /// Its port is none of these.
    pub not_ports: Ports,
    /// Its address, the packet's protocol and its port are a member of this set.
    pub service: Option<SetId>,
}

/// Ports: any of the ranges, or any of the sets.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ports {
    /// From the first to the last, both included; sorted, and disjoint.
    pub ranges: Vec<(u16, u16)>,
    /// Address, protocol and port are a member of one of these sets.
    pub named: Vec<SetId>,
}

impl Ports {
    /// Do they say nothing?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.named.is_empty()
    }
}
