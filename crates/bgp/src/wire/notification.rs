//! NOTIFICATION: why a session ends (RFC 4271 §4.5, §6).

use std::fmt;

use super::{HEADER_LEN, Kind, MAX_LEN, Reader, frame};

/// The last message of a session.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{reason}{}", self.text_suffix())]
pub struct Notification {
    /// Error code and subcode.
    pub reason: Reason,
    /// What the reason says belongs here.
    pub data: Vec<u8>,
}

/// An error code with its subcode.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Reason {
    /// The error code.
    pub code: u8,
    /// The subcode, zero if there is none.
    pub subcode: u8,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = ($code:literal, $subcode:literal, $text:literal);)*) => {
        impl Reason {
            $($(#[$doc])* pub const $name: Self = Self { code: $code, subcode: $subcode };)*

            /// Returns the reason's name in the standards.
            const fn name(self) -> &'static str {
                match (self.code, self.subcode) {
                    $(($code, $subcode) => $text,)*
                    _ => "unknown reason",
                }
            }
        }
    };
}

reasons! {
    /// RFC 4271 §6.1.
    NOT_SYNCHRONIZED = (1, 1, "connection not synchronized");
    /// RFC 4271 §6.1.
    BAD_MESSAGE_LENGTH = (1, 2, "bad message length");
    /// RFC 4271 §6.1.
    BAD_MESSAGE_TYPE = (1, 3, "bad message type");
    /// RFC 4271 §6.2.
    OPEN_MALFORMED = (2, 0, "malformed OPEN");
    /// RFC 4271 §6.2.
    UNSUPPORTED_VERSION = (2, 1, "unsupported version number");
    /// RFC 4271 §6.2.
    BAD_PEER_AS = (2, 2, "bad peer AS");
    /// RFC 4271 §6.2.
    BAD_IDENTIFIER = (2, 3, "bad BGP identifier");
    /// RFC 4271 §6.2.
    UNSUPPORTED_PARAMETER = (2, 4, "unsupported optional parameter");
    /// RFC 4271 §6.2.
    UNACCEPTABLE_HOLD_TIME = (2, 6, "unacceptable hold time");
    /// RFC 5492 §5.
    UNSUPPORTED_CAPABILITY = (2, 7, "unsupported capability");
    /// RFC 9234 §4.2.
    ROLE_MISMATCH = (2, 11, "role mismatch");
    /// RFC 4271 §6.3.
    MALFORMED_ATTRIBUTES = (3, 1, "malformed attribute list");
    /// RFC 4271 §6.3.
    UNKNOWN_WELL_KNOWN = (3, 2, "unrecognized well-known attribute");
    /// RFC 4271 §6.3.
    MISSING_WELL_KNOWN = (3, 3, "missing well-known attribute");
    /// RFC 4271 §6.3.
    ATTRIBUTE_FLAGS = (3, 4, "attribute flags error");
    /// RFC 4271 §6.3.
    ATTRIBUTE_LENGTH = (3, 5, "attribute length error");
    /// RFC 4271 §6.3.
    INVALID_ORIGIN = (3, 6, "invalid ORIGIN attribute");
    /// RFC 4271 §6.3.
    INVALID_NEXT_HOP = (3, 8, "invalid NEXT_HOP attribute");
    /// RFC 4271 §6.3.
    OPTIONAL_ATTRIBUTE = (3, 9, "optional attribute error");
    /// RFC 4271 §6.3.
    INVALID_NETWORK = (3, 10, "invalid network field");
    /// RFC 4271 §6.3.
    MALFORMED_AS_PATH = (3, 11, "malformed AS_PATH");
    /// RFC 4271 §6.5.
    HOLD_TIMER_EXPIRED = (4, 0, "hold timer expired");
    /// RFC 6608 §3.
    UNEXPECTED_IN_OPEN_SENT = (5, 1, "unexpected message in state OpenSent");
    /// RFC 6608 §3.
    UNEXPECTED_IN_OPEN_CONFIRM = (5, 2, "unexpected message in state OpenConfirm");
    /// RFC 6608 §3.
    UNEXPECTED_IN_ESTABLISHED = (5, 3, "unexpected message in state Established");
    /// RFC 4486 §4.
    MAXIMUM_PREFIXES = (6, 1, "maximum number of prefixes reached");
    /// RFC 4486 §4.
    ADMINISTRATIVE_SHUTDOWN = (6, 2, "administrative shutdown");
    /// RFC 4486 §4.
    PEER_DECONFIGURED = (6, 3, "peer de-configured");
    /// RFC 4486 §4.
    ADMINISTRATIVE_RESET = (6, 4, "administrative reset");
    /// RFC 4486 §4.
    CONNECTION_REJECTED = (6, 5, "connection rejected");
    /// RFC 4486 §4.
    CONFIGURATION_CHANGE = (6, 6, "other configuration change");
    /// RFC 4486 §4.
    COLLISION = (6, 7, "connection collision resolution");
    /// RFC 4486 §4.
    OUT_OF_RESOURCES = (6, 8, "out of resources");
    /// RFC 8538 §3.1; its data is the reason proper.
    HARD_RESET = (6, 9, "hard reset");
    /// RFC 9384 §3.
    BFD_DOWN = (6, 10, "BFD down");
    /// RFC 9687 §3.3.
    SEND_HOLD_TIMER_EXPIRED = (8, 0, "send hold timer expired");
    /// RFC 7313 §5.
    BAD_REFRESH_LENGTH = (7, 1, "invalid ROUTE-REFRESH length");
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}/{})", self.name(), self.code, self.subcode)
    }
}

impl Notification {
    /// The most bytes of a shutdown text (RFC 9003 §2).
    const MAX_TEXT: usize = 255;

    /// Makes a notification without data.
    #[must_use]
    pub const fn new(reason: Reason) -> Self {
        Self { reason, data: Vec::new() }
    }

    /// Makes a notification with `data`, cut to what a message holds.
    #[must_use]
    pub fn with_data(reason: Reason, data: &[u8]) -> Self {
        let most = MAX_LEN.saturating_sub(HEADER_LEN).saturating_sub(2);
        Self { reason, data: data.get(..most).unwrap_or(data).to_vec() }
    }

    /// Makes an administrative shutdown that tells people `text` (RFC 9003 §2),
    /// cut to 255 bytes at a character's border.
    #[must_use]
    pub fn shutdown(text: &str) -> Self {
        let end = (0..=Self::MAX_TEXT.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
        let text = text.get(..end.unwrap_or(0)).unwrap_or_default();
        let mut data = vec![u8::try_from(text.len()).unwrap_or(u8::MAX)];
        data.extend_from_slice(text.as_bytes());
        Self { reason: Reason::ADMINISTRATIVE_SHUTDOWN, data }
    }

    /// Wraps the notification so that a peer which keeps routes through others does not
    /// keep them through this one (RFC 8538 §3.1).
    #[must_use]
    pub fn into_hard_reset(self) -> Self {
        let data = [&[self.reason.code, self.reason.subcode][..], &self.data].concat();
        Self::with_data(Reason::HARD_RESET, &data)
    }

    /// Returns what a hard reset wraps.
    #[must_use]
    pub fn hard_reset(&self) -> Option<Self> {
        (self.reason == Reason::HARD_RESET && self.data.len() >= 2)
            .then(|| Self::decode(&self.data))
    }

    /// Returns the text that a shutdown or a reset carries, without control characters;
    /// bytes that are no text are shown as U+FFFD.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        if ![Reason::ADMINISTRATIVE_SHUTDOWN, Reason::ADMINISTRATIVE_RESET].contains(&self.reason) {
            return None;
        }
        let text = String::from_utf8_lossy(Reader::new(&self.data).counted_u8()?);
        (!text.is_empty()).then(|| text.chars().filter(|c| !c.is_control()).collect())
    }

    fn text_suffix(&self) -> String {
        let inner = self.hard_reset().map(|inner| {
            // One level is all that there is: a hard reset in a hard reset is not looked into.
            let text = inner.text().map(|text| format!(": {text}")).unwrap_or_default();
            format!(": {}{text}", inner.reason)
        });
        inner.or_else(|| self.text().map(|text| format!(": {text}"))).unwrap_or_default()
    }

    /// Reads the body of a NOTIFICATION; a body without codes is taken as 0/0.
    #[must_use]
    pub fn decode(body: &[u8]) -> Self {
        let mut reader = Reader::new(body);
        let (code, subcode) = (reader.u8().unwrap_or(0), reader.u8().unwrap_or(0));
        Self { reason: Reason { code, subcode }, data: reader.rest().to_vec() }
    }

    /// Returns the whole message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = vec![self.reason.code, self.reason.subcode];
        body.extend_from_slice(&self.data);
        body.truncate(MAX_LEN.saturating_sub(HEADER_LEN));
        frame(Kind::Notification, &body)
    }
}
