//! Messages of BGP-4 as bytes (RFC 4271 §4), for IPv4 and IPv6 unicast.
//!
//! Decoding answers a wrong message with what RFC 4271 §6 or RFC 7606 says to
//! do: a [`Notification`] resets the session, and less than that is listed in
//! [`Update::malformed`] with its effect already applied.

mod as_path;
mod attribute;
mod capability;
mod families;
mod notification;
mod open;
mod prefix;
mod reader;
mod refresh;
mod update;
mod update_decode;
mod update_encode;

pub use as_path::{AsPath, Segment, SegmentKind};
pub use attribute::{Aggregator, Attributes, Origin, UnknownAttribute};
pub use capability::{AfiSafi, Capability, GracefulRestart};
pub use families::Families;
pub use notification::{Notification, Reason};
pub use open::{BgpIdentifier, Open};
pub use prefix::Nlri;
pub use refresh::{RefreshKind, RouteRefresh};
pub use update::{Announcement, AsnWidth, Context, Disposition, Malformed, Update};
pub use update_encode::{Form, TooLong, encode_announcement, encode_end_of_rib, encode_withdrawal};

use reader::Reader;

/// The length of a message's header, in bytes.
pub const HEADER_LEN: usize = 19;
/// The longest message, in bytes (RFC 4271 §4.1).
pub const MAX_LEN: usize = 4096;
/// The longest message to a speaker that offers to read it, in bytes (RFC 8654 §3).
pub const MAX_EXTENDED_LEN: usize = 65_535;

/// A message with its type, but with the body still in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Frame<'a> {
    /// What the body is.
    pub kind: Kind,
    /// What follows the header.
    pub body: &'a [u8],
}

/// The type of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// OPEN.
    Open,
    /// UPDATE.
    Update,
    /// NOTIFICATION.
    Notification,
    /// KEEPALIVE.
    Keepalive,
    /// ROUTE-REFRESH (RFC 2918).
    RouteRefresh,
}

impl Kind {
    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Open),
            2 => Some(Self::Update),
            3 => Some(Self::Notification),
            4 => Some(Self::Keepalive),
            5 => Some(Self::RouteRefresh),
            _ => None,
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Open => 1,
            Self::Update => 2,
            Self::Notification => 3,
            Self::Keepalive => 4,
            Self::RouteRefresh => 5,
        }
    }

    /// Returns the shortest whole message of this type (RFC 4271 §4, RFC 7313 §5).
    const fn min_len(self) -> usize {
        match self {
            Self::Open => 29,
            Self::Update => 23,
            Self::Notification => 21,
            Self::Keepalive | Self::RouteRefresh => HEADER_LEN,
        }
    }

    /// Returns the longest message of this type, whatever was agreed on (RFC 8654 §4).
    const fn max_len(self) -> usize {
        match self {
            Self::Open => MAX_LEN,
            Self::Keepalive => HEADER_LEN,
            Self::Update | Self::Notification | Self::RouteRefresh => MAX_EXTENDED_LEN,
        }
    }
}

/// Takes the first message off `bytes`; `None` if it is not complete yet.
///
/// `max_len` is [`MAX_EXTENDED_LEN`] if we have offered to read that, else [`MAX_LEN`];
/// OPEN and KEEPALIVE are short in any case (RFC 8654 §4).
///
/// # Errors
///
/// The NOTIFICATION of RFC 4271 §6.1 for a wrong marker, length or type.
pub fn split_frame(
    bytes: &[u8],
    max_len: usize,
) -> Result<Option<(Frame<'_>, &[u8])>, Notification> {
    let Some((header, _)) = bytes.split_at_checked(HEADER_LEN) else { return Ok(None) };
    let mut reader = Reader::new(header);
    if reader.take(16) != Some(&[0xff; 16]) {
        return Err(Notification::new(Reason::NOT_SYNCHRONIZED));
    }
    let (len, code) = (reader.u16().unwrap_or(0), reader.u8().unwrap_or(0));
    let bad_length = || Notification::with_data(Reason::BAD_MESSAGE_LENGTH, &len.to_be_bytes());
    if usize::from(len) < HEADER_LEN || usize::from(len) > max_len {
        return Err(bad_length());
    }
    let Some(kind) = Kind::from_code(code) else {
        return Err(Notification::with_data(Reason::BAD_MESSAGE_TYPE, &[code]));
    };
    if usize::from(len) < kind.min_len() || usize::from(len) > kind.max_len() {
        return Err(bad_length());
    }
    let Some((message, rest)) = bytes.split_at_checked(len.into()) else { return Ok(None) };
    let body = message.get(HEADER_LEN..).unwrap_or_default();
    Ok(Some((Frame { kind, body }, rest)))
}

/// Returns a KEEPALIVE.
#[must_use]
pub fn encode_keepalive() -> Vec<u8> {
    frame(Kind::Keepalive, &[])
}

/// Puts the header before `body`, which the caller keeps within [`MAX_EXTENDED_LEN`].
fn frame(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(body.len().saturating_add(HEADER_LEN));
    let at = begin_frame(kind, &mut message);
    message.extend_from_slice(body);
    end_frame(&mut message, at);
    message
}

/// Appends a header without its length; returns where the message begins.
fn begin_frame(kind: Kind, out: &mut Vec<u8>) -> usize {
    let at = out.len();
    out.extend_from_slice(&[0xff; 16]);
    out.extend_from_slice(&[0, 0, kind.code()]);
    at
}

/// Fills in the length of the message that begins `at` and ends here.
fn end_frame(out: &mut [u8], at: usize) {
    let len = out.len().saturating_sub(at);
    debug_assert!(len <= MAX_EXTENDED_LEN, "a message of {len} bytes");
    let field = out.get_mut(at.saturating_add(16)..).and_then(<[u8]>::first_chunk_mut);
    if let Some(field) = field {
        *field = u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
    }
}

#[cfg(test)]
mod tests;
