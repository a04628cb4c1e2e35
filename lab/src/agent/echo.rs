//! Pods that answer, and questions to them: TCP and UDP echo with the sender's address.
//!
//! A server answers with the address it saw the question come from, so that a probe
//! notices a translated source. Sockets stay in the namespace they were opened in:
//! no process has to live in a pod.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kernel::echo::Question;
use kernel::netns::Netns;

use crate::Error;

/// The port that pods answer on.
pub(super) const PORT: u16 = 7;
/// How often a server looks whether it should end.
const TICK: Duration = Duration::from_millis(200);

/// A pod's echo server; dropping it ends it.
#[derive(Debug)]
pub(super) struct Server {
    has_ended: Arc<AtomicBool>,
    port: SocketAddr,
    netns: Netns,
}

impl Server {
    /// Starts to answer on a port in a namespace, on both families.
    pub(super) fn start(netns: &Netns, port: u16) -> Result<Self, Error> {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let open = || Ok((TcpListener::bind(any)?, UdpSocket::bind(any)?));
        let (tcp, udp) = netns.run(open)?.map_err(|error: std::io::Error| {
            Error::program("echo server", format!("{}: {error}", netns.path().display()))
        })?;
        udp.set_read_timeout(Some(TICK)).map_err(Error::file(netns.path()))?;
        let has_ended = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&has_ended);
        std::thread::spawn(move || serve_udp(&udp, &flag));
        let flag = Arc::clone(&has_ended);
        std::thread::spawn(move || serve_tcp(&tcp, &flag));
        let port = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        Ok(Self { has_ended, port, netns: Netns::open(netns.path())? })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::Relaxed);
        // Wakes the server that waits for a connection.
        let wake = || TcpStream::connect_timeout(&self.port, TICK).map(drop);
        drop(self.netns.run(wake));
    }
}

fn serve_udp(socket: &UdpSocket, has_ended: &AtomicBool) {
    let mut buffer = [0; 64];
    while !has_ended.load(Ordering::Relaxed) {
        let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
        let mut answer = buffer.get(..len.min(8)).unwrap_or_default().to_vec();
        answer.extend(from.ip().to_canonical().to_string().bytes());
        // What cannot be sent is lost, as datagrams are.
        drop(socket.send_to(&answer, from));
    }
}

fn serve_tcp(listener: &TcpListener, has_ended: &AtomicBool) {
    for stream in listener.incoming() {
        if has_ended.load(Ordering::Relaxed) {
            return;
        }
        let Ok(mut stream) = stream else { continue };
        std::thread::spawn(move || {
            let Ok(from) = stream.peer_addr() else { return };
            let from = from.ip().to_canonical().to_string();
            let mut buffer = [0; 64];
            drop(stream.set_nodelay(true));
            while let Ok(len @ 1..) = stream.read(&mut buffer) {
                let mut answer = buffer.get(..len.min(8)).unwrap_or_default().to_vec();
                answer.extend(from.bytes());
                if stream.write_all(&answer).is_err() {
                    return;
                }
            }
        });
    }
}

/// Who answered, and how.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) ping: Vec<IpAddr>,
    pub(super) tcp: Vec<IpAddr>,
    pub(super) udp: Vec<IpAddr>,
}

/// Asks all targets from the namespace of this thread.
pub(super) fn probe(targets: &[IpAddr], within: Duration) -> Result<Answers, Error> {
    let failed = |error| Error::program("probe", error);
    let own: Vec<IpAddr> = own_addrs()?;
    let udp = probe_udp(targets, &own, within).map_err(failed)?;
    // Whom no datagram reaches no connection will; waiting for each would take minutes.
    let reached = &udp;
    let tcp = std::thread::scope(|scope| {
        let probes: Vec<_> = reached
            .chunks(reached.len().div_ceil(4).max(1))
            .map(|some| {
                let own = &own;
                scope.spawn(move || -> Vec<IpAddr> {
                    let answers = |target: &&IpAddr| probe_tcp(**target, own, within);
                    some.iter().filter(answers).copied().collect()
                })
            })
            .collect();
        probes.into_iter().flat_map(|probe| probe.join().unwrap_or_default()).collect()
    });
    let questions: Vec<_> = reached.iter().map(|addr| Question { to: *addr, len: 0 }).collect();
    let ping = kernel::echo::ask(&questions, within).map_err(failed)?;
    let ping = ping.into_iter().map(|question| question.to).collect();
    Ok(Answers { ping, tcp, udp })
}

fn probe_tcp(target: IpAddr, own: &[IpAddr], within: Duration) -> bool {
    let talk = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(target, PORT), within)?;
        stream.set_read_timeout(Some(within))?;
        stream.set_nodelay(true)?;
        stream.write_all(b"question")?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(is_seen_as(&answer, target, own))
    };
    talk().unwrap_or_default()
}

/// Sends to all, again to those who have not answered, until all have or the time is over.
fn probe_udp(targets: &[IpAddr], own: &[IpAddr], within: Duration) -> std::io::Result<Vec<IpAddr>> {
    let mut answered = BTreeSet::new();
    let started = Instant::now();
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(TICK))?;
    let mut buffer = [0; 64];
    while answered.len() < targets.len() && started.elapsed() < within {
        for target in targets.iter().filter(|target| !answered.contains(*target)) {
            // No route now may be a route in a moment.
            drop(socket.send_to(b"question", mapped(SocketAddr::new(*target, PORT))));
        }
        while answered.len() < targets.len() {
            match socket.recv_from(&mut buffer) {
                Ok((len, from)) => {
                    let from = from.ip().to_canonical();
                    if is_seen_as(buffer.get(..len).unwrap_or_default(), from, own) {
                        answered.insert(from);
                    }
                }
                Err(error) if is_timeout(&error) => break,
                // ICMP errors of one target say nothing about the others.
                Err(_) => {}
            }
        }
    }
    Ok(answered.into_iter().filter(|addr| targets.contains(addr)).collect())
}

pub(super) fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Returns an address as a socket of both families wants it.
pub(super) fn mapped(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), addr.port()),
        IpAddr::V6(_) => addr,
    }
}

/// Whether an answer says that the question came from one of our own addresses.
fn is_seen_as(answer: &[u8], target: IpAddr, own: &[IpAddr]) -> bool {
    let seen = answer.get(8..).and_then(|text| std::str::from_utf8(text).ok());
    let seen: Option<IpAddr> = seen.and_then(|text| text.parse().ok());
    seen.is_some_and(|seen| own.contains(&seen) || seen == target)
}

/// Returns the addresses in the namespace of this thread.
fn own_addrs() -> Result<Vec<IpAddr>, Error> {
    let text = crate::process::ip(&["-json", "address", "show"])?;
    let links: serde_json::Value = serde_json::from_str(&text).map_err(Error::wrong)?;
    let links = links.as_array().into_iter().flatten();
    let addrs = links.filter_map(|link| link.get("addr_info")?.as_array()).flatten();
    Ok(addrs.filter_map(|addr| addr.get("local")?.as_str()?.parse().ok()).collect())
}
