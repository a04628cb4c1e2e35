//! WireGuard devices by generic netlink (the kernel's `linux/wireguard.h`).
//!
//! The device itself is a link like others ([`crate::Netlink::add_wireguard`]); its keys and
//! peers are told to it here. A private key goes in and never comes out: the kernel shows it
//! to whoever may ask, but what is read of it is wiped before anybody sees the answer.

mod codec;
mod plan;
mod transport;

pub use codec::read_any;
pub use plan::changes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use model::net::{Cidr, IfName};
pub use model::wireguard::PublicKey;
use nix::errno::Errno;
use zeroize::Zeroizing;

use crate::netns::{self, Netns};
use transport::Transport;

/// A WireGuard device as the kernel has it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Device {
    /// What peers know it by; `None` as long as it has no private key.
    pub public_key: Option<PublicKey>,
    /// The UDP port that it listens on.
    pub listen_port: u16,
    /// The mark of the packets that carry others; zero is none.
    pub mark: u32,
    /// Whom it talks to.
    pub peers: BTreeMap<PublicKey, Peer>,
}

/// A peer as the kernel has it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Peer {
    /// Where it was heard last, or is said to be.
    pub peer_addr: Option<SocketAddr>,
    /// How often something is sent when there is nothing to send; zero is never.
    pub keepalive: Duration,
    /// The addresses that it may send from and is sent packets for.
    pub allowed: BTreeSet<Cidr>,
    /// When the last handshake with it was, since 1970; `None` is never.
    pub last_handshake: Option<Duration>,
    /// Bytes received from it.
    pub received: u64,
    /// Bytes sent to it.
    pub sent: u64,
}

/// What a peer should be like.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerSpec {
    /// Where it is. One that moves is followed by WireGuard itself.
    pub peer_addr: SocketAddr,
    /// How often something is sent when there is nothing to send, in whole seconds; zero is never.
    pub keepalive: Duration,
    /// The addresses that it may send from and is sent packets for; nobody else's, too.
    pub allowed: BTreeSet<Cidr>,
}

/// A change of one peer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PeerChange {
    /// Makes the peer if it is not there, and changes what is named.
    Update {
        /// Which one.
        key: PublicKey,
        /// Where it is.
        peer_addr: Option<SocketAddr>,
        /// How often something is sent when there is nothing to send.
        keepalive: Option<Duration>,
        /// Addresses that are its from now on; taken from whoever had them.
        allow: BTreeSet<Cidr>,
    },
    /// Forgets the peer, with its addresses.
    Remove(PublicKey),
}

/// What is to become of a device, apart from its peers; what is `None` stays.
#[derive(Debug, Default)]
pub struct Settings {
    /// A new private key: sessions begin anew, what comes by old ones is still taken.
    pub private_key: Option<PrivateKey>,
    /// The UDP port to listen on.
    pub listen_port: Option<u16>,
    /// The mark of the packets that carry others.
    pub mark: Option<u32>,
}

/// A private key: never shown, and wiped from memory when it is dropped.
pub struct PrivateKey(Zeroizing<[u8; 32]>);

impl PrivateKey {
    /// Makes a key of 32 bytes that nobody can guess; the kernel fits them to the curve.
    #[must_use]
    pub fn of_random(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}

/// Why a device could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket cannot be made.
    #[error("cannot open a generic netlink socket: {source}; run as root with CAP_NET_ADMIN")]
    Open {
        /// The kernel's answer.
        source: io::Error,
    },
    /// The namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] netns::Error),
    /// The kernel has no WireGuard.
    #[error(
        "this kernel knows no WireGuard: load the module `wireguard`, or use Linux 5.6 or newer"
    )]
    Unsupported,
    /// The socket failed under a request.
    #[error("the generic netlink socket failed: {source}")]
    Socket {
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel would not do it.
    #[error("cannot {action} WireGuard device {device}: {errno}")]
    Refused {
        /// What was asked for.
        action: &'static str,
        /// Which device.
        device: IfName,
        /// The kernel's number for the reason.
        errno: Errno,
    },
    /// A message of the kernel's makes no sense to us.
    #[error("the kernel's answer about WireGuard cannot be read")]
    Malformed,
}

impl Error {
    /// Is it that there is no such device?
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { errno: Errno::ENODEV, .. })
    }
}

/// A socket for the WireGuard devices of one network namespace.
#[derive(Debug)]
pub struct Wireguard(Transport);

impl Wireguard {
    /// Opens a socket in the namespace of the calling thread; the kernel loads the module.
    ///
    /// # Errors
    ///
    /// [`Error::Open`], or [`Error::Unsupported`].
    pub fn open() -> Result<Self, Error> {
        Transport::open().map(Self)
    }

    /// Opens a socket in `netns`.
    ///
    /// # Errors
    ///
    /// As for [`Wireguard::open`], and [`Error::Netns`].
    pub fn open_in(netns: &Netns) -> Result<Self, Error> {
        netns.run(Self::open)?
    }

    /// Reads a device with all its peers.
    ///
    /// # Errors
    ///
    /// [`Error`]; [`Error::is_missing`] if there is no such device.
    pub fn device(&mut self, name: &IfName) -> Result<Device, Error> {
        let mut device = Device::default();
        self.0.dump(name, |body| codec::read(body, &mut device))?;
        Ok(device)
    }

    /// Changes what a device is, apart from its peers.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kernel refuses.
    pub fn set(&mut self, name: &IfName, settings: &Settings) -> Result<(), Error> {
        let body = codec::settings(name, settings);
        self.0.request("set up", name, &body)
    }

    /// Changes peers, in their order; what is not named stays as it is.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kernel refuses; part of the changes may have been made.
    pub fn change_peers(&mut self, name: &IfName, changes: &[PeerChange]) -> Result<(), Error> {
        let bodies = codec::peers(name, changes);
        bodies.iter().try_for_each(|body| self.0.request("change peers of", name, body))
    }
}
