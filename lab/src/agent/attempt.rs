//! Attempts to reach pods, all at once, over sockets that nobody has used before.
//!
//! New sockets mean new connections: what was allowed a moment ago is asked again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use kernel::echo::{self, Form};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};

use super::echo::mapped;
use super::sctp;
use crate::protocol::{Attempt, Transport, Trial};

/// How long to listen on when all that should come through has.
const GRACE: Duration = Duration::from_millis(60);
/// How long datagrams may be on their way before they are sent again.
const AGAIN: Duration = Duration::from_millis(300);
/// How long to wait for sockets at most, in milliseconds.
const TICK_MS: u16 = 20;

/// Where ports of questions over SCTP begin; each hand has its own, so that they are new, too.
const SCTP_PORTS: u16 = 49_152;

/// Numbers the hands of this process, so that no answer counts for another question.
static PINGS: AtomicU16 = AtomicU16::new(1);

/// Makes the attempts of a trial from the namespace of this thread; returns those that came through.
pub(super) fn attempt(trial: &Trial, within: Duration) -> io::Result<Vec<Attempt>> {
    let mut hand = Hand::open()?;
    let started = Instant::now();
    let passing: BTreeSet<Attempt> = trial.passing.iter().copied().collect();
    for attempt in trial.stopped.iter().chain(&trial.passing) {
        hand.ask(*attempt)?;
    }
    let (mut asked_at, mut complete_at) = (started, None);
    loop {
        hand.listen()?;
        let now = Instant::now();
        if complete_at.is_none() && passing.is_subset(&hand.passed) {
            complete_at = Some(now);
        }
        let is_settled = complete_at.is_some_and(|at| now.duration_since(at) > GRACE);
        if is_settled || now.duration_since(started) > within {
            return Ok(hand.passed.into_iter().collect());
        }
        if now.duration_since(asked_at) > AGAIN {
            asked_at = now;
            for attempt in passing.difference(&hand.passed.clone()) {
                hand.ask_again(*attempt);
            }
        }
    }
}

/// The sockets of one pod's attempts.
struct Hand {
    udp: UdpSocket,
    /// Raw sockets of both families.
    icmp: [Socket; 2],
    /// The same for SCTP.
    sctp: [Socket; 2],
    identifier: u16,
    /// By sequence number: whom we asked.
    pings: BTreeMap<u16, IpAddr>,
    tcp: Vec<(Attempt, Socket)>,
    passed: BTreeSet<Attempt>,
}

impl Hand {
    fn open() -> io::Result<Self> {
        let udp = UdpSocket::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))?;
        udp.set_nonblocking(true)?;
        let raw = |domain, protocol| {
            let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
            socket.set_nonblocking(true).map(|()| socket)
        };
        let sctp = sctp::sockets()?;
        sctp.iter().try_for_each(|socket| socket.set_nonblocking(true))?;
        Ok(Self {
            udp,
            sctp,
            icmp: [raw(Domain::IPV4, Protocol::ICMPV4)?, raw(Domain::IPV6, Protocol::ICMPV6)?],
            identifier: PINGS.fetch_add(1, Ordering::Relaxed),
            pings: BTreeMap::new(),
            tcp: Vec::new(),
            passed: BTreeSet::new(),
        })
    }

    fn ask(&mut self, attempt: Attempt) -> io::Result<()> {
        match attempt.transport {
            Transport::Tcp => {
                let to = SocketAddr::new(attempt.to, attempt.port);
                let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
                socket.set_nonblocking(true)?;
                // That it is under way is an error, too; the others show in the end.
                drop(socket.connect(&to.into()));
                self.tcp.push((attempt, socket));
            }
            Transport::Icmp => {
                let number = u16::try_from(self.pings.len()).unwrap_or(u16::MAX);
                self.pings.insert(number, attempt.to);
                self.ask_again(attempt);
            }
            Transport::Udp | Transport::Sctp => self.ask_again(attempt),
        }
        Ok(())
    }

    /// Sends what may get lost: the kernel does the same for TCP.
    fn ask_again(&self, attempt: Attempt) {
        let to = SocketAddr::new(attempt.to, attempt.port);
        match attempt.transport {
            Transport::Tcp => {}
            // No route now may be a route in a moment.
            Transport::Udp => drop(self.udp.send_to(b"question", mapped(to))),
            Transport::Sctp => {
                let [v4, v6] = &self.sctp;
                let socket = if attempt.to.is_ipv4() { v4 } else { v6 };
                let source = SCTP_PORTS.saturating_add(self.identifier % 16_000);
                let question = sctp::Hello::question(source, attempt.port, self.identifier.into());
                let to = SocketAddr::new(attempt.to, 0);
                drop(socket.send_to(&question.encode(), &to.into()));
            }
            Transport::Icmp => {
                let numbered = self.pings.iter().find(|(_, addr)| **addr == attempt.to);
                let number = numbered.map(|(number, _)| *number).unwrap_or_default();
                let [v4, v6] = &self.icmp;
                let socket = if attempt.to.is_ipv4() { v4 } else { v6 };
                let kind = Form::of(attempt.to).question;
                let packet = echo::packet(kind, self.identifier, number, 0);
                drop(socket.send_to(&packet, &to.into()));
            }
        }
    }

    /// Waits a moment and takes in what has been answered.
    fn listen(&mut self) -> io::Result<()> {
        let raw = self.icmp.iter().chain(&self.sctp).map(Socket::as_fd);
        let mut waiting: Vec<PollFd<'_>> = std::iter::once(self.udp.as_fd())
            .chain(raw)
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        let others = waiting.len();
        waiting.extend(
            self.tcp.iter().map(|(_, socket)| PollFd::new(socket.as_fd(), PollFlags::POLLOUT)),
        );
        poll(&mut waiting, PollTimeout::from(TICK_MS))?;
        let is_open: Vec<bool> =
            waiting.iter().skip(others).map(|fd| fd.any().unwrap_or_default()).collect();
        drop(waiting);
        let mut is_open = is_open.into_iter();
        let passed = &mut self.passed;
        self.tcp.retain(|(attempt, socket)| {
            let is_settled = is_open.next().unwrap_or_default();
            if is_settled && socket.take_error().is_ok_and(|error| error.is_none()) {
                passed.insert(*attempt);
            }
            !is_settled
        });
        self.take_datagrams();
        self.take_pings();
        self.take_associations();
        Ok(())
    }

    fn take_datagrams(&mut self) {
        let mut buffer = [0; 64];
        // Errors of one target (ICMP) say nothing about the others.
        while let Some(received) = unless_empty(self.udp.recv_from(&mut buffer)) {
            if let Ok((_, from)) = received {
                let (to, port) = (from.ip().to_canonical(), from.port());
                self.passed.insert(Attempt { to, transport: Transport::Udp, port });
            }
        }
    }

    fn take_pings(&mut self) {
        let mut buffer = [0; 256];
        for (socket, form) in self.icmp.iter_mut().zip([Form::V4, Form::V6]) {
            while let Some(received) = unless_empty(socket.read(&mut buffer)) {
                let Ok(len) = received else { continue };
                let message = buffer.get(form.shown..len).unwrap_or_default();
                let number = echo::number_of(message, form.answer, self.identifier);
                if let Some(to) = number.and_then(|number| self.pings.get(&number)) {
                    self.passed.insert(Attempt { to: *to, transport: Transport::Icmp, port: 0 });
                }
            }
        }
    }
}

impl Hand {
    fn take_associations(&mut self) {
        let mut buffer = [const { MaybeUninit::uninit() }; 256];
        let mut copy = [0; 256];
        for (socket, is_v4) in self.sctp.iter_mut().zip([true, false]) {
            // The sender's address comes with the first look, the packet with the second.
            while let Some(looked) = unless_empty(socket.peek_from(&mut buffer)) {
                let Some(Ok(len)) = unless_empty(socket.read(&mut copy)) else { continue };
                let received = copy.get(..len).unwrap_or_default();
                let hello = sctp::Hello::decode(received, is_v4);
                let port = hello.and_then(|hello| hello.answered_by(self.identifier.into()));
                let from = looked.ok().and_then(|(_, from)| from.as_socket());
                if let (Some(port), Some(from)) = (port, from) {
                    let to = from.ip().to_canonical();
                    self.passed.insert(Attempt { to, transport: Transport::Sctp, port });
                }
            }
        }
    }
}

/// Returns what was received, unless there is nothing more.
fn unless_empty<T>(received: io::Result<T>) -> Option<io::Result<T>> {
    match received {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        other => Some(other),
    }
}
