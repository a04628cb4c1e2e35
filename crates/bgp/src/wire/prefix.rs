//! Prefixes in their shortest form: a length in bits, then only the bytes that count.

use std::net::IpAddr;

use model::net::{Cidr, Family};

use super::reader::Reader;

/// Reads prefixes to the end of `bytes`; `None` if a length is wrong or the last is cut.
pub(super) fn decode_all(bytes: &[u8], family: Family) -> Option<Vec<Cidr>> {
    let mut reader = Reader::new(bytes);
    let mut prefixes = Vec::new();
    while !reader.is_empty() {
        prefixes.push(decode(&mut reader, family)?);
    }
    Some(prefixes)
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
    let mut octets = [0; N];
    octets.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(octets)
}

/// Returns how many bytes `prefix` takes.
pub(super) fn encoded_len(prefix: &Cidr) -> usize {
    usize::from(prefix.prefix_len().div_ceil(8)).saturating_add(1)
}

/// Appends `prefix`.
pub(super) fn encode(prefix: &Cidr, out: &mut Vec<u8>) {
    let len = usize::from(prefix.prefix_len().div_ceil(8));
    out.push(prefix.prefix_len());
    match prefix.addr() {
        IpAddr::V4(addr) => out.extend(addr.octets().into_iter().take(len)),
        IpAddr::V6(addr) => out.extend(addr.octets().into_iter().take(len)),
    }
}
