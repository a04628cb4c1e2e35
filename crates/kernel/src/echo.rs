//! Ping: ICMP echo to many at once (RFC 792, RFC 4443 §4.1).

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

/// How long to listen before those who are silent are asked again.
const TICK: Duration = Duration::from_millis(200);
/// Types of the question and the answer, IPv4 and IPv6.
pub(super) const ECHO_V4: (u8, u8) = (8, 0);
pub(super) const ECHO_V6: (u8, u8) = (128, 129);
/// What tells our pings to all from others.
const IDENTIFIER: u16 = u16::from_be_bytes(*b"lb");

/// Pings all targets from the namespace of this thread; returns who answered.
pub(super) fn ping(targets: &[IpAddr], within: Duration) -> std::io::Result<Vec<IpAddr>> {
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = targets.iter().partition(|addr| addr.is_ipv4());
    let mut answered = ping_family(&v4, within)?;
    answered.extend(ping_family(&v6, within)?);
    Ok(answered)
}

/// Pings targets of one family; the sequence number of an answer says whose it is.
fn ping_family(targets: &[IpAddr], within: Duration) -> std::io::Result<Vec<IpAddr>> {
    let Some(first) = targets.first() else { return Ok(Vec::new()) };
    let (domain, protocol, (question, answer)) = if first.is_ipv4() {
        (Domain::IPV4, Protocol::ICMPV4, ECHO_V4)
    } else {
        (Domain::IPV6, Protocol::ICMPV6, ECHO_V6)
    };
    let mut socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_read_timeout(Some(TICK))?;
    let started = Instant::now();
    let mut answered = BTreeSet::new();
    let mut buffer = [0; 256];
    while answered.len() < targets.len() && started.elapsed() < within {
        for (number, target) in (0_u16..).zip(targets) {
            if !answered.contains(target) {
                // No route now may be a route in a moment.
                drop(socket.send_to(
                    &packet(question, IDENTIFIER, number),
                    &SocketAddr::new(*target, 0).into(),
                ));
            }
        }
        while answered.len() < targets.len() {
            let Ok(len) = socket.read(&mut buffer) else { break };
            let received = buffer.get(..len).unwrap_or_default();
            // Only IPv4 shows its header, of 20 octets unless it has options, which we send none of.
            let message = if first.is_ipv4() { received.get(20..) } else { Some(received) };
            let number = message.and_then(|message| number_of(message, answer, IDENTIFIER));
            answered.extend(number.and_then(|number| targets.get(usize::from(number))).copied());
        }
    }
    Ok(answered.into_iter().collect())
}

/// Makes an echo message; the kernel adds the checksum for IPv6 itself.
pub(super) fn packet(kind: u8, identifier: u16, number: u16) -> [u8; 8] {
    let ([one, two], [high, low]) = (identifier.to_be_bytes(), number.to_be_bytes());
    let unsummed = [kind, 0, 0, 0, one, two, high, low];
    let [first, second] = checksum(&unsummed).to_be_bytes();
    [kind, 0, first, second, one, two, high, low]
}

/// Returns the sequence number of an answer to us.
pub(super) fn number_of(message: &[u8], kind: u8, identifier: u16) -> Option<u16> {
    let [found, 0, _, _, one, two, high, low, ..] = message else { return None };
    let is_ours = *found == kind && u16::from_be_bytes([*one, *two]) == identifier;
    is_ours.then(|| u16::from_be_bytes([*high, *low]))
}

/// The Internet checksum (RFC 1071) of an even number of octets.
fn checksum(octets: &[u8]) -> u16 {
    let (words, _) = octets.as_chunks::<2>();
    let sum = words.iter().fold(0_u32, |sum, word| {
        let sum = sum.wrapping_add(u16::from_be_bytes(*word).into());
        (sum & 0xffff).wrapping_add(sum >> 16)
    });
    !u16::try_from(sum & 0xffff).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summed_packet_sums_to_zero() {
        for number in [0, 1, 0x1234, 0xffff] {
            assert_eq!(checksum(&packet(8, IDENTIFIER, number)), 0, "{number}");
        }
    }

    #[test]
    fn answers_to_others_are_not_ours() {
        assert_eq!(number_of(&packet(0, IDENTIFIER, 7), 0, IDENTIFIER), Some(7));
        assert_eq!(number_of(&packet(8, IDENTIFIER, 7), 0, IDENTIFIER), None);
        assert_eq!(number_of(&packet(0, 1, 7), 0, IDENTIFIER), None);
        assert_eq!(number_of(&[0, 0], 0, IDENTIFIER), None);
    }
}
