//! UPDATE: routes that come and go (RFC 4271 §4.3, RFC 4760), and what a wrong
//! one does (RFC 7606).

use std::net::IpAddr;
use std::sync::Arc;

use model::net::{Asn, Family};

use super::prefix::Notation;
use super::reader::Reader;
use super::update_decode::Walk;
use super::{AfiSafi, Attributes, Families, Nlri, Notification, Reason};

/// What a message says about routes, of either family.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Update {
    /// Prefixes that are no longer reachable.
    pub withdrawn: Vec<Nlri>,
    /// Prefixes that are, by next hop; at most one entry for each family.
    pub announced: Vec<Announcement>,
    /// What all announced paths share.
    pub attributes: Arc<Attributes>,
    /// The family whose initial routes are complete with this message (RFC 4724 §2).
    pub end_of_rib: Option<AfiSafi>,
    /// What was wrong, with its effect already in the fields above.
    pub malformed: Vec<Malformed>,
}

/// Prefixes of one family with the same next hop.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Announcement {
    /// Where to send packets.
    pub next_hop: IpAddr,
    /// For which destinations.
    pub prefixes: Vec<Nlri>,
}

/// How many octets an AS number takes (RFC 6793).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum AsnWidth {
    /// The peer is old.
    Two,
    /// Both sides offered the capability.
    #[default]
    Four,
}

/// What decoding must know of the session.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Context {
    /// How AS numbers are written.
    pub width: AsnWidth,
    /// Is the peer in our AS? Others' LOCAL_PREF and the like are not for us.
    pub is_internal: bool,
    /// For which families the peer puts the number of a path before each prefix (RFC 7911).
    pub add_path: Families,
    /// For which families a next hop of the other family is agreed on (RFC 8950).
    pub foreign_next_hops: Families,
    /// Is the peer known by a link-local address? Then its link-local next hops are used.
    pub is_on_link: bool,
}

impl Context {
    /// Returns how the peer writes prefixes of `family`.
    pub(super) fn notation(self, family: Family) -> Notation {
        Notation { family, has_path_ids: self.add_path.contains(family) }
    }
}

/// An attribute that was wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}: {what} (attribute {code})", .disposition.name())]
pub struct Malformed {
    /// Its type code, zero for the list as a whole.
    pub code: u8,
    /// What was wrong.
    pub what: &'static str,
    /// What was done.
    pub disposition: Disposition,
}

/// What a wrong attribute does, apart from resetting the session (RFC 7606 §2).
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Disposition {
    /// The attribute was ignored.
    Discard,
    /// The message's routes were taken as withdrawn.
    TreatAsWithdraw,
}

impl Disposition {
    const fn name(self) -> &'static str {
        match self {
            Self::Discard => "attribute discarded",
            Self::TreatAsWithdraw => "routes treated as withdrawn",
        }
    }
}

impl AsnWidth {
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    pub(super) fn decode_list(self, bytes: &[u8]) -> Vec<Asn> {
        match self {
            Self::Two => {
                let (words, _) = bytes.as_chunks::<2>();
                words.iter().map(|word| Asn(u16::from_be_bytes(*word).into())).collect()
            }
            Self::Four => {
                let (words, _) = bytes.as_chunks::<4>();
                words.iter().map(|word| Asn(u32::from_be_bytes(*word))).collect()
            }
        }
    }

    pub(super) fn encode(self, asn: Asn, out: &mut Vec<u8>) {
        match self {
            Self::Four => out.extend_from_slice(&asn.0.to_be_bytes()),
            Self::Two => {
                let short = u16::try_from(asn.0).or(u16::try_from(Asn::TRANS.0)).unwrap_or(0);
                out.extend_from_slice(&short.to_be_bytes());
            }
        }
    }
}

impl Update {
    /// Reads the body of an UPDATE.
    ///
    /// # Errors
    ///
    /// A NOTIFICATION where RFC 7606 leaves nothing but a session reset: lengths
    /// that hide where the routes are, prefixes that cannot be read, a repeated
    /// or unreadable MP attribute, an unknown well-known one.
    pub fn decode(body: &[u8], context: Context) -> Result<Self, Notification> {
        let malformed = || Notification::new(Reason::MALFORMED_ATTRIBUTES);
        let network = || Notification::new(Reason::INVALID_NETWORK);
        let mut reader = Reader::new(body);
        let withdrawn = reader.counted_u16().ok_or_else(malformed)?;
        let attributes = reader.counted_u16().ok_or_else(malformed)?;
        let notation = context.notation(Family::V4);
        let prefixes = notation.decode_all(reader.rest()).ok_or_else(network)?;
        let mut update = Self {
            withdrawn: notation.decode_all(withdrawn).ok_or_else(network)?,
            ..Self::default()
        };
        if withdrawn.is_empty() && attributes.is_empty() && prefixes.is_empty() {
            update.end_of_rib = Some(Family::V4.into());
            return Ok(update);
        }
        let mut walk = Walk::new(context);
        walk.read(attributes)?;
        walk.finish(update, prefixes)
    }
}
