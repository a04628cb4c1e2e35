//! BFD Control packets as bytes (RFC 5880 §4.1).

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// The length of a packet without authentication, in bytes.
pub const LEN: usize = 24;

/// A BFD Control packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "one for each flag of the packet")]
pub struct Packet {
    /// Why the sender's session last left Up.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// P: the sender wants an answer at once.
    pub is_poll: bool,
    /// F: this is the answer.
    pub is_final: bool,
    /// C: the sender's BFD survives its control plane.
    pub is_independent: bool,
    /// D: the sender wants no periodic packets while both are up.
    pub is_demand: bool,
    /// After how many missing packets the path counts as down; never zero.
    pub multiplier: u8,
    /// The sender's name for the session.
    pub my_discriminator: NonZeroU32,
    /// The receiver's name for it; zero if the sender does not know that.
    pub your_discriminator: u32,
    /// How often the sender would send at most.
    pub desired_min_tx: Interval,
    /// How often the sender can receive at most; zero for no packets at all.
    pub required_min_rx: Interval,
    /// How often the sender can receive echoes; zero for none.
    pub required_min_echo_rx: Interval,
}

/// A time in microseconds, as packets carry it.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Interval(pub u32);

/// The states of RFC 5880 §6.2.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum State {
    /// Held down by people.
    AdminDown,
    /// Nothing heard, or nothing heard any more.
    #[default]
    Down,
    /// We hear the neighbour, and it does not hear us yet.
    Init,
    /// Both hear each other.
    Up,
}

/// Why a session last left Up (RFC 5880 §4.1).
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Diagnostic(pub u8);

/// Why a packet was refused (RFC 5880 §6.8.6, RFC 5881 §5).
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refused {
    /// Fewer bytes than a packet has, or than it says it has.
    #[error("{0} bytes are not a whole BFD packet")]
    Short(usize),
    /// Another version than 1.
    #[error("BFD version {0} is not 1")]
    Version(u8),
    /// A multiplier of zero.
    #[error("a detection multiplier of zero")]
    Multiplier,
    /// The multipoint bit, which no version uses.
    #[error("the multipoint bit is set")]
    Multipoint,
    /// Authentication, which we never agree on.
    #[error("authenticated, and no authentication is agreed on")]
    Authenticated,
    /// The sender has no name for the session.
    #[error("my discriminator is zero")]
    NoDiscriminator,
    /// No session of ours is meant.
    #[error("your discriminator {0} is not this session's")]
    UnknownSession(u32),
    /// A packet from further than one hop away.
    #[error("a TTL of {0} instead of 255: it came over a router")]
    Distance(u8),
    /// Nobody is watched at that address.
    #[error("no BFD neighbour is configured there")]
    UnknownNeighbour,
}

impl Interval {
    /// Takes a duration, to the microsecond; what is longer than 71 minutes is cut.
    #[must_use]
    pub fn new(duration: Duration) -> Self {
        Self(u32::try_from(duration.as_micros()).unwrap_or(u32::MAX))
    }

    /// Returns the duration.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_micros(self.0.into())
    }
}

impl Diagnostic {
    /// Nothing has happened.
    pub const NONE: Self = Self(0);
    /// No packet came for the Detection Time.
    pub const DETECTION_TIME_EXPIRED: Self = Self(1);
    /// The neighbour said that its session is down.
    pub const NEIGHBOUR_DOWN: Self = Self(3);
    /// People hold the session down.
    pub const ADMINISTRATIVELY_DOWN: Self = Self(7);
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "no diagnostic",
            1 => "control detection time expired",
            2 => "echo function failed",
            3 => "neighbour signalled session down",
            4 => "forwarding plane reset",
            5 => "path down",
            6 => "concatenated path down",
            7 => "administratively down",
            8 => "reverse concatenated path down",
            _ => "unknown diagnostic",
        })
    }
}

const VERSION: u8 = 1;
const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const INDEPENDENT: u8 = 0x08;
const AUTHENTICATION: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

impl Packet {
    /// Reads a packet; what follows it in the datagram is ignored.
    ///
    /// # Errors
    ///
    /// [`Refused`] as RFC 5880 §6.8.6 orders, as far as that takes no session.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refused> {
        let short = Refused::Short(bytes.len());
        let bytes = bytes.first_chunk::<LEN>().ok_or(short)?;
        let [first, flags, multiplier, len, words @ ..] = *bytes;
        if first >> 5 != VERSION {
            return Err(Refused::Version(first >> 5));
        }
        let is_set = |flag: u8| flags & flag != 0;
        if usize::from(len) < LEN {
            return Err(Refused::Short(len.into()));
        }
        if is_set(AUTHENTICATION) {
            return Err(Refused::Authenticated);
        }
        // Without authentication a packet has this length and no other.
        if usize::from(len) != LEN {
            return Err(short);
        }
        if multiplier == 0 {
            return Err(Refused::Multiplier);
        }
        if is_set(MULTIPOINT) {
            return Err(Refused::Multipoint);
        }
        let mut words = words.as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word));
        let mut word = || words.next().unwrap_or(0);
        Ok(Self {
            diagnostic: Diagnostic(first & 0x1f),
            state: State::from_code(flags >> 6),
            is_poll: is_set(POLL),
            is_final: is_set(FINAL),
            is_independent: is_set(INDEPENDENT),
            is_demand: is_set(DEMAND),
            multiplier,
            my_discriminator: NonZeroU32::new(word()).ok_or(Refused::NoDiscriminator)?,
            your_discriminator: word(),
            desired_min_tx: Interval(word()),
            required_min_rx: Interval(word()),
            required_min_echo_rx: Interval(word()),
        })
    }

    /// Returns the packet's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; LEN] {
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let flags = self.state.code() << 6
            | flag(self.is_poll, POLL)
            | flag(self.is_final, FINAL)
            | flag(self.is_independent, INDEPENDENT)
            | flag(self.is_demand, DEMAND);
        let head = [VERSION << 5 | self.diagnostic.0 & 0x1f, flags, self.multiplier, 24];
        let words = [
            u32::from_be_bytes(head),
            self.my_discriminator.get(),
            self.your_discriminator,
            self.desired_min_tx.0,
            self.required_min_rx.0,
            self.required_min_echo_rx.0,
        ];
        let mut bytes = [0; LEN];
        for (chunk, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *chunk = word.to_be_bytes();
        }
        bytes
    }
}

impl State {
    const fn from_code(code: u8) -> Self {
        match code & 3 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::AdminDown => 0,
            Self::Down => 1,
            Self::Init => 2,
            Self::Up => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Up, multiplier 3, discriminators 1 and 2, 300 ms each way.
    const GOOD: [u8; LEN] =
        [0x20, 0xc0, 3, 24, 0, 0, 0, 1, 0, 0, 0, 2, 0, 4, 0x93, 0xe0, 0, 4, 0x93, 0xe0, 0, 0, 0, 0];

    #[test]
    fn a_packet_reads_as_rfc_5880_4_1_draws_it() {
        let packet = Packet::decode(&GOOD).unwrap();
        assert_eq!((packet.state, packet.multiplier), (State::Up, 3));
        assert_eq!(packet.my_discriminator.get(), 1);
        assert_eq!(packet.your_discriminator, 2);
        assert_eq!(packet.desired_min_tx.duration(), Duration::from_millis(300));
        assert_eq!(packet.encode(), GOOD);
    }

    #[test]
    fn wrong_packets_are_refused_as_rfc_5880_6_8_6_says() {
        for (what, at, value, expected) in [
            ("version 0", 0, 0x00, Refused::Version(0)),
            ("version 2", 0, 0x40, Refused::Version(2)),
            ("authentication", 1, 0xc4, Refused::Authenticated),
            ("multipoint", 1, 0xc1, Refused::Multipoint),
            ("multiplier", 2, 0, Refused::Multiplier),
            ("length below 24", 3, 23, Refused::Short(23)),
            ("length beyond the bytes", 3, 25, Refused::Short(24)),
            ("no discriminator", 7, 0, Refused::NoDiscriminator),
        ] {
            let mut bytes = GOOD;
            bytes[at] = value;
            assert_eq!(Packet::decode(&bytes), Err(expected), "{what}");
        }
        for len in 0..LEN {
            assert_eq!(Packet::decode(&GOOD[..len]), Err(Refused::Short(len)));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_and_written_again(bytes: [u8; LEN], more: [u8; 4]) {
            let mut bytes = bytes;
            bytes[0] = bytes[0] & 0x1f | 0x20;
            bytes[3] = 24;
            let long = [&bytes[..], &more].concat();
            prop_assert_eq!(Packet::decode(&long), Packet::decode(&bytes));
            if let Ok(packet) = Packet::decode(&bytes) {
                prop_assert_eq!(packet.encode(), bytes);
            }
        }

        #[test]
        fn wild_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Packet::decode(&bytes);
        }
    }
}
