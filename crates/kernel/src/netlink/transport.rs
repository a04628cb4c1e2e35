//! Requests and answers over one netlink socket (netlink(7)).
//!
//! `netlink-proto` hides two things that we need: the flag on a dump's last
//! message that says it was interrupted, and sending many requests at once. So
//! its message types are used here, but not its connection.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};

use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, SocketAddr, TokioSocket};
use nix::errno::Errno;
use tokio::sync::Mutex;

use super::Error;

/// How many bytes of requests go out in one system call: well under the
/// kernel's default send buffer of 208 KiB, whose accounting counts double.
const BATCH_BYTES: usize = 60_000;

/// `NLM_F_DUMP_INTR`: the table changed while it was read.
const DUMP_INTERRUPTED: u16 = 0x10;
/// `NLM_F_ACK_TLVS`: the kernel's own words follow.
const HAS_WORDS: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`: the attribute that holds them.
const WORDS: u16 = 1;
const HEADER_LEN: usize = 16;

/// A request and the `NLM_F_…` flags that it needs besides `REQUEST` and `ACK`.
pub(super) type Request = (RouteNetlinkMessage, u16);

/// Why the kernel refused a request: its number and its words.
#[derive(Debug)]
pub(super) struct Reason {
    pub(super) errno: Errno,
    pub(super) detail: Option<String>,
}

/// What came of a request.
#[derive(Debug)]
pub(super) enum Failure {
    /// The kernel refused.
    Refused(Reason),
    /// The socket failed, or what came from it is no netlink message.
    Broken(Error),
    /// The dump was interrupted by a change.
    Interrupted,
}

#[derive(Debug)]
pub(super) struct Transport(Mutex<Channel>);

struct Channel {
    socket: TokioSocket,
    sequence: u32,
    /// Is an earlier request unfinished because its caller went away?
    is_dirty: bool,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl Transport {
    pub(super) fn open() -> Result<Self, Error> {
        tokio::runtime::Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let open = || -> io::Result<TokioSocket> {
            let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
            let inner = socket.socket_mut();
            inner.bind_auto()?;
            // Without the strict check the kernel ignores filters silently.
            inner.set_netlink_get_strict_chk(true)?;
            inner.set_ext_ack(true)?;
            inner.set_cap_ack(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|source| Error::Open { source })?;
        Ok(Self(Mutex::new(Channel { socket, sequence: 0, is_dirty: false })))
    }

    /// Asks something that the kernel answers by ioctl(2), in the namespace of the socket.
    pub(super) async fn control<T>(&self, ask: impl FnOnce(RawFd) -> T) -> T {
        let channel = self.0.lock().await;
        ask(channel.socket.as_raw_fd())
    }

    /// Sends one request and returns the object that answers it, if any.
    pub(super) async fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Option<RouteNetlinkMessage>, Failure> {
        let mut channel = self.0.lock().await;
        let sequence = channel.start(message, flags | NLM_F_ACK).await?;
        let mut found = None;
        loop {
            for (header, payload) in channel.receive().await? {
                if header.sequence_number != sequence {
                    continue;
                }
                match payload {
                    NetlinkPayload::InnerMessage(message) => found = Some(message),
                    NetlinkPayload::Error(error) => {
                        channel.is_dirty = false;
                        return match reason(&header, &error) {
                            Some(reason) => Err(Failure::Refused(reason)),
                            None => Ok(found),
                        };
                    }
                    _ => {}
                }
            }
        }
    }

    /// Reads a table once; the caller repeats it when it was interrupted.
    pub(super) async fn dump_once(
        &self,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, Failure> {
        let mut channel = self.0.lock().await;
        let sequence = channel.start(message, NLM_F_DUMP).await?;
        let mut found = Vec::new();
        let mut is_interrupted = false;
        loop {
            for (header, payload) in channel.receive().await? {
                if header.sequence_number != sequence {
                    continue;
                }
                is_interrupted |= header.flags & DUMP_INTERRUPTED != 0;
                match payload {
                    NetlinkPayload::InnerMessage(message) => found.push(message),
                    NetlinkPayload::Error(error) => {
                        channel.is_dirty = false;
                        if let Some(reason) = reason(&header, &error) {
                            return Err(Failure::Refused(reason));
                        }
                    }
                    NetlinkPayload::Done(done) => {
                        channel.is_dirty = false;
                        return match errno_of(done.code) {
                            Some(errno) => Err(Failure::Refused(Reason { errno, detail: None })),
                            None if is_interrupted => Err(Failure::Interrupted),
                            None => Ok(found),
                        };
                    }
                    _ => {}
                }
            }
        }
    }

    /// Sends many requests in few system calls and returns the reason of each that
    /// was refused, by its place in `requests`.
    ///
    /// Only the last of each system call asks for an acknowledgement: the kernel
    /// works in order, so it means that the others are done, and 10,000 answers
    /// would not fit the receive buffer.
    pub(super) async fn batch(
        &self,
        requests: Vec<Request>,
    ) -> Result<BTreeMap<usize, Reason>, Failure> {
        let mut channel = self.0.lock().await;
        channel.settle()?;
        let mut refused = BTreeMap::new();
        let mut queue = requests.into_iter().enumerate().peekable();
        while queue.peek().is_some() {
            let mut bytes = Vec::with_capacity(BATCH_BYTES);
            let mut places = BTreeMap::new();
            let mut last = 0;
            while let Some((place, (message, flags))) = queue.next() {
                let sequence = channel.next_sequence();
                let is_last = queue.peek().is_none() || bytes.len() >= BATCH_BYTES;
                let ack = if is_last { NLM_F_ACK } else { 0 };
                append(&mut bytes, sequence, (message, flags | ack));
                places.insert(sequence, place);
                last = sequence;
                if is_last {
                    break;
                }
            }
            channel.is_dirty = true;
            channel.send(&bytes).await?;
            channel.collect(&places, last, &mut refused).await?;
            channel.is_dirty = false;
            // Other tasks get their turn between system calls.
            tokio::task::yield_now().await;
        }
        Ok(refused)
    }
}

type Received = (NetlinkHeader, NetlinkPayload<RouteNetlinkMessage>);

impl Channel {
    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.sequence
    }

    /// Sends one request and returns its sequence number.
    async fn start(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<u32, Failure> {
        self.settle()?;
        let sequence = self.next_sequence();
        let mut bytes = Vec::new();
        append(&mut bytes, sequence, (message, flags));
        self.is_dirty = true;
        self.send(&bytes).await?;
        Ok(sequence)
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let kernel = SocketAddr::new(0, 0);
        poll_fn(|context| self.socket.poll_send_to(context, bytes, &kernel))
            .await
            .map(drop)
            .map_err(broken)
    }

    async fn receive(&mut self) -> Result<Vec<Received>, Failure> {
        let (bytes, _) =
            poll_fn(|context| self.socket.poll_recv_from_full(context)).await.map_err(broken)?;
        decode(&bytes)
    }

    /// Reads the acknowledgement of `last`, and the refusals before it.
    async fn collect(
        &mut self,
        places: &BTreeMap<u32, usize>,
        last: u32,
        refused: &mut BTreeMap<usize, Reason>,
    ) -> Result<(), Failure> {
        loop {
            for (header, payload) in self.receive().await? {
                let NetlinkPayload::Error(error) = payload else { continue };
                let Some(place) = places.get(&header.sequence_number) else { continue };
                if let Some(reason) = reason(&header, &error) {
                    refused.insert(*place, reason);
                }
                if header.sequence_number == last {
                    return Ok(());
                }
            }
        }
    }

    /// Throws away the answers to a request whose caller went away: the kernel
    /// refuses a dump (EBUSY) while an earlier one is unread.
    fn settle(&mut self) -> Result<(), Failure> {
        // The kernel answers within the send call, so what is there is there now.
        while self.is_dirty {
            match self.socket.socket_ref().recv_from_full() {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_dirty = false,
                Err(error) => return Err(broken(error)),
            }
        }
        Ok(())
    }
}

fn broken(source: io::Error) -> Failure {
    Failure::Broken(Error::Socket { source })
}

/// Puts a request behind those in `bytes`, at netlink's alignment of four.
fn append(bytes: &mut Vec<u8>, sequence: u32, (message, flags): Request) {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let start = bytes.len();
    let end = start.saturating_add(message.buffer_len());
    bytes.resize(end, 0);
    if let Some(place) = bytes.get_mut(start..end) {
        message.serialize(place);
    }
    bytes.resize(end.next_multiple_of(4), 0);
}

/// Splits what one system call returned into messages.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Received>, Failure> {
    let malformed = |problem: String| {
        Failure::Broken(Error::Malformed { table: "this network namespace", problem })
    };
    let mut found = Vec::new();
    let mut rest = bytes;
    while rest.len() >= HEADER_LEN {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
            .map_err(|error| malformed(error.to_string()))?;
        let len = usize::try_from(message.header.length).unwrap_or(usize::MAX);
        if len < HEADER_LEN {
            return Err(malformed(format!("a message of {len} bytes")));
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        found.push(message.into_parts());
    }
    Ok(found)
}

/// Returns why an answer is a refusal; `None` if it is an acknowledgement.
fn reason(header: &NetlinkHeader, error: &ErrorMessage) -> Option<Reason> {
    let errno = errno_of(error.raw_code())?;
    let has_words = header.flags & HAS_WORDS != 0;
    let detail = has_words.then(|| words(error.header.get(HEADER_LEN..)?)).flatten();
    Some(Reason { errno, detail })
}

fn errno_of(code: i32) -> Option<Errno> {
    (code != 0).then(|| Errno::from_raw(code.saturating_abs()))
}

/// Finds the kernel's own words among the attributes of its answer.
fn words(mut attributes: &[u8]) -> Option<String> {
    loop {
        let [len_low, len_high, kind_low, kind_high, ..] = *attributes else { return None };
        let len = usize::from(u16::from_ne_bytes([len_low, len_high]));
        if u16::from_ne_bytes([kind_low, kind_high]) == WORDS {
            let text = String::from_utf8_lossy(attributes.get(4..len)?);
            return Some(text.trim_end_matches('\0').to_owned());
        }
        if len < 4 {
            return None;
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
}
