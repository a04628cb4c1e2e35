//! Who gets what.

use std::collections::BTreeMap;

use model::id::NamespacedName;
use model::pool::AllowedUses;

use super::*;

fn request() -> BalancerRequest {
    BalancerRequest {
        id: NamespacedName { namespace: "shop".to_owned(), name: "web".to_owned() },
        uid: "u1".to_owned(),
        is_balanced: true,
        class: None,
        families: vec![Family::V4],
        addrs: Vec::new(),
        pools: BTreeMap::new(),
        published: Vec::new(),
    }
}

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn holding(text: &str) -> Holding {
    let addr = addr(text);
    let block = Cidr::containing(addr, if addr.is_ipv4() { 26 } else { 122 }).unwrap();
    Holding { handle: HandleId("lb-x".to_owned()), addr, block, sequence_number: Some(7) }
}

fn pool(name: &str, cidr: &str) -> IpPool {
    IpPool {
        allowed_uses: AllowedUses { workload: false, tunnel: false, load_balancer: true },
        ..IpPool::plain(name, cidr.parse().unwrap())
    }
}

fn pools() -> Vec<IpPool> {
    vec![pool("one", "192.0.2.0/25"), pool("two", "192.0.2.128/25"), pool("six", "fd00::/112")]
}

#[test]
fn the_class_decides_and_without_one_the_configuration() {
    let of_class =
        |class: Option<&str>| BalancerRequest { class: class.map(str::to_owned), ..request() };
    let particular = BalancerRequest { addrs: vec![addr("192.0.2.1")], ..request() };
    let no_balancer = BalancerRequest { is_balanced: false, ..of_class(Some("calico")) };
    for (request, all, particular_only, without_pools) in [
        (of_class(None), true, false, false),
        (of_class(Some("calico")), true, true, true),
        (of_class(Some("metal")), false, false, false),
        (particular, true, true, true),
        (no_balancer, false, false, false),
    ] {
        assert_eq!(is_ours(&request, true, &pools()), all, "{request:?}");
        assert_eq!(is_ours(&request, false, &pools()), particular_only, "{request:?}");
        assert_eq!(is_ours(&request, true, &[]), without_pools, "{request:?}");
    }
}

#[test]
fn one_address_of_each_family_is_missing_at_first() {
    let both = BalancerRequest { families: vec![Family::V6, Family::V4], ..request() };
    let missing = decide(&both, &[], &pools()).missing;
    let families: Vec<Family> = missing.iter().map(|one| one.family).collect();
    assert_eq!(families, [Family::V6, Family::V4]);
    let held = [holding("192.0.2.1"), holding("fd00::1")];
    let settled = decide(&both, &held, &pools());
    assert_eq!((settled.missing, settled.given_back), (vec![], vec![]));
    assert_eq!(published(&both, &settled.kept), [addr("fd00::1"), addr("192.0.2.1")]);
}

#[test]
fn an_address_that_is_asked_for_replaces_another() {
    let asks = BalancerRequest { addrs: vec![addr("192.0.2.9")], ..request() };
    let decision = decide(&asks, &[holding("192.0.2.1")], &pools());
    assert_eq!(decision.given_back, [holding("192.0.2.1")]);
    assert_eq!(decision.missing[0].addr, Some(addr("192.0.2.9")));
}

#[test]
fn an_address_outside_of_the_pools_asked_for_is_given_back() {
    let names = vec!["two".to_owned()];
    let asks = BalancerRequest { pools: BTreeMap::from([(Family::V4, names)]), ..request() };
    let decision = decide(&asks, &[holding("192.0.2.1")], &pools());
    assert_eq!(decision.given_back, [holding("192.0.2.1")]);
    assert_eq!(decision.missing[0].pools, [PoolReference::Name("two".to_owned())]);
    let decision = decide(&asks, &[holding("192.0.2.129")], &pools());
    assert_eq!(decision.kept, [addr("192.0.2.129")]);
}

#[test]
fn an_address_stays_when_its_pool_is_gone() {
    assert_eq!(decide(&request(), &[holding("192.0.2.1")], &[]).kept, [addr("192.0.2.1")]);
}

#[test]
fn of_two_addresses_the_one_that_the_world_knows_is_kept() {
    let known = BalancerRequest { published: vec![addr("192.0.2.2")], ..request() };
    let decision = decide(&known, &[holding("192.0.2.1"), holding("192.0.2.2")], &pools());
    assert_eq!(decision.kept, [addr("192.0.2.2")]);
    assert_eq!(decision.given_back, [holding("192.0.2.1")]);
}

#[test]
fn an_address_that_the_world_knows_is_tried_again() {
    let known = BalancerRequest { published: vec![addr("192.0.2.2")], ..request() };
    assert_eq!(decide(&known, &[], &pools()).missing[0].former, Some(addr("192.0.2.2")));
    let elsewhere = BalancerRequest { addrs: vec![addr("192.0.2.3")], ..known };
    assert_eq!(decide(&elsewhere, &[], &pools()).missing[0].former, None);
}

#[test]
fn a_family_that_is_not_wanted_any_more_is_given_back() {
    let held = [holding("192.0.2.1"), holding("fd00::1")];
    let decision = decide(&request(), &held, &pools());
    assert_eq!(decision.given_back, [holding("fd00::1")]);
}
