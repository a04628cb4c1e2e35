//! What changes in a network namespace, as the kernel tells it (rtnetlink(7)).

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;

use model::desired::RouteProtocol;
use model::net::{Cidr, IfIndex, IfName};
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, TokioSocket};
use nix::libc;
use rtnetlink::MulticastGroup;

use crate::netlink::{self, Error, Link, LinkAddr, RouteEntry};
use crate::netns::Netns;
use crate::socket;

/// Room for about 20,000 events between two looks.
const RECEIVE_BUFFER: i32 = 16 << 20;

/// The most packets that are read before the caller gets its turn.
const PACKETS_AT_ONCE: usize = 4096;

/// What somebody, perhaps we, changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A link is new or has changed.
    Link(Link),
    /// A link is gone, with its addresses and routes.
    LinkGone {
        /// The number it had.
        index: IfIndex,
        /// The name it had.
        name: IfName,
    },
    /// An address is new or has changed.
    Addr(LinkAddr),
    /// An address is gone.
    AddrGone(LinkAddr),
    /// A route is new or was replaced.
    Route(RouteEntry),
    /// A route is gone. The kernel does not tell of IPv4 routes that went with
    /// their link.
    RouteGone(RouteEntry),
    /// Rules have changed: list them again.
    Rules,
    /// Events were lost: list everything again.
    Resync,
}

/// What to be told of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Topic {
    /// Links.
    Links,
    /// Addresses of both families.
    Addrs,
    /// Routes of both families.
    Routes,
    /// Rules of both families.
    Rules,
}

/// A subscription to changes in one network namespace.
pub struct Monitor {
    socket: TokioSocket,
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitor").finish_non_exhaustive()
    }
}

impl Monitor {
    /// Subscribes in the namespace of the calling thread.
    ///
    /// Subscribe first and list then, or what changes in between is missed.
    ///
    /// # Errors
    ///
    /// [`Error::NoRuntime`] outside a tokio runtime (which must have IO
    /// enabled), or [`Error::Open`].
    pub fn open(topics: &[Topic]) -> Result<Self, Error> {
        tokio::runtime::Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let open = || -> io::Result<TokioSocket> {
            let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
            let inner = socket.socket_mut();
            inner.bind_auto()?;
            // Without the privilege the default of 208 KiB stays, and resyncs are more frequent.
            let option = (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE);
            drop(socket::set_option(inner, option, &RECEIVE_BUFFER));
            for group in topics.iter().flat_map(|topic| topic.groups()) {
                inner.add_membership(*group as u32)?;
            }
            Ok(socket)
        };
        Ok(Self { socket: open().map_err(|source| Error::Open { source })? })
    }

    /// Subscribes in `netns`.
    ///
    /// # Errors
    ///
    /// As for [`Monitor::open`], and [`Error::Netns`].
    pub fn open_in(netns: &Netns, topics: &[Topic]) -> Result<Self, Error> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| Error::NoRuntime)?;
        netns.run(|| {
            let _entered = runtime.enter();
            Self::open(topics)
        })?
    }

    /// Waits for changes and returns all that are there, the last one of each object.
    ///
    /// A future dropped while it waits loses nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`] if the socket is broken: subscribe anew.
    pub async fn next_batch(&mut self) -> Result<Vec<Event>, Error> {
        let mut latest = Latest::default();
        loop {
            let first = poll_fn(|context| self.socket.poll_recv_from_full(context)).await;
            latest.take(first)?;
            let mut packets: usize = 0;
            // After a loss the kernel stays silent until all that it kept has been read,
            // and then what is lost meanwhile is not told again: read to the end.
            while latest.is_overrun || packets < PACKETS_AT_ONCE {
                packets = packets.saturating_add(1);
                match self.socket.socket_ref().recv_from_full() {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    received => latest.take(received)?,
                }
            }
            let events = latest.take_events();
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}

impl Topic {
    const fn groups(self) -> &'static [MulticastGroup] {
        match self {
            Self::Links => &[MulticastGroup::Link],
            Self::Addrs => &[MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr],
            Self::Routes => &[MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route],
            Self::Rules => &[MulticastGroup::Ipv4Rule, MulticastGroup::Ipv6Rule],
        }
    }
}

/// What an event is about; of two with the same key only the later counts.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Key {
    Link(IfIndex),
    Addr(IfIndex, String),
    Route(Cidr, u32, u32, RouteProtocol),
    Rules,
}

/// The last event about each object, in the order in which they happened.
#[derive(Debug, Default)]
struct Latest {
    places: BTreeMap<Key, usize>,
    events: BTreeMap<usize, Event>,
    count: usize,
    is_overrun: bool,
}

impl Latest {
    fn take(
        &mut self,
        received: io::Result<(Vec<u8>, netlink_sys::SocketAddr)>,
    ) -> Result<(), Error> {
        match received {
            Ok((bytes, _)) => {
                // What cannot be read may be anything, so everything is looked at again.
                match netlink::decode(&bytes) {
                    Some(payloads) => payloads.iter().for_each(|payload| self.add(payload)),
                    None => self.is_overrun = true,
                }
                Ok(())
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                self.is_overrun = true;
                Ok(())
            }
            Err(source) => Err(Error::Socket { source }),
        }
    }

    fn add(&mut self, payload: &NetlinkPayload<RouteNetlinkMessage>) {
        if matches!(payload, NetlinkPayload::Overrun(_)) {
            self.is_overrun = true;
        }
        let NetlinkPayload::InnerMessage(message) = payload else { return };
        let Some((key, event)) = read(message) else { return };
        self.count = self.count.saturating_add(1);
        if let Some(earlier) = self.places.insert(key, self.count) {
            self.events.remove(&earlier);
        }
        self.events.insert(self.count, event);
    }

    fn take_events(&mut self) -> Vec<Event> {
        let all = std::mem::take(self);
        if all.is_overrun { vec![Event::Resync] } else { all.events.into_values().collect() }
    }
}

fn read(message: &RouteNetlinkMessage) -> Option<(Key, Event)> {
    netlink::read_event(message).map(|event| {
        let key = match &event {
            Event::Link(link) => Key::Link(link.index),
            Event::LinkGone { index, .. } => Key::Link(*index),
            Event::Addr(addr) | Event::AddrGone(addr) => {
                Key::Addr(addr.link, addr.addr.to_string())
            }
            Event::Route(route) | Event::RouteGone(route) => {
                Key::Route(route.dst, route.table, route.metric, route.protocol)
            }
            Event::Rules => Key::Rules,
            Event::Resync => return None,
        };
        Some((key, event))
    })?
}
