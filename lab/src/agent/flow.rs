//! A continuous flow from one pod to another, and the ledger of what it lost.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kernel::netns::Netns;

use super::echo::{PORT, mapped};
use crate::Error;
use crate::protocol::Ledger;

/// Time between two datagrams.
const INTERVAL: Duration = Duration::from_millis(10);
/// How long an echo may take at the end before it counts as lost.
const GRACE: Duration = Duration::from_millis(500);
/// How long a TCP echo may take before the connection counts as broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a TCP connection has seen.
#[derive(Debug)]
struct Stream {
    echoes: u64,
    last_echo: Instant,
    error: Option<String>,
}

/// A running flow.
#[derive(Debug)]
pub(super) struct Flow {
    has_ended: Arc<AtomicBool>,
    udp: JoinHandle<Ledger>,
    tcp: JoinHandle<Stream>,
}

impl Flow {
    /// Starts to talk to `target` from inside `netns`.
    pub(super) fn start(netns: &Netns, target: IpAddr) -> Result<Self, Error> {
        let target = SocketAddr::new(target, PORT);
        let open = || -> std::io::Result<_> {
            let udp = UdpSocket::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))?;
            udp.connect(mapped(target))?;
            udp.set_read_timeout(Some(INTERVAL))?;
            let tcp = TcpStream::connect_timeout(&target, PATIENCE)?;
            tcp.set_nodelay(true)?;
            tcp.set_read_timeout(Some(PATIENCE))?;
            Ok((udp, tcp))
        };
        let opened = netns.run(open)?;
        let (udp, tcp) =
            opened.map_err(|error| Error::program("flow", format!("to {target}: {error}")))?;
        let has_ended = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&has_ended);
        let udp = std::thread::spawn(move || datagrams(&udp, &flag));
        let flag = Arc::clone(&has_ended);
        let tcp = std::thread::spawn(move || stream(tcp, &flag));
        Ok(Self { has_ended, udp, tcp })
    }

    /// Ends the flow and returns what it saw.
    pub(super) fn stop(self) -> Ledger {
        self.has_ended.store(true, Ordering::Relaxed);
        let mut ledger = self.udp.join().unwrap_or_default();
        match self.tcp.join() {
            Ok(stream) => {
                ledger.tcp_echoes = stream.echoes;
                ledger.tcp_silent_ms = millis_since(stream.last_echo);
                ledger.tcp_error = stream.error;
            }
            Err(_) => ledger.tcp_error = Some("the flow panicked".to_owned()),
        }
        ledger
    }
}

fn datagrams(socket: &UdpSocket, has_ended: &AtomicBool) -> Ledger {
    let mut ledger = Ledger::default();
    let mut waiting = BTreeSet::new();
    let mut last_echo = Instant::now();
    let mut next = Instant::now();
    let mut buffer = [0; 64];
    let mut ended_at = None;
    loop {
        let now = Instant::now();
        if ended_at.is_none() && has_ended.load(Ordering::Relaxed) {
            ended_at = Some(now);
            ledger.silent_ms = millis_since(last_echo);
        }
        if ended_at.is_some_and(|at| waiting.is_empty() || now.duration_since(at) > GRACE) {
            return ledger;
        }
        if ended_at.is_none() && now >= next {
            ledger.sent = ledger.sent.saturating_add(1);
            waiting.insert(ledger.sent);
            // A datagram that cannot be sent is lost, and counted so.
            drop(socket.send(&ledger.sent.to_be_bytes()));
            next = now.checked_add(INTERVAL).unwrap_or(now);
        }
        let Ok(len) = socket.recv(&mut buffer) else { continue };
        let number = buffer.get(..len.min(8)).and_then(|bytes| bytes.try_into().ok());
        if number.is_some_and(|bytes| waiting.remove(&u64::from_be_bytes(bytes))) {
            ledger.received = ledger.received.saturating_add(1);
            ledger.longest_gap_ms = ledger.longest_gap_ms.max(millis_since(last_echo));
            last_echo = Instant::now();
        }
    }
}

fn stream(mut stream: TcpStream, has_ended: &AtomicBool) -> Stream {
    let mut seen = Stream { echoes: 0, last_echo: Instant::now(), error: None };
    let mut buffer = [0; 64];
    while !has_ended.load(Ordering::Relaxed) {
        let number = seen.echoes.to_be_bytes();
        match stream.write_all(&number).and_then(|()| stream.read(&mut buffer)) {
            Ok(0) => {
                seen.error = Some("closed by the other side".to_owned());
                return seen;
            }
            Ok(_) => {
                seen.echoes = seen.echoes.saturating_add(1);
                seen.last_echo = Instant::now();
            }
            Err(error) => {
                seen.error = Some(error.to_string());
                return seen;
            }
        }
        std::thread::sleep(INTERVAL);
    }
    seen
}

fn millis_since(instant: Instant) -> u64 {
    u64::try_from(instant.elapsed().as_millis()).unwrap_or(u64::MAX)
}
