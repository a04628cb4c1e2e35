//! Which path is used: the decision process (RFC 4271 §9.1.2), with multipath.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::net::Asn;

use super::{Candidate, DEFAULT_LOCAL_PREF};
use crate::wire::BgpIdentifier;

/// The most gateways of one route (BIRD's default of `merge paths`).
pub const MAX_GATEWAYS: usize = 16;

/// What was chosen for a destination.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The path that is passed on to peers.
    pub best: Candidate,
    /// The next hops of all paths that are as good, up to where only ties are broken.
    pub gateways: BTreeSet<IpAddr>,
}

/// Chooses among `candidates`; the outcome does not depend on their order.
#[must_use]
pub fn select(candidates: &[Candidate]) -> Option<Selection> {
    if let [only] = candidates {
        let gateways = BTreeSet::from([only.path.next_hop]);
        return Some(Selection { best: only.clone(), gateways });
    }
    let mut equal = keep_least(candidates.iter().collect(), |each| {
        let attributes = &each.path.attributes;
        let local_pref = attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF);
        (Reverse(local_pref), attributes.as_path.length(), attributes.origin)
    });
    keep_least_med(&mut equal);
    // RFC 4271 §9.1.2.2 d: external before internal. Here multipath ends and breaking ties begins.
    let mut equal = keep_least(equal, |each| each.source.is_internal);
    equal.sort_by_key(|each| tie_breaker(each));
    let best = equal.first()?;
    let mut gateways = BTreeSet::new();
    for candidate in &equal {
        if gateways.len() < MAX_GATEWAYS {
            gateways.insert(candidate.path.next_hop);
        }
    }
    Some(Selection { best: (*best).clone(), gateways })
}

/// RFC 4271 §9.1.2.2 f and g, with RFC 4456 §9 between them.
fn tie_breaker(candidate: &Candidate) -> (BgpIdentifier, usize, IpAddr, u32) {
    let attributes = &candidate.path.attributes;
    let identifier = attributes.originator_id.unwrap_or(candidate.source.identifier);
    let clusters = attributes.cluster_list.len();
    (identifier, clusters, candidate.source.addr, candidate.source.peer.0)
}

fn keep_least<K: Ord>(
    candidates: Vec<&Candidate>,
    key: impl Fn(&Candidate) -> K,
) -> Vec<&Candidate> {
    let Some(least) = candidates.iter().map(|each| key(each)).min() else { return candidates };
    candidates.into_iter().filter(|each| key(each) == least).collect()
}

/// RFC 4271 §9.1.2.2 c: a MED is compared only with those of the same neighbouring AS.
fn keep_least_med(candidates: &mut Vec<&Candidate>) {
    let neighbour = |each: &Candidate| each.path.attributes.as_path.neighbour();
    let med = |each: &Candidate| each.path.attributes.med.unwrap_or(0);
    let mut least: BTreeMap<Option<Asn>, u32> = BTreeMap::new();
    for candidate in candidates.iter() {
        let entry = least.entry(neighbour(candidate)).or_insert(u32::MAX);
        *entry = (*entry).min(med(candidate));
    }
    candidates.retain(|each| least.get(&neighbour(each)) == Some(&med(each)));
}
