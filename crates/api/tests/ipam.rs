//! The objects of IPAM: names, labels and what is kept of what others wrote.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail"
)]

use std::collections::BTreeMap;

use api::{BlockAffinity, IpamBlock, IpamHandle, names};
use model::block::{Affinity, AffinityState, Attributes, Block, Handle, Owner};
use model::id::HandleId;
use model::net::Cidr;
use model::time::WallTime;
use model::vrf::VrfName;
use proptest::prelude::*;
use serde_json::json;

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

#[test]
fn names_are_calicos() {
    assert_eq!(names::block_name(None, cidr("10.244.1.64/26")), "10-244-1-64-26");
    assert_eq!(names::block_name(None, cidr("fd00:10::40/122")), "fd00-10--40-122");
    assert_eq!(
        names::affinity_name(None, "node-1", cidr("10.244.1.64/26")),
        "node-1-10-244-1-64-26"
    );
    assert_eq!(
        names::hostname_hash("node-1"),
        "A3XPYDATRKB7Q4SM2O5FN4RXIHBFIL2PITFX26BAIP5XAB2X74CA"
    );
    let veth = names::host_veth_name("default", "nginx", "cali").unwrap();
    assert_eq!(veth.as_str(), "calic440f455693");
    let wep = names::wep_name(&"node1".parse().unwrap(), "mypod-1");
    assert_eq!(wep, "node1-k8s-mypod--1-eth0");
}

#[test]
fn long_names_of_affinities_keep_the_block_and_a_hash() {
    let block = cidr("10.244.1.64/26");
    let fits = "a".repeat(252 - "-10-244-1-64-26".len());
    assert_eq!(names::affinity_name(None, &fits, block).len(), 252);
    let node = "a".repeat(253);
    let name = names::affinity_name(None, &node, block);
    // 252 - 14 for the block - 13 for the hash and its dashes leave 225 of the node.
    let (start, hash) = name.rsplit_once('-').unwrap();
    assert_eq!(start, format!("{}-10-244-1-64-26", "a".repeat(225)));
    assert_eq!(hash.len(), 11);
    assert!(name.len() < 253);
    assert_ne!(names::affinity_name(None, &format!("{}b", "a".repeat(252)), block), name);
}

#[test]
fn objects_of_vrfs_have_names_that_nothing_else_has() {
    let vrf = |text: &str| -> VrfName { text.parse().unwrap() };
    let (v4, v6) = (cidr("10.1.0.0/26"), cidr("b:c::/122"));
    assert_eq!(names::block_name(Some(&vrf("red")), v4), "10-1-0-0-26.red.vrf");
    let nodes = ["x", "x-red", "red.x", "x.red.vrf", "x-10-1-0-0-26.red", "a-10-1-0-0-26.red.vrf"];
    let vrfs = ["red", "a", "a-b", "b", "x-1---122", "1-0-0-0-26", "vrf"].map(vrf);
    let blocks = [v4, v6, cidr("c::/122"), cidr("1::/122"), cidr("1.0.0.0/26")];
    let mut names = std::collections::BTreeSet::new();
    let mut count = 0;
    for scope in std::iter::once(None).chain(vrfs.iter().map(Some)) {
        for block in blocks {
            names.insert(names::block_name(scope, block));
            names.extend(nodes.map(|node| names::affinity_name(scope, node, block)));
            count += 1 + nodes.len();
        }
    }
    assert_eq!(names.len(), count);
    let long = names::affinity_name(Some(&vrf("a-long-one")), &"n".repeat(253), v4);
    assert_eq!(long.len(), 252);
    assert!(long.ends_with(".a-long-one.vrf"), "{long}");
    assert!(names.iter().chain([&long]).all(|name| model::id::is_dns_subdomain(name)));
}

#[test]
fn affinities_are_found_by_labels_and_deleted_by_text() {
    let affinity = Affinity {
        owner: Owner::Host("node-1".parse().unwrap()),
        cidr: cidr("10.244.1.64/26"),
        state: AffinityState::Pending,
        is_deleted: false,
    };
    let object = BlockAffinity::from_model(&affinity);
    assert_eq!(
        serde_json::to_value(&object).unwrap(),
        json!({
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": "BlockAffinity",
            "metadata": {
                "name": "node-1-10-244-1-64-26",
                "labels": {
                    "projectcalico.org/affinity-type": "host",
                    "projectcalico.org/hostname-hash":
                        "A3XPYDATRKB7Q4SM2O5FN4RXIHBFIL2PITFX26BAIP5XAB2X74CA",
                    "projectcalico.org/ip-version": "4",
                },
            },
            "spec": {
                "state": "pending", "node": "node-1", "type": "host",
                "cidr": "10.244.1.64/26", "deleted": "false",
            },
        })
    );
    assert_eq!(Affinity::try_from(&object), Ok(affinity));
}

#[test]
fn a_new_block_has_all_that_calico_requires() {
    let block = Block {
        cidr: cidr("10.0.0.0/31"),
        affinity: None,
        claimed_at: None,
        allocations: vec![None, None],
        unallocated: vec![0, 1],
        attributes: Vec::new(),
        sequence_number: 1_782_300_755_123_456_789,
        allocated_at: BTreeMap::new(),
        is_deleted: false,
    };
    let object = IpamBlock::from_model(&block);
    assert_eq!(
        serde_json::to_value(&object).unwrap()["spec"],
        json!({
            "cidr": "10.0.0.0/31", "allocations": [null, null], "unallocated": [0, 1],
            "attributes": [], "sequenceNumber": 1_782_300_755_123_456_789_u64,
            "sequenceNumberForAllocation": {}, "strictAffinity": false,
        })
    );
}

#[test]
fn debris_behind_a_carriage_return_is_no_part_of_a_handle() {
    let spec = json!({
        "cidr": "10.0.0.0/32", "allocations": [0], "unallocated": [],
        "attributes": [{"handle_id": "net.abc\r\nold", "secondary": {"node": "n"}}],
        "strictAffinity": false,
    });
    let mut object: IpamBlock =
        serde_json::from_value(json!({"metadata": {"name": "10-0-0-0-32"}, "spec": spec})).unwrap();
    let block = Block::try_from(&object).unwrap();
    assert_eq!(block.attributes[0].handle, Some(HandleId("net.abc".into())));
    object.set(&block);
    assert_eq!(object.spec.attributes[0].handle_id.as_deref(), Some("net.abc\r\nold"));

    let spec = json!({"handleID": "net.abc\r\nold", "block": {"10.0.0.0/32": 1}});
    let mut object: IpamHandle =
        serde_json::from_value(json!({"metadata": {"name": "net.abc"}, "spec": spec})).unwrap();
    let handle = Handle::try_from(&object).unwrap();
    assert_eq!(handle.id, HandleId("net.abc".into()));
    object.set(&handle);
    assert_eq!(object.spec.handle_id, "net.abc\r\nold");
}

#[test]
fn the_reservations_of_addresses_and_ranges_are_ranges() {
    let object: api::IpReservation = serde_json::from_value(json!({
        "metadata": {"name": "a"}, "spec": {"reservedCIDRs": ["10.0.0.1", "fd00::/64"]},
    }))
    .unwrap();
    assert_eq!(object.ranges(), Ok(vec![cidr("10.0.0.1/32"), cidr("fd00::/64")]));
}

/// Returns any block of four addresses that keeps the rules.
fn any_block() -> impl Strategy<Value = Block> {
    let attributes = ("[a-z0-9.]{1,12}", any::<bool>(), 0_i64..4_000_000_000_000_000_000);
    let attributes = prop::collection::vec(attributes, 1..3);
    let slots = prop::collection::vec(prop::option::of(0_usize..10), 4);
    (attributes, slots, any::<u64>(), any::<bool>()).prop_map(|(holders, slots, number, flag)| {
        let attributes: Vec<Attributes> = holders
            .into_iter()
            .map(|(handle, is_released, nanos)| Attributes {
                owner: [("node".to_owned(), handle.clone())].into(),
                handle: Some(HandleId(handle)),
                alternate_owner: BTreeMap::new(),
                released_at: is_released.then_some(WallTime(nanos.into())),
            })
            .collect();
        let allocations: Vec<Option<usize>> =
            slots.iter().map(|slot| slot.map(|index| index % attributes.len())).collect();
        let ordinals = |is_free: bool| {
            (0_u32..4)
                .filter(|ordinal| allocations[*ordinal as usize].is_none() == is_free)
                .collect::<Vec<_>>()
        };
        Block {
            cidr: cidr("10.0.0.0/30"),
            affinity: flag.then(|| Owner::Host("node-1".parse().unwrap())),
            claimed_at: flag.then_some(WallTime(1_782_300_755_000_000_000)),
            unallocated: ordinals(true),
            allocated_at: ordinals(false).into_iter().map(|ordinal| (ordinal, number)).collect(),
            attributes,
            allocations,
            sequence_number: number,
            is_deleted: flag,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn blocks_come_back_from_the_wire(first in any_block(), second in any_block()) {
        let mut object = IpamBlock::from_model(&first);
        let text = serde_json::to_string(&object).unwrap();
        object = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(Block::try_from(&object).unwrap(), first);
        object.set(&second);
        prop_assert_eq!(Block::try_from(&object).unwrap(), second);
    }
}

#[test]
fn tunnels_are_named_as_calico_names_them() {
    use model::net::Family;
    use model::node::TunnelKind;

    let node = "node-1".parse().unwrap();
    let names = TunnelKind::ALL.map(|kind| {
        let handle = names::tunnel_handle(kind, &node);
        format!("{handle} {} {}", names::tunnel_type(kind), api::annotations::tunnel_addr(kind))
    });
    assert_eq!(
        names,
        [
            "ipip-tunnel-addr-node-1 ipipTunnelAddress projectcalico.org/IPv4IPIPTunnelAddr",
            "vxlan-tunnel-addr-node-1 vxlanTunnelAddress projectcalico.org/IPv4VXLANTunnelAddr",
            "vxlan-v6-tunnel-addr-node-1 vxlanV6TunnelAddress \
             projectcalico.org/IPv6VXLANTunnelAddr",
            "wireguard-tunnel-addr-node-1 wireguardTunnelAddress \
             projectcalico.org/IPv4WireguardInterfaceAddr",
            "wireguard-v6-tunnel-addr-node-1 wireguardV6TunnelAddress \
             projectcalico.org/IPv6WireguardInterfaceAddr",
        ]
    );
    let macs = Family::ALL.map(|family| names::vxlan_mac(&node, family).to_string());
    assert_eq!(macs, ["66:b3:68:28:39:8e", "66:24:ac:63:df:6c"]);
}
