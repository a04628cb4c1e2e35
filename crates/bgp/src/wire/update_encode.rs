//! UPDATE messages packed full: as many prefixes as 4096 bytes hold (RFC 4271 §4.3).

use std::net::IpAddr;

use model::net::{Cidr, Family};

use super::attribute::{MP_REACH, MP_UNREACH, OPTIONAL, encode_one};
use super::{AfiSafi, AsnWidth, Attributes, HEADER_LEN, Kind, MAX_LEN, frame, prefix};

/// The bytes of an UPDATE's body that are neither attributes nor prefixes.
const FIXED_LEN: usize = 4;
/// The most that an attribute's header takes.
const ATTRIBUTE_HEADER_LEN: usize = 4;
/// Family, next hop with its length, and the reserved byte of MP_REACH_NLRI.
const REACH_FIXED_LEN: usize = 21;
/// The family of MP_UNREACH_NLRI.
const UNREACH_FIXED_LEN: usize = 3;

/// Returns the messages that announce `prefixes`, which are all of one family.
///
/// IPv4 with an IPv4 next hop goes into the classical fields, everything else
/// into MP_REACH_NLRI, which goes first (RFC 7606 §5.1). `None` if the
/// attributes alone fill a message: such a path cannot be announced.
#[must_use]
pub fn encode_announcement(
    attributes: &Attributes,
    next_hop: IpAddr,
    prefixes: &[Cidr],
    width: AsnWidth,
) -> Option<Vec<Vec<u8>>> {
    let family = prefixes.first().map(Cidr::family)?;
    let classical = match next_hop {
        IpAddr::V4(addr) if family == Family::V4 => Some(addr),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    };
    let mut common = Vec::new();
    attributes.encode(classical, width, &mut common);
    let overhead = if classical.is_some() { 0 } else { REACH_FIXED_LEN + ATTRIBUTE_HEADER_LEN };
    let room = room_for_prefixes(common.len().checked_add(overhead)?)?;
    let message = |prefixes: &[u8]| {
        if classical.is_some() {
            return update(&[], &common, prefixes);
        }
        let mut value = family_bytes(family);
        match next_hop {
            IpAddr::V4(addr) => value.extend([&[4][..], &addr.octets()].concat()),
            IpAddr::V6(addr) => value.extend([&[16][..], &addr.octets()].concat()),
        }
        value.push(0);
        value.extend_from_slice(prefixes);
        let mut list = Vec::new();
        encode_one(OPTIONAL, MP_REACH, &value, &mut list);
        list.extend_from_slice(&common);
        update(&[], &list, &[])
    };
    Some(pack(prefixes, room).iter().map(|prefixes| message(prefixes)).collect())
}

/// Returns the messages that withdraw `prefixes`, which are all of one family.
#[must_use]
pub fn encode_withdrawal(prefixes: &[Cidr]) -> Vec<Vec<u8>> {
    let family = prefixes.first().map_or(Family::V4, Cidr::family);
    let overhead = match family {
        Family::V4 => 0,
        Family::V6 => UNREACH_FIXED_LEN + ATTRIBUTE_HEADER_LEN,
    };
    let room = room_for_prefixes(overhead).unwrap_or(0);
    let message = |prefixes: &[u8]| match family {
        Family::V4 => update(prefixes, &[], &[]),
        Family::V6 => unreach(family, prefixes),
    };
    pack(prefixes, room).iter().map(|prefixes| message(prefixes)).collect()
}

/// Returns the message that ends the initial routes of `family` (RFC 4724 §2).
#[must_use]
pub fn encode_end_of_rib(family: Family) -> Vec<u8> {
    match family {
        Family::V4 => update(&[], &[], &[]),
        Family::V6 => unreach(family, &[]),
    }
}

/// Returns the bytes left for prefixes, if there is room for at least one.
fn room_for_prefixes(taken: usize) -> Option<usize> {
    let room = MAX_LEN.checked_sub(HEADER_LEN + FIXED_LEN)?.checked_sub(taken)?;
    (room >= 17).then_some(room)
}

/// Cuts the encoded prefixes into pieces of at most `room` bytes.
fn pack(prefixes: &[Cidr], room: usize) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut piece = Vec::new();
    for prefix in prefixes {
        let len = prefix::encoded_len(prefix);
        if piece.len().saturating_add(len) > room {
            pieces.push(std::mem::take(&mut piece));
        }
        prefix::encode(prefix, &mut piece);
    }
    if !piece.is_empty() {
        pieces.push(piece);
    }
    pieces
}

fn unreach(family: Family, prefixes: &[u8]) -> Vec<u8> {
    let mut value = family_bytes(family);
    value.extend_from_slice(prefixes);
    let mut list = Vec::new();
    encode_one(OPTIONAL, MP_UNREACH, &value, &mut list);
    update(&[], &list, &[])
}

fn family_bytes(family: Family) -> Vec<u8> {
    let AfiSafi { afi, safi } = family.into();
    let [high, low] = afi.to_be_bytes();
    vec![high, low, safi]
}

fn update(withdrawn: &[u8], attributes: &[u8], prefixes: &[u8]) -> Vec<u8> {
    let len = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes();
    let parts = [&len(withdrawn), withdrawn, &len(attributes), attributes, prefixes];
    frame(Kind::Update, &parts.concat())
}
