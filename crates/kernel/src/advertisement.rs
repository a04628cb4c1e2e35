//! Router Advertisements as neighbours without addresses find each other by them (RFC 4861 §4.2).
//!
//! What is sent makes nobody's default router of us: its lifetime is zero. What is received says
//! only who is there.

use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd as _;

use model::net::{IfIndex, IfName};
use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::socket::set_option;

/// All nodes on a link (RFC 4291 §2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The type of the message (RFC 4861 §4.2).
const ROUTER_ADVERTISEMENT: u8 = 134;
/// Only packets that no router has passed on have it (RFC 4861 §6.1.2).
const HOP_LIMIT: u8 = 255;
/// The option of a socket that lets types of messages through (`ICMP6_FILTER` of linux/icmpv6.h).
const ICMP6_FILTER: i32 = 1;
/// Longer than what is looked at.
const BUFFER: usize = 64;

/// Returns a link's number.
///
/// # Errors
///
/// The kernel's, if there is no such link.
pub fn index_of(link: &IfName) -> io::Result<IfIndex> {
    Ok(if_nametoindex(link.as_str()).map(IfIndex)?)
}

/// A socket for advertisements on one link.
#[derive(Debug)]
pub struct Advertiser {
    /// To the runtime it is like one of UDP: whole packets come and go.
    socket: UdpSocket,
    index: IfIndex,
    message: Vec<u8>,
}

impl Advertiser {
    /// Makes one for a link; must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// The kernel's: there is no such link, or the right to raw sockets is missing.
    pub fn open(link: &IfName) -> io::Result<Self> {
        let IfIndex(index) = index_of(link)?;
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(link.as_str().as_bytes()))?;
        socket.set_multicast_if_v6(index)?;
        socket.set_multicast_hops_v6(HOP_LIMIT.into())?;
        socket.set_multicast_loop_v6(false)?;
        setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
        // A bit that is set keeps a type away.
        let mut filter = [u32::MAX; 8];
        if let Some(word) = filter.get_mut(usize::from(ROUTER_ADVERTISEMENT >> 5)) {
            *word &= !(1 << (ROUTER_ADVERTISEMENT & 31));
        }
        set_option(&socket, (libc::IPPROTO_ICMPV6, ICMP6_FILTER), &filter)?;
        let message = message(mac_of(link));
        Ok(Self { socket: UdpSocket::from_std(socket.into())?, index: IfIndex(index), message })
    }

    /// Returns the link's number.
    #[must_use]
    pub const fn index(&self) -> IfIndex {
        self.index
    }

    /// Tells all who are on the link that we are there.
    ///
    /// # Errors
    ///
    /// The kernel's, as when the link is down or has no link-local address yet.
    pub async fn advertise(&self) -> io::Result<()> {
        let to = SocketAddrV6::new(ALL_NODES, 0, 0, self.index.0);
        self.socket.send_to(&self.message, SocketAddr::V6(to)).await.map(drop)
    }

    /// Waits for an advertisement of somebody on the link, and returns whose it is.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub async fn hear(&self) -> io::Result<Ipv6Addr> {
        loop {
            let heard = self.socket.async_io(Interest::READABLE, || receive(&self.socket)).await?;
            if let Some(from) = heard {
                return Ok(from);
            }
        }
    }
}

/// Receives a packet; `None` if it is no advertisement of a neighbour.
fn receive(socket: &UdpSocket) -> io::Result<Option<Ipv6Addr>> {
    let mut space = nix::cmsg_space!(i32);
    let mut buffer = [0; BUFFER];
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let hop_limit = message.cmsgs()?.find_map(|control| {
        if let ControlMessageOwned::Ipv6HopLimit(limit) = control { Some(limit) } else { None }
    });
    let from = message.address.map(|addr| addr.ip());
    let len = message.bytes;
    let is_near = hop_limit == Some(HOP_LIMIT.into());
    let is_whole = buffer.get(..len).is_some_and(is_advertisement) || len > BUFFER;
    Ok(from.filter(|addr| is_near && is_whole && addr.is_unicast_link_local()))
}

fn is_advertisement(bytes: &[u8]) -> bool {
    bytes.len() >= 16 && bytes.starts_with(&[ROUTER_ADVERTISEMENT, 0])
}

/// Returns what we say: nothing but our Ethernet address. The kernel fills in the checksum.
fn message(mac: Option<[u8; 6]>) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    if let Some(kind) = bytes.first_mut() {
        *kind = ROUTER_ADVERTISEMENT;
    }
    if let Some(mac) = mac {
        // Source Link-Layer Address, one unit of eight octets (RFC 4861 §4.6.1).
        bytes.extend([1, 1]);
        bytes.extend(mac);
    }
    bytes
}

fn mac_of(link: &IfName) -> Option<[u8; 6]> {
    let all = getifaddrs().ok()?;
    let mut named = all.filter(|each| each.interface_name == link.as_str());
    named.find_map(|each| each.address?.as_link_addr()?.addr())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_say_makes_no_default_router_of_us() {
        let bytes = message(Some([2, 0, 0, 0, 0, 1]));
        assert_eq!(bytes.len(), 24);
        assert!(is_advertisement(&bytes));
        // The router lifetime.
        assert_eq!(bytes[6..8], [0, 0]);
        assert_eq!(bytes[16..], [1, 1, 2, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn what_is_too_short_or_of_another_kind_is_none() {
        assert!(!is_advertisement(&[134, 0, 0, 0]));
        assert!(!is_advertisement(&[133; 16]));
    }
}
