//! Which pools a request may use.

use std::collections::BTreeMap;

use model::pool::AllowedUses;

use super::*;

fn pool(name: &str, cidr: &str) -> IpPool {
    IpPool::plain(name, cidr.parse().unwrap())
}

/// One pool of each kind that is not used unasked, and one that is.
fn pools() -> Vec<IpPool> {
    let elsewhere = "zone == 'b'".parse().unwrap();
    let tunnel_only = AllowedUses { workload: false, tunnel: true, load_balancer: false };
    vec![
        IpPool { is_disabled: true, ..pool("off", "10.0.0.0/16") },
        IpPool { assignment: AssignmentMode::Manual, ..pool("manual", "10.1.0.0/16") },
        IpPool { node_selector: elsewhere, ..pool("elsewhere", "10.2.0.0/16") },
        IpPool { allowed_uses: tunnel_only, ..pool("tunnels", "10.3.0.0/16") },
        IpPool {
            namespace_selector: Some("team == 'blue'".parse().unwrap()),
            ..pool("blue", "10.4.0.0/16")
        },
        pool("plain", "10.5.0.0/16"),
        pool("first", "10.6.0.0/16"),
        IpPool { block_len: 122, ..pool("six", "fd00::/64") },
    ]
}

fn chosen(
    pools: &[IpPool],
    requested: &[&str],
    namespace: Option<&Labels>,
) -> Result<Vec<String>, String> {
    let requested: Vec<_> = requested.iter().map(|text| PoolReference::parse(text)).collect();
    let node = "node-1".parse().unwrap();
    let node_labels = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
    let wanted = Candidates {
        requested: &requested,
        node: &node,
        node_labels: &node_labels,
        namespace_labels: namespace,
        intended: Use::Workload,
        selectors: Selectors::OfRequestedIgnored,
    };
    let pools = pools_for(pools, Family::V4, &wanted).map_err(|failure| failure.to_string())?;
    Ok(pools.into_iter().map(|pool| pool.name).collect())
}

fn team(name: &str) -> Labels {
    BTreeMap::from([("team".to_owned(), name.to_owned())])
}

#[test]
fn pools_that_select_node_and_namespace_are_used_by_name() {
    assert_eq!(chosen(&pools(), &[], Some(&team("red"))).unwrap(), ["first", "plain"]);
    assert_eq!(chosen(&pools(), &[], Some(&team("blue"))).unwrap(), ["blue", "first", "plain"]);
    assert_eq!(chosen(&pools(), &[], None).unwrap(), ["first", "plain"]);
}

#[test]
fn requested_pools_keep_their_order_and_need_no_selector() {
    let requested = ["plain", "10.2.0.0/16", "manual"];
    assert_eq!(chosen(&pools(), &requested, None).unwrap(), ["plain", "elsewhere", "manual"]);
}

#[test]
fn a_request_that_cannot_be_met_says_what_to_change() {
    for (requested, error) in [
        ("off", "requested pool off 10.0.0.0/16 is disabled: set spec.disabled to false, or"),
        ("tunnels", "requested pool tunnels 10.3.0.0/16 is not for this use: add it to spec.al"),
        ("none", "requested pool `none` does not exist: use the name or range of an IPPool (blu"),
        ("10.5.0.0/17", "requested pool `10.5.0.0/17` does not exist: use the name or range o"),
        ("six", "requested pool `six` does not exist: use the name or range of an IPPool ("),
    ] {
        let found = chosen(&pools(), &[requested], None).unwrap_err();
        assert!(found.starts_with(error), "{found}");
    }
}

#[test]
fn without_a_usable_pool_every_refusal_is_told() {
    let none = chosen(&pools()[..4], &[], None).unwrap_err();
    assert_eq!(
        none,
        "no configured Calico pools for node node-1: \
         elsewhere 10.2.0.0/16: nodeSelector does not match the node; \
         manual 10.1.0.0/16: assignmentMode is Manual; off 10.0.0.0/16: disabled; \
         tunnels 10.3.0.0/16: allowedUses lacks this use \
         (change one of these IPv4 IPPools, or create another)"
    );
    let none = chosen(&[], &[], None).unwrap_err();
    assert_eq!(
        none,
        "no configured Calico pools for node node-1: there is no IPv4 IPPool, create one"
    );
}

fn holding(addr: &str, intended: Use, selectors: Selectors) -> Result<Vec<String>, String> {
    let node = "node-1".parse().unwrap();
    let node_labels = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
    let wanted = Candidates {
        requested: &[],
        node: &node,
        node_labels: &node_labels,
        namespace_labels: Some(&team("red")),
        intended,
        selectors,
    };
    let found = pools_holding(&pools(), addr.parse().unwrap(), &wanted);
    let found = found.map_err(|failure| failure.to_string())?;
    Ok(found.into_iter().map(|pool| pool.name).collect())
}

#[test]
fn a_given_address_needs_an_enabled_pool_for_its_use() {
    let names = |addr| holding(addr, Use::Workload, Selectors::OfRequestedIgnored).unwrap();
    assert_eq!(names("10.1.0.1"), ["manual"]);
    assert_eq!(names("10.2.0.1"), ["elsewhere"]);
    for addr in ["10.0.0.1", "10.3.0.1", "192.0.2.1"] {
        assert!(names(addr).is_empty(), "{addr}");
    }
}

#[test]
fn selectors_count_for_what_is_asked_for_if_they_are_honoured() {
    let of = |addr| holding(addr, Use::Workload, Selectors::Honoured);
    assert_eq!(of("10.1.0.1").unwrap(), ["manual"]);
    let elsewhere = of("10.2.0.1").unwrap_err();
    assert!(elsewhere.contains("elsewhere 10.2.0.0/16 does not select this node"), "{elsewhere}");
    let blue = of("10.4.0.1").unwrap_err();
    assert!(blue.contains("blue 10.4.0.0/16 does not select the namespace"), "{blue}");
}
