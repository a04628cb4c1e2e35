//! Ethernet frames by hand: what a pod sends that means harm (IEEE 802.1Q, 802.2, RFC 791, RFC 8200).

use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use kernel::netns::Netns;
use model::net::MacAddr;

use crate::Error;

/// UDP's number.
const UDP: u8 = 17;
/// IP in IP (RFC 2003).
pub const IP_IN_IP: u8 = 4;
/// `ICMPv6`'s number.
const ICMP_V6: u8 = 58;
/// The `EtherType` of a tag (IEEE 802.1Q).
const TAG: [u8; 2] = [0x81, 0];

/// A packet of IP, and what it is wrapped in.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Who sends it, on the wire.
    pub from: MacAddr,
    /// Who is to take it, on the wire.
    pub to: MacAddr,
    /// VLANs, the outer one first.
    pub tags: Vec<u16>,
    /// Is the type behind a header of LLC and SNAP, and a length in its place?
    pub has_snap: bool,
    /// The packet.
    pub packet: Vec<u8>,
}

impl Frame {
    /// Writes the frame, without its checksum.
    #[must_use]
    pub fn octets(&self) -> Vec<u8> {
        let is_v4 = self.packet.first().is_some_and(|first| first >> 4 == 4);
        let kind: [u8; 2] = if is_v4 { [8, 0] } else { [0x86, 0xdd] };
        let mut octets = [self.to.0, self.from.0].concat();
        for tag in &self.tags {
            octets.extend([TAG, tag.to_be_bytes()].concat());
        }
        if self.has_snap {
            let len = u16::try_from(self.packet.len().saturating_add(8)).unwrap_or(u16::MAX);
            octets.extend(len.to_be_bytes());
            octets.extend([0xaa, 0xaa, 3, 0, 0, 0]);
        }
        octets.extend(kind);
        octets.extend(&self.packet);
        octets
    }

    /// Sends it by a pod's interface.
    ///
    /// # Errors
    ///
    /// [`Error`] if socat(1), which does it, cannot.
    pub fn send(&self, netns: &Netns) -> Result<(), Error> {
        let failed = |error: &dyn ToString| Error::program("socat", error.to_string());
        let sent = netns.run(|| {
            let mut command = Command::new("socat");
            command.args(["-u", "-b65536", "STDIN", "INTERFACE:eth0"]);
            let mut child = command.stdin(Stdio::piped()).spawn()?;
            // It ends with its input.
            child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(&self.octets()))?;
            child.wait()
        });
        let status = sent?.map_err(|error: std::io::Error| failed(&error))?;
        if status.success() { Ok(()) } else { Err(failed(&status)) }
    }
}

/// Returns a datagram of UDP.
#[must_use]
pub fn udp(from: IpAddr, to: IpAddr, port: u16, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len().saturating_add(8)).unwrap_or(u16::MAX);
    let ports = [40_000_u16.to_be_bytes(), port.to_be_bytes(), len.to_be_bytes()].concat();
    packet(from, to, UDP, summed(from, to, UDP, (&ports, payload)))
}

/// Returns a router's advertisement (RFC 4861 §4.2): it is everybody's way out.
#[must_use]
pub fn router_advertisement(from: IpAddr, to: IpAddr) -> Vec<u8> {
    let body = [64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut octets = packet(from, to, ICMP_V6, summed(from, to, ICMP_V6, (&[134, 0], &body)));
    // Nobody takes it from behind a router.
    if let Some(hops) = octets.get_mut(7) {
        *hops = 255;
    }
    octets
}

/// Returns a packet of IP with this inside.
#[must_use]
pub fn packet(from: IpAddr, to: IpAddr, protocol: u8, inside: Vec<u8>) -> Vec<u8> {
    let len = u16::try_from(inside.len()).unwrap_or(u16::MAX);
    let mut octets = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header_v4((from.octets(), to.octets()), protocol, len, 0)
        }
        (from, to) => {
            let [high, low] = len.to_be_bytes();
            let header = vec![0x60, 0, 0, 0, high, low, protocol, 64];
            [header, octets_of(from), octets_of(to)].concat()
        }
    };
    octets.extend(inside);
    octets
}

/// Returns an IPv4 packet as two fragments (RFC 791 §2.3).
#[must_use]
pub fn fragments(packet: &[u8]) -> [Vec<u8>; 2] {
    let (header, inside) = packet.split_at_checked(20).unwrap_or_default();
    let (first, rest) = inside.split_at_checked(8).unwrap_or_default();
    // More fragments follow; this one begins after eight octets.
    [(first, 0x2000), (rest, 1)].map(|(part, place)| {
        let four = |at: usize| header.get(at..).and_then(|rest| rest.first_chunk::<4>().copied());
        let ends = (four(12).unwrap_or_default(), four(16).unwrap_or_default());
        let protocol = header.get(9).copied().unwrap_or_default();
        let len = u16::try_from(part.len()).unwrap_or(u16::MAX);
        [header_v4(ends, protocol, len, place), part.to_vec()].concat()
    })
}

fn header_v4((from, to): ([u8; 4], [u8; 4]), protocol: u8, len: u16, place: u16) -> Vec<u8> {
    let [high, low] = len.saturating_add(20).to_be_bytes();
    let [place_high, place_low] = place.to_be_bytes();
    let start = [0x45, 0, high, low, 0x31, 0x31, place_high, place_low, 64, protocol, 0, 0];
    let mut header = [&start[..], &from, &to].concat();
    let sum = checksum(&header);
    if let Some(place) = header.get_mut(10..12) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
    header
}

/// Returns a header with the checksum behind it, and the payload: RFC 768, RFC 4443 §2.3.
///
/// UDP's checksum is behind six octets, `ICMPv6`'s behind two: both follow what is given.
fn summed(from: IpAddr, to: IpAddr, protocol: u8, (header, payload): (&[u8], &[u8])) -> Vec<u8> {
    let whole = [header, &[0, 0], payload].concat();
    let len = u32::try_from(whole.len()).unwrap_or(u32::MAX);
    let pseudo =
        [octets_of(from), octets_of(to), len.to_be_bytes().to_vec(), vec![0, 0, 0, protocol]];
    let sum = checksum(&[pseudo.concat(), whole].concat());
    [header, &sum.to_be_bytes(), payload].concat()
}

fn octets_of(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

/// Adds up as the Internet does (RFC 1071).
fn checksum(octets: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in octets.chunks(2) {
        let word = [pair.first(), pair.get(1)].map(|octet| octet.copied().unwrap_or_default());
        sum = sum.wrapping_add(u16::from_be_bytes(word).into());
    }
    while sum > 0xffff {
        sum = (sum >> 16).wrapping_add(sum & 0xffff);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_as_the_standard_does() {
        // RFC 1071 §3.
        assert_eq!(checksum(&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn headers_add_up() {
        let addrs = ["10.0.0.1", "10.0.0.2"].map(|addr| addr.parse().unwrap());
        let whole = udp(addrs[0], addrs[1], 53, b"odd");
        assert_eq!(checksum(&whole[..20]), 0);
        assert_eq!(whole.len(), 31);
        let parts = fragments(&whole);
        assert_eq!(parts.each_ref().map(Vec::len), [28, 23]);
        assert!(parts.iter().all(|part| checksum(&part[..20]) == 0));
        assert_eq!([&parts[0][20..], &parts[1][20..]].concat(), whole[20..]);
    }

    #[test]
    fn frames_are_wrapped() {
        let frame = Frame {
            from: MacAddr([2; 6]),
            to: MacAddr([3; 6]),
            tags: vec![0],
            has_snap: true,
            packet: vec![0x45, 1],
        };
        let expected =
            [&[3; 6][..], &[2; 6], &[0x81, 0, 0, 0, 0, 10, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0, 0x45, 1]];
        assert_eq!(frame.octets(), expected.concat());
    }
}
