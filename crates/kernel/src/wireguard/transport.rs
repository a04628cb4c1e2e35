//! Requests and answers over a generic netlink socket (the kernel's `linux/genetlink.h`).

use std::io;

use model::net::IfName;
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use zeroize::Zeroizing;

use super::Error;
use crate::nftables::attr::{Reader, Writer};
use crate::nftables::message::{self, Received};

/// `GENL_ID_CTRL`, and of its protocol `CTRL_CMD_GETFAMILY` and `CTRL_ATTR_…`.
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `WG_CMD_…`.
const GET_DEVICE: u8 = 0;
const SET_DEVICE: u8 = 1;
/// Of both families.
const VERSION: u8 = 1;
/// The most that the kernel puts into one answer of a list.
const ANSWER: usize = 1 << 16;

pub(super) struct Transport {
    socket: Socket,
    family: u16,
    sequence: u32,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").field("family", &self.family).finish_non_exhaustive()
    }
}

impl Transport {
    pub(super) fn open() -> Result<Self, Error> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_GENERIC)?;
            socket.bind_auto()?;
            Ok(socket)
        };
        let socket = open().map_err(|source| Error::Open { source })?;
        let mut this = Self { socket, family: 0, sequence: 0 };
        this.family = this.look_up()?;
        Ok(this)
    }

    /// Asks which number the kernel gave to WireGuard's messages.
    fn look_up(&mut self) -> Result<u16, Error> {
        let mut question = Writer::default();
        question.text(FAMILY_NAME, "wireguard");
        let question = question.into_bytes();
        self.send((CONTROL, GET_FAMILY), message::REQUEST | message::ACK, &question)?;
        let mut family = None;
        let errno = self.answers(|body| {
            let found = Reader(body).find(FAMILY_ID).and_then(|bytes| bytes.try_into().ok());
            family = family.or(found.map(u16::from_ne_bytes));
        })?;
        match (errno, family) {
            (None, Some(family)) => Ok(family),
            (Some(Errno::ENOENT), _) => Err(Error::Unsupported),
            (Some(errno), _) => Err(Error::Socket { source: errno.into() }),
            (None, None) => Err(Error::Malformed),
        }
    }

    /// Gives every message of a device's description to `each`.
    pub(super) fn dump(&mut self, device: &IfName, each: impl FnMut(&[u8])) -> Result<(), Error> {
        let mut question = Writer::default();
        // `WGDEVICE_A_IFNAME`.
        question.text(2, device.as_str());
        let question = question.into_bytes();
        self.send((self.family, GET_DEVICE), message::REQUEST | message::DUMP, &question)?;
        let errno = self.answers(each)?;
        done("read", device, errno)
    }

    /// Sends a change, and waits until it is made.
    pub(super) fn request(
        &mut self,
        action: &'static str,
        device: &IfName,
        body: &[u8],
    ) -> Result<(), Error> {
        self.send((self.family, SET_DEVICE), message::REQUEST | message::ACK, body)?;
        let errno = self.answers(|_| ())?;
        done(action, device, errno)
    }

    fn send(&mut self, (family, command): (u16, u8), flags: u16, body: &[u8]) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let len = body.len().saturating_add(20);
        // A change may hold a key.
        let mut bytes = Zeroizing::new(Vec::with_capacity(len));
        bytes.extend(u32::try_from(len).unwrap_or(u32::MAX).to_ne_bytes());
        bytes.extend(family.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(self.sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend([command, VERSION, 0, 0]);
        bytes.extend_from_slice(body);
        let sent = self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0);
        sent.map(drop).map_err(|source| Error::Socket { source })
    }

    /// Reads all answers to the last request, and returns the kernel's reason if it refused.
    fn answers(&self, mut each: impl FnMut(&[u8])) -> Result<Option<Errno>, Error> {
        // The description of a device holds its private key.
        let mut bytes = Zeroizing::new(Vec::with_capacity(ANSWER));
        loop {
            bytes.clear();
            let received = self.socket.recv(&mut *bytes, 0);
            received.map_err(|source| Error::Socket { source })?;
            for received in message::split(&bytes) {
                let received = received.ok_or(Error::Malformed)?;
                if received.sequence != self.sequence {
                    continue;
                }
                if !matches!(received.kind, Received::ERROR | Received::DONE) {
                    // Behind the header that all generic messages have.
                    each(received.body.get(4..).unwrap_or_default());
                    continue;
                }
                let code = received.code().ok_or(Error::Malformed)?;
                return Ok((code != 0).then(|| Errno::from_raw(code.saturating_abs())));
            }
        }
    }
}

fn done(action: &'static str, device: &IfName, errno: Option<Errno>) -> Result<(), Error> {
    match errno {
        None => Ok(()),
        Some(Errno::EOPNOTSUPP) => Err(Error::Unsupported),
        Some(errno) => Err(Error::Refused { action, device: device.clone(), errno }),
    }
}
