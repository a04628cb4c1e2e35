//! The codec against itself, against random bytes, and against malformed messages.

mod malformed;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::net::{Asn, Cidr, Family};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::HoldTime;

const INTERNAL: Context = Context {
    width: AsnWidth::Four,
    is_internal: true,
    add_path: Families::NONE,
    foreign_next_hops: Families::NONE,
    is_on_link: false,
};

/// Returns the bodies of all messages in `bytes`, which must be whole.
fn bodies(mut bytes: &[u8]) -> Vec<(Kind, Vec<u8>)> {
    let mut bodies = Vec::new();
    while let Some((frame, rest)) = split_frame(bytes, MAX_EXTENDED_LEN).unwrap() {
        bodies.push((frame.kind, frame.body.to_vec()));
        bytes = rest;
    }
    assert!(bytes.is_empty(), "{} bytes left", bytes.len());
    bodies
}

fn body(message: &[u8]) -> Vec<u8> {
    bodies(message).remove(0).1
}

fn nlri(prefix: impl Strategy<Value = Cidr>) -> impl Strategy<Value = Nlri> {
    (prefix, any::<u32>()).prop_map(|(prefix, path_id)| Nlri { prefix, path_id })
}

fn families() -> impl Strategy<Value = Families> {
    vec(prop::sample::select(Family::ALL.to_vec()), 0..3)
        .prop_map(|families| families.into_iter().collect())
}

/// Returns `prefixes` as a session of this form can tell them.
fn told(mut prefixes: Vec<Nlri>, form: Form) -> Vec<Nlri> {
    for nlri in &mut prefixes {
        if !form.add_path.contains(nlri.prefix.family()) {
            nlri.path_id = 0;
        }
    }
    prefixes
}

fn encoded(
    attributes: &Attributes,
    next_hop: IpAddr,
    prefixes: &[Nlri],
    form: Form,
) -> Result<Vec<u8>, TooLong> {
    let mut out = Vec::new();
    encode_announcement(attributes, next_hop, prefixes, form, &mut out).map(|()| out)
}

fn one_prefix() -> Vec<Nlri> {
    vec![Nlri::from("10.0.0.0/8".parse::<Cidr>().unwrap())]
}

fn prefix_v4() -> impl Strategy<Value = Cidr> {
    (any::<u32>(), 0_u8..=32)
        .prop_map(|(bits, len)| Cidr::containing(Ipv4Addr::from(bits).into(), len).unwrap())
}

fn prefix_v6() -> impl Strategy<Value = Cidr> {
    (any::<u128>(), 0_u8..=128)
        .prop_map(|(bits, len)| Cidr::containing(Ipv6Addr::from(bits).into(), len).unwrap())
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
    let unknown = (200_u8..=255, any::<bool>(), vec(any::<u8>(), 0..300))
        .prop_map(|(code, is_partial, value)| UnknownAttribute { code, is_partial, value });
    let first = (origin, as_path(), any::<Option<u32>>(), any::<Option<u32>>(), any::<bool>());
    let second = (option::of(aggregator), vec(any::<u32>(), 0..80), any::<Option<u32>>());
    let third =
        (vec(any::<u32>(), 0..4), vec(any::<[u8; 8]>(), 0..4), vec(any::<[u32; 3]>(), 0..4));
    let fourth = (any::<Option<u32>>(), option::of(unknown));
    (first, second, third, fourth).prop_map(|(first, second, third, (customer, unknown))| {
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
            extended_communities: third.1,
            large_communities: third.2,
            only_to_customer: customer.map(Asn),
            unknown: unknown.into_iter().collect(),
        }
    })
}

fn capability() -> impl Strategy<Value = Capability> {
    let family = (any::<u16>(), any::<u8>()).prop_map(|(afi, safi)| AfiSafi { afi, safi });
    let restart =
        (any::<bool>(), any::<bool>(), 0_u16..0x1000, vec((family.clone(), any::<bool>()), 0..3));
    let restart = restart.prop_map(|(is_restarting, is_notification_graceful, secs, families)| {
        GracefulRestart { is_restarting, is_notification_graceful, restart_secs: secs, families }
    });
    prop_oneof![
        family.clone().prop_map(Capability::Multiprotocol),
        Just(Capability::RouteRefresh),
        Just(Capability::EnhancedRouteRefresh),
        Just(Capability::ExtendedMessage),
        any::<u32>().prop_map(|asn| Capability::FourOctetAsn(Asn(asn))),
        restart.prop_map(Capability::GracefulRestart),
        vec((family.clone(), any::<u8>()), 0..3).prop_map(Capability::AddPath),
        vec((family, any::<u16>()), 0..3).prop_map(Capability::ExtendedNextHop),
        any::<u8>().prop_map(Capability::Role),
        (100_u8.., vec(any::<u8>(), 0..256))
            .prop_map(|(code, value)| Capability::Unknown { code, value }),
    ]
}

proptest! {
    #[test]
    fn opens_round_trip(
        short_asn: u16,
        hold in 3_u16..,
        identifier in 1_u32..,
        capabilities in vec(capability(), 0..12),
    ) {
        let hold_time = HoldTime::from_secs(hold).unwrap();
        let identifier = BgpIdentifier(identifier);
        let open = Open { short_asn, hold_time, identifier, capabilities };
        prop_assert_eq!(Open::decode(&body(&open.encode())), Ok(open));
    }

    #[test]
    fn announcements_round_trip(
        attributes in attributes(),
        v4 in vec(nlri(prefix_v4()), 1..2000),
        v6 in vec(nlri(prefix_v6()), 1..600),
        next_hop: u32,
        next_hop_v6: u128,
        (add_path, is_long) in (families(), any::<bool>()),
    ) {
        let max_len = if is_long { MAX_EXTENDED_LEN } else { MAX_LEN };
        let form = Form { max_len, add_path, ..Form::default() };
        let context = Context { add_path, foreign_next_hops: Families::ALL, ..INTERNAL };
        let (v4, v6) = (told(v4, form), told(v6, form));
        let hops: [(IpAddr, &[Nlri]); 4] = [
            (Ipv4Addr::from(next_hop).into(), &v4),
            (Ipv6Addr::from(next_hop_v6).into(), &v6),
            (Ipv6Addr::from(next_hop_v6).into(), &v4),
            (Ipv4Addr::from(next_hop).into(), &v6),
        ];
        for (next_hop, prefixes) in hops {
            let messages = encoded(&attributes, next_hop, prefixes, form).unwrap();
            let mut decoded = Vec::new();
            for (kind, body) in bodies(&messages) {
                prop_assert_eq!(kind, Kind::Update);
                prop_assert!(body.len() + HEADER_LEN <= max_len);
                let update = Update::decode(&body, context).unwrap();
                prop_assert_eq!(&*update.attributes, &attributes);
                prop_assert_eq!(&update.malformed, &[]);
                prop_assert_eq!(update.announced.len(), 1);
                prop_assert_eq!(update.announced[0].next_hop, next_hop);
                decoded.extend(update.announced.into_iter().flat_map(|each| each.prefixes));
            }
            prop_assert_eq!(&decoded[..], prefixes);
        }
    }

    #[test]
    fn true_as_numbers_survive_an_old_peer(path in as_path(), asn in 1_u32..) {
        let mut attributes = Attributes { as_path: path, ..Attributes::default() };
        // A segment of sets only counts as one, so merging is exact for sequences.
        attributes.as_path.0.iter_mut().for_each(|segment| segment.kind = SegmentKind::Sequence);
        let addr = Ipv4Addr::LOCALHOST;
        attributes.aggregator = Some(Aggregator { asn: Asn(asn), addr });
        let form = Form { width: AsnWidth::Two, ..Form::default() };
        let message = encoded(&attributes, addr.into(), &one_prefix(), form).unwrap();
        let context = Context { width: AsnWidth::Two, ..INTERNAL };
        let update = Update::decode(&body(&message), context).unwrap();
        let flat = |path: &AsPath| -> Vec<Asn> {
            path.0.iter().flat_map(|segment| segment.asns.clone()).collect()
        };
        prop_assert_eq!(flat(&update.attributes.as_path), flat(&attributes.as_path));
        prop_assert_eq!(update.attributes.aggregator, attributes.aggregator);
    }

    #[test]
    fn withdrawals_round_trip(
        v4 in vec(nlri(prefix_v4()), 1..2000),
        v6 in vec(nlri(prefix_v6()), 1..600),
        add_path in families(),
    ) {
        let form = Form { add_path, ..Form::default() };
        for prefixes in [told(v4, form), told(v6, form)] {
            let (mut decoded, mut messages) = (Vec::new(), Vec::new());
            encode_withdrawal(&prefixes, form, &mut messages);
            for (_, body) in bodies(&messages) {
                prop_assert!(body.len() + HEADER_LEN <= MAX_LEN);
                let context = Context { add_path, ..INTERNAL };
                decoded.extend(Update::decode(&body, context).unwrap().withdrawn);
            }
            prop_assert_eq!(decoded, prefixes);
        }
    }

    #[test]
    fn notifications_round_trip(code: u8, subcode: u8, data in vec(any::<u8>(), 0..4000)) {
        let notification = Notification { reason: Reason { code, subcode }, data };
        prop_assert_eq!(Notification::decode(&body(&notification.encode())), notification);
    }

    #[test]
    fn shutdown_texts_round_trip(text in "[^\\p{C}]{1,200}") {
        let decoded = Notification::decode(&body(&Notification::shutdown(&text).encode()));
        prop_assert!(text.starts_with(&decoded.text().unwrap()));
    }

    #[test]
    fn refreshes_round_trip(afi: u16, safi: u8, code: u8) {
        let kind = match code {
            0 => RefreshKind::Request,
            1 => RefreshKind::Begin,
            2 => RefreshKind::End,
            other => RefreshKind::Unknown(other),
        };
        let refresh = RouteRefresh { family: AfiSafi { afi, safi }, kind };
        prop_assert_eq!(RouteRefresh::decode(&body(&refresh.encode())), Ok(refresh));
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        decode_everything(&bytes);
    }

    #[test]
    fn damaged_messages_never_panic(
        attributes in attributes(),
        prefixes in vec(nlri(prefix_v4()), 1..20),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut: prop::sample::Index,
    ) {
        let next_hop = Ipv4Addr::LOCALHOST.into();
        let mut bytes = encoded(&attributes, next_hop, &prefixes, Form::default()).unwrap();
        for (index, value) in damage {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        decode_everything(&bytes);
        decode_everything(bytes.get(HEADER_LEN..).unwrap_or_default());
    }
}

fn decode_everything(bytes: &[u8]) {
    let _ = split_frame(bytes, MAX_LEN);
    let _ = split_frame(bytes, MAX_EXTENDED_LEN);
    let _ = Open::decode(bytes);
    let _ = Notification::decode(bytes).text();
    let _ = RouteRefresh::decode(bytes);
    for width in [AsnWidth::Two, AsnWidth::Four] {
        for is_internal in [false, true] {
            for add_path in [Families::NONE, Families::ALL] {
                let foreign_next_hops = add_path;
                let context =
                    Context { width, is_internal, add_path, foreign_next_hops, is_on_link: false };
                let _ = Update::decode(bytes, context);
            }
        }
    }
}

#[test]
fn a_full_message_holds_809_blocks() {
    let block = |n: u32| Nlri::from(Cidr::containing(Ipv4Addr::from(n << 6).into(), 26).unwrap());
    let prefixes: Vec<Nlri> = (0..814).map(block).collect();
    let attributes = Attributes { local_pref: Some(100), ..Attributes::default() };
    let next_hop = Ipv4Addr::LOCALHOST.into();
    let encode = |prefixes: &[Nlri]| {
        bodies(&encoded(&attributes, next_hop, prefixes, Form::default()).unwrap()).len()
    };
    assert_eq!(encode(&prefixes[..809]), 1);
    assert_eq!(encode(&prefixes), 2);
}

#[test]
fn attributes_that_fill_a_message_cannot_be_announced() {
    let attributes = Attributes { communities: vec![7; 1100], ..Attributes::default() };
    let next_hop = Ipv4Addr::LOCALHOST.into();
    let long = Form { max_len: MAX_EXTENDED_LEN, ..Form::default() };
    let refused = encoded(&attributes, next_hop, &one_prefix(), Form::default());
    assert_eq!(refused, Err(TooLong { len: 4418, max_len: MAX_LEN }));
    assert!(encoded(&attributes, next_hop, &one_prefix(), long).is_ok());
}

#[test]
fn an_incomplete_message_is_waited_for() {
    let message = encode_keepalive();
    for len in 0..message.len() {
        assert_eq!(split_frame(&message[..len], MAX_LEN), Ok(None));
    }
}

#[test]
fn the_end_of_rib_of_each_family_is_recognised() {
    for family in Family::ALL {
        let update = Update::decode(&body(&encode_end_of_rib(family)), INTERNAL).unwrap();
        assert_eq!(update.end_of_rib, Some(family.into()));
    }
}

#[test]
fn many_capabilities_take_the_extended_form() {
    let value = vec![1; 255];
    let capabilities = vec![Capability::Unknown { code: 200, value }; 2];
    let hold_time = HoldTime::PROPOSED;
    let open = Open { short_asn: 1, hold_time, identifier: BgpIdentifier(1), capabilities };
    let message = open.encode();
    assert_eq!(message[28..30], [255, 255]);
    assert_eq!(Open::decode(&body(&message)), Ok(open));
}

#[test]
fn a_shutdown_text_is_shown_without_control_characters() {
    let notification = Notification::shutdown("upgrade\u{1b}[2J at 10:00");
    assert_eq!(notification.to_string(), "administrative shutdown (6/2): upgrade[2J at 10:00");
    let long = "ü".repeat(200);
    assert_eq!(Notification::shutdown(&long).text().unwrap().chars().count(), 127);
}
