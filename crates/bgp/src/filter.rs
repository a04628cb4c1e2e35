//! Filters of people: which rule decides about a route, and what it does to it
//! (the `BGPFilter` of Calico).

use std::net::IpAddr;

use model::bgp_filter::{FilterOperation, FilterRule, PrefixMatch, PrefixOperator, SessionKind};
use model::net::{Asn, Cidr};
use model::peer::Community;

use crate::rib::{DEFAULT_LOCAL_PREF, METRIC_BASE, metric_of};
use crate::ways::{self, Ways};
use crate::wire::{AsPath, Attributes};

/// Returns the LOCAL_PREF of our own routes: what Calico makes of the metric of a normal route.
pub(crate) const fn local_pref_of(priority: u32) -> u32 {
    METRIC_BASE.saturating_sub(priority)
}

/// A route as rules see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route<'a> {
    pub(crate) cidr: &'a Cidr,
    pub(crate) attributes: &'a Attributes,
    /// Does it come from a peer, and not from us?
    pub(crate) is_learned: bool,
    /// The kind of the session that the rules stand at.
    pub(crate) session: SessionKind,
    /// Where it leads, and by which interface that is.
    pub(crate) way: Option<(IpAddr, &'a Ways)>,
}

/// What rules say about a route.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Verdict {
    /// It does not pass.
    Reject,
    /// It passes as it is; no rule matches.
    Untouched,
    /// It passes by the rule in this place, which may change it.
    Rule(usize),
}

/// Returns what `rules` say: the first that matches decides.
pub(crate) fn judge(rules: &[FilterRule], route: &Route<'_>) -> Verdict {
    match rules.iter().position(|rule| matches(rule, route)) {
        None => Verdict::Untouched,
        Some(place) if rules.get(place).is_some_and(|rule| rule.is_accepted) => {
            Verdict::Rule(place)
        }
        Some(_) => Verdict::Reject,
    }
}

/// Does the route have all the marks of the rule?
fn matches(rule: &FilterRule, route: &Route<'_>) -> bool {
    let attributes = route.attributes;
    rule.interface.as_deref().is_none_or(|pattern| leads_out_of(pattern, route))
        && rule.prefix.as_ref().is_none_or(|prefix| matches_prefix(prefix, route.cidr))
        && (route.is_learned || !rule.from_peers_only)
        && rule.session.is_none_or(|session| session == route.session)
        && rule.communities.iter().all(|each| has_community(attributes, *each))
        && starts_with(&attributes.as_path, &rule.as_path_prefix)
        && rule.priority.is_none_or(|priority| priority == priority_of(attributes))
}

/// Does the route lead out of an interface that the pattern fits? What we originate leads nowhere.
fn leads_out_of(pattern: &str, route: &Route<'_>) -> bool {
    let interface = route.way.and_then(|(next_hop, ways)| ways.interface(next_hop));
    interface.is_some_and(|interface| ways::fits(pattern, interface.as_str()))
}

fn matches_prefix(wanted: &PrefixMatch, cidr: &Cidr) -> bool {
    let is_matched = match wanted.operator {
        PrefixOperator::Equal => *cidr == wanted.cidr,
        PrefixOperator::NotEqual => *cidr != wanted.cidr,
        PrefixOperator::In => wanted.cidr.covers(cidr),
        PrefixOperator::NotIn => !wanted.cidr.covers(cidr),
    };
    is_matched && wanted.lengths.contains(&cidr.prefix_len())
}

/// Returns the kernel metric that a path's LOCAL_PREF stands for.
fn priority_of(attributes: &Attributes) -> u32 {
    metric_of(attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF))
}

fn has_community(attributes: &Attributes, community: Community) -> bool {
    match community {
        Community::Standard(high, low) => attributes.communities.contains(&standard(high, low)),
        Community::Large(global, one, two) => {
            attributes.large_communities.contains(&[global, one, two])
        }
        Community::RouteTarget(asn, number) => {
            attributes.extended_communities.contains(&route_target(asn, number))
        }
    }
}

/// Writes a route target: of two octets of AS and four of number (RFC 4360 §3.1), or the other way
/// round (RFC 5668 §2).
fn route_target(asn: Asn, number: u16) -> [u8; 8] {
    const ROUTE_TARGET: u8 = 0x02;
    let [high, low] = number.to_be_bytes();
    if let Ok(short) = u16::try_from(asn.0) {
        let [first, second] = short.to_be_bytes();
        [0x00, ROUTE_TARGET, first, second, 0, 0, high, low]
    } else {
        let [first, second, third, fourth] = asn.0.to_be_bytes();
        [0x02, ROUTE_TARGET, first, second, third, fourth, high, low]
    }
}

fn standard(high: u16, low: u16) -> u32 {
    u32::from(high) << 16 | u32::from(low)
}

fn starts_with(path: &AsPath, prefix: &[Asn]) -> bool {
    let first = path.0.first().filter(|_| !prefix.is_empty());
    // Only a sequence has a start; a prefix may go over the border of two of them.
    let mut asns = path
        .0
        .iter()
        .take_while(|each| each.kind == crate::wire::SegmentKind::Sequence)
        .flat_map(|each| &each.asns);
    prefix.is_empty() || (first.is_some() && prefix.iter().all(|asn| asns.next() == Some(asn)))
}

/// Does to a path what the rule in `place` says.
pub(crate) fn apply(rules: &[FilterRule], verdict: Verdict, attributes: &mut Attributes) {
    let Verdict::Rule(place) = verdict else { return };
    for operation in rules.get(place).map_or(&[][..], |rule| &rule.operations) {
        match operation {
            FilterOperation::AddCommunity(community) => add_community(attributes, *community),
            FilterOperation::PrependAsPath(asns) => {
                for asn in asns.iter().rev() {
                    attributes.as_path.prepend(*asn);
                }
            }
            FilterOperation::SetPriority(priority) => {
                attributes.local_pref = Some(METRIC_BASE.saturating_sub(*priority));
            }
        }
    }
}

/// Marks a path with a community that it may have already.
pub(crate) fn add_community(attributes: &mut Attributes, community: Community) {
    if has_community(attributes, community) {
        return;
    }
    match community {
        Community::Standard(high, low) => attributes.communities.push(standard(high, low)),
        Community::Large(global, one, two) => {
            attributes.large_communities.push([global, one, two]);
        }
        Community::RouteTarget(asn, number) => {
            attributes.extended_communities.push(route_target(asn, number));
        }
    }
}

#[cfg(test)]
mod tests;
