//! TCP sockets as BGP wants them: bound, limited to near peers, signed
//! (RFC 4271 §8.2.1, RFC 5082, RFC 2385).

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use model::net::{Cidr, zone};
use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// How many connections may wait to be accepted: a restart of all peers at once.
const BACKLOG: i32 = 1024;

/// How to connect to a peer, or how a peer must have connected to us.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The address to connect from; `None` leaves it to the kernel.
    pub local_addr: Option<IpAddr>,
    /// The TTL (hop limit) of the packets that we send; `None` is the kernel's default.
    pub ttl: Option<u8>,
    /// The least TTL of packets that we take: 255 takes only neighbours' (RFC 5082 §3).
    pub min_ttl: Option<u8>,
    /// The key that signs every segment (RFC 2385).
    pub md5_key: Option<Md5Key>,
}

/// The key that signs a session's segments; never shown.
#[derive(Clone, Eq, PartialEq)]
pub struct Md5Key(Vec<u8>);

/// A key of the wrong length.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a TCP MD5 key has 1 to {} bytes, this one {len}", Md5Key::MAX_LEN)]
pub struct InvalidMd5Key {
    /// The length that was given.
    pub len: usize,
}

impl Md5Key {
    /// The most bytes that Linux takes (`TCP_MD5SIG_MAXKEYLEN`).
    pub const MAX_LEN: usize = 80;

    /// Takes a key.
    ///
    /// # Errors
    ///
    /// [`InvalidMd5Key`] if it is empty or longer than [`Md5Key::MAX_LEN`].
    pub fn new(bytes: Vec<u8>) -> Result<Self, InvalidMd5Key> {
        let len = bytes.len();
        if len == 0 || len > Self::MAX_LEN { Err(InvalidMd5Key { len }) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Debug for Md5Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Md5Key(…)")
    }
}

/// Why a socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A socket cannot be made, or does not take an option.
    #[error("cannot set up a TCP socket for {addr}: {step}: {source}")]
    Setup {
        /// The address that it was for.
        addr: SocketAddr,
        /// Which option it was.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The local address cannot be had.
    #[error(
        "cannot bind TCP socket to {addr}: {source}; free the port, or give the address to a link"
    )]
    Bind {
        /// The local address.
        addr: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The peer does not answer, or refuses.
    #[error("cannot connect to {addr}: {source}")]
    Connect {
        /// The peer.
        addr: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error {
    /// May the same call succeed later, with nothing changed by us?
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Bind { .. } => true,
            Self::Setup { source, .. } => {
                matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
            }
        }
    }
}

/// Listens on `addr`; an IPv6 address is for IPv6 only, so both families can have
/// a listener on the same port, and a restart need not wait for old connections.
///
/// # Errors
///
/// [`Error::Bind`] if the address or port is taken; [`Error::Setup`].
pub fn listen(addr: SocketAddr) -> Result<TcpListener, Error> {
    let setup = |step| move |source| Error::Setup { addr, step, source };
    let socket = open(addr)?;
    socket.set_reuse_address(true).map_err(setup("SO_REUSEADDR"))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true).map_err(setup("IPV6_V6ONLY"))?;
    }
    // A peer that takes only neighbours' packets must take our answer to its first one,
    // which is sent before we know which peer it is.
    set_ttl(&socket, addr, &Options { ttl: Some(u8::MAX), ..Options::default() })?;
    socket.bind(&addr.into()).map_err(|source| Error::Bind { addr, source })?;
    socket.listen(BACKLOG).map_err(|source| Error::Bind { addr, source })?;
    TcpListener::from_std(socket.into()).map_err(setup("registering it with the runtime"))
}

/// Sets the key that connections from `peers` to `listener` must be signed with;
/// `None` takes it away. Of two ranges with a key the longer one counts.
///
/// # Errors
///
/// [`Error::Setup`] if the kernel has no TCP MD5 signatures.
pub fn set_listener_key(
    listener: &TcpListener,
    peers: Cidr,
    key: Option<&Md5Key>,
) -> Result<(), Error> {
    set_md5_key(listener, peers, key).map_err(|source| Error::Setup {
        addr: SocketAddr::new(peers.addr(), 0),
        step: "TCP_MD5SIG_EXT",
        source,
    })
}

/// Connects to `peer`; waiting is the caller's to limit.
///
/// # Errors
///
/// [`Error::Connect`], [`Error::Bind`] or [`Error::Setup`].
pub async fn connect(peer: SocketAddr, options: &Options) -> Result<TcpStream, Error> {
    let peer = zone::to_socket(peer);
    let setup = |step| move |source| Error::Setup { addr: peer, step, source };
    let socket = open(peer)?;
    if let Some(key) = &options.md5_key {
        set_md5_key(&socket, Cidr::host(peer.ip()), Some(key)).map_err(setup("TCP_MD5SIG_EXT"))?;
    }
    set_ttl(&socket, peer, options)?;
    if let Some(local) = options.local_addr {
        let addr = SocketAddr::new(local, 0);
        socket.bind(&addr.into()).map_err(|source| Error::Bind { addr, source })?;
    }
    let stream = TcpSocket::from_std_stream(socket.into())
        .connect(peer)
        .await
        .map_err(|source| Error::Connect { addr: peer, source })?;
    stream.set_nodelay(true).map_err(setup("TCP_NODELAY"))?;
    Ok(stream)
}

/// Sets up a connection that a peer has made to us.
///
/// # Errors
///
/// [`Error::Setup`] if the kernel refuses an option.
pub fn accepted(stream: &TcpStream, peer: SocketAddr, options: &Options) -> Result<(), Error> {
    stream.set_nodelay(true).map_err(|source| Error::Setup {
        addr: peer,
        step: "TCP_NODELAY",
        source,
    })?;
    set_ttl(stream, peer, options)
}

fn open(addr: SocketAddr) -> Result<Socket, Error> {
    let setup = |step| move |source| Error::Setup { addr, step, source };
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))
        .map_err(setup("socket"))?;
    socket.set_nonblocking(true).map_err(setup("O_NONBLOCK"))?;
    Ok(socket)
}

fn set_ttl(socket: &impl AsRawFd, peer: SocketAddr, options: &Options) -> Result<(), Error> {
    let (level, ttl, min_ttl) = if peer.is_ipv4() {
        (libc::IPPROTO_IP, libc::IP_TTL, libc::IP_MINTTL)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, libc::IPV6_MINHOPCOUNT)
    };
    for (name, step, value) in [(ttl, "TTL", options.ttl), (min_ttl, "least TTL", options.min_ttl)]
    {
        let Some(value) = value else { continue };
        set_option(socket, (level, name), &i32::from(value)).map_err(|source| Error::Setup {
            addr: peer,
            step,
            source,
        })?;
    }
    Ok(())
}

/// The key is for a range of addresses (`TCP_MD5SIG_FLAG_PREFIX` of linux/tcp.h).
const MD5_FLAG_PREFIX: u8 = 1;

/// `struct tcp_md5sig` of linux/tcp.h.
#[repr(C, align(8))]
struct TcpMd5Sig {
    addr: [u8; 128],
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    if_index: i32,
    key: [u8; Md5Key::MAX_LEN],
}

fn set_md5_key(socket: &impl AsRawFd, peers: Cidr, key: Option<&Md5Key>) -> io::Result<()> {
    let bytes = key.map_or(&[][..], |key| &key.0);
    let mut padded = [0; Md5Key::MAX_LEN];
    for (to, from) in padded.iter_mut().zip(bytes) {
        *to = *from;
    }
    let option = TcpMd5Sig {
        addr: sockaddr(peers.addr()),
        flags: MD5_FLAG_PREFIX,
        prefix_len: peers.prefix_len(),
        key_len: u16::try_from(bytes.len()).unwrap_or_default(),
        if_index: 0,
        key: padded,
    };
    set_option(socket, (libc::IPPROTO_TCP, libc::TCP_MD5SIG_EXT), &option)
}

/// Lays `addr` out as a `struct sockaddr_storage` with port zero.
fn sockaddr(addr: IpAddr) -> [u8; 128] {
    let (family, skipped, octets) = match addr {
        IpAddr::V4(addr) => (libc::AF_INET, 2, addr.octets().to_vec()),
        // The port, and the flow information.
        IpAddr::V6(addr) => (libc::AF_INET6, 6, addr.octets().to_vec()),
    };
    let family = u16::try_from(family).unwrap_or_default().to_ne_bytes();
    let bytes = family.into_iter().chain(std::iter::repeat_n(0, skipped)).chain(octets);
    let mut storage = [0; 128];
    for (to, from) in storage.iter_mut().zip(bytes) {
        *to = from;
    }
    storage
}

/// Sets one socket option to a plain value (setsockopt(2)).
#[expect(unsafe_code, reason = "nix and socket2 know neither the least TTL nor MD5 keys")]
pub(crate) fn set_option<T>(
    socket: &impl AsRawFd,
    (level, name): (i32, i32),
    value: &T,
) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: `value` is valid for reads of `len` bytes for the length of the call,
    // and the kernel only reads them. All callers pass an i32 or a `repr(C)` struct.
    let code = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), len)
    };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
