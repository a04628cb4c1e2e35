//! What holds for a speaker whatever a peer sends it, and whatever else happens meanwhile.

use std::net::IpAddr;
use std::time::Duration;

use bgp::wire::{self, Capability, Families, GracefulRestart, Open};
use bgp::{BgpIdentifier, ConnectionId, HoldTime, Input, Output, PathFate, Speaker, SpeakerConfig};
use model::desired::{Advertisements, BgpSession, Origination};
use model::net::{Asn, Cidr, Family};
use model::time::Timestamp;

/// Panics if a speaker breaks its promises: the first byte chooses the session and the
/// peer's OPEN, the rest is a list of steps, each with a byte that says what happens.
pub fn check(bytes: &[u8]) {
    let Some((chosen, mut rest)) = bytes.split_first() else { return };
    let mut play = Play::new(*chosen);
    play.establish(*chosen);
    while let Some((step, tail)) = rest.split_first() {
        rest = play.step(*step, tail);
    }
    // A speaker that stops has said its last word, and leaves routes where they are.
    let outputs = play.speaker.handle(Input::Stop, play.now);
    assert!(!outputs.iter().any(|output| matches!(output, Output::RoutesChanged(_))));
}

struct Play {
    speaker: Speaker,
    connection: ConnectionId,
    incoming: u64,
    now: Timestamp,
}

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
const OURS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn session(chosen: u8) -> BgpSession {
    let is_set = |bit: u8| chosen & (1 << bit) != 0;
    let peer_asn = Asn(if is_set(0) { 64_512 } else { 64_513 });
    let mut session = BgpSession::new("peer".to_owned(), PEER, Asn(64_512), peer_asn);
    session.local_addr = Some(OURS);
    session.allows_extended_messages = is_set(1);
    session.max_prefixes = is_set(2).then_some(5);
    if is_set(3) {
        session.families.extend(Family::ALL);
    }
    session
}

impl Play {
    fn new(chosen: u8) -> Self {
        let identifier = BgpIdentifier(0xc000_0201);
        let config = SpeakerConfig {
            identifier,
            is_restarting: chosen & 0x80 != 0,
            seed: 1,
            send_limit: SpeakerConfig::SEND_LIMIT,
        };
        let connection = ConnectionId::Incoming(0);
        Self { speaker: Speaker::new(config), connection, incoming: 0, now: Timestamp::ZERO }
    }

    fn establish(&mut self, chosen: u8) {
        self.handle(Input::Configure(vec![session(chosen)]));
        let own: Cidr = "10.244.1.0/26".parse().expect("a prefix");
        let mut advertisements = Advertisements::default();
        advertisements.originated.insert(own, Origination::default());
        self.handle(Input::Advertise(advertisements));
        self.accept();
        self.receive(open(chosen).encode());
        self.receive(wire::encode_keepalive());
    }

    fn accept(&mut self) {
        self.connection = ConnectionId::Incoming(self.incoming);
        self.incoming += 1;
        let (connection, peer_addr, local_addr) = (self.connection, PEER, OURS);
        self.handle(Input::Accepted { connection, peer_addr, local_addr });
    }

    fn receive(&mut self, bytes: Vec<u8>) {
        let connection = self.connection;
        self.handle(Input::Received { connection, bytes });
    }

    /// Does one thing and returns what is left of the steps.
    fn step<'a>(&mut self, step: u8, tail: &'a [u8]) -> &'a [u8] {
        let (argument, rest) = tail.split_first().map_or((0, tail), |(first, rest)| (*first, rest));
        match step {
            0 => self.receive(wire::encode_keepalive()),
            1 => self.receive(open(argument).encode()),
            2 => self.advance(argument),
            3 => self.accept(),
            4 => {
                let (connection, why) = (self.connection, "lost".to_owned());
                self.handle(Input::Closed { connection, why });
            }
            5 => self.handle(Input::Configure(vec![session(argument)])),
            6 => self.handle(Input::PathDown { peer_addr: PEER, fate: PathFate::MaybeRestart }),
            7 => {
                self.accept();
                self.receive(open(argument).encode());
                self.receive(wire::encode_keepalive());
            }
            // Raw bytes of a length that the argument gives.
            8..=31 => {
                let (bytes, rest) = rest.split_at(usize::from(argument).min(rest.len()));
                self.receive(bytes.to_vec());
                return rest;
            }
            // The body of a message, which is given a good header.
            _ => {
                let (body, rest) = rest.split_at(usize::from(argument).min(rest.len()));
                let len = u16::try_from(body.len() + wire::HEADER_LEN).expect("a short body");
                let kind = match step % 5 {
                    3 => 3,
                    4 => 5,
                    _ => 2,
                };
                let header = [&[0xff; 16][..], &len.to_be_bytes(), &[kind]].concat();
                self.receive([&header, body].concat());
                return rest;
            }
        }
        rest
    }

    fn advance(&mut self, secs: u8) {
        let end = self.now + Duration::from_secs(secs.into());
        for _ in 0..1000 {
            let Some(due) = self.speaker.next_deadline().filter(|due| *due <= end) else { break };
            self.now = self.now.max(due);
            self.handle(Input::DeadlineReached);
        }
        let due = self.speaker.next_deadline();
        assert!(due.is_none_or(|due| due > end), "a deadline that is never over: {due:?}");
        self.now = end;
    }

    fn handle(&mut self, input: Input) {
        for output in self.speaker.handle(input, self.now) {
            if let Output::Send { connection, bytes } = output {
                well_formed(&bytes);
                let len = bytes.len();
                self.speaker.handle(Input::Sent { connection, len }, self.now);
            }
        }
    }
}

/// What goes out is whole messages.
fn well_formed(mut bytes: &[u8]) {
    while let Some((_, rest)) =
        wire::split_frame(bytes, wire::MAX_EXTENDED_LEN).expect("we write good headers")
    {
        bytes = rest;
    }
    assert!(bytes.is_empty(), "half a message");
}

fn open(chosen: u8) -> Open {
    let is_set = |bit: u8| chosen & (1 << bit) != 0;
    let asn = if is_set(0) { 64_512 } else { 64_513 };
    let both = || Families::ALL.iter().map(wire::AfiSafi::from);
    let mut capabilities: Vec<Capability> = both().map(Capability::Multiprotocol).collect();
    capabilities.push(Capability::GracefulRestart(GracefulRestart {
        is_restarting: is_set(7),
        is_notification_graceful: is_set(4),
        restart_secs: 60,
        families: both().map(|family| (family, is_set(5))).collect(),
    }));
    if is_set(6) {
        capabilities.push(Capability::AddPath(both().map(|family| (family, 3)).collect()));
    }
    capabilities.extend([Capability::FourOctetAsn(Asn(asn)), Capability::RouteRefresh]);
    capabilities.extend([Capability::EnhancedRouteRefresh, Capability::ExtendedMessage]);
    Open {
        short_asn: u16::try_from(asn).expect("a short number"),
        hold_time: HoldTime::PROPOSED,
        identifier: BgpIdentifier(0xc000_0202),
        capabilities,
    }
}
