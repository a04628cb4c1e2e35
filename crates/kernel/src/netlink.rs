//! Links, addresses, routes and neighbours by netlink (rtnetlink(7)).

#![expect(clippy::wildcard_enum_match_arm, reason = "netlink's enums are not ours and grow")]

mod addr;
mod dump;
mod error;
mod link;
mod neigh;
mod offload;
mod route;
mod rule;
mod shape;
mod transport;

pub use addr::{AddrScope, LinkAddr};
pub use error::{Error, Refusal};
pub use link::{Link, VethSpec, VxlanLink};
pub use neigh::{Forward, Neighbour, NeighbourChange};
pub use route::{MAIN_TABLE, NextHop, RouteChange, RouteEntry, RouteFilter, Target};
pub use rule::{MarkMatch, Rule};
pub use shape::{RateLimit, ifb_name};

use std::sync::Arc;

use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;

use crate::monitor::Event;
use crate::netns::Netns;
use transport::Transport;

/// A route socket in one network namespace; clones share it.
///
/// It stays in its namespace whichever thread uses it. Requests are made one
/// after the other, as the kernel would do anyway.
#[derive(Clone, Debug)]
pub struct Netlink {
    transport: Arc<Transport>,
}

impl Netlink {
    /// Opens a socket in the namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// [`Error::NoRuntime`] outside a tokio runtime (which must have IO
    /// enabled), or [`Error::Open`].
    pub fn open() -> Result<Self, Error> {
        Ok(Self { transport: Arc::new(Transport::open()?) })
    }

    /// Opens a socket in `netns`.
    ///
    /// # Errors
    ///
    /// As for [`Netlink::open`], and [`Error::Netns`].
    pub fn open_in(netns: &Netns) -> Result<Self, Error> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| Error::NoRuntime)?;
        netns.run(|| {
            let _entered = runtime.enter();
            Self::open()
        })?
    }
}

/// Splits what a socket returned into messages; `None` if it makes no sense.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<NetlinkPayload<RouteNetlinkMessage>>> {
    let received = transport::decode(bytes).ok()?;
    Some(received.into_iter().map(|(_, payload)| payload).collect())
}

/// Reads what a multicast message tells; `None` if it is none of our topics.
pub(crate) fn read_event(message: &RouteNetlinkMessage) -> Option<Event> {
    match message {
        RouteNetlinkMessage::NewLink(message) => {
            link::of_link_message(message).ok().map(Event::Link)
        }
        RouteNetlinkMessage::DelLink(message) => {
            let link = link::of_link_message(message).ok()?;
            Some(Event::LinkGone { index: link.index, name: link.name })
        }
        RouteNetlinkMessage::NewAddress(message) => {
            addr::of_address_message(message).map(Event::Addr)
        }
        RouteNetlinkMessage::DelAddress(message) => {
            addr::of_address_message(message).map(Event::AddrGone)
        }
        RouteNetlinkMessage::NewRoute(message) => {
            route::of_route_message(message).map(Event::Route)
        }
        RouteNetlinkMessage::DelRoute(message) => {
            route::of_route_message(message).map(Event::RouteGone)
        }
        RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => Some(Event::Rules),
        _ => None,
    }
}
