//! By which interface packets leave for an address, as the kernel's routes and rules have it now
//! (`RTM_GETROUTE` of rtnetlink(7)).

use std::io;
use std::net::IpAddr;

use model::net::{Family, IfName};
use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::net::if_::if_indextoname;

/// Room for one answer.
const ANSWER: usize = 4096;

/// Why the kernel does not tell.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket cannot be made, or failed.
    #[error("the kernel cannot be asked for the way to an address: {0}")]
    Socket(#[from] io::Error),
    /// The answer makes no sense to us.
    #[error("the kernel's answer about the way to an address cannot be read")]
    Malformed,
}

/// A socket for questions about the namespace of the thread that opened it.
pub struct Ways(Socket);

impl std::fmt::Debug for Ways {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ways").finish_non_exhaustive()
    }
}

impl Ways {
    /// Opens a socket.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`].
    pub fn open() -> Result<Self, Error> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        Ok(Self(socket))
    }

    /// Returns the interface, `lo` for an address of the machine; `None` if there is no way.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`] or [`Error::Malformed`].
    pub fn to(&mut self, addr: IpAddr) -> Result<Option<IfName>, Error> {
        let mut about = RouteMessage::default();
        let family = Family::of(addr);
        about.header.address_family = match family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        };
        about.header.destination_prefix_length = family.bits();
        about.attributes.push(RouteAttribute::Destination(addr.into()));
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetRoute(about));
        request.header.flags = NLM_F_REQUEST;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.0.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
        let mut bytes: Vec<u8> = Vec::with_capacity(ANSWER);
        self.0.recv(&mut bytes, 0)?;
        let answer = NetlinkMessage::deserialize(&bytes).map_err(|_| Error::Malformed)?;
        if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) = answer.payload {
            return Ok(name(&route));
        }
        // Unreachable, prohibited, a black hole.
        let is_refused = matches!(answer.payload, NetlinkPayload::Error(_));
        is_refused.then_some(None).ok_or(Error::Malformed)
    }
}

/// Returns the name of a route's interface, unless that is gone meanwhile.
fn name(route: &RouteMessage) -> Option<IfName> {
    let index = route.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Oif(index) = attribute { Some(*index) } else { None }
    })?;
    if_indextoname(index).ok()?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_own_addresses_are_on_the_loopback() {
        let mut ways = Ways::open().unwrap();
        let lo = Some("lo".parse().unwrap());
        for addr in [IpAddr::from([127, 0, 0, 1]), std::net::Ipv6Addr::LOCALHOST.into()] {
            assert_eq!(ways.to(addr).unwrap(), lo, "{addr}");
        }
    }
}
