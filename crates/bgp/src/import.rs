//! Which received paths are used, and how they are changed first (RFC 4271 §9.1.2,
//! RFC 4456 §8, RFC 8212, RFC 9234 §5).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use model::bgp_filter::SessionKind;
use model::desired::{BgpSession, Role};
use model::net::{Asn, Cidr, zone};

use crate::filter::{self, Route, Verdict};
use crate::rib::{Interner, Path};
use crate::ways::Ways;
use crate::wire::Attributes;

/// Who we are, to whom a route must not come back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity<'a> {
    pub(crate) identifier: u32,
    pub(crate) cluster_ids: &'a BTreeSet<u32>,
    pub(crate) local_addr: Option<IpAddr>,
    pub(crate) ways: &'a Ways,
}

/// Takes the prefixes of one announcement, which share next hop and attributes.
#[derive(Debug)]
pub(crate) struct Import<'a> {
    session: &'a BgpSession,
    next_hop: IpAddr,
    ways: &'a Ways,
    /// `None` if no prefix is taken.
    attributes: Option<Arc<Attributes>>,
    /// What rules have made of the path, by their verdict: that of the first prefix, and others.
    first: Option<(Verdict, Arc<Path>)>,
    others: Vec<(Verdict, Arc<Path>)>,
}

impl<'a> Import<'a> {
    pub(crate) fn new(
        session: &'a BgpSession,
        identity: &Identity<'a>,
        next_hop: IpAddr,
        attributes: &Arc<Attributes>,
    ) -> Self {
        let next_hop = on_our_side(next_hop, session);
        let is_usable = next_hop.is_some_and(is_gateway)
            && next_hop != identity.local_addr
            && is_loop_free(attributes, session, identity);
        let attributes = is_usable.then(|| for_customers(session, attributes)).flatten();
        let next_hop = next_hop.unwrap_or(session.peer_addr);
        Self { session, next_hop, ways: identity.ways, attributes, first: None, others: Vec::new() }
    }

    /// Returns the path to use for `cidr`, if one may be used.
    pub(crate) fn path(&mut self, cidr: &Cidr, interner: &mut Interner) -> Option<Arc<Path>> {
        let attributes = self.attributes.as_ref().filter(|_| is_unicast(cidr))?;
        let rules = self.session.import.of(cidr.family());
        let is_internal = self.session.is_internal();
        if rules.is_none() && self.session.requires_policy && !is_internal {
            // RFC 8212 §2.1.
            return None;
        }
        let rules = rules.unwrap_or_default();
        let session = if is_internal { SessionKind::Internal } else { SessionKind::External };
        let way = Some((self.next_hop, self.ways));
        let route = Route { cidr, attributes, is_learned: true, session, way };
        let verdict = filter::judge(rules, &route);
        if verdict == Verdict::Reject {
            return None;
        }
        let mut known = self.first.iter().chain(&self.others);
        if let Some((_, path)) = known.find(|(known, _)| *known == verdict) {
            return Some(Arc::clone(path));
        }
        let mut attributes = Arc::clone(attributes);
        if verdict != Verdict::Untouched {
            filter::apply(rules, verdict, Arc::make_mut(&mut attributes));
        }
        let path = interner.intern(self.next_hop, attributes);
        let known = (verdict, Arc::clone(&path));
        if self.first.is_none() {
            self.first = Some(known);
        } else {
            self.others.push(known);
        }
        Some(path)
    }
}

/// Has the route not been here before (RFC 4271 §9.1.2, RFC 4456 §8)?
fn is_loop_free(attributes: &Attributes, session: &BgpSession, identity: &Identity<'_>) -> bool {
    let own = attributes.as_path.0.iter().flat_map(|segment| &segment.asns);
    let own = own.filter(|asn| **asn == session.local_asn).count();
    let is_ours = attributes.originator_id.is_some_and(|each| each.0 == identity.identifier);
    let was_reflected_here =
        attributes.cluster_list.iter().any(|id| identity.cluster_ids.contains(id));
    own <= usize::from(session.allowed_own_asns) && !is_ours && !was_reflected_here
}

/// Refuses leaked routes, and marks those that may only go down (RFC 9234 §5).
fn for_customers(session: &BgpSession, attributes: &Arc<Attributes>) -> Option<Arc<Attributes>> {
    let (peer, marked): (Asn, Option<Asn>) = (session.peer_asn, attributes.only_to_customer);
    match (session.role, marked) {
        (Some(Role::Provider | Role::RouteServer), Some(_)) => None,
        (Some(Role::Peer), Some(asn)) if asn != peer => None,
        (Some(Role::Customer | Role::Peer | Role::RouteServerClient), None) => {
            let mut attributes = Attributes::clone(attributes);
            attributes.only_to_customer = Some(peer);
            Some(Arc::new(attributes))
        }
        _ => Some(Arc::clone(attributes)),
    }
}

/// Are the destinations hosts elsewhere (RFC 4271 §6.3, "semantically incorrect")?
fn is_unicast(cidr: &Cidr) -> bool {
    let len = cidr.prefix_len();
    match cidr.addr() {
        IpAddr::V4(addr) => !(addr.is_multicast() && len >= 4 || addr.is_loopback() && len >= 8),
        IpAddr::V6(addr) => !(addr.is_multicast() && len >= 8 || addr.is_loopback() && len == 128),
    }
}

/// Returns the next hop with its link if it is link-local: that of the session, if that has one.
/// Without, nobody knows where it is (RFC 2545 §3).
fn on_our_side(next_hop: IpAddr, session: &BgpSession) -> Option<IpAddr> {
    match next_hop {
        IpAddr::V6(addr) if zone::is_link_local(next_hop) => {
            zone::on_link(addr, zone::of(session.peer_addr)?)
        }
        IpAddr::V4(_) | IpAddr::V6(_) => Some(next_hop),
    }
}

/// Can packets be sent to `addr` at all (RFC 4271 §6.3)?
fn is_gateway(addr: IpAddr) -> bool {
    let is_broadcast = matches!(addr, IpAddr::V4(addr) if addr.is_broadcast());
    !addr.is_unspecified() && !addr.is_multicast() && !addr.is_loopback() && !is_broadcast
}
