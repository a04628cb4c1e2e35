//! Which routes a peer is told, and in what words (RFC 4271 §5.1, §9.2; Calico's export rules).

use std::net::IpAddr;

use model::desired::{Advertisements, BgpSession};
use model::net::Cidr;
use model::peer::NextHopMode;

use crate::rib::{Candidate, DEFAULT_LOCAL_PREF, Path, PeerIndex};
use crate::wire::{Attributes, Origin};

/// The LOCAL_PREF of our own routes: what Calico makes of the metric 1024 of a normal route.
pub(crate) const ORIGINATED_LOCAL_PREF: u32 = 2_147_483_647 - 1024;

/// A peer as the receiver of routes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) peer: PeerIndex,
    pub(crate) session: &'a BgpSession,
    /// Our end of the session, the next hop of what we originate.
    pub(crate) local_addr: IpAddr,
}

/// Returns the path of a prefix that we originate.
pub(crate) fn originate(target: &Target<'_>) -> Path {
    let attributes = Attributes { origin: Origin::Igp, ..Attributes::default() };
    let path = Path { next_hop: target.local_addr, attributes };
    if target.session.is_internal() {
        with_local_pref(path, ORIGINATED_LOCAL_PREF)
    } else {
        prepended(path, target.session)
    }
}

/// May `cidr`, learned by BGP, be passed on at all?
///
/// What lies inside a prefix of ours is a leftover of somebody's and stays here,
/// unless it is preferred to a normal route: then a workload is moving.
pub(crate) fn is_exportable(
    cidr: &Cidr,
    candidate: &Candidate,
    advertisements: &Advertisements,
) -> bool {
    let is_elevated = local_pref(candidate) > ORIGINATED_LOCAL_PREF;
    let is_inside_ours = advertisements
        .originated
        .iter()
        .any(|(own, origination)| !origination.is_service && own.covers(cidr));
    let is_in_range = advertisements.exportable.iter().any(|range| range.covers(cidr));
    is_in_range && (!is_inside_ours || is_elevated)
}

/// Returns the words in which `target` is told of a learned path, if it may be.
///
/// It depends on nothing but the path, its source and the target, never on the prefix.
pub(crate) fn pass_on(candidate: &Candidate, target: &Target<'_>) -> Option<Path> {
    let (from_internal, to_internal) = (candidate.source.is_internal, target.session.is_internal());
    // RFC 4271 §9.2: internal routes stay where they came from; a reflector is the exception.
    if candidate.source.peer == target.peer || (from_internal && to_internal) {
        return None;
    }
    let communities = &candidate.path.attributes.communities;
    let has = |community: u32| communities.contains(&community);
    let is_kept_inside = has(Attributes::NO_EXPORT) || has(Attributes::NO_EXPORT_SUBCONFED);
    if has(Attributes::NO_ADVERTISE) || (!to_internal && is_kept_inside) {
        return None;
    }
    let mut path = Path::clone(&candidate.path);
    for attribute in &mut path.attributes.unknown {
        attribute.is_partial = true;
    }
    let is_ours = match target.session.next_hop {
        NextHopMode::Auto => !to_internal,
        NextHopMode::SelfAddr => true,
        NextHopMode::Keep => false,
    };
    if is_ours {
        path.next_hop = target.local_addr;
    }
    if to_internal {
        return Some(with_local_pref(path, local_pref(candidate)));
    }
    // RFC 4271 §5.1.4, §5.1.5; RFC 4456 §8: these mean something only inside our AS.
    path.attributes.med = None;
    path.attributes.local_pref = None;
    path.attributes.originator_id = None;
    path.attributes.cluster_list = Vec::new();
    Some(prepended(path, target.session))
}

fn local_pref(candidate: &Candidate) -> u32 {
    candidate.path.attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF)
}

fn with_local_pref(mut path: Path, local_pref: u32) -> Path {
    path.attributes.local_pref = Some(local_pref);
    path
}

fn prepended(mut path: Path, session: &BgpSession) -> Path {
    path.attributes.as_path = path.attributes.as_path.prepended(session.local_asn);
    path
}
