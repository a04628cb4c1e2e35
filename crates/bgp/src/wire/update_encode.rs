//! UPDATE messages packed full: as many prefixes as a message holds (RFC 4271 §4.3, RFC 8654).

use std::net::IpAddr;

use model::net::Family;

use super::attribute::{EXTENDED_LENGTH, MP_REACH, MP_UNREACH, OPTIONAL};
use super::prefix::Notation;
use super::{
    AfiSafi, AsnWidth, Attributes, Families, HEADER_LEN, Kind, MAX_LEN, Nlri, begin_frame,
    end_frame,
};

/// How the messages of a session are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Form {
    /// How AS numbers are written.
    pub width: AsnWidth,
    /// The longest message that the peer reads, in bytes: [`MAX_LEN`], or
    /// [`MAX_EXTENDED_LEN`](super::MAX_EXTENDED_LEN) if it offered that.
    pub max_len: usize,
    /// For which families each prefix stands behind the number of its path (RFC 7911).
    pub add_path: Families,
}

/// Attributes that leave no room for a prefix.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the attributes take {len} bytes, and a message holds {max_len}")]
pub struct TooLong {
    /// How many bytes the attributes take.
    pub len: usize,
    /// The longest message that the peer reads.
    pub max_len: usize,
}

/// The bytes of an UPDATE's body that are neither attributes nor prefixes.
const FIXED_LEN: usize = 4;
/// Flags, type code and length of an attribute that may be long.
const ATTRIBUTE_HEADER_LEN: usize = 4;
/// The most that one prefix takes: the path's number, the length, an IPv6 address.
const LONGEST_NLRI: usize = 21;

impl Default for Form {
    fn default() -> Self {
        Self { width: AsnWidth::Four, max_len: MAX_LEN, add_path: Families::NONE }
    }
}

impl Form {
    fn notation(self, family: Family) -> Notation {
        Notation { family, has_path_ids: self.add_path.contains(family) }
    }

    /// Returns the bytes left for prefixes, if there is room for at least one.
    fn room(self, taken: usize) -> Result<usize, TooLong> {
        let fixed = HEADER_LEN.saturating_add(FIXED_LEN).saturating_add(taken);
        let room = self.max_len.checked_sub(fixed).filter(|room| *room >= LONGEST_NLRI);
        room.ok_or(TooLong { len: taken, max_len: self.max_len })
    }
}

/// Appends to `out` the messages that announce `prefixes`, which are all of one family.
///
/// IPv4 with an IPv4 next hop goes into the classical fields, everything else
/// into MP_REACH_NLRI, which goes first (RFC 7606 §5.1).
///
/// # Errors
///
/// [`TooLong`] if the attributes alone fill a message: such a path cannot be announced,
/// and nothing is appended.
pub fn encode_announcement(
    attributes: &Attributes,
    next_hop: IpAddr,
    prefixes: &[Nlri],
    form: Form,
    out: &mut Vec<u8>,
) -> Result<(), TooLong> {
    let Some(family) = prefixes.first().map(|nlri| nlri.prefix.family()) else { return Ok(()) };
    let classical = match next_hop {
        IpAddr::V4(addr) if family == Family::V4 => Some(addr),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    };
    let mut common = Vec::new();
    attributes.encode(classical, form.width, &mut common);
    let notation = form.notation(family);
    if classical.is_some() {
        let room = form.room(common.len())?;
        for piece in (Pieces { rest: prefixes, notation, room }) {
            let at = begin_update(out, 0);
            put_len(out, common.len());
            out.extend_from_slice(&common);
            notation.encode_all(piece, out);
            end_frame(out, at);
        }
        return Ok(());
    }
    let mut head = family_bytes(family);
    match next_hop {
        IpAddr::V4(addr) => head.extend([&[4][..], &addr.octets()].concat()),
        IpAddr::V6(addr) => head.extend([&[16][..], &addr.octets()].concat()),
    }
    head.push(0);
    let overhead = head.len().saturating_add(ATTRIBUTE_HEADER_LEN);
    let room = form.room(common.len().saturating_add(overhead))?;
    for piece in (Pieces { rest: prefixes, notation, room }) {
        let list = Multiprotocol { code: MP_REACH, head: &head, notation };
        let at = begin_update(out, 0);
        list.put(piece, &common, out);
        end_frame(out, at);
    }
    Ok(())
}

/// Appends to `out` the messages that withdraw `prefixes`, which are all of one family.
pub fn encode_withdrawal(prefixes: &[Nlri], form: Form, out: &mut Vec<u8>) {
    let Some(family) = prefixes.first().map(|nlri| nlri.prefix.family()) else { return };
    let notation = form.notation(family);
    let head = family_bytes(family);
    let overhead = match family {
        Family::V4 => 0,
        Family::V6 => head.len().saturating_add(ATTRIBUTE_HEADER_LEN),
    };
    // A message always has room for a prefix beside so little.
    let room = form.room(overhead).unwrap_or(LONGEST_NLRI);
    for piece in (Pieces { rest: prefixes, notation, room }) {
        match family {
            Family::V4 => {
                let at = begin_update(out, notation.total_len(piece));
                notation.encode_all(piece, out);
                put_len(out, 0);
                end_frame(out, at);
            }
            Family::V6 => {
                let at = begin_update(out, 0);
                Multiprotocol { code: MP_UNREACH, head: &head, notation }.put(piece, &[], out);
                end_frame(out, at);
            }
        }
    }
}

/// Returns the message that ends the initial routes of `family` (RFC 4724 §2).
#[must_use]
pub fn encode_end_of_rib(family: Family) -> Vec<u8> {
    let mut out = Vec::new();
    let at = begin_update(&mut out, 0);
    match family {
        Family::V4 => put_len(&mut out, 0),
        Family::V6 => {
            let notation = Form::default().notation(family);
            let head = family_bytes(family);
            Multiprotocol { code: MP_UNREACH, head: &head, notation }.put(&[], &[], &mut out);
        }
    }
    end_frame(&mut out, at);
    out
}

/// An attribute that carries prefixes (RFC 4760 §3, §4).
struct Multiprotocol<'a> {
    code: u8,
    /// What stands before the prefixes.
    head: &'a [u8],
    notation: Notation,
}

impl Multiprotocol<'_> {
    /// Appends the length of all attributes, this one, and the `others` behind it.
    fn put(&self, prefixes: &[Nlri], others: &[u8], out: &mut Vec<u8>) {
        let len = self.head.len().saturating_add(self.notation.total_len(prefixes));
        let short = u8::try_from(len).ok();
        let header = if short.is_some() { 3 } else { ATTRIBUTE_HEADER_LEN };
        put_len(out, len.saturating_add(header).saturating_add(others.len()));
        if let Some(len) = short {
            out.extend_from_slice(&[OPTIONAL, self.code, len]);
        } else {
            out.extend_from_slice(&[OPTIONAL | EXTENDED_LENGTH, self.code]);
            put_len(out, len);
        }
        out.extend_from_slice(self.head);
        self.notation.encode_all(prefixes, out);
        out.extend_from_slice(others);
    }
}

/// Cuts prefixes into pieces whose bytes fit into `room`.
struct Pieces<'a> {
    rest: &'a [Nlri],
    notation: Notation,
    room: usize,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [Nlri];

    fn next(&mut self) -> Option<&'a [Nlri]> {
        let mut left = self.room;
        let fits = |nlri: &&Nlri| {
            let less = left.checked_sub(self.notation.encoded_len(nlri));
            left = less.unwrap_or(0);
            less.is_some()
        };
        let count = self.rest.iter().take_while(fits).count();
        let (piece, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        (!piece.is_empty()).then_some(piece)
    }
}

fn family_bytes(family: Family) -> Vec<u8> {
    let AfiSafi { afi, safi } = family.into();
    let [high, low] = afi.to_be_bytes();
    vec![high, low, safi]
}

/// Appends a header and the length of the withdrawn prefixes; returns where it begins.
fn begin_update(out: &mut Vec<u8>, withdrawn: usize) -> usize {
    let at = begin_frame(Kind::Update, out);
    put_len(out, withdrawn);
    at
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
}
