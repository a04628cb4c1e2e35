//! Filters: which routes a BGP peer is told, and which are taken from it.

use std::ops::RangeInclusive;

use crate::net::{Asn, Cidr};
use crate::peer::Community;

/// Rules for routes to and from a peer (`BGPFilter`).
///
/// The first rule that matches decides; what none matches is treated as if
/// there were no filter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BgpFilter {
    /// The object's name.
    pub name: String,
    /// For IPv4 routes to the peer.
    pub export_v4: Vec<FilterRule>,
    /// For IPv4 routes from the peer.
    pub import_v4: Vec<FilterRule>,
    /// For IPv6 routes to the peer.
    pub export_v6: Vec<FilterRule>,
    /// For IPv6 routes from the peer.
    pub import_v6: Vec<FilterRule>,
}

/// What happens to routes that have all the marks that are set here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FilterRule {
    /// Whether they pass.
    pub is_accepted: bool,
    /// Their destination.
    pub prefix: Option<PrefixMatch>,
    /// Whether only those learned from BGP peers.
    pub from_peers_only: bool,
    /// The interface that they lead out of; `*` stands for any text.
    pub interface: Option<String>,
    /// The kind of session that they came by.
    pub session: Option<SessionKind>,
    /// All of these communities.
    pub communities: Vec<Community>,
    /// How their AS path starts.
    pub as_path_prefix: Vec<Asn>,
    /// Their kernel metric.
    pub priority: Option<u32>,
    /// What is done to those that pass, in order.
    pub operations: Vec<FilterOperation>,
}

/// What a route's destination must be like.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PrefixMatch {
    /// The network that it is compared with.
    pub cidr: Cidr,
    /// How.
    pub operator: PrefixOperator,
    /// The lengths of prefix that it may have.
    pub lengths: RangeInclusive<u8>,
}

/// How a destination is compared with a network.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PrefixOperator {
    /// It is the network.
    Equal,
    /// It is not the network.
    NotEqual,
    /// It lies in the network, or is the network.
    In,
    /// It does not lie in the network.
    NotIn,
}

/// The kind of a session (RFC 4271 §1.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SessionKind {
    /// With another AS.
    External,
    /// Within the AS.
    Internal,
}

/// What is done to a route that passes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FilterOperation {
    /// Marks it.
    AddCommunity(Community),
    /// Makes its AS path longer.
    PrependAsPath(Vec<Asn>),
    /// Sets its metric in the kernel.
    SetPriority(u32),
}
