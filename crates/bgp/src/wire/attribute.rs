//! Path attributes: their values, and how each is read and written (RFC 4271 §5).

use std::net::Ipv4Addr;

use model::net::Asn;

use super::reader::{Reader, u32_list};
use super::{AsPath, AsnWidth, BgpIdentifier};

/// What a path says about itself, apart from its next hop.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Attributes {
    /// `ORIGIN`.
    pub origin: Origin,
    /// `AS_PATH`, with the true numbers also from a peer of two octets.
    pub as_path: AsPath,
    /// `MULTI_EXIT_DISC`.
    pub med: Option<u32>,
    /// `LOCAL_PREF`; only inside an AS.
    pub local_pref: Option<u32>,
    /// `ATOMIC_AGGREGATE`.
    pub is_atomic_aggregate: bool,
    /// `AGGREGATOR`.
    pub aggregator: Option<Aggregator>,
    /// `COMMUNITIES` (RFC 1997).
    pub communities: Vec<u32>,
    /// `ORIGINATOR_ID` (RFC 4456).
    pub originator_id: Option<BgpIdentifier>,
    /// `CLUSTER_LIST` (RFC 4456), the nearest first.
    pub cluster_list: Vec<u32>,
    /// `EXTENDED COMMUNITIES` (RFC 4360), not looked into.
    pub extended_communities: Vec<[u8; 8]>,
    /// `LARGE_COMMUNITY` (RFC 8092).
    pub large_communities: Vec<[u32; 3]>,
    /// `ONLY_TO_CUSTOMER`: the AS behind which the route only goes down (RFC 9234 §5).
    pub only_to_customer: Option<Asn>,
    /// Optional transitive attributes that we do not know, in order of their codes.
    pub unknown: Vec<UnknownAttribute>,
}

impl Attributes {
    /// Not to any other speaker (RFC 1997).
    pub const NO_ADVERTISE: u32 = 0xffff_ff02;
    /// Not to another AS (RFC 1997).
    pub const NO_EXPORT: u32 = 0xffff_ff01;
    /// Not to another AS, a confederation's members included (RFC 1997).
    pub const NO_EXPORT_SUBCONFED: u32 = 0xffff_ff03;
}

/// How a route came into BGP; the smaller is preferred (RFC 4271 §5.1.1).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Origin {
    /// From inside the AS.
    #[default]
    Igp,
    /// From EGP (RFC 904).
    Egp,
    /// From somewhere else.
    Incomplete,
}

/// Who aggregated a route (RFC 4271 §5.1.7).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Aggregator {
    /// Its AS.
    pub asn: Asn,
    /// Its address.
    pub addr: Ipv4Addr,
}

/// An optional transitive attribute that we pass on unread.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct UnknownAttribute {
    /// Its type code.
    pub code: u8,
    /// Whether somebody on the way did not know it either.
    pub is_partial: bool,
    /// Its value.
    pub value: Vec<u8>,
}

pub(super) const ORIGIN: u8 = 1;
pub(super) const AS_PATH: u8 = 2;
pub(super) const NEXT_HOP: u8 = 3;
pub(super) const MED: u8 = 4;
pub(super) const LOCAL_PREF: u8 = 5;
pub(super) const ATOMIC_AGGREGATE: u8 = 6;
pub(super) const AGGREGATOR: u8 = 7;
pub(super) const COMMUNITIES: u8 = 8;
pub(super) const ORIGINATOR_ID: u8 = 9;
pub(super) const CLUSTER_LIST: u8 = 10;
pub(super) const MP_REACH: u8 = 14;
pub(super) const MP_UNREACH: u8 = 15;
pub(super) const EXTENDED_COMMUNITIES: u8 = 16;
pub(super) const AS4_PATH: u8 = 17;
pub(super) const AS4_AGGREGATOR: u8 = 18;
pub(super) const LARGE_COMMUNITIES: u8 = 32;
pub(super) const ONLY_TO_CUSTOMER: u8 = 35;

pub(super) const OPTIONAL: u8 = 0x80;
pub(super) const TRANSITIVE: u8 = 0x40;
pub(super) const PARTIAL: u8 = 0x20;
pub(super) const EXTENDED_LENGTH: u8 = 0x10;

/// Returns what the optional and transitive bits of a known attribute must be.
pub(super) const fn required_flags(code: u8) -> Option<u8> {
    match code {
        ORIGIN | AS_PATH | NEXT_HOP | LOCAL_PREF | ATOMIC_AGGREGATE => Some(TRANSITIVE),
        MED | ORIGINATOR_ID | CLUSTER_LIST | MP_REACH | MP_UNREACH => Some(OPTIONAL),
        AGGREGATOR | COMMUNITIES | EXTENDED_COMMUNITIES | AS4_PATH | AS4_AGGREGATOR
        | LARGE_COMMUNITIES | ONLY_TO_CUSTOMER => Some(OPTIONAL | TRANSITIVE),
        _ => None,
    }
}

/// Reads `value` as one number of four bytes and nothing else.
pub(super) fn exact_u32(value: &[u8]) -> Option<u32> {
    <[u8; 4]>::try_from(value).ok().map(u32::from_be_bytes)
}

/// Reads a list of numbers that must not be empty (RFC 7606 §7.8, §7.10).
pub(super) fn filled_u32_list(value: &[u8]) -> Option<Vec<u32>> {
    u32_list(value).filter(|list| !list.is_empty())
}

impl Origin {
    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        match value {
            [0] => Some(Self::Igp),
            [1] => Some(Self::Egp),
            [2] => Some(Self::Incomplete),
            _ => None,
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Igp => 0,
            Self::Egp => 1,
            Self::Incomplete => 2,
        }
    }
}

impl Aggregator {
    pub(super) fn decode(value: &[u8], width: AsnWidth) -> Option<Self> {
        let mut reader = Reader::new(value);
        let asn = match width {
            AsnWidth::Two => reader.u16()?.into(),
            AsnWidth::Four => reader.u32()?,
        };
        let addr = Ipv4Addr::from(reader.u32()?);
        // AS 0 makes it malformed (RFC 7607 §2).
        (reader.is_empty() && asn != 0).then_some(Self { asn: Asn(asn), addr })
    }

    fn encode(self, width: AsnWidth) -> Vec<u8> {
        let mut value = Vec::with_capacity(8);
        width.encode(self.asn, &mut value);
        value.extend_from_slice(&self.addr.octets());
        value
    }
}

/// Reads extended communities; `None` if they do not come out even (RFC 7606 §7.14).
pub(super) fn decode_extended(value: &[u8]) -> Option<Vec<[u8; 8]>> {
    let (communities, rest) = value.as_chunks::<8>();
    (rest.is_empty() && !communities.is_empty()).then(|| communities.to_vec())
}

/// Reads large communities; `None` if they do not come out even (RFC 8092 §5).
pub(super) fn decode_large(value: &[u8]) -> Option<Vec<[u32; 3]>> {
    let words = filled_u32_list(value)?;
    let (communities, rest) = words.as_chunks::<3>();
    rest.is_empty().then(|| communities.to_vec())
}

/// Appends one attribute with its header.
pub(super) fn encode_one(flags: u8, code: u8, value: &[u8], out: &mut Vec<u8>) {
    if let Ok(len) = u8::try_from(value.len()) {
        out.extend_from_slice(&[flags, code, len]);
    } else {
        out.extend_from_slice(&[flags | EXTENDED_LENGTH, code]);
        out.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    }
    out.extend_from_slice(value);
}

impl Attributes {
    /// Appends everything but the next hop, in the order of type codes; a NEXT_HOP
    /// attribute, if there is one, goes to its place.
    pub(super) fn encode(&self, next_hop: Option<Ipv4Addr>, width: AsnWidth, out: &mut Vec<u8>) {
        let mut put = |code: u8, value: &[u8]| {
            encode_one(required_flags(code).unwrap_or(0), code, value, out);
        };
        put(ORIGIN, &[self.origin.code()]);
        let mut path = Vec::new();
        self.as_path.encode(width, &mut path);
        put(AS_PATH, &path);
        if let Some(addr) = next_hop {
            put(NEXT_HOP, &addr.octets());
        }
        if let Some(med) = self.med {
            put(MED, &med.to_be_bytes());
        }
        if let Some(local_pref) = self.local_pref {
            put(LOCAL_PREF, &local_pref.to_be_bytes());
        }
        if self.is_atomic_aggregate {
            put(ATOMIC_AGGREGATE, &[]);
        }
        if let Some(aggregator) = self.aggregator {
            put(AGGREGATOR, &aggregator.encode(width));
        }
        if !self.communities.is_empty() {
            put(COMMUNITIES, &be_bytes(&self.communities));
        }
        if let Some(originator) = self.originator_id {
            put(ORIGINATOR_ID, &originator.0.to_be_bytes());
        }
        if !self.cluster_list.is_empty() {
            put(CLUSTER_LIST, &be_bytes(&self.cluster_list));
        }
        self.encode_rest(width, out);
    }

    /// Appends the attributes with codes above those of RFC 4271 and RFC 4456.
    fn encode_rest(&self, width: AsnWidth, out: &mut Vec<u8>) {
        let mut put = |code: u8, value: &[u8]| {
            encode_one(required_flags(code).unwrap_or(0), code, value, out);
        };
        if !self.extended_communities.is_empty() {
            put(EXTENDED_COMMUNITIES, self.extended_communities.as_flattened());
        }
        if width == AsnWidth::Two && self.as_path.is_wide() {
            let mut path = Vec::new();
            self.as_path.encode(AsnWidth::Four, &mut path);
            put(AS4_PATH, &path);
        }
        if let Some(aggregator) = self.aggregator
            && width == AsnWidth::Two
            && u16::try_from(aggregator.asn.0).is_err()
        {
            put(AS4_AGGREGATOR, &aggregator.encode(AsnWidth::Four));
        }
        if !self.large_communities.is_empty() {
            put(LARGE_COMMUNITIES, &be_bytes(self.large_communities.as_flattened()));
        }
        if let Some(asn) = self.only_to_customer {
            put(ONLY_TO_CUSTOMER, &asn.0.to_be_bytes());
        }
        for attribute in &self.unknown {
            let partial = if attribute.is_partial { PARTIAL } else { 0 };
            encode_one(OPTIONAL | TRANSITIVE | partial, attribute.code, &attribute.value, out);
        }
    }
}

fn be_bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}
