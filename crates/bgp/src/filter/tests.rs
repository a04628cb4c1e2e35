//! Filters as data: rules, routes, and what becomes of them.

use super::*;
use crate::wire::{Segment, SegmentKind};

const ANY: FilterRule = FilterRule {
    is_accepted: true,
    prefix: None,
    from_peers_only: false,
    interface: None,
    session: None,
    communities: Vec::new(),
    as_path_prefix: Vec::new(),
    priority: None,
    operations: Vec::new(),
};

fn attributes(asns: &[u32], local_pref: Option<u32>, communities: &[u32]) -> Attributes {
    let asns: Vec<Asn> = asns.iter().copied().map(Asn).collect();
    let segment = Segment { kind: SegmentKind::Sequence, asns };
    Attributes {
        as_path: AsPath(if segment.asns.is_empty() { Vec::new() } else { vec![segment] }),
        local_pref,
        communities: communities.to_vec(),
        large_communities: vec![[1, 2, 3]],
        ..Attributes::default()
    }
}

fn passes(rule: &FilterRule, cidr: &str, attributes: &Attributes, is_learned: bool) -> bool {
    let cidr = cidr.parse().unwrap();
    let session = SessionKind::Internal;
    let eth0 = [("10.0.0.0/8".parse().unwrap(), "eth0".parse().unwrap())];
    let ways = Ways::from(std::collections::BTreeMap::from(eth0));
    let way = is_learned.then_some(("10.9.9.9".parse().unwrap(), &ways));
    let route = Route { cidr: &cidr, attributes, is_learned, session, way };
    judge(std::slice::from_ref(rule), &route) != Verdict::Untouched
}

#[test]
fn prefixes_match_by_operator_and_length() {
    use PrefixOperator::{Equal, In, NotEqual, NotIn};
    let all = 0..=32;
    for (operator, lengths, cidr, expected) in [
        (Equal, all.clone(), "10.1.0.0/16", true),
        (Equal, all.clone(), "10.1.0.0/17", false),
        (NotEqual, all.clone(), "10.1.0.0/16", false),
        (NotEqual, all.clone(), "10.1.0.0/17", true),
        (In, all.clone(), "10.1.0.0/16", true),
        (In, all.clone(), "10.1.2.0/24", true),
        (In, all.clone(), "10.0.0.0/8", false),
        (In, all.clone(), "10.2.0.0/16", false),
        (In, 26..=32, "10.1.2.0/24", false),
        (In, 24..=24, "10.1.2.0/24", true),
        (NotIn, all.clone(), "10.1.2.0/24", false),
        (NotIn, all.clone(), "10.0.0.0/8", true),
        (NotIn, 16..=16, "10.2.0.0/16", true),
        (NotIn, 17..=32, "10.2.0.0/16", false),
    ] {
        let wanted = PrefixMatch { cidr: "10.1.0.0/16".parse().unwrap(), operator, lengths };
        let text = format!("{wanted:?} {cidr}");
        assert_eq!(matches_prefix(&wanted, &cidr.parse().unwrap()), expected, "{text}");
    }
}

#[test]
fn every_mark_of_a_rule_must_match() {
    let path = attributes(&[65_001, 65_002], Some(METRIC_BASE - 512), &[standard(65_000, 7)]);
    let rule = |change: fn(&mut FilterRule)| {
        let mut rule = ANY;
        change(&mut rule);
        rule
    };
    for (what, rule, expected) in [
        ("none", rule(|_| {}), true),
        ("interface", rule(|rule| rule.interface = Some("eth*".to_owned())), true),
        ("other interface", rule(|rule| rule.interface = Some("*.calico".to_owned())), false),
        ("internal", rule(|rule| rule.session = Some(SessionKind::Internal)), true),
        ("external", rule(|rule| rule.session = Some(SessionKind::External)), false),
        ("community", rule(|r| r.communities = vec![Community::Standard(65_000, 7)]), true),
        ("other community", rule(|r| r.communities = vec![Community::Standard(65_000, 8)]), false),
        ("large", rule(|rule| rule.communities = vec![Community::Large(1, 2, 3)]), true),
        ("other large", rule(|rule| rule.communities = vec![Community::Large(1, 2, 4)]), false),
        ("as path", rule(|rule| rule.as_path_prefix = vec![Asn(65_001)]), true),
        ("as path", rule(|rule| rule.as_path_prefix = vec![Asn(65_001), Asn(65_002)]), true),
        ("not its start", rule(|rule| rule.as_path_prefix = vec![Asn(65_002)]), false),
        ("too long", rule(|r| r.as_path_prefix = [65_001, 65_002, 1].map(Asn).to_vec()), false),
        ("priority", rule(|rule| rule.priority = Some(512)), true),
        ("other priority", rule(|rule| rule.priority = Some(1024)), false),
    ] {
        assert_eq!(passes(&rule, "10.0.0.0/26", &path, true), expected, "{what}");
    }
}

#[test]
fn what_we_originate_is_not_from_peers() {
    let (rule, path) = (FilterRule { from_peers_only: true, ..ANY }, Attributes::default());
    assert!(passes(&rule, "10.0.0.0/26", &path, true));
    assert!(!passes(&rule, "10.0.0.0/26", &path, false));
}

#[test]
fn what_we_originate_leads_out_of_no_interface() {
    let (rule, path) =
        (FilterRule { interface: Some("*".to_owned()), ..ANY }, Attributes::default());
    assert!(passes(&rule, "10.0.0.0/26", &path, true));
    assert!(!passes(&rule, "10.0.0.0/26", &path, false));
}

#[test]
fn the_first_rule_that_matches_decides() {
    let never = FilterRule { from_peers_only: true, ..ANY };
    let reject = FilterRule { is_accepted: false, ..ANY };
    let cidr = "10.0.0.0/26".parse().unwrap();
    let attributes = Attributes::default();
    let session = SessionKind::External;
    let route =
        Route { cidr: &cidr, attributes: &attributes, is_learned: false, session, way: None };
    assert_eq!(judge(&[never.clone(), reject.clone(), ANY], &route), Verdict::Reject);
    assert_eq!(judge(&[never.clone(), ANY, reject], &route), Verdict::Rule(1));
    assert_eq!(judge(&[never], &route), Verdict::Untouched);
    assert_eq!(judge(&[], &route), Verdict::Untouched);
}

#[test]
fn operations_are_done_in_order() {
    let rule = FilterRule {
        operations: vec![
            FilterOperation::AddCommunity(Community::Standard(65_000, 7)),
            FilterOperation::AddCommunity(Community::Standard(65_000, 7)),
            FilterOperation::AddCommunity(Community::Large(4, 5, 6)),
            FilterOperation::PrependAsPath(vec![Asn(1), Asn(2)]),
            FilterOperation::SetPriority(512),
        ],
        ..ANY
    };
    let mut path = attributes(&[65_001], None, &[]);
    apply(std::slice::from_ref(&rule), Verdict::Rule(0), &mut path);
    assert_eq!(path.communities, [standard(65_000, 7)]);
    assert_eq!(path.large_communities, [[1, 2, 3], [4, 5, 6]]);
    assert_eq!(path.as_path.to_string(), "1 2 65001");
    assert_eq!(path.local_pref, Some(METRIC_BASE - 512));
    let untouched = path.clone();
    apply(&[rule], Verdict::Untouched, &mut path);
    assert_eq!(path, untouched);
}

#[test]
fn a_vrfs_routes_carry_its_number() {
    let mut attributes = Attributes::default();
    for asn in [64_512, 64_512, 4_200_000_000] {
        add_community(&mut attributes, Community::RouteTarget(Asn(asn), 5001));
    }
    assert_eq!(
        attributes.extended_communities,
        [
            [0x00, 0x02, 0xfc, 0x00, 0x00, 0x00, 0x13, 0x89],
            [0x02, 0x02, 0xfa, 0x56, 0xea, 0x00, 0x13, 0x89],
        ]
    );
}
