//! Ends connections of this machine's own sockets, as `sock_diag(7)` lets root do.

use std::io;
use std::net::{IpAddr, SocketAddr};

use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr as Netlink};
use nix::errno::Errno;
use nix::libc;

use crate::nftables::message::{self, Received};

/// `SOCK_DIAG_BY_FAMILY` and `SOCK_DESTROY`.
const FIND: u16 = 20;
const DESTROY: u16 = 21;
/// `TCP_LISTEN`.
const LISTENS: u8 = 10;
/// Header and `struct inet_diag_req_v2`.
const REQUEST_LEN: u32 = 16 + 56;
/// What no other socket has.
type Cookie = [u8; 8];
/// `INET_DIAG_NOCOOKIE`: whichever socket it is.
const ANY: Cookie = [0xff; 8];
/// Room for one answer.
const ANSWER: usize = 4096;

/// Why a connection cannot be ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket cannot be made, or failed.
    #[error("the kernel cannot be asked about sockets: {0}")]
    Socket(#[from] io::Error),
    /// The kernel would not do it.
    #[error(
        "cannot end the TCP connection {local} - {remote}: {errno}; a kernel without \
         CONFIG_INET_DIAG_DESTROY cannot do that"
    )]
    Refused {
        /// This machine's end.
        local: SocketAddr,
        /// The other end.
        remote: SocketAddr,
        /// The kernel's number for the reason.
        errno: Errno,
    },
    /// The answer makes no sense to us.
    #[error("the kernel's answer about a socket cannot be read")]
    Malformed,
}

/// Ends a TCP connection of a socket in the namespace of the calling thread: both programs are
/// told that it was reset. Returns whether there was one.
///
/// # Errors
///
/// [`Error`]; the connection goes on.
pub fn end_tcp(local: SocketAddr, remote: SocketAddr) -> Result<bool, Error> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    let refused = |errno| Error::Refused { local, remote, errno };
    // Without its cookie, the kernel takes who listens there for the connection.
    let found = ask(&socket, &request(FIND, message::REQUEST, (local, remote), ANY))?;
    let cookie = match found {
        Answer::Found { state: LISTENS, .. } | Answer::Code(Errno::ENOENT) => return Ok(false),
        Answer::Found { cookie, .. } => cookie,
        Answer::Code(errno) => return Err(refused(errno)),
    };
    let flags = message::REQUEST | message::ACK;
    match ask(&socket, &request(DESTROY, flags, (local, remote), cookie))? {
        Answer::Code(errno) if errno as i32 == 0 => Ok(true),
        // It has ended meanwhile.
        Answer::Code(Errno::ENOENT | Errno::ESTALE) => Ok(false),
        Answer::Code(errno) => Err(refused(errno)),
        Answer::Found { .. } => Err(Error::Malformed),
    }
}

/// What the kernel says.
enum Answer {
    /// A socket (`struct inet_diag_msg`).
    Found { state: u8, cookie: Cookie },
    /// Whether it did what it was asked for.
    Code(Errno),
}

fn ask(socket: &Socket, request: &[u8]) -> Result<Answer, Error> {
    socket.send_to(request, &Netlink::new(0, 0), 0)?;
    let mut bytes: Vec<u8> = Vec::with_capacity(ANSWER);
    socket.recv(&mut bytes, 0)?;
    let received = message::split(&bytes).next().flatten().ok_or(Error::Malformed)?;
    if received.kind == Received::ERROR {
        let code = received.code().ok_or(Error::Malformed)?;
        return Ok(Answer::Code(Errno::from_raw(code.saturating_abs())));
    }
    let state = received.body.get(1).copied();
    let cookie = received.body.get(44..).and_then(|rest| rest.first_chunk().copied());
    let found = state.zip(cookie).map(|(state, cookie)| Answer::Found { state, cookie });
    found.ok_or(Error::Malformed)
}

/// Writes the request: a header, the family, TCP, any state, the two ends, and which socket.
fn request(
    kind: u16,
    flags: u16,
    (local, remote): (SocketAddr, SocketAddr),
    cookie: Cookie,
) -> Vec<u8> {
    let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let byte = |number: i32| u8::try_from(number).unwrap_or_default();
    [
        &REQUEST_LEN.to_ne_bytes()[..],
        &kind.to_ne_bytes(),
        &flags.to_ne_bytes(),
        // Sequence and port.
        &[0; 8],
        &[byte(family), byte(libc::IPPROTO_TCP), 0, 0],
        &u32::MAX.to_ne_bytes(),
        &local.port().to_be_bytes(),
        &remote.port().to_be_bytes(),
        &octets(local.ip()),
        &octets(remote.ip()),
        // Any interface.
        &[0; 4],
        &cookie,
    ]
    .concat()
}

/// Returns an address as four words, the first one IPv4's.
fn octets(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => {
            let [a, b, c, d] = addr.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(addr) => addr.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_as_long_as_it_says() {
        for (local, remote) in [("10.0.0.1:22", "10.0.0.2:4000"), ("[::1]:1", "[fd00::1]:2")] {
            let ends = (local.parse().unwrap(), remote.parse().unwrap());
            let bytes = request(DESTROY, 0, ends, ANY);
            assert_eq!(u32::try_from(bytes.len()).unwrap(), REQUEST_LEN);
            assert_eq!(bytes[17], 6);
        }
    }
}
