//! Capabilities that an OPEN offers (RFC 5492).

use std::time::Duration;

use model::net::{Asn, Family};

use super::reader::Reader;

/// An address family with its subsequent family (RFC 4760 §6).
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct AfiSafi {
    /// The address family: 1 is IPv4, 2 is IPv6.
    pub afi: u16,
    /// The subsequent address family: 1 is unicast.
    pub safi: u8,
}

impl AfiSafi {
    /// Returns the family if this is its unicast routes.
    #[must_use]
    pub const fn unicast(self) -> Option<Family> {
        match (self.afi, self.safi) {
            (1, 1) => Some(Family::V4),
            (2, 1) => Some(Family::V6),
            _ => None,
        }
    }
}

impl From<Family> for AfiSafi {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => Self { afi: 1, safi: 1 },
            Family::V6 => Self { afi: 2, safi: 1 },
        }
    }
}

/// Something that a speaker can do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Capability {
    /// Carries routes of this family (RFC 4760 §8).
    Multiprotocol(AfiSafi),
    /// Answers ROUTE-REFRESH (RFC 2918).
    RouteRefresh,
    /// Marks the borders of the answer (RFC 7313).
    EnhancedRouteRefresh,
    /// Takes next hops of another family for these routes: family and the next hop's
    /// address family (RFC 8950).
    ExtendedNextHop(Vec<(AfiSafi, u16)>),
    /// What the sender is to us: provider (0), route server (1), its client (2),
    /// customer (3), peer (4) (RFC 9234 §4.1).
    Role(u8),
    /// Reads messages beyond 4096 bytes (RFC 8654).
    ExtendedMessage,
    /// Speaks AS numbers of four octets, and has this one (RFC 6793).
    FourOctetAsn(Asn),
    /// Keeps forwarding through a restart (RFC 4724).
    GracefulRestart(GracefulRestart),
    /// Sends (2), receives (1) or both (3) several paths of a prefix (RFC 7911).
    AddPath(Vec<(AfiSafi, u8)>),
    /// Anything else, or one of the above in a form that it does not have.
    Unknown {
        /// Its code.
        code: u8,
        /// Its value.
        value: Vec<u8>,
    },
}

/// What a peer says about its restarts (RFC 4724 §3).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GracefulRestart {
    /// R: the speaker has just restarted and must not be waited for.
    pub is_restarting: bool,
    /// N: a NOTIFICATION other than a hard reset keeps the routes too (RFC 8538).
    pub is_notification_graceful: bool,
    /// How long the peer may take to come back, in seconds (12 bits).
    pub restart_secs: u16,
    /// The families, each with F: its forwarding survived the restart.
    pub families: Vec<(AfiSafi, bool)>,
}

impl GracefulRestart {
    /// The longest restart time that the field holds, in seconds.
    pub const MAX_SECS: u16 = 0x0fff;

    /// Returns how long the peer may take to come back.
    #[must_use]
    pub fn restart_time(&self) -> Duration {
        Duration::from_secs(self.restart_secs.into())
    }

    /// Are routes of `family` to be kept while the peer restarts?
    #[must_use]
    pub fn covers(&self, family: Family) -> bool {
        self.families.iter().any(|(listed, _)| *listed == family.into())
    }

    /// Did the peer's forwarding of `family` survive its restart?
    #[must_use]
    pub fn is_forwarding_kept(&self, family: Family) -> bool {
        self.families.contains(&(family.into(), true))
    }
}

const MULTIPROTOCOL: u8 = 1;
const ROUTE_REFRESH: u8 = 2;
const EXTENDED_NEXT_HOP: u8 = 5;
const EXTENDED_MESSAGE: u8 = 6;
const ROLE: u8 = 9;
const GRACEFUL_RESTART: u8 = 64;
const FOUR_OCTET_ASN: u8 = 65;
const ADD_PATH: u8 = 69;
const ENHANCED_ROUTE_REFRESH: u8 = 70;

impl Capability {
    /// Reads the capabilities of one optional parameter; `None` if they overrun it.
    pub(super) fn decode_all(bytes: &[u8]) -> Option<Vec<Self>> {
        let mut reader = Reader::new(bytes);
        let mut capabilities = Vec::new();
        while !reader.is_empty() {
            let code = reader.u8()?;
            capabilities.push(Self::decode(code, reader.counted_u8()?));
        }
        Some(capabilities)
    }

    /// Reads one; a value of the wrong form is as good as an unknown capability.
    fn decode(code: u8, value: &[u8]) -> Self {
        let mut reader = Reader::new(value);
        let known = match code {
            MULTIPROTOCOL => decode_multiprotocol(&mut reader),
            ROUTE_REFRESH => Some(Self::RouteRefresh),
            EXTENDED_NEXT_HOP => decode_next_hops(&mut reader),
            EXTENDED_MESSAGE => Some(Self::ExtendedMessage),
            ROLE => reader.u8().map(Self::Role),
            GRACEFUL_RESTART => decode_graceful_restart(&mut reader),
            FOUR_OCTET_ASN => reader.u32().map(|asn| Self::FourOctetAsn(Asn(asn))),
            ADD_PATH => decode_add_path(&mut reader),
            ENHANCED_ROUTE_REFRESH => Some(Self::EnhancedRouteRefresh),
            _ => None,
        };
        known
            .filter(|_| reader.is_empty())
            .unwrap_or_else(|| Self::Unknown { code, value: value.to_vec() })
    }

    /// Appends the capability's code, length and value.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let (code, value) = self.parts();
        out.push(code);
        out.push(u8::try_from(value.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(value.get(..255).unwrap_or(&value));
    }

    /// Returns code, length and value, as NOTIFICATION 2/7 lists them too (RFC 5492 §5).
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        bytes
    }

    /// Returns code and value.
    fn parts(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Multiprotocol(AfiSafi { afi, safi }) => {
                let [high, low] = afi.to_be_bytes();
                (MULTIPROTOCOL, vec![high, low, 0, *safi])
            }
            Self::RouteRefresh => (ROUTE_REFRESH, Vec::new()),
            Self::EnhancedRouteRefresh => (ENHANCED_ROUTE_REFRESH, Vec::new()),
            Self::ExtendedNextHop(families) => {
                let entry = |(family, next_hop): &(AfiSafi, u16)| {
                    let safi = u16::from(family.safi);
                    [family.afi, safi, *next_hop].map(u16::to_be_bytes).concat()
                };
                (EXTENDED_NEXT_HOP, families.iter().flat_map(entry).collect())
            }
            Self::ExtendedMessage => (EXTENDED_MESSAGE, Vec::new()),
            Self::Role(role) => (ROLE, vec![*role]),
            Self::FourOctetAsn(asn) => (FOUR_OCTET_ASN, asn.0.to_be_bytes().to_vec()),
            Self::GracefulRestart(restart) => (GRACEFUL_RESTART, encode_graceful_restart(restart)),
            Self::AddPath(families) => {
                let entry = |(family, mode): &(AfiSafi, u8)| {
                    let [high, low] = family.afi.to_be_bytes();
                    [high, low, family.safi, *mode]
                };
                (ADD_PATH, families.iter().flat_map(entry).collect())
            }
            Self::Unknown { code, value } => (*code, value.clone()),
        }
    }
}

fn decode_multiprotocol(reader: &mut Reader<'_>) -> Option<Capability> {
    let afi = reader.u16()?;
    let _reserved = reader.u8()?;
    Some(Capability::Multiprotocol(AfiSafi { afi, safi: reader.u8()? }))
}

const RESTART_BIT: u16 = 0x8000;
const NOTIFICATION_BIT: u16 = 0x4000;
const FORWARDING_BIT: u8 = 0x80;

fn decode_graceful_restart(reader: &mut Reader<'_>) -> Option<Capability> {
    let flags = reader.u16()?;
    let mut families = Vec::new();
    while !reader.is_empty() {
        let family = AfiSafi { afi: reader.u16()?, safi: reader.u8()? };
        families.push((family, reader.u8()? & FORWARDING_BIT != 0));
    }
    Some(Capability::GracefulRestart(GracefulRestart {
        is_restarting: flags & RESTART_BIT != 0,
        is_notification_graceful: flags & NOTIFICATION_BIT != 0,
        restart_secs: flags & GracefulRestart::MAX_SECS,
        families,
    }))
}

fn encode_graceful_restart(restart: &GracefulRestart) -> Vec<u8> {
    let mut flags = restart.restart_secs.min(GracefulRestart::MAX_SECS);
    if restart.is_restarting {
        flags |= RESTART_BIT;
    }
    if restart.is_notification_graceful {
        flags |= NOTIFICATION_BIT;
    }
    let mut value = flags.to_be_bytes().to_vec();
    for (family, is_kept) in &restart.families {
        value.extend_from_slice(&family.afi.to_be_bytes());
        value.push(family.safi);
        value.push(if *is_kept { FORWARDING_BIT } else { 0 });
    }
    value
}

fn decode_next_hops(reader: &mut Reader<'_>) -> Option<Capability> {
    let mut families = Vec::new();
    while !reader.is_empty() {
        // The subsequent family takes two bytes here (RFC 8950 §4).
        let (afi, safi) = (reader.u16()?, u8::try_from(reader.u16()?).ok()?);
        families.push((AfiSafi { afi, safi }, reader.u16()?));
    }
    Some(Capability::ExtendedNextHop(families))
}

fn decode_add_path(reader: &mut Reader<'_>) -> Option<Capability> {
    let mut families = Vec::new();
    while !reader.is_empty() {
        let family = AfiSafi { afi: reader.u16()?, safi: reader.u8()? };
        families.push((family, reader.u8()?));
    }
    Some(Capability::AddPath(families))
}
