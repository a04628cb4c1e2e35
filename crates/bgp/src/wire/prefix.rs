//! Prefixes in their shortest form: a length in bits, then only the bytes that
//! count, behind the number of the path if several are told (RFC 4271 §4.3, RFC 7911 §3).

use std::net::IpAddr;

use model::net::{Cidr, Family};

use super::reader::Reader;

/// A destination as a message names it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Nlri {
    /// The destination.
    pub prefix: Cidr,
    /// Which of the sender's paths to it is meant (RFC 7911 §2); zero in a session that
    /// tells one path for each prefix.
    pub path_id: u32,
}

impl From<Cidr> for Nlri {
    fn from(prefix: Cidr) -> Self {
        Self { prefix, path_id: 0 }
    }
}

/// How the prefixes of one list are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Notation {
    pub(super) family: Family,
    /// Does each prefix stand behind the number of its path?
    pub(super) has_path_ids: bool,
}

impl Notation {
    /// Reads prefixes to the end of `bytes`; `None` if a length is wrong or the last is cut.
    pub(super) fn decode_all(self, bytes: &[u8]) -> Option<Vec<Nlri>> {
        let mut reader = Reader::new(bytes);
        // Four bytes and more are usual; many shorter ones make the list grow.
        let mut prefixes = Vec::with_capacity(bytes.len() / 4);
        while !reader.is_empty() {
            let path_id = if self.has_path_ids { reader.u32()? } else { 0 };
            prefixes.push(Nlri { prefix: decode(&mut reader, self.family)?, path_id });
        }
        Some(prefixes)
    }

    /// Returns how many bytes `nlri` takes.
    pub(super) fn encoded_len(self, nlri: &Nlri) -> usize {
        let id = if self.has_path_ids { 4 } else { 0 };
        usize::from(nlri.prefix.prefix_len().div_ceil(8)).saturating_add(1).saturating_add(id)
    }

    /// Returns how many bytes `prefixes` take.
    pub(super) fn total_len(self, prefixes: &[Nlri]) -> usize {
        prefixes.iter().map(|nlri| self.encoded_len(nlri)).fold(0, usize::saturating_add)
    }

    /// Appends `prefixes`.
    pub(super) fn encode_all(self, prefixes: &[Nlri], out: &mut Vec<u8>) {
        for nlri in prefixes {
            self.encode(nlri, out);
        }
    }

    fn encode(self, nlri: &Nlri, out: &mut Vec<u8>) {
        if self.has_path_ids {
            out.extend_from_slice(&nlri.path_id.to_be_bytes());
        }
        let bits = nlri.prefix.prefix_len();
        let len = usize::from(bits.div_ceil(8));
        out.push(bits);
        // All of it and back again: copies of a fixed length need no call.
        let unused = match nlri.prefix.addr() {
            IpAddr::V4(addr) => {
                out.extend_from_slice(&addr.octets());
                4_usize.saturating_sub(len)
            }
            IpAddr::V6(addr) => {
                out.extend_from_slice(&addr.octets());
                16_usize.saturating_sub(len)
            }
        };
        out.truncate(out.len().saturating_sub(unused));
    }
}

fn decode(reader: &mut Reader<'_>, family: Family) -> Option<Cidr> {
    let len = reader.u8().filter(|len| *len <= family.bits())?;
    let bytes = reader.take(usize::from(len.div_ceil(8)))?;
    let addr = match family {
        Family::V4 => IpAddr::from(padded::<4>(bytes)?),
        Family::V6 => IpAddr::from(padded::<16>(bytes)?),
    };
    // Bits behind the prefix mean nothing (RFC 4271 §4.3), so they are cleared.
    Cidr::containing(addr, len).ok()
}

fn padded<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    // Mostly all of them count, and a copy of a fixed length needs no call.
    if let Ok(octets) = <[u8; N]>::try_from(bytes) {
        return Some(octets);
    }
    let mut octets = [0; N];
    octets.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(octets)
}
