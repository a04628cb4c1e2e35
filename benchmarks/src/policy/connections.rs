//! What policy costs a packet: new connections, and packets of one that is established.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kernel::Netns;
use lab::Error;

use crate::cni::world::Pod;
use crate::statistics::percentile;

/// Where the server listens.
const PORT: u16 = 8080;
/// How long a connection may take before something is wrong.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long packets are counted.
const COUNTED_FOR: Duration = Duration::from_secs(2);
/// A small packet, as of a game or a name server.
const PACKET: [u8; 64] = [7; 64];

/// What was measured between two pods.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Costs {
    /// A new connection, half of them and 99 of 100 took no longer.
    pub(crate) connect: [Duration; 2],
    /// Small packets of one UDP flow that arrive in a second.
    pub(crate) packets_per_second: f64,
}

/// Opens `count` connections from one pod to another, one after the other, then sends packets.
///
/// # Errors
///
/// [`Error`] if a connection fails: then there is nothing to measure.
pub(super) fn measure(
    client: &Pod,
    server: &Pod,
    addr: IpAddr,
    count: usize,
) -> Result<Costs, Error> {
    let (inside, outside) = (Netns::open(&server.netns)?, Netns::open(&client.netns)?);
    let listener = inside.run(|| TcpListener::bind((addr, PORT)))?.map_err(Error::wrong)?;
    let socket = inside.run(|| UdpSocket::bind((addr, PORT)))?.map_err(Error::wrong)?;
    // If a connection fails it waits for the rest of them, until the benchmark ends.
    let server = std::thread::spawn(move || listener.incoming().take(count).for_each(drop));
    let took = outside.run(|| connect((addr, PORT).into(), count))??;
    drop(server.join());
    let (arrived, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let flooded = std::thread::scope(|scope| {
        scope.spawn(|| count_packets(&socket, &arrived, &is_over));
        let flooded = outside.run(|| flood((addr, PORT).into()));
        is_over.store(true, Ordering::Relaxed);
        flooded
    })??;
    let count = u32::try_from(arrived.into_inner()).unwrap_or(u32::MAX);
    Ok(Costs {
        connect: [percentile(&took, 50), percentile(&took, 99)],
        packets_per_second: f64::from(count) / flooded.as_secs_f64(),
    })
}

/// Connects again and again; returns how long each took, the shortest first.
fn connect(to: SocketAddr, count: usize) -> Result<Vec<Duration>, Error> {
    let mut took = Vec::with_capacity(count);
    for _ in 0..count {
        let started = Instant::now();
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)
            .map_err(|error| Error::wrong(format!("cannot connect to {to}: {error}")))?;
        took.push(started.elapsed());
        // The server closes first, so that the ports of this side are free again at once.
        drop(stream.read(&mut [0]));
    }
    took.sort_unstable();
    Ok(took)
}

fn flood(to: SocketAddr) -> Result<Duration, Error> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).map_err(Error::wrong)?;
    socket.connect(to).map_err(Error::wrong)?;
    let started = Instant::now();
    while started.elapsed() < COUNTED_FOR {
        for _ in 0..64 {
            // A full queue loses packets, which the other side counts.
            drop(socket.send(&PACKET));
        }
    }
    Ok(started.elapsed())
}

fn count_packets(socket: &UdpSocket, arrived: &AtomicU64, is_over: &AtomicBool) {
    let mut buffer = [0; 128];
    drop(socket.set_read_timeout(Some(Duration::from_millis(100))));
    while !is_over.load(Ordering::Relaxed) {
        if socket.recv(&mut buffer).is_ok() {
            arrived.fetch_add(1, Ordering::Relaxed);
        }
    }
}
