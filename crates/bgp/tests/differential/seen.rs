//! What a codec sees in an UPDATE, in words that all three have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use bgp::wire::{Origin, SegmentKind, Update};
use bgpkit_parser::models as kit;
use bytes::Bytes;
use model::net::Cidr;
use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::community::Community;
use netgauze_bgp_pkt::path_attribute as gauze;
use netgauze_bgp_pkt::path_attribute::PathAttributeValue;
use netgauze_bgp_pkt::wire::deserializer::BgpParsingContext;
use netgauze_iana::address_family::AddressType;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFromWithOneInput;

/// An UPDATE as one codec sees it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Seen {
    pub(crate) withdrawn: BTreeSet<String>,
    pub(crate) announced: BTreeSet<String>,
    pub(crate) attributes: BTreeMap<&'static str, String>,
}

impl Seen {
    fn note(&mut self, name: &'static str, value: impl ToString) {
        self.attributes.insert(name, value.to_string());
    }

    fn note_list<T: ToString>(&mut self, name: &'static str, values: impl Iterator<Item = T>) {
        let values: Vec<String> = values.map(|value| value.to_string()).collect();
        if !values.is_empty() {
            self.note(name, values.join(" "));
        }
    }

    /// Leaves out what only an announcement says.
    fn finished(mut self) -> Self {
        if self.announced.is_empty() {
            self.attributes.clear();
        }
        self
    }
}

/// Names a destination without the bits behind its prefix: they mean nothing (RFC 4271 §4.3),
/// and the others show them.
fn nlri(prefix: impl ToString, path_id: Option<u32>) -> String {
    let text = prefix.to_string();
    let (addr, len) = text.split_once('/').unwrap();
    let cidr = Cidr::containing(addr.parse().unwrap(), len.parse().unwrap()).unwrap();
    format!("{cidr}#{}", path_id.unwrap_or(0))
}

fn via(nlri: &str, next_hop: IpAddr) -> String {
    format!("{nlri} via {next_hop}")
}

fn segment(is_set: bool, asns: impl Iterator<Item = u32>) -> String {
    let asns: Vec<String> = asns.map(|asn| asn.to_string()).collect();
    if is_set { format!("{{{}}}", asns.join(",")) } else { format!("({})", asns.join(" ")) }
}

fn origin_name(code: u8) -> &'static str {
    ["igp", "egp", "incomplete"][usize::from(code)]
}

pub(crate) fn by_us(update: &Update) -> Seen {
    let mut seen = Seen::default();
    let named = |each: &bgp::wire::Nlri| nlri(each.prefix, Some(each.path_id));
    seen.withdrawn.extend(update.withdrawn.iter().map(named));
    for announcement in &update.announced {
        let next_hop = announcement.next_hop;
        seen.announced.extend(announcement.prefixes.iter().map(|each| via(&named(each), next_hop)));
    }
    let attributes = &update.attributes;
    let origin = match attributes.origin {
        Origin::Igp => 0,
        Origin::Egp => 1,
        Origin::Incomplete => 2,
    };
    seen.note("origin", origin_name(origin));
    seen.note_list(
        "path",
        attributes
            .as_path
            .0
            .iter()
            .map(|each| segment(each.kind == SegmentKind::Set, each.asns.iter().map(|asn| asn.0))),
    );
    attributes.med.inspect(|med| seen.note("med", med));
    attributes.local_pref.inspect(|value| seen.note("local preference", value));
    if attributes.is_atomic_aggregate {
        seen.note("atomic", true);
    }
    attributes
        .aggregator
        .inspect(|each| seen.note("aggregator", format!("{} {}", each.asn.0, each.addr)));
    seen.note_list("communities", attributes.communities.iter());
    attributes.originator_id.inspect(|id| seen.note("originator", Ipv4Addr::from(id.0)));
    seen.note_list("clusters", attributes.cluster_list.iter());
    let large = attributes.large_communities.iter().map(|[a, b, c]| format!("{a}:{b}:{c}"));
    seen.note_list("large communities", large);
    attributes.only_to_customer.inspect(|asn| seen.note("customer", asn.0));
    seen.finished()
}

pub(crate) fn by_netgauze(message: &[u8], has_path_ids: bool) -> Result<Seen, String> {
    let types = [AddressType::Ipv4Unicast, AddressType::Ipv6Unicast];
    let (labels, add_path) = Default::default();
    let mut context = BgpParsingContext::new(true, labels, add_path, true, true, true, true);
    context.add_path_mut().extend(types.map(|each| (each, has_path_ids)));
    let parsed = BgpMessage::parse(&mut SliceReader::new(message), &mut context);
    let BgpMessage::Update(update) = parsed.map_err(|error| error.to_string())? else {
        return Err("no UPDATE".to_owned());
    };
    let mut seen = Seen::default();
    let named =
        |each: &netgauze_bgp_pkt::nlri::Ipv4UnicastAddress| nlri(each.network(), each.path_id());
    seen.withdrawn.extend(update.withdraw_routes().iter().map(named));
    let mut next_hop = None;
    for attribute in update.path_attributes() {
        if let PathAttributeValue::NextHop(value) = attribute.value() {
            next_hop = Some(IpAddr::from(value.next_hop()));
        }
        note_netgauze(&mut seen, attribute.value());
    }
    for each in update.nlri() {
        seen.announced.insert(via(&named(each), next_hop.ok_or("no next hop")?));
    }
    Ok(seen.finished())
}

fn note_netgauze(seen: &mut Seen, value: &PathAttributeValue) {
    match value {
        PathAttributeValue::Origin(origin) => seen.note("origin", origin_name(*origin as u8)),
        PathAttributeValue::AsPath(gauze::AsPath::As4PathSegments(segments)) => {
            seen.note_list(
                "path",
                segments.iter().map(|each| {
                    let is_set = each.segment_type() == gauze::AsPathSegmentType::AsSet;
                    segment(is_set, each.as_numbers().iter().copied())
                }),
            );
        }
        PathAttributeValue::MultiExitDiscriminator(med) => seen.note("med", med.metric()),
        PathAttributeValue::LocalPreference(value) => {
            seen.note("local preference", value.metric());
        }
        PathAttributeValue::AtomicAggregate(_) => seen.note("atomic", true),
        PathAttributeValue::Aggregator(gauze::Aggregator::As4Aggregator(each)) => {
            seen.note("aggregator", format!("{} {}", each.asn(), each.origin()));
        }
        PathAttributeValue::Communities(each) => {
            seen.note_list("communities", each.communities().iter().map(Community::value));
        }
        PathAttributeValue::Originator(each) => seen.note("originator", each.id()),
        PathAttributeValue::ClusterList(each) => {
            seen.note_list("clusters", each.cluster_list().iter().map(|id| u32::from(id.id())));
        }
        PathAttributeValue::LargeCommunities(each) => {
            let large = each.communities().iter().map(|each| {
                format!("{}:{}:{}", each.global_admin(), each.local_data1(), each.local_data2())
            });
            seen.note_list("large communities", large);
        }
        PathAttributeValue::OnlyToCustomer(each) => seen.note("customer", each.asn()),
        PathAttributeValue::MpReach(reach) => note_netgauze_reach(seen, reach),
        PathAttributeValue::MpUnreach(gauze::MpUnreach::Ipv4Unicast { nlri: list }) => {
            seen.withdrawn.extend(list.iter().map(|each| nlri(each.network(), each.path_id())));
        }
        PathAttributeValue::MpUnreach(gauze::MpUnreach::Ipv6Unicast { nlri: list }) => {
            seen.withdrawn.extend(list.iter().map(|each| nlri(each.network(), each.path_id())));
        }
        _ => {}
    }
}

fn note_netgauze_reach(seen: &mut Seen, reach: &gauze::MpReach) {
    match reach {
        gauze::MpReach::Ipv4Unicast { next_hop, nlri: list, .. } => {
            let named = list.iter().map(|each| nlri(each.network(), each.path_id()));
            seen.announced.extend(named.map(|each| via(&each, *next_hop)));
        }
        gauze::MpReach::Ipv6Unicast { next_hop_global, nlri: list, .. } => {
            let named = list.iter().map(|each| nlri(each.network(), each.path_id()));
            seen.announced.extend(named.map(|each| via(&each, (*next_hop_global).into())));
        }
        _ => {}
    }
}

pub(crate) fn by_bgpkit(message: &[u8], has_path_ids: bool) -> Result<Seen, String> {
    let mut bytes = Bytes::copy_from_slice(message);
    let parsed = bgpkit_parser::parser::bgp::messages::parse_bgp_message(
        &mut bytes,
        has_path_ids,
        &kit::AsnLength::Bits32,
    );
    let kit::BgpMessage::Update(update) = parsed.map_err(|error| error.to_string())? else {
        return Err("no UPDATE".to_owned());
    };
    let mut seen = Seen::default();
    let named = |each: &kit::NetworkPrefix| nlri(each.prefix, each.path_id);
    seen.withdrawn.extend(update.withdrawn_prefixes.iter().map(named));
    let mut next_hop = None;
    for value in &update.attributes {
        if let kit::AttributeValue::NextHop(value) = value {
            next_hop = Some(*value);
        }
        note_bgpkit(&mut seen, value);
    }
    for each in &update.announced_prefixes {
        seen.announced.insert(via(&named(each), next_hop.ok_or("no next hop")?));
    }
    Ok(seen.finished())
}

fn note_bgpkit(seen: &mut Seen, value: &kit::AttributeValue) {
    use kit::AttributeValue as Value;
    let named = |each: &kit::NetworkPrefix| nlri(each.prefix, each.path_id);
    match value {
        Value::Origin(origin) => seen.note("origin", origin_name(*origin as u8)),
        Value::AsPath(path) => seen.note_list("path", path.iter_segments().map(kit_segment)),
        Value::MultiExitDiscriminator(med) => seen.note("med", med),
        Value::LocalPreference(value) => seen.note("local preference", value),
        Value::AtomicAggregate => seen.note("atomic", true),
        Value::Aggregator { asn, id } => {
            seen.note("aggregator", format!("{} {id}", asn.to_u32()));
        }
        Value::Communities(list) => seen.note_list("communities", list.iter().map(kit_community)),
        Value::OriginatorId(id) => seen.note("originator", id),
        Value::Clusters(list) => seen.note_list("clusters", list.iter()),
        Value::LargeCommunities(list) => {
            let large = list.iter().map(|each| {
                format!("{}:{}:{}", each.global_admin, each.local_data[0], each.local_data[1])
            });
            seen.note_list("large communities", large);
        }
        Value::OnlyToCustomer(asn) => seen.note("customer", asn.to_u32()),
        Value::MpReachNlri(list) => {
            let next_hop = list.next_hop.map(|each| each.addr());
            let announced = list.prefixes.iter().map(named);
            seen.announced.extend(announced.filter_map(|each| Some(via(&each, next_hop?))));
        }
        Value::MpUnreachNlri(list) => seen.withdrawn.extend(list.prefixes.iter().map(named)),
        _ => {}
    }
}

fn kit_segment(each: &kit::AsPathSegment) -> String {
    let is_set = matches!(each, kit::AsPathSegment::AsSet(_));
    segment(is_set, each.iter().map(kit::Asn::to_u32))
}

fn kit_community(each: &kit::Community) -> u32 {
    match each {
        kit::Community::NoExport => 0xffff_ff01,
        kit::Community::NoAdvertise => 0xffff_ff02,
        kit::Community::NoExportSubConfed => 0xffff_ff03,
        kit::Community::Custom(asn, value) => asn.to_u32() << 16 | u32::from(*value),
    }
}
