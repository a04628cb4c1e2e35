//! The session with one neighbour: its states and timers (RFC 5880 §6).

use std::num::NonZeroU32;
use std::time::Duration;

use model::desired::BfdSettings;
use model::jitter::Jitter;
use model::time::Timestamp;

use crate::packet::{Diagnostic, Interval, Packet, Refused, State};

/// How often a session that is not up sends at most (RFC 5880 §6.8.3).
const SLOW: Duration = Duration::from_secs(1);
/// No settings make a session send more often than this.
const LEAST_INTERVAL: Duration = Duration::from_millis(10);

/// The session with one neighbour.
#[derive(Debug)]
pub struct Session {
    settings: BfdSettings,
    discriminator: NonZeroU32,
    state: State,
    diagnostic: Diagnostic,
    neighbour: Neighbour,
    /// The interval that counts until a poll is answered, if it is the more careful one.
    polled: Option<Polled>,
    transmit_at: Option<Timestamp>,
    jitter: Jitter,
}

/// What the neighbour's last packet said.
#[derive(Clone, Copy, Debug)]
struct Neighbour {
    discriminator: u32,
    state: State,
    is_demand: bool,
    is_independent: bool,
    multiplier: u8,
    desired_min_tx: Duration,
    required_min_rx: Duration,
    heard_at: Option<Timestamp>,
}

/// The settings of before a change that the neighbour has not confirmed (RFC 5880 §6.8.3).
#[derive(Clone, Copy, Debug)]
struct Polled {
    before: BfdSettings,
}

/// What a session wants done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Send this packet.
    Send(Packet),
    /// The state is another one.
    Changed(State),
    /// The path was up and is down.
    PathDown {
        /// Does the neighbour's BFD survive its control plane (C bit)? Then packets are lost.
        is_independent: bool,
    },
}

impl Session {
    /// Makes a session that is down and sends its first packet at once.
    #[must_use]
    pub fn new(
        settings: BfdSettings,
        discriminator: NonZeroU32,
        seed: u64,
        now: Timestamp,
    ) -> Self {
        Self {
            settings: bounded(settings),
            discriminator,
            state: State::Down,
            diagnostic: Diagnostic::NONE,
            neighbour: Neighbour::UNKNOWN,
            polled: None,
            transmit_at: Some(now),
            jitter: Jitter::new(seed ^ u64::from(discriminator.get())),
        }
    }

    /// Returns the state.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Returns why the session last left Up.
    #[must_use]
    pub const fn diagnostic(&self) -> Diagnostic {
        self.diagnostic
    }

    /// Returns after how long a silence the path counts as down (RFC 5880 §6.8.4).
    #[must_use]
    pub fn detection_time(&self) -> Duration {
        let before = self.polled.map_or(Duration::ZERO, |polled| polled.before.interval);
        let ours = self.settings.interval.max(before);
        let agreed = ours.max(self.neighbour.desired_min_tx);
        agreed.saturating_mul(self.neighbour.multiplier.into())
    }

    /// Returns when [`Self::on_deadline`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        [self.transmit_at, self.expires_at()].into_iter().flatten().min()
    }

    fn expires_at(&self) -> Option<Timestamp> {
        self.neighbour.heard_at.map(|at| at + self.detection_time())
    }

    /// Takes other settings; the neighbour is asked to confirm them.
    pub fn configure(&mut self, settings: BfdSettings, now: Timestamp) {
        let settings = bounded(settings);
        if settings == self.settings {
            return;
        }
        if self.state == State::Up {
            self.polled = Some(Polled { before: self.settings });
        }
        self.settings = settings;
        self.transmit_at = self.transmit_at.map(|_| now);
    }

    /// Holds the session down, which tells the neighbour that nothing is broken.
    pub fn hold_down(&mut self) -> Vec<Effect> {
        self.diagnostic = Diagnostic::ADMINISTRATIVELY_DOWN;
        self.state = State::AdminDown;
        vec![Effect::Changed(self.state), Effect::Send(self.packet())]
    }

    /// Takes a packet of the neighbour's.
    ///
    /// # Errors
    ///
    /// [`Refused::UnknownSession`] if it is not for this session (RFC 5880 §6.8.6).
    pub fn on_packet(&mut self, packet: &Packet, now: Timestamp) -> Result<Vec<Effect>, Refused> {
        let is_first = packet.your_discriminator == 0
            && matches!(packet.state, State::Down | State::AdminDown);
        if packet.your_discriminator != self.discriminator.get() && !is_first {
            return Err(Refused::UnknownSession(packet.your_discriminator));
        }
        self.neighbour = Neighbour::of(packet, now);
        if packet.is_final {
            self.polled = None;
        }
        if self.state == State::AdminDown {
            return Ok(Vec::new());
        }
        let mut effects = self.follow(packet.state, now);
        if packet.is_poll {
            let answer = Packet { is_poll: false, is_final: true, ..self.packet() };
            effects.push(Effect::Send(answer));
        }
        self.schedule(now);
        Ok(effects)
    }

    /// Moves on as the neighbour's state makes us (RFC 5880 §6.2).
    fn follow(&mut self, theirs: State, now: Timestamp) -> Vec<Effect> {
        let next = match (self.state, theirs) {
            (State::Down, State::Down) => State::Init,
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => State::Up,
            (State::Up, State::Down) | (State::Up | State::Init, State::AdminDown) => State::Down,
            (same, _) => same,
        };
        if next == State::Down && self.state != State::Down {
            // People who hold the other end down have broken nothing (RFC 5882 §4.2).
            return self.go_down(Diagnostic::NEIGHBOUR_DOWN, theirs != State::AdminDown, now);
        }
        self.enter(next, now)
    }

    /// Takes a new state and tells the neighbour at once (RFC 5880 §6.8.7).
    fn enter(&mut self, next: State, now: Timestamp) -> Vec<Effect> {
        if next == self.state {
            return Vec::new();
        }
        self.state = next;
        if next == State::Up {
            // The interval changes from the slow one, which the neighbour must confirm (§6.8.3).
            self.polled = Some(Polled { before: self.settings });
            self.diagnostic = Diagnostic::NONE;
        } else {
            self.polled = None;
        }
        self.transmit_at = Some(now);
        vec![Effect::Changed(next)]
    }

    fn go_down(&mut self, why: Diagnostic, is_broken: bool, now: Timestamp) -> Vec<Effect> {
        let was_up = self.state == State::Up;
        self.diagnostic = why;
        let mut effects = self.enter(State::Down, now);
        if was_up && is_broken {
            let is_independent = self.neighbour.is_independent;
            effects.push(Effect::PathDown { is_independent });
        }
        effects
    }

    /// Advances the timers; an early call does nothing.
    pub fn on_deadline(&mut self, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.expires_at().is_some_and(|at| at <= now) {
            if matches!(self.state, State::Init | State::Up) {
                effects.extend(self.go_down(Diagnostic::DETECTION_TIME_EXPIRED, true, now));
            }
            // RFC 5880 §6.8.1: a silent neighbour may have forgotten its name for the session.
            self.neighbour = Neighbour::UNKNOWN;
            self.schedule(now);
        }
        if self.transmit_at.is_some_and(|at| at <= now) {
            effects.push(Effect::Send(self.packet()));
            self.transmit_at = None;
            self.schedule(now);
        }
        effects
    }

    /// Sets when the next periodic packet is due, sooner than planned if need be.
    fn schedule(&mut self, now: Timestamp) {
        let is_quiet = self.neighbour.is_demand
            && self.state == State::Up
            && self.neighbour.state == State::Up
            && self.polled.is_none();
        if self.neighbour.required_min_rx.is_zero() || is_quiet {
            self.transmit_at = self.transmit_at.filter(|at| *at <= now);
            return;
        }
        let interval = self.transmit_interval();
        if self.transmit_at.is_none_or(|at| at > now + interval) {
            let jittered = self.jitter.shorten(interval);
            // RFC 5880 §6.8.7: with a multiplier of 1 the neighbour waits for one packet only.
            let most = interval.saturating_mul(9).checked_div(10).unwrap_or(interval);
            let is_single = self.settings.multiplier == 1;
            self.transmit_at = Some(now + if is_single { jittered.min(most) } else { jittered });
        }
    }

    /// Returns how often packets go out (RFC 5880 §6.8.7).
    fn transmit_interval(&self) -> Duration {
        let before = self.polled.map_or(Duration::MAX, |polled| polled.before.interval);
        // RFC 5880 §6.8.3: what was promised holds until the neighbour has heard of the change.
        let is_promised = self.state == State::Up;
        let desired = self.desired_min_tx();
        let desired = if is_promised { desired.min(before) } else { desired };
        desired.max(self.neighbour.required_min_rx)
    }

    fn desired_min_tx(&self) -> Duration {
        if self.state == State::Up {
            self.settings.interval
        } else {
            self.settings.interval.max(SLOW)
        }
    }

    /// Returns what is to be said now.
    fn packet(&self) -> Packet {
        Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            is_poll: self.polled.is_some(),
            is_final: false,
            is_independent: false,
            is_demand: false,
            multiplier: self.settings.multiplier,
            my_discriminator: self.discriminator,
            your_discriminator: self.neighbour.discriminator,
            desired_min_tx: Interval::new(self.desired_min_tx()),
            required_min_rx: Interval::new(self.settings.interval),
            required_min_echo_rx: Interval(0),
        }
    }
}

fn bounded(settings: BfdSettings) -> BfdSettings {
    BfdSettings {
        interval: settings.interval.max(LEAST_INTERVAL),
        multiplier: settings.multiplier.max(1),
    }
}

impl Neighbour {
    /// What holds before the first packet (RFC 5880 §6.8.1).
    const UNKNOWN: Self = Self {
        discriminator: 0,
        state: State::Down,
        is_demand: false,
        is_independent: false,
        multiplier: 1,
        desired_min_tx: Duration::ZERO,
        required_min_rx: Duration::from_micros(1),
        heard_at: None,
    };

    fn of(packet: &Packet, now: Timestamp) -> Self {
        Self {
            discriminator: packet.my_discriminator.get(),
            state: packet.state,
            is_demand: packet.is_demand,
            is_independent: packet.is_independent,
            multiplier: packet.multiplier,
            desired_min_tx: packet.desired_min_tx.duration(),
            required_min_rx: packet.required_min_rx.duration(),
            heard_at: Some(now),
        }
    }
}
