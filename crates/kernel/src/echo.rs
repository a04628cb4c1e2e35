//! Echo requests to many at once, of any length: who answers, and how large a packet gets there and
//! back (RFC 792, RFC 4443 §4.1).
//!
//! No packet is taken apart on its way, and what the kernel believes of the way's MTU is left aside
//! (`IP_PMTUDISC_PROBE`): an answer means that the way carries packets of that length.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

use crate::socket::set_option;

/// How long to listen before those who are silent are asked again.
const TICK: Duration = Duration::from_millis(200);
/// Bytes of an echo message without payload.
const HEAD: usize = 8;
/// The longest IP packet.
const LONGEST: usize = 65_535;

/// One family's form of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Form {
    /// The type of a question.
    pub question: u8,
    /// The type of an answer.
    pub answer: u8,
    /// Bytes of the IP header that a raw socket shows in front of an answer.
    pub shown: usize,
    /// Bytes of the IP header of a question.
    pub header: usize,
    /// The option that has packets sent whole, however long they are, and its value.
    discovery: ((i32, i32), i32),
}

impl Form {
    /// For IPv4. Only there the header is shown, of 20 bytes: ours have no options.
    pub const V4: Self = Self {
        question: 8,
        answer: 0,
        shown: 20,
        header: 20,
        discovery: ((libc::IPPROTO_IP, libc::IP_MTU_DISCOVER), libc::IP_PMTUDISC_PROBE),
    };
    /// For IPv6.
    pub const V6: Self = Self {
        question: 128,
        answer: 129,
        shown: 0,
        header: 40,
        discovery: ((libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER), libc::IPV6_PMTUDISC_PROBE),
    };

    /// Returns that of an address.
    #[must_use]
    pub const fn of(addr: IpAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Question {
    /// Who.
    pub to: IpAddr,
    /// Bytes of the whole IP packet; less than there must be is as little as possible.
    pub len: u16,
}

/// Asks from the network namespace of this thread, which waits, for at most `within`; returns the
/// questions that were answered by those who were asked. Others may ask at the same time: each has
/// an identifier by chance.
///
/// # Errors
///
/// The kernel's, as when this process may not open raw sockets.
pub fn ask(questions: &[Question], within: Duration) -> io::Result<BTreeSet<Question>> {
    let (v4, v6): (Vec<_>, Vec<_>) =
        questions.iter().copied().partition(|question| question.to.is_ipv4());
    let mut random = [0; 2];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let identifier = u16::from_ne_bytes(random);
    let mut answered = ask_family(&v4, identifier, within)?;
    answered.extend(ask_family(&v6, identifier, within)?);
    Ok(answered)
}

/// Asks those of one family; the sequence number of an answer says what was asked.
fn ask_family(
    questions: &[Question],
    identifier: u16,
    within: Duration,
) -> io::Result<BTreeSet<Question>> {
    let Some(first) = questions.first() else { return Ok(BTreeSet::new()) };
    let form = Form::of(first.to);
    let (domain, protocol) = match form {
        Form::V4 => (Domain::IPV4, Protocol::ICMPV4),
        _ => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    set_option(&socket, form.discovery.0, &form.discovery.1)?;
    // Raw sockets say who sent a packet as those of UDP do, and that type takes plain buffers.
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(TICK))?;
    let started = Instant::now();
    let mut answered = BTreeSet::new();
    let mut buffer = vec![0; LONGEST];
    while answered.len() < questions.len() && started.elapsed() < within {
        for (number, question) in (0_u16..).zip(questions) {
            if !answered.contains(question) {
                let payload = usize::from(question.len).saturating_sub(form.header);
                let packet = packet(form.question, identifier, number, payload);
                // No route now may be a route in a moment; what is too long for the first link is
                // silent, too.
                drop(socket.send_to(&packet, SocketAddr::new(question.to, 0)));
            }
        }
        while answered.len() < questions.len() {
            let Ok((len, from)) = socket.recv_from(&mut buffer) else { break };
            let message = buffer.get(form.shown..len).unwrap_or_default();
            answered.extend(answer(questions, message, form, identifier, from.ip()));
        }
    }
    Ok(answered)
}

/// Returns the question that `message`, sent by `from`, answers.
fn answer(
    questions: &[Question],
    message: &[u8],
    form: Form,
    identifier: u16,
    from: IpAddr,
) -> Option<Question> {
    let number = number_of(message, form.answer, identifier)?;
    // Of two who ask with one identifier each sees what the other one is answered.
    questions.get(usize::from(number)).filter(|question| question.to == from).copied()
}

/// Makes an echo message of `len` bytes, or of as few as possible; the kernel adds the checksum for
/// IPv6 itself.
#[must_use]
pub fn packet(kind: u8, identifier: u16, number: u16, len: usize) -> Vec<u8> {
    let ([one, two], [high, low]) = (identifier.to_be_bytes(), number.to_be_bytes());
    let unsummed = [kind, 0, 0, 0, one, two, high, low];
    // The payload is zero, and zeros change no sum.
    let [first, second] = checksum(&unsummed).to_be_bytes();
    let mut packet = vec![kind, 0, first, second, one, two, high, low];
    packet.resize(len.max(HEAD), 0);
    packet
}

/// Returns the sequence number of an answer to us.
#[must_use]
pub fn number_of(message: &[u8], kind: u8, identifier: u16) -> Option<u16> {
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

    const IDENTIFIER: u16 = 0x6c62;

    #[test]
    fn a_summed_packet_sums_to_zero() {
        for number in [0, 1, 0x1234, 0xffff] {
            assert_eq!(checksum(&packet(8, IDENTIFIER, number, 0)), 0, "{number}");
            assert_eq!(checksum(&packet(8, IDENTIFIER, number, 1480)), 0, "{number}");
        }
    }

    #[test]
    fn packets_are_as_long_as_they_are_asked_to_be() {
        assert_eq!(packet(8, 1, 2, 1480).len(), 1480);
        assert_eq!(packet(8, 1, 2, 3).len(), 8);
    }

    #[test]
    fn only_who_was_asked_can_answer() {
        let to = |last: u8| IpAddr::from([192, 0, 2, last]);
        let questions = [1, 2].map(|last| Question { to: to(last), len: 84 });
        let second = packet(0, IDENTIFIER, 1, 84);
        let answer = |from| answer(&questions, &second, Form::V4, IDENTIFIER, from);
        assert_eq!(answer(to(2)), Some(questions[1]));
        assert_eq!(answer(to(1)), None);
        assert_eq!(answer(to(3)), None);
    }

    #[test]
    fn two_who_ask_at_the_same_time_are_answered_each() {
        let asked = Question { to: std::net::Ipv4Addr::LOCALHOST.into(), len: 84 };
        // Nothing answers for a documentation address, whatever others are answered.
        let silent = Question { to: [192, 0, 2, 9].into(), len: 84 };
        let ask = || ask(&[silent, asked], TICK.saturating_mul(2)).unwrap();
        let (one, two) = std::thread::scope(|scope| {
            let [one, two] = [(); 2].map(|()| scope.spawn(ask));
            (one.join().unwrap(), two.join().unwrap())
        });
        assert_eq!((one, two), ([asked].into(), [asked].into()));
    }

    #[test]
    fn answers_to_others_are_not_ours() {
        let answer = |kind, identifier| packet(kind, identifier, 7, 8);
        assert_eq!(number_of(&answer(0, IDENTIFIER), 0, IDENTIFIER), Some(7));
        assert_eq!(number_of(&answer(8, IDENTIFIER), 0, IDENTIFIER), None);
        assert_eq!(number_of(&answer(0, 1), 0, IDENTIFIER), None);
        assert_eq!(number_of(&[0, 0], 0, IDENTIFIER), None);
    }
}
