//! Connections that the kernel follows, over netlink (`linux/netfilter/nfnetlink_conntrack.h`).
//!
//! The kernel has no index by address, so whoever asks for an address' connections has it
//! walk through all of them. For a few addresses it compares them itself and tells of no others.

mod flow;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use model::net::Family;
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::libc;

use crate::netns::{self, Netns};
use crate::nftables::attr::{Reader, Writer};
use crate::nftables::message::{self, Received};
use crate::socket;
pub use flow::{Flow, Tuple};

/// `NFNL_SUBSYS_CTNETLINK`, with `IPCTNL_MSG_CT_…`.
const NEW: u16 = 1 << 8;
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
/// Room for the answers that come while one is being read.
const RECEIVE_BUFFER: i32 = 8 << 20;
/// The most that the kernel puts into one answer of a list.
const ANSWER: usize = 1 << 16;
/// For how many addresses the kernel is asked for each by itself, which it walks four times for:
/// telling of a connection takes it some ten times as long as comparing one.
const FEW: usize = 2;

/// Why connections cannot be listed or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket cannot be made.
    #[error("cannot open a netfilter socket: {source}; run as root with CAP_NET_ADMIN")]
    Open {
        /// The kernel's answer.
        source: io::Error,
    },
    /// The namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] netns::Error),
    /// The socket failed under a request.
    #[error("the netfilter socket failed: {source}")]
    Socket {
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel would not do it.
    #[error("cannot {action}: {errno}; see that the kernel has nf_conntrack_netlink")]
    Refused {
        /// What was asked for.
        action: String,
        /// The kernel's number for the reason.
        errno: Errno,
    },
    /// A message of the kernel's makes no sense to us.
    #[error("the kernel's answer about connections cannot be read")]
    Malformed,
}

/// A socket for the connections of one network namespace.
pub struct Conntrack {
    socket: Socket,
    sequence: u32,
}

impl std::fmt::Debug for Conntrack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conntrack").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl Conntrack {
    /// Opens a socket in the namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// [`Error::Open`].
    pub fn open() -> Result<Self, Error> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            let receive = (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE);
            socket::set_option(&socket, receive, &RECEIVE_BUFFER)?;
            Ok(socket)
        };
        let socket = open().map_err(|source| Error::Open { source })?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Opens a socket in `netns`.
    ///
    /// # Errors
    ///
    /// [`Error::Open`], [`Error::Netns`].
    pub fn open_in(netns: &Netns) -> Result<Self, Error> {
        netns.run(Self::open)?
    }

    /// Lists the connections that `is_wanted`. One that comes or goes meanwhile may be there or not.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], [`Error::Malformed`] or [`Error::Socket`].
    pub fn flows(&mut self, is_wanted: impl Fn(&Flow) -> bool) -> Result<Vec<Flow>, Error> {
        const BOTH_FAMILIES: u8 = 0;
        let sequence = self.ask((GET, message::DUMP), BOTH_FAMILIES, |_| ())?;
        let mut found = Vec::new();
        let each = |received: &Received<'_>| {
            let flow = flow::read(received.body).filter(&is_wanted);
            found.extend(flow);
        };
        self.answers(sequence, "list connections", each)?;
        Ok(found)
    }

    /// Lists the connections one of whose ends has one of these addresses, whatever was translated.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], [`Error::Malformed`] or [`Error::Socket`].
    pub fn flows_of(&mut self, addrs: &BTreeSet<IpAddr>) -> Result<Vec<Flow>, Error> {
        if addrs.len() > FEW {
            return self.flows(|flow| flow.is_of_any(addrs));
        }
        let mut found: BTreeMap<Vec<u8>, Flow> = BTreeMap::new();
        for (addr, end) in addrs.iter().flat_map(|addr| flow::End::ALL.map(|end| (*addr, end))) {
            let family = message::family_number(Family::of(addr));
            let sequence =
                self.ask((GET, message::DUMP), family, |body| end.write_filter(body, addr))?;
            let each = |received: &Received<'_>| {
                // Kernels before 5.8 tell of all of them.
                let flow = flow::read(received.body).filter(|flow| flow.is_of_any(addrs));
                found.extend(flow.map(|flow| (flow.key(), flow)));
            };
            self.answers(sequence, "list connections", each)?;
        }
        Ok(found.into_values().collect())
    }

    /// Forgets a connection: its next packet is a new one's. Does nothing if it is gone.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], [`Error::Malformed`] or [`Error::Socket`].
    pub fn delete(&mut self, flow: &Flow) -> Result<(), Error> {
        self.change((DELETE, message::ACK), flow, "forget", |_| ())
    }

    /// Forgets all connections of these addresses in their zones, and returns how many there were.
    ///
    /// # Errors
    ///
    /// As for [`Conntrack::flows`] and [`Conntrack::delete`].
    pub fn forget(&mut self, places: &BTreeSet<(u16, IpAddr)>) -> Result<usize, Error> {
        let addrs = places.iter().map(|(_, addr)| *addr).collect();
        let mut flows = self.flows_of(&addrs)?;
        flows.retain(|flow| flow.is_at_any(places));
        flows.iter().try_for_each(|flow| self.delete(flow))?;
        Ok(flows.len())
    }

    /// Sets the bits of `mask` in a connection's mark to those of `value`, and no others.
    ///
    /// Does nothing if it is gone.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], [`Error::Malformed`] or [`Error::Socket`].
    pub fn mark(&mut self, flow: &Flow, value: u32, mask: u32) -> Result<(), Error> {
        self.change((NEW, message::ACK), flow, "mark", |body| {
            body.number(flow::MARK, value & mask);
            body.number(flow::MARK_MASK, mask);
        })
    }

    fn change(
        &mut self,
        kind: (u16, u16),
        flow: &Flow,
        action: &str,
        fill: impl FnOnce(&mut Writer),
    ) -> Result<(), Error> {
        let family = message::family_number(flow.original.family());
        let sequence = self.ask(kind, family, |body| {
            flow.write_key(body);
            fill(body);
        })?;
        match self.answers(sequence, action, |_| ()) {
            Err(Error::Refused { errno: Errno::ENOENT, .. }) => Ok(()),
            Err(Error::Refused { errno, .. }) => {
                Err(Error::Refused { action: format!("{action} connection {flow}"), errno })
            }
            answered => answered,
        }
    }

    /// Sends one request and returns its sequence number.
    fn ask(
        &mut self,
        (kind, flags): (u16, u16),
        family: u8,
        fill: impl FnOnce(&mut Writer),
    ) -> Result<u32, Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = Writer::default();
        let header = (kind, flags | message::REQUEST, self.sequence);
        message::write_message(&mut bytes, header, (family, [0; 2]), fill);
        let sent = self.socket.send_to(&bytes.into_bytes(), &SocketAddr::new(0, 0), 0);
        sent.map_err(|source| Error::Socket { source })?;
        Ok(self.sequence)
    }

    /// Gives all answers to a request to `each`, until the kernel says that it is done.
    fn answers(
        &self,
        sequence: u32,
        action: &str,
        mut each: impl FnMut(&Received<'_>),
    ) -> Result<(), Error> {
        let mut bytes: Vec<u8> = Vec::with_capacity(ANSWER);
        loop {
            bytes.clear();
            let received = self.socket.recv(&mut bytes, 0);
            received.map_err(|source| Error::Socket { source })?;
            for received in message::split(&bytes) {
                let received = received.ok_or(Error::Malformed)?;
                if received.sequence != sequence {
                    continue;
                }
                if !matches!(received.kind, Received::ERROR | Received::DONE) {
                    each(&received);
                    continue;
                }
                let errno =
                    Errno::from_raw(received.code().ok_or(Error::Malformed)?.saturating_abs());
                let refused = || Error::Refused { action: action.to_owned(), errno };
                return if errno as i32 == 0 { Ok(()) } else { Err(refused()) };
            }
        }
    }
}

/// Returns the attributes behind the header that all netfilter messages have.
fn attributes(body: &[u8]) -> Reader<'_> {
    Reader(body.get(message::FAMILY_HEADER_LEN..).unwrap_or_default())
}
