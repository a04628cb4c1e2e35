//! Whether somebody else changes our tables, as the kernel tells it (`NFNLGRP_NFTABLES`).

use std::future::poll_fn;
use std::io;

use model::ruleset::TABLE;
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, TokioSocket};
use nix::libc;

use super::message::{self, Received, family_number};
use super::names::{self, message as kind};
use super::{Error, Nftables, attr::Reader};
use crate::netns::Netns;
use crate::socket;

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;
/// Room for what `nft flush ruleset` tells of 100,000 rules.
const RECEIVE_BUFFER: i32 = 64 << 20;
/// `NFTA_GEN_PROC_NAME`.
const PROCESS_NAME: u16 = 3;

/// What was done to our tables.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// Somebody else changed them.
    Changed {
        /// What the process is called, such as `nft`.
        by: String,
    },
    /// Events were lost: read the tables again.
    Resync,
}

/// A subscription to other people's changes of our tables in one network namespace.
pub struct Monitor {
    socket: TokioSocket,
    /// The socket whose changes are our own.
    ours: u32,
    /// Has the change that is being told of touched our tables?
    is_touched: bool,
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitor").field("is_touched", &self.is_touched).finish_non_exhaustive()
    }
}

impl Monitor {
    /// Subscribes in the namespace of the calling thread to all changes but those by `ours`.
    ///
    /// # Errors
    ///
    /// [`Error::NoRuntime`] outside a tokio runtime, or [`Error::Open`].
    pub fn open(ours: &Nftables) -> Result<Self, Error> {
        tokio::runtime::Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let open = || -> io::Result<TokioSocket> {
            let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
            let inner = socket.socket_mut();
            inner.bind_auto()?;
            let option = (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE);
            socket::set_option(inner, option, &RECEIVE_BUFFER)?;
            inner.add_membership(GROUP)?;
            Ok(socket)
        };
        let socket = open().map_err(|source| Error::Open { source })?;
        Ok(Self { socket, ours: ours.transport.port(), is_touched: false })
    }

    /// Subscribes in `netns` to all changes but those by `ours`.
    ///
    /// # Errors
    ///
    /// As for [`Monitor::open`], and [`Error::Netns`].
    pub fn open_in(netns: &Netns, ours: &Nftables) -> Result<Self, Error> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| Error::NoRuntime)?;
        netns.run(|| {
            let _entered = runtime.enter();
            Self::open(ours)
        })?
    }

    /// Waits until somebody else has changed our tables, and returns the last
    /// such change of those that are there.
    ///
    /// A future dropped while it waits loses nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`] if the socket is broken: subscribe anew.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            let first = poll_fn(|context| self.socket.poll_recv_from_full(context)).await;
            let mut event = self.take(first)?;
            loop {
                match self.socket.socket_ref().recv_from_full() {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    received => event = self.take(received)?.or(event),
                }
            }
            if let Some(event) = event {
                return Ok(event);
            }
        }
    }

    fn take(
        &mut self,
        received: io::Result<(Vec<u8>, netlink_sys::SocketAddr)>,
    ) -> Result<Option<Event>, Error> {
        match received {
            Ok((bytes, _)) => {
                let events = message::split(&bytes).filter_map(|message| match message {
                    Some(message) => self.read(&message),
                    None => Some(Event::Resync),
                });
                Ok(events.last())
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(Some(Event::Resync)),
            Err(source) => Err(Error::Socket { source }),
        }
    }

    /// Reads one message: the changes of a transaction come first, then who made it.
    fn read(&mut self, message: &Received<'_>) -> Option<Event> {
        let (family, attributes) = message.parts()?;
        if message.kind == message::subsystem(kind::NEW_GENERATION) {
            let is_touched = std::mem::take(&mut self.is_touched);
            let by = attributes.text(PROCESS_NAME).unwrap_or_default();
            return (is_touched && message.port != self.ours).then_some(Event::Changed { by });
        }
        self.is_touched |= is_about_us(family, attributes);
        None
    }
}

/// Is a change one of our tables? Every message names its table in its first attribute.
fn is_about_us(family: u8, attributes: Reader<'_>) -> bool {
    let is_family = model::net::Family::ALL.into_iter().any(|ours| family_number(ours) == family);
    is_family && attributes.text(names::table::NAME).as_deref() == Some(TABLE)
}
