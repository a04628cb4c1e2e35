//! Announcements of every kind, and damage to their bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp::BgpIdentifier;
use bgp::wire::{
    Aggregator, AsPath, Attributes, Families, Nlri, Origin, Segment, SegmentKind, UnknownAttribute,
};
use model::net::{Asn, Cidr, Family};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// A path and the destinations that it leads to.
#[derive(Clone, Debug)]
pub(crate) struct Announcement {
    pub(crate) attributes: Attributes,
    pub(crate) next_hop: IpAddr,
    nlri: Vec<Nlri>,
}

/// A byte of a message that becomes another one.
#[derive(Clone, Debug)]
pub(crate) struct Damage {
    pub(crate) at: prop::sample::Index,
    pub(crate) value: u8,
}

impl Announcement {
    /// Returns the prefixes as a session tells them that numbers the paths of these families.
    pub(crate) fn prefixes(&self, add_path: Families) -> Vec<Nlri> {
        let mut nlri = self.nlri.clone();
        for each in &mut nlri {
            if !add_path.contains(each.prefix.family()) {
                each.path_id = 0;
            }
        }
        nlri
    }
}

pub(crate) fn damage() -> impl Strategy<Value = Damage> {
    (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, value)| Damage { at, value })
}

/// Only unicast addresses: what is not, the others refuse in their own ways.
fn prefix(family: Family) -> impl Strategy<Value = Cidr> {
    let (base, least) = match family {
        Family::V4 => (IpAddr::from([10, 0, 0, 0]), 8),
        Family::V6 => (IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 0_u16]), 8),
    };
    (any::<u128>(), least..=family.bits()).prop_map(move |(bits, len)| {
        let addr = match base {
            IpAddr::V4(base) => {
                let bits = u32::try_from(bits & 0x00ff_ffff).unwrap();
                IpAddr::from(Ipv4Addr::from(u32::from(base) | bits))
            }
            IpAddr::V6(base) => IpAddr::from(Ipv6Addr::from(u128::from(base) | bits >> 8)),
        };
        Cidr::containing(addr, len).unwrap()
    })
}

pub(crate) fn announcement() -> impl Strategy<Value = Announcement> {
    let of_family = |family: Family| {
        let nlri =
            (prefix(family), any::<u32>()).prop_map(|(prefix, path_id)| Nlri { prefix, path_id });
        let v4 = any::<u32>().prop_map(|bits| IpAddr::from(Ipv4Addr::from(bits | 0x0a00_0000)));
        let v6 = any::<u64>()
            .prop_map(|low| IpAddr::from(Ipv6Addr::from((0xfd00_u128 << 112) | u128::from(low))));
        let next_hop = match family {
            Family::V4 => prop_oneof![v4.boxed(), v6.boxed()].boxed(),
            Family::V6 => v6.boxed(),
        };
        (attributes(), next_hop, vec(nlri, 1..60))
    };
    let built = |(attributes, next_hop, nlri)| Announcement { attributes, next_hop, nlri };
    prop_oneof![of_family(Family::V4).prop_map(built), of_family(Family::V6).prop_map(built)]
}

fn as_path() -> impl Strategy<Value = AsPath> {
    let kind = prop_oneof![Just(SegmentKind::Set), Just(SegmentKind::Sequence)];
    let segment = (kind, vec(1_u32.., 1..6))
        .prop_map(|(kind, asns)| Segment { kind, asns: asns.into_iter().map(Asn).collect() });
    vec(segment, 0..4).prop_map(AsPath)
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let origin = prop_oneof![Just(Origin::Igp), Just(Origin::Egp), Just(Origin::Incomplete)];
    let aggregator = (1_u32.., any::<u32>())
        .prop_map(|(asn, addr)| Aggregator { asn: Asn(asn), addr: addr.into() });
    let unknown = (200_u8..=240, vec(any::<u8>(), 0..300))
        .prop_map(|(code, value)| UnknownAttribute { code, is_partial: false, value });
    let first = (origin, as_path(), any::<Option<u32>>(), any::<Option<u32>>(), any::<bool>());
    let second = (option::of(aggregator), vec(any::<u32>(), 0..20), any::<Option<u32>>());
    let third = (vec(any::<u32>(), 0..4), vec(any::<[u32; 3]>(), 0..4), option::of(1_u32..));
    (first, second, third, option::of(unknown)).prop_map(|(first, second, third, unknown)| {
        Attributes {
            origin: first.0,
            as_path: first.1,
            med: first.2,
            local_pref: first.3,
            is_atomic_aggregate: first.4,
            aggregator: second.0,
            communities: second.1,
            originator_id: second.2.map(BgpIdentifier),
            cluster_list: third.0,
            extended_communities: Vec::new(),
            large_communities: third.1,
            only_to_customer: third.2.map(Asn),
            unknown: unknown.into_iter().collect(),
        }
    })
}
