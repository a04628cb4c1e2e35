//! Requests and answers over a netfilter socket (netlink(7)).
//!
//! The kernel does all the work of a transaction within the call that sends it,
//! so nothing here waits for anybody.

use std::io;

use model::ruleset::Transaction;
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::libc;

use super::attr::Writer;
use super::message::{self, Batch, Received};
use super::{Error, Refusal};
use crate::socket;

/// How long a transaction may be, in bytes: 100,000 rules. The kernel takes the
/// memory only when it is needed.
const SEND_BUFFER: i32 = 256 << 20;
/// Room for the refusal of every message of such a transaction.
const RECEIVE_BUFFER: i32 = 64 << 20;
/// `NLM_F_DUMP_INTR`: something changed while it was listed.
const DUMP_INTERRUPTED: u16 = 0x10;

/// What came of one attempt to list something.
#[derive(Debug)]
pub(super) enum Listing {
    /// The bodies of the messages.
    Complete(Vec<Vec<u8>>),
    /// Something changed meanwhile.
    Interrupted,
}

pub(super) struct Transport {
    socket: Socket,
    port: u32,
    sequence: u32,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl Transport {
    pub(super) fn open() -> Result<Self, Error> {
        let open = || -> io::Result<(Socket, u32)> {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            let port = socket.bind_auto()?.port_number();
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            let send = (libc::SOL_SOCKET, libc::SO_SNDBUFFORCE);
            socket::set_option(&socket, send, &SEND_BUFFER)?;
            let receive = (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE);
            socket::set_option(&socket, receive, &RECEIVE_BUFFER)?;
            Ok((socket, port))
        };
        let (socket, port) = open().map_err(|source| Error::Open { source })?;
        Ok(Self { socket, port, sequence: 0 })
    }

    pub(super) const fn port(&self) -> u32 {
        self.port
    }

    /// Makes the kernel carry out all of `transaction`, or nothing.
    pub(super) fn commit(&mut self, transaction: &Transaction) -> Result<(), Error> {
        let (bytes, steps) = Batch::of(transaction).into_bytes();
        self.send(&bytes)?;
        let mut refusals = Vec::new();
        let mut is_acknowledged = false;
        while let Some(answer) = self.receive_now()? {
            for received in message::split(&answer) {
                let received = received.ok_or(Error::Malformed { what: "transaction" })?;
                if received.kind != Received::ERROR {
                    continue;
                }
                let code = received.code().ok_or(Error::Malformed { what: "transaction" })?;
                let errno = Errno::from_raw(code.saturating_abs());
                let place = usize::try_from(received.sequence).ok().and_then(|n| n.checked_sub(1));
                let step = place.and_then(|place| steps.get(place).copied()).flatten();
                if code == 0 {
                    is_acknowledged = true;
                } else if errno == Errno::ERESTART {
                    return Err(Error::Outdated);
                } else {
                    let step = describe(transaction, step);
                    refusals.push(Refusal { step, errno, detail: received.words() });
                }
            }
        }
        if !refusals.is_empty() {
            return Err(Error::Refused { steps: transaction.steps.len(), refusals });
        }
        if is_acknowledged { Ok(()) } else { Err(Error::Malformed { what: "transaction" }) }
    }

    /// Lists objects of a kind once; `what` names them for people.
    pub(super) fn list(
        &mut self,
        what: &'static str,
        (kind, family): (u16, u8),
        fill: impl FnOnce(&mut Writer),
    ) -> Result<Listing, Error> {
        let sequence = self.ask((kind, message::DUMP), family, fill)?;
        let mut found = Vec::new();
        let mut is_interrupted = false;
        loop {
            let bytes = self.receive()?;
            for received in message::split(&bytes) {
                let received = received.ok_or(Error::Malformed { what })?;
                if received.sequence != sequence {
                    continue;
                }
                is_interrupted |= received.flags & DUMP_INTERRUPTED != 0;
                match received.kind {
                    Received::ERROR | Received::DONE => {
                        let code = received.code().ok_or(Error::Malformed { what })?;
                        let errno = Errno::from_raw(code.saturating_abs());
                        if is_interrupted || matches!(errno, Errno::EAGAIN | Errno::EINTR) {
                            return Ok(Listing::Interrupted);
                        }
                        let refused = Error::Unreadable { what, errno };
                        return if code == 0 { Ok(Listing::Complete(found)) } else { Err(refused) };
                    }
                    _ => found.push(received.body.to_vec()),
                }
            }
        }
    }

    /// Asks for one object and returns the body of the answer.
    pub(super) fn get(&mut self, what: &'static str, kind: u16) -> Result<Vec<u8>, Error> {
        let sequence = self.ask((kind, 0), 0, |_| ())?;
        loop {
            let bytes = self.receive()?;
            for received in message::split(&bytes) {
                let received = received.ok_or(Error::Malformed { what })?;
                if received.sequence != sequence {
                    continue;
                }
                if received.kind != Received::ERROR {
                    return Ok(received.body.to_vec());
                }
                let code = received.code().ok_or(Error::Malformed { what })?;
                let errno = Errno::from_raw(code.saturating_abs());
                return Err(Error::Unreadable { what, errno });
            }
        }
    }

    /// Sends one request and returns its sequence number.
    fn ask(
        &mut self,
        (kind, flags): (u16, u16),
        family: u8,
        fill: impl FnOnce(&mut Writer),
    ) -> Result<u32, Error> {
        // A transaction's messages count from 1; questions have the upper half for themselves.
        self.sequence = self.sequence.wrapping_add(1) | 1 << 31;
        let mut bytes = Writer::default();
        let header = (message::subsystem(kind), flags | message::REQUEST, self.sequence);
        message::write_message(&mut bytes, header, (family, [0; 2]), fill);
        self.send(&bytes.into_bytes())?;
        Ok(self.sequence)
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        let sent = self.socket.send_to(bytes, &SocketAddr::new(0, 0), 0);
        sent.map(drop).map_err(|source| Error::Socket { source })
    }

    fn receive(&self) -> Result<Vec<u8>, Error> {
        let received = self.socket.recv_from_full();
        received.map(|(bytes, _)| bytes).map_err(|source| Error::Socket { source })
    }

    /// Returns an answer if there is one already.
    fn receive_now(&self) -> Result<Option<Vec<u8>>, Error> {
        let mut bytes: Vec<u8> = Vec::with_capacity(1 << 16);
        match self.socket.recv(&mut bytes, libc::MSG_DONTWAIT) {
            Ok(_) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(source) => Err(Error::Socket { source }),
        }
    }
}

/// Says what a step was; `None` is the transaction as a whole.
fn describe(transaction: &Transaction, step: Option<usize>) -> String {
    match step.and_then(|place| transaction.steps.get(place)) {
        Some((family, step)) => step.text(*family),
        None => "commit".to_owned(),
    }
}
