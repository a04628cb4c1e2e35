//! UDP sockets as BFD wants them: sent with the greatest TTL, from a port of the dynamic range, and
//! received with the TTL that shows how far a packet has come (RFC 5881 §4, §5).

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd as _;

use model::net::{Family, zone};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// The ports that packets are sent from (RFC 5881 §4).
const FIRST_PORT: u16 = 49152;
/// How many ports are tried before it is given up.
const TRIES: u16 = 64;

/// A packet that has come in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Datagram {
    /// Who sent it, with the link if the address is link-local.
    pub from: IpAddr,
    /// With which TTL or hop limit it arrived.
    pub ttl: u8,
    /// How many bytes it has.
    pub len: usize,
}

/// A socket that packets come to.
#[derive(Debug)]
pub struct Receiver(UdpSocket);

/// A socket that packets are sent from.
#[derive(Debug)]
pub struct Sender(UdpSocket);

impl Receiver {
    /// Listens on a port of all addresses of a family; must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// The kernel's, as when somebody else has the port.
    pub fn listen(family: Family, port: u16) -> io::Result<Self> {
        let any: IpAddr = match family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = open(family)?;
        match family {
            Family::V4 => setsockopt(&socket, sockopt::Ipv4RecvTtl, &true)?,
            Family::V6 => setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?,
        }
        socket.bind(&SocketAddr::new(any, port).into())?;
        UdpSocket::from_std(socket.into()).map(Self)
    }

    /// Waits for a packet and puts what fits of it into `buffer`.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<Datagram> {
        self.0.async_io(Interest::READABLE, || self.receive_now(buffer)).await
    }

    fn receive_now(&self, buffer: &mut [u8]) -> io::Result<Datagram> {
        let mut space = nix::cmsg_space!(i32);
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let message =
            recvmsg::<SockaddrStorage>(self.0.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
        let ttl = message.cmsgs()?.find_map(|control| {
            use ControlMessageOwned::{Ipv4Ttl, Ipv6HopLimit};
            if let Ipv4Ttl(ttl) | Ipv6HopLimit(ttl) = control { Some(ttl) } else { None }
        });
        let from = message.address.and_then(|addr| {
            let v4 = addr.as_sockaddr_in().map(|addr| IpAddr::V4(addr.ip()));
            v4.or_else(|| addr.as_sockaddr_in6().map(|addr| zone::of_socket((*addr).into())))
        });
        let from = from.ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
        // One of which it cannot be told how far it has come has come too far.
        let ttl = ttl.and_then(|ttl| u8::try_from(ttl).ok()).unwrap_or(0);
        Ok(Datagram { from, ttl, len: message.bytes })
    }
}

impl Sender {
    /// Makes a socket that sends from `from`, or where a family alone is named, from the address
    /// that the kernel chooses. `seed` says where the search for a free port starts.
    ///
    /// # Errors
    ///
    /// The kernel's; with `AddrInUse` if many ports in a row are taken.
    pub fn open(family: Family, from: Option<IpAddr>, seed: u16) -> io::Result<Self> {
        let any: IpAddr = match family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = open(family)?;
        match family {
            Family::V4 => socket.set_ttl_v4(u8::MAX.into())?,
            Family::V6 => socket.set_unicast_hops_v6(u8::MAX.into())?,
        }
        let mut bound = Err(io::Error::from(io::ErrorKind::AddrInUse));
        for step in 0..TRIES {
            let port = FIRST_PORT | (seed.wrapping_add(step) & !FIRST_PORT);
            bound = socket.bind(&SocketAddr::new(from.unwrap_or(any), port).into());
            match &bound {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Ok(()) | Err(_) => break,
            }
        }
        bound?;
        UdpSocket::from_std(socket.into()).map(Self)
    }

    /// Sends a packet to an address that names its link if it is link-local, or loses it as a network would if there is no room for it.
    ///
    /// # Errors
    ///
    /// The kernel's, as when there is no way to the receiver.
    pub fn send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        match self.0.try_send_to(bytes, zone::to_socket(to)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            other => other.map(drop),
        }
    }
}

fn open(family: Family) -> io::Result<Socket> {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if family == Family::V6 {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test]
    async fn a_packet_tells_who_sent_it_and_how_far_it_came() {
        for (family, local) in [
            (Family::V4, IpAddr::from(Ipv4Addr::LOCALHOST)),
            (Family::V6, IpAddr::from(Ipv6Addr::LOCALHOST)),
        ] {
            let receiver = Receiver::listen(family, 0).unwrap();
            let port = receiver.0.local_addr().unwrap().port();
            let sender = Sender::open(family, Some(local), 7).unwrap();
            assert!(sender.0.local_addr().unwrap().port() >= FIRST_PORT);
            sender.0.writable().await.unwrap();
            sender.send(b"hello", SocketAddr::new(local, port)).unwrap();
            let mut buffer = [0; 16];
            let got = receiver.receive(&mut buffer).await.unwrap();
            assert_eq!(got, Datagram { from: local, ttl: 255, len: 5 });
            assert_eq!(&buffer[..5], b"hello");
        }
    }

    #[tokio::test]
    async fn a_second_sender_takes_another_port() {
        let local = Some(IpAddr::from(Ipv4Addr::LOCALHOST));
        let first = Sender::open(Family::V4, local, 9).unwrap();
        let second = Sender::open(Family::V4, local, 9).unwrap();
        assert_ne!(first.0.local_addr().unwrap(), second.0.local_addr().unwrap());
    }
}
