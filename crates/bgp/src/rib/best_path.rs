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
    /// Where among the candidates the path stands that is passed on to peers.
    pub best: usize,
    /// The next hops of all paths that are as good, up to where only ties are broken.
    pub gateways: BTreeSet<IpAddr>,
}

impl Selection {
    /// Returns the gateway if there is just one.
    #[must_use]
    pub fn only_gateway(&self) -> Option<IpAddr> {
        self.gateways.first().copied().filter(|_| self.gateways.len() == 1)
    }
}

type Numbered<'a> = (usize, &'a Candidate);

/// Chooses among `candidates`; which path it is does not depend on their order.
#[must_use]
pub fn select(candidates: &[Candidate]) -> Option<Selection> {
    if let [only] = candidates {
        return Some(Selection { best: 0, gateways: BTreeSet::from([only.path.next_hop]) });
    }
    let mut equal = keep_least(candidates.iter().enumerate().collect(), |each| {
        let attributes = &each.path.attributes;
        let local_pref = attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF);
        (Reverse(local_pref), attributes.as_path.length(), attributes.origin)
    });
    keep_least_med(&mut equal);
    // RFC 4271 §9.1.2.2 d: external before internal. Here multipath ends and breaking ties begins.
    let mut equal = keep_least(equal, |each| each.source.is_internal);
    equal.sort_by_key(|(_, each)| tie_breaker(each));
    let (best, _) = *equal.first()?;
    let mut gateways = BTreeSet::new();
    for (_, candidate) in &equal {
        if gateways.len() < MAX_GATEWAYS {
            gateways.insert(candidate.path.next_hop);
        }
    }
    Some(Selection { best, gateways })
}

/// RFC 4271 §9.1.2.2 f and g, with RFC 4456 §9 between them.
fn tie_breaker(candidate: &Candidate) -> (BgpIdentifier, usize, IpAddr, u32, u32) {
    let attributes = &candidate.path.attributes;
    let identifier = attributes.originator_id.unwrap_or(candidate.source.identifier);
    let clusters = attributes.cluster_list.len();
    let Candidate { source, received_id, .. } = candidate;
    (identifier, clusters, source.addr, source.peer.0, *received_id)
}

fn keep_least<K: Ord>(
    candidates: Vec<Numbered<'_>>,
    key: impl Fn(&Candidate) -> K,
) -> Vec<Numbered<'_>> {
    let Some(least) = candidates.iter().map(|(_, each)| key(each)).min() else { return candidates };
    candidates.into_iter().filter(|(_, each)| key(each) == least).collect()
}

/// RFC 4271 §9.1.2.2 c: a MED is compared only with those of the same neighbouring AS.
fn keep_least_med(candidates: &mut Vec<Numbered<'_>>) {
    let neighbour = |each: &Candidate| each.path.attributes.as_path.neighbour();
    let med = |each: &Candidate| each.path.attributes.med.unwrap_or(0);
    let mut least: BTreeMap<Option<Asn>, u32> = BTreeMap::new();
    for (_, candidate) in candidates.iter() {
        let entry = least.entry(neighbour(candidate)).or_insert(u32::MAX);
        *entry = (*entry).min(med(candidate));
    }
    candidates.retain(|(_, each)| least.get(&neighbour(each)) == Some(&med(each)));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::rib::{Path, PeerIndex, Source};
    use crate::wire::{AsPath, Attributes, Origin, Segment, SegmentKind};

    /// What differs between candidates; the peer's number is the last octet of all its addresses.
    #[derive(Clone, Debug)]
    struct Case {
        peer: u8,
        local_pref: Option<u32>,
        path: Vec<u32>,
        origin: Origin,
        med: Option<u32>,
        is_internal: bool,
        originator: Option<u32>,
        clusters: usize,
    }

    const PLAIN: Case = Case {
        peer: 1,
        local_pref: None,
        path: Vec::new(),
        origin: Origin::Igp,
        med: None,
        is_internal: true,
        originator: None,
        clusters: 0,
    };

    fn candidate(case: &Case) -> Candidate {
        let addr = IpAddr::from([192, 0, 2, case.peer]);
        let asns: Vec<Asn> = case.path.iter().copied().map(Asn).collect();
        let segment = Segment { kind: SegmentKind::Sequence, asns };
        let attributes = Attributes {
            origin: case.origin,
            as_path: AsPath(if case.path.is_empty() { Vec::new() } else { vec![segment] }),
            med: case.med,
            local_pref: case.local_pref,
            originator_id: case.originator.map(BgpIdentifier),
            cluster_list: vec![0; case.clusters],
            ..Attributes::default()
        };
        let source = Source {
            peer: PeerIndex(case.peer.into()),
            addr,
            identifier: BgpIdentifier(case.peer.into()),
            is_internal: case.is_internal,
            is_client: false,
            cluster_id: None,
            epoch: 0,
        };
        let path =
            Arc::new(Path { next_hop: addr, attributes: Arc::new(attributes), serial: 1, hash: 0 });
        Candidate { source: Arc::new(source), path, received_id: 0, sent_id: 1 }
    }

    /// Returns the best peer and, in order, all whose next hops are used.
    fn choose(cases: &[Case]) -> (u32, Vec<u8>) {
        let candidates: Vec<Candidate> = cases.iter().map(candidate).collect();
        let selection = select(&candidates).unwrap();
        let last_octet =
            |addr: &IpAddr| addr.to_string().rsplit('.').next().unwrap().parse().unwrap();
        (
            candidates[selection.best].source.peer.0,
            selection.gateways.iter().map(last_octet).collect(),
        )
    }

    #[test]
    fn each_step_of_rfc_4271_9_1_2_decides_before_the_next() {
        // Peer 2 has the better value of each step, and everything that comes later is worse.
        let worse = Case {
            path: vec![7, 8],
            origin: Origin::Incomplete,
            med: Some(9),
            originator: Some(9),
            clusters: 9,
            ..PLAIN
        };
        let steps = [
            ("LOCAL_PREF", Case { local_pref: Some(101), ..worse.clone() }, PLAIN),
            (
                "path length",
                Case { path: vec![7], ..worse.clone() },
                Case { path: vec![7, 8], ..PLAIN },
            ),
            (
                "origin",
                Case { path: vec![7], origin: Origin::Igp, ..worse.clone() },
                Case { path: vec![7], origin: Origin::Egp, ..PLAIN },
            ),
            (
                "MED",
                Case { path: vec![7], origin: Origin::Igp, med: Some(1), ..worse.clone() },
                Case { path: vec![7], med: Some(2), is_internal: false, ..PLAIN },
            ),
            (
                "external",
                Case { is_internal: false, originator: Some(9), clusters: 9, ..PLAIN },
                PLAIN,
            ),
        ];
        for (step, better, worse) in steps {
            let better = Case { peer: 2, ..better };
            assert_eq!(choose(&[worse.clone(), better.clone()]), (2, vec![2]), "{step}");
            assert_eq!(choose(&[better, worse]), (2, vec![2]), "{step}");
        }
    }

    #[test]
    fn ties_are_broken_for_peers_but_not_for_gateways() {
        let ties = [
            ("identifier", Case { peer: 2, ..PLAIN }, Case { peer: 3, ..PLAIN }),
            ("originator", Case { peer: 2, originator: Some(0), ..PLAIN }, PLAIN),
            (
                "clusters",
                Case { peer: 2, originator: Some(5), ..PLAIN },
                Case { originator: Some(5), clusters: 1, ..PLAIN },
            ),
        ];
        for (tie, better, worse) in ties {
            let (best, gateways) = choose(&[worse, better]);
            assert_eq!((best, gateways.len()), (2, 2), "{tie}");
        }
    }

    #[test]
    fn med_is_compared_only_within_a_neighbouring_as() {
        let one = Case { path: vec![7], med: Some(5), ..PLAIN };
        let two = Case { peer: 2, path: vec![8], med: Some(1), ..PLAIN };
        let three = Case { peer: 3, path: vec![7], med: Some(4), ..PLAIN };
        assert_eq!(choose(&[one.clone(), two.clone()]), (1, vec![1, 2]));
        assert_eq!(choose(&[one, two, three]), (2, vec![2, 3]));
    }

    #[test]
    fn a_route_has_at_most_sixteen_gateways_and_the_best_is_among_them() {
        let cases: Vec<Case> = (1..40).rev().map(|peer| Case { peer, ..PLAIN }).collect();
        let (best, gateways) = choose(&cases);
        assert_eq!((best, gateways.len()), (1, MAX_GATEWAYS));
        assert!(gateways.contains(&1));
    }

    fn any_case(peer: u8) -> impl Strategy<Value = Case> {
        let origin = prop_oneof![Just(Origin::Igp), Just(Origin::Incomplete)];
        let path = proptest::collection::vec(1_u32..3, 0..3);
        let first = (prop_oneof![Just(None), Just(Some(100)), Just(Some(200))], path, origin);
        let second =
            (proptest::option::of(0_u32..3), any::<bool>(), proptest::option::of(0_u32..3));
        (first, second, 0_usize..2).prop_map(move |(first, second, clusters)| Case {
            peer,
            local_pref: first.0,
            path: first.1,
            origin: first.2,
            med: second.0,
            is_internal: second.1,
            originator: second.2,
            clusters,
        })
    }

    proptest! {
        #[test]
        fn the_order_of_candidates_does_not_matter(
            cases in (any_case(1), any_case(2), any_case(3), any_case(4)),
            rotation in 0_usize..4,
        ) {
            let mut cases = vec![cases.0, cases.1, cases.2, cases.3];
            let chosen = choose(&cases);
            cases.rotate_left(rotation);
            prop_assert_eq!(&choose(&cases), &chosen);
            cases.reverse();
            prop_assert_eq!(&choose(&cases), &chosen);
        }
    }
}
