//! Somebody who knocks at a door all the time: datagrams and connections that should not pass.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use kernel::netns::Netns;
use socket2::{Domain, Socket, Type};

use super::echo::{PORT, mapped};
use crate::Error;
use crate::protocol::Knocks;

/// Time between two datagrams.
const INTERVAL: Duration = Duration::from_millis(2);
/// A new connection is tried once for so many datagrams.
const DATAGRAMS_PER_CONNECTION: u64 = 10;
/// How many connections are waited for at the same time.
const CONNECTIONS: usize = 32;
/// How long an answer may take at the end.
const GRACE: Duration = Duration::from_millis(200);

/// Who knocks.
#[derive(Debug)]
pub(super) struct Knocker {
    has_ended: Arc<AtomicBool>,
    thread: JoinHandle<Knocks>,
}

impl Knocker {
    /// Starts to knock at `target` from inside `netns`, which need not have an address yet.
    pub(super) fn start(netns: &Netns, target: IpAddr) -> Result<Self, Error> {
        let has_ended = Arc::new(AtomicBool::new(false));
        let (flag, netns) = (Arc::clone(&has_ended), Netns::open(netns.path())?);
        let thread = std::thread::spawn(move || {
            let knocks = netns.run(|| knock(SocketAddr::new(target, PORT), &flag));
            knocks.ok().and_then(Result::ok).unwrap_or_default()
        });
        Ok(Self { has_ended, thread })
    }

    /// Ends it and returns what came of it.
    pub(super) fn stop(self) -> Knocks {
        self.has_ended.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

fn knock(target: SocketAddr, has_ended: &AtomicBool) -> std::io::Result<Knocks> {
    let udp = UdpSocket::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))?;
    udp.set_read_timeout(Some(INTERVAL))?;
    let mut knocks = Knocks::default();
    let mut connections: Vec<Socket> = Vec::new();
    let mut turn: u64 = 0;
    while !has_ended.load(Ordering::Relaxed) {
        turn = turn.wrapping_add(1);
        // Without an address yet, nothing can be sent.
        if udp.send_to(b"question", mapped(target)).is_ok() {
            knocks.sent = knocks.sent.saturating_add(1);
        }
        if turn.is_multiple_of(DATAGRAMS_PER_CONNECTION) {
            open(target, &mut connections)?;
        }
        receive(&udp, &mut knocks);
        connections.retain(|socket| !is_open(socket, &mut knocks));
    }
    udp.set_read_timeout(Some(GRACE))?;
    receive(&udp, &mut knocks);
    connections.retain(|socket| !is_open(socket, &mut knocks));
    Ok(knocks)
}

/// Tries one more connection, and forgets the oldest.
fn open(target: SocketAddr, connections: &mut Vec<Socket>) -> std::io::Result<()> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // That it is under way is an error, too.
    drop(socket.connect(&target.into()));
    connections.push(socket);
    if connections.len() > CONNECTIONS {
        connections.remove(0);
    }
    Ok(())
}

fn receive(udp: &UdpSocket, knocks: &mut Knocks) {
    let mut buffer = [0; 64];
    loop {
        match udp.recv_from(&mut buffer) {
            Ok(_) => knocks.echoed = knocks.echoed.saturating_add(1),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return;
            }
            // What ICMP says is no answer.
            Err(_) => {}
        }
    }
}

/// Has the connection been opened? It is counted then.
fn is_open(socket: &Socket, knocks: &mut Knocks) -> bool {
    let is_open = socket.peer_addr().is_ok();
    knocks.connected = knocks.connected.saturating_add(u64::from(is_open));
    is_open
}
