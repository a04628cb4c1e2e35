//! The first two packets of SCTP (RFC 9260 §5.1), by hand: kernels often come without SCTP.

use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kernel::netns::Netns;
use socket2::{Domain, Protocol, Socket, Type};

use crate::Error;

/// SCTP's number (RFC 9260 §1).
const SCTP: i32 = 132;
/// Chunk types: a question and its answer.
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
/// How often a server looks whether it should end.
const TICK: Duration = Duration::from_millis(200);

/// What matters of a packet that starts an association.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Hello {
    kind: u8,
    source: u16,
    destination: u16,
    /// What the receiver chose; zero in a question.
    tag: u32,
    /// What the sender chose.
    own_tag: u32,
}

impl Hello {
    /// Returns a question to a port.
    pub(super) const fn question(source: u16, destination: u16, own_tag: u32) -> Self {
        Self { kind: INIT, source, destination, tag: 0, own_tag }
    }

    /// Returns the answer to a question.
    fn answer(self) -> Option<Self> {
        (self.kind == INIT).then_some(Self {
            kind: INIT_ACK,
            source: self.destination,
            destination: self.source,
            tag: self.own_tag,
            own_tag: 1,
        })
    }

    /// Returns the port that answers to a question of `own_tag`, if this is such an answer.
    pub(super) fn answered_by(self, own_tag: u32) -> Option<u16> {
        (self.kind == INIT_ACK && self.tag == own_tag).then_some(self.source)
    }

    /// Writes the packet, with its checksum.
    pub(super) fn encode(self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(32);
        octets.extend(self.source.to_be_bytes());
        octets.extend(self.destination.to_be_bytes());
        octets.extend(self.tag.to_be_bytes());
        octets.extend([0; 4]);
        octets.extend([self.kind, 0, 0, 20]);
        octets.extend(self.own_tag.to_be_bytes());
        // Receive window, numbers of streams, first sequence number.
        octets.extend(65_536_u32.to_be_bytes());
        octets.extend([0, 1, 0, 1]);
        octets.extend(1_u32.to_be_bytes());
        let checksum = crc32c(&octets);
        if let Some(place) = octets.get_mut(8..12) {
            place.copy_from_slice(&checksum.to_le_bytes());
        }
        octets
    }

    /// Reads what a raw socket received; that of IPv4 shows the header, of 20 octets.
    pub(super) fn decode(received: &[u8], is_v4: bool) -> Option<Self> {
        let packet = if is_v4 { received.get(20..)? } else { received };
        let word = |at: usize| {
            let octets: [u8; 4] = packet.get(at..at.checked_add(4)?)?.try_into().ok()?;
            Some(u32::from_be_bytes(octets))
        };
        let ports = word(0)?;
        Some(Self {
            kind: *packet.get(12)?,
            source: u16::try_from(ports >> 16).ok()?,
            destination: u16::try_from(ports & 0xffff).ok()?,
            tag: word(4)?,
            own_tag: word(16)?,
        })
    }
}

/// CRC-32C (RFC 9260 appendix A).
fn crc32c(octets: &[u8]) -> u32 {
    let step = |sum: u32| if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
    let sum = octets
        .iter()
        .fold(u32::MAX, |sum, octet| (0..8).fold(sum ^ u32::from(*octet), |sum, _| step(sum)));
    !sum
}

/// Opens raw sockets of both families in the namespace of this thread.
pub(super) fn sockets() -> std::io::Result<[Socket; 2]> {
    let raw = |domain| Socket::new(domain, Type::RAW, Some(Protocol::from(SCTP)));
    Ok([raw(Domain::IPV4)?, raw(Domain::IPV6)?])
}

/// Who answers in a pod on some ports; dropping it ends it.
#[derive(Debug)]
pub(super) struct Server {
    has_ended: Arc<AtomicBool>,
}

impl Server {
    /// Starts to answer in a namespace, on both families.
    pub(super) fn start(netns: &Netns, ports: &[u16]) -> Result<Self, Error> {
        let failed = |error| Error::program("SCTP server", error);
        let sockets = netns.run(sockets)?.map_err(failed)?;
        let has_ended = Arc::new(AtomicBool::new(false));
        for (socket, is_v4) in sockets.into_iter().zip([true, false]) {
            socket.set_read_timeout(Some(TICK)).map_err(failed)?;
            let (flag, ports) = (Arc::clone(&has_ended), ports.to_vec());
            std::thread::spawn(move || serve(&socket, is_v4, &ports, &flag));
        }
        Ok(Self { has_ended })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }
}

fn serve(socket: &Socket, is_v4: bool, ports: &[u16], has_ended: &AtomicBool) {
    let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 256];
    let mut copy = [0; 256];
    while !has_ended.load(Ordering::Relaxed) {
        // The sender's address comes with the first look, the packet with the second.
        let Ok((_, from)) = socket.peek_from(&mut buffer) else { continue };
        let Ok(len) = { socket }.read(&mut copy) else { continue };
        let hello = Hello::decode(copy.get(..len).unwrap_or_default(), is_v4);
        let hello = hello.filter(|hello| ports.contains(&hello.destination));
        let from = from.as_socket().map(|from| SocketAddr::new(from.ip(), 0));
        if let (Some(answer), Some(from)) = (hello.and_then(Hello::answer), from) {
            // What cannot be sent is lost, as packets are.
            drop(socket.send_to(&answer.encode(), &from.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_as_the_standard_does() {
        // RFC 3720 appendix B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn an_answer_finds_its_question() {
        let question = Hello::question(50_000, 80, 7);
        let read = Hello::decode(&question.encode(), false).unwrap();
        assert_eq!(read, question);
        let answer = read.answer().unwrap();
        assert_eq!(answer.answered_by(7), Some(80));
        assert_eq!(answer.answered_by(8), None);
        assert_eq!(answer.answer(), None);
        assert_eq!(question.answered_by(0), None);
    }
}
