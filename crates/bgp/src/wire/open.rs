//! OPEN: who a speaker is and what it can do (RFC 4271 §4.2, §6.2).

use std::fmt;
use std::net::Ipv4Addr;

use model::net::{Asn, Family};

use super::{AfiSafi, Capability, GracefulRestart, Kind, Notification, Reader, Reason, frame};
use crate::hold_time::HoldTime;

/// The number that names a speaker, unique within its AS (RFC 6286).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BgpIdentifier(pub u32);

impl From<Ipv4Addr> for BgpIdentifier {
    fn from(addr: Ipv4Addr) -> Self {
        Self(addr.into())
    }
}

impl fmt::Display for BgpIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ipv4Addr::from(self.0).fmt(f)
    }
}

/// The first message of each side.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Open {
    /// The two-octet AS field; [`Asn::TRANS`] if the AS needs four octets.
    pub short_asn: u16,
    /// The proposed Hold Time.
    pub hold_time: HoldTime,
    /// Who is speaking.
    pub identifier: BgpIdentifier,
    /// What it can do.
    pub capabilities: Vec<Capability>,
}

const VERSION: u8 = 4;
const PARAMETER_CAPABILITIES: u8 = 2;
const EXTENDED_LENGTH: u8 = 255;

impl Open {
    /// Returns the AS: of four octets if the peer speaks them, else the short one.
    #[must_use]
    pub fn asn(&self) -> Asn {
        self.four_octet_asn().unwrap_or(Asn(self.short_asn.into()))
    }

    /// Returns the AS of the four-octet capability, if it was offered (RFC 6793).
    #[must_use]
    pub fn four_octet_asn(&self) -> Option<Asn> {
        self.capabilities.iter().find_map(|capability| {
            if let Capability::FourOctetAsn(asn) = capability { Some(*asn) } else { None }
        })
    }

    /// Returns what was said about restarts.
    #[must_use]
    pub fn graceful_restart(&self) -> Option<&GracefulRestart> {
        self.capabilities.iter().rev().find_map(|capability| {
            if let Capability::GracefulRestart(restart) = capability { Some(restart) } else { None }
        })
    }

    /// Can the peer exchange routes of `family`? Saying nothing means IPv4 (RFC 4760 §8).
    #[must_use]
    pub fn carries(&self, family: Family) -> bool {
        let is_multiprotocol =
            |capability: &&Capability| matches!(capability, Capability::Multiprotocol(_));
        let mut listed = self.capabilities.iter().filter(is_multiprotocol).peekable();
        if listed.peek().is_none() {
            return family == Family::V4;
        }
        let wanted = Capability::Multiprotocol(AfiSafi::from(family));
        listed.any(|capability| *capability == wanted)
    }

    /// Reads the body of an OPEN.
    ///
    /// # Errors
    ///
    /// The NOTIFICATION of RFC 4271 §6.2 for what can be seen without knowing
    /// the session: version, Hold Time, identifier zero, parameters.
    pub fn decode(body: &[u8]) -> Result<Self, Notification> {
        let malformed = || Notification::new(Reason::OPEN_MALFORMED);
        let mut reader = Reader::new(body);
        let version = reader.u8().ok_or_else(malformed)?;
        if version != VERSION {
            let supported = u16::from(VERSION).to_be_bytes();
            return Err(Notification::with_data(Reason::UNSUPPORTED_VERSION, &supported));
        }
        let short_asn = reader.u16().ok_or_else(malformed)?;
        let hold_time = HoldTime::from_secs(reader.u16().ok_or_else(malformed)?)
            .map_err(|_| Notification::new(Reason::UNACCEPTABLE_HOLD_TIME))?;
        let identifier = BgpIdentifier(reader.u32().ok_or_else(malformed)?);
        if identifier == BgpIdentifier(0) {
            return Err(Notification::new(Reason::BAD_IDENTIFIER));
        }
        let capabilities = decode_parameters(reader.rest())?;
        Ok(Self { short_asn, hold_time, identifier, capabilities })
    }

    /// Returns the whole message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut capabilities = Vec::new();
        for capability in &self.capabilities {
            capability.encode(&mut capabilities);
        }
        let mut body = vec![VERSION];
        body.extend_from_slice(&self.short_asn.to_be_bytes());
        body.extend_from_slice(&self.hold_time.secs().to_be_bytes());
        body.extend_from_slice(&self.identifier.0.to_be_bytes());
        encode_parameters(&capabilities, &mut body);
        frame(Kind::Open, &body)
    }
}

/// Reads the optional parameters in their short or extended form (RFC 9072 §2).
fn decode_parameters(bytes: &[u8]) -> Result<Vec<Capability>, Notification> {
    let malformed = || Notification::new(Reason::OPEN_MALFORMED);
    let mut reader = Reader::new(bytes);
    let short_len = reader.u8().ok_or_else(malformed)?;
    let mut extended = reader;
    let is_extended = short_len != 0 && extended.u8() == Some(EXTENDED_LENGTH);
    let parameters = if is_extended {
        reader = extended;
        reader.counted_u16()
    } else {
        reader.take(short_len.into())
    };
    let mut parameters = Reader::new(parameters.ok_or_else(malformed)?);
    if !reader.is_empty() {
        return Err(malformed());
    }
    let mut capabilities = Vec::new();
    while !parameters.is_empty() {
        let kind = parameters.u8().ok_or_else(malformed)?;
        let value = if is_extended { parameters.counted_u16() } else { parameters.counted_u8() };
        let value = value.ok_or_else(malformed)?;
        if kind != PARAMETER_CAPABILITIES {
            return Err(Notification::new(Reason::UNSUPPORTED_PARAMETER));
        }
        capabilities.extend(Capability::decode_all(value).ok_or_else(malformed)?);
    }
    Ok(capabilities)
}

/// Appends one parameter with all capabilities, in the extended form if it must be (RFC 9072).
fn encode_parameters(capabilities: &[u8], body: &mut Vec<u8>) {
    let len = capabilities.len();
    if len == 0 {
        body.push(0);
    } else if let Some(len) = u8::try_from(len).ok().filter(|len| *len <= 252) {
        body.extend_from_slice(&[len.saturating_add(2), PARAMETER_CAPABILITIES, len]);
    } else {
        let len = u16::try_from(len).unwrap_or(u16::MAX);
        body.extend_from_slice(&[EXTENDED_LENGTH, EXTENDED_LENGTH]);
        body.extend_from_slice(&len.saturating_add(3).to_be_bytes());
        body.push(PARAMETER_CAPABILITIES);
        body.extend_from_slice(&len.to_be_bytes());
    }
    body.extend_from_slice(capabilities);
}
