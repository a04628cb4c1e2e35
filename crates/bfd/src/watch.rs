//! All neighbours of one machine: which packet is whose, and who comes and goes (RFC 5881).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use model::desired::BfdSettings;
use model::time::Timestamp;

use crate::packet::{Diagnostic, LEN, Packet, Refused, State};
use crate::session::{Effect, Session};

/// What happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Input {
    /// These are all the neighbours from now on.
    Configure(BTreeMap<IpAddr, BfdSettings>),
    /// A datagram has come to port 3784.
    Received {
        /// Who sent it.
        from: IpAddr,
        /// With which TTL or hop limit it arrived.
        ttl: u8,
        /// What.
        bytes: Vec<u8>,
    },
    /// [`Watch::next_deadline`] has come; an early one does no harm.
    DeadlineReached,
}

/// What to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Output {
    /// Send a datagram with a TTL of 255 to port 3784.
    Send {
        /// To whom.
        to: IpAddr,
        /// What.
        bytes: [u8; LEN],
    },
    /// A session is in another state.
    Changed {
        /// With whom.
        neighbour: IpAddr,
        /// The new state.
        state: State,
        /// Why it last left Up.
        diagnostic: Diagnostic,
    },
    /// The path to a neighbour was up and is down (RFC 5882 §4).
    PathDown {
        /// Whose.
        neighbour: IpAddr,
        /// Does the neighbour's BFD survive its control plane (C bit)? Then packets are
        /// lost; otherwise it may just be restarting (RFC 5882 §4.3).
        is_independent: bool,
    },
}

/// A neighbour at one moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NeighbourStatus {
    /// Its address.
    pub addr: IpAddr,
    /// The state of the session.
    pub state: State,
    /// Why it last left Up.
    pub diagnostic: Diagnostic,
    /// After how long a silence the path counts as down.
    pub detection_time: Duration,
    /// How many of its packets were refused, and why the last one was.
    pub refused: (u64, Option<Refused>),
}

/// All sessions.
#[derive(Debug)]
pub struct Watch {
    neighbours: BTreeMap<IpAddr, Neighbour>,
    seed: u64,
    next_discriminator: NonZeroU32,
}

#[derive(Debug)]
struct Neighbour {
    session: Session,
    /// When a neighbour that is no longer wanted has been told so for long enough.
    ends_at: Option<Timestamp>,
    refused: (u64, Option<Refused>),
}

impl Watch {
    /// Makes a watch of nobody. From `seed` come the jitter of timers and the first
    /// discriminator, which had better differ from one life of the program to the next.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let [high, low] = [seed >> 32, seed & u64::from(u32::MAX)];
        let first = u32::try_from(high ^ low).ok().and_then(NonZeroU32::new);
        let next_discriminator = first.unwrap_or(NonZeroU32::MIN);
        Self { neighbours: BTreeMap::new(), seed, next_discriminator }
    }

    /// Takes in what happened and returns what to do, in order.
    pub fn handle(&mut self, input: Input, now: Timestamp) -> Vec<Output> {
        match input {
            Input::Configure(wanted) => self.configure(&wanted, now),
            Input::Received { from, ttl, bytes } => self.on_received(from, ttl, &bytes, now),
            Input::DeadlineReached => self.on_deadline(now),
        }
    }

    /// Returns when [`Input::DeadlineReached`] is next due, if ever.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let neighbours = self.neighbours.values();
        neighbours
            .filter_map(|each| each.session.next_deadline().into_iter().chain(each.ends_at).min())
            .min()
    }

    /// Returns how things are, by address.
    pub fn status(&self) -> impl Iterator<Item = NeighbourStatus> {
        self.neighbours.iter().map(|(addr, neighbour)| NeighbourStatus {
            addr: *addr,
            state: neighbour.session.state(),
            diagnostic: neighbour.session.diagnostic(),
            detection_time: neighbour.session.detection_time(),
            refused: neighbour.refused,
        })
    }

    fn configure(&mut self, wanted: &BTreeMap<IpAddr, BfdSettings>, now: Timestamp) -> Vec<Output> {
        let mut outputs = Vec::new();
        for (addr, neighbour) in &mut self.neighbours {
            if !wanted.contains_key(addr) && neighbour.ends_at.is_none() {
                // RFC 5880 §6.8.16: long enough that the neighbour hears of it.
                let time = neighbour.session.detection_time().max(Duration::from_secs(1));
                neighbour.ends_at = Some(now + time);
                let effects = neighbour.session.hold_down();
                outputs.extend(neighbour.outputs(*addr, effects));
            }
        }
        for (addr, settings) in wanted {
            match self.neighbours.get_mut(addr).filter(|each| each.ends_at.is_none()) {
                Some(neighbour) => neighbour.session.configure(*settings, now),
                None => self.add(*addr, *settings, now),
            }
        }
        outputs
    }

    fn add(&mut self, addr: IpAddr, settings: BfdSettings, now: Timestamp) {
        let discriminator = self.next_discriminator;
        self.next_discriminator = discriminator.checked_add(1).unwrap_or(NonZeroU32::MIN);
        let session = Session::new(settings, discriminator, self.seed, now);
        self.neighbours.insert(addr, Neighbour { session, ends_at: None, refused: (0, None) });
    }

    fn on_received(&mut self, from: IpAddr, ttl: u8, bytes: &[u8], now: Timestamp) -> Vec<Output> {
        // A packet over one hop is its sender's, so its address alone tells the session.
        let Some(neighbour) = self.neighbours.get_mut(&from) else { return Vec::new() };
        // RFC 5881 §5: a packet that any router has passed on may be anybody's.
        let near = if ttl == 255 { Ok(()) } else { Err(Refused::Distance(ttl)) };
        let effects = near
            .and_then(|()| Packet::decode(bytes))
            .and_then(|packet| neighbour.session.on_packet(&packet, now));
        match effects {
            Ok(effects) => neighbour.outputs(from, effects),
            Err(refused) => {
                neighbour.refused = (neighbour.refused.0.saturating_add(1), Some(refused));
                Vec::new()
            }
        }
    }

    fn on_deadline(&mut self, now: Timestamp) -> Vec<Output> {
        let mut outputs = Vec::new();
        for (addr, neighbour) in &mut self.neighbours {
            let effects = neighbour.session.on_deadline(now);
            outputs.extend(neighbour.outputs(*addr, effects));
        }
        self.neighbours.retain(|_, each| each.ends_at.is_none_or(|at| at > now));
        outputs
    }
}

impl Neighbour {
    fn outputs(&self, addr: IpAddr, effects: Vec<Effect>) -> Vec<Output> {
        let diagnostic = self.session.diagnostic();
        let output = |effect| match effect {
            Effect::Send(packet) => Output::Send { to: addr, bytes: packet.encode() },
            Effect::Changed(state) => Output::Changed { neighbour: addr, state, diagnostic },
            Effect::PathDown { is_independent } => {
                Output::PathDown { neighbour: addr, is_independent }
            }
        };
        effects.into_iter().map(output).collect()
    }
}

#[cfg(test)]
mod tests;
