//! What goes over the fabric, as tcpdump(8) sees it.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use crate::Error;
use crate::cluster::eventually;
use crate::fabric::SERVER;
use crate::process::{Process, Program};

/// How long tcpdump may take until it listens.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// How long it may take until it has read what it has received.
const READ_WITHIN: Duration = Duration::from_secs(60);

/// The port of marks (discard, RFC 863), on the address that every fabric has.
const MARKED: u16 = 9;

/// A capture that goes on: on the fabric's end of every node's cable.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    log: std::path::PathBuf,
}

/// What a capture has seen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seen {
    /// A line for each packet.
    pub packets: Vec<String>,
}

impl Capture {
    /// Starts to look for packets that `filter` (pcap-filter(7)) is for; `name` is that of the log.
    ///
    /// # Errors
    ///
    /// [`Error`] if tcpdump does not listen.
    pub fn start(dir: &Path, name: &str, filter: &str) -> Result<Self, Error> {
        let log = dir.join(format!("{name}.capture"));
        let command = ["tcpdump", "-i", "any", "-n", "-l", "--immediate-mode", "-Z", "root"];
        let filter = format!("({filter}) or ({})", mark_filter());
        let command = command.into_iter().chain(["-B", "131072", "-s", "128", &filter]);
        let process = Program::new("tcpdump", &log, command).start()?;
        let this = Self { process, log };
        eventually("tcpdump to listen", READY_WITHIN, || {
            this.process.require_running()?;
            let is_ready = this.text()?.contains("listening on");
            if is_ready { Ok(()) } else { Err(Error::wrong("it does not say so")) }
        })?;
        Ok(this)
    }

    /// Returns what has been seen until now.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn seen(&self) -> Result<Seen, Error> {
        let text = self.text()?;
        // `12:00:00.000000 port-1 In  IP 10.0.0.1 > …`
        let mark = format!(" > {SERVER}.{MARKED}:");
        let is_packet = |line: &&str| {
            (line.contains(" IP ") || line.contains(" IP6 ")) && !line.contains(&mark)
        };
        Ok(Seen { packets: text.lines().filter(is_packet).map(str::to_owned).collect() })
    }

    /// Ends the capture and returns what it has seen.
    ///
    /// Packets wait in the kernel until tcpdump reads them, on a slow machine for seconds; so one
    /// more is sent, behind all others, and waited for.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] if the kernel had to leave packets out: then nothing is proven.
    pub fn end(self) -> Result<Seen, Error> {
        let failed = |error| Error::program("a mark", error);
        let socket = UdpSocket::bind(SocketAddr::from((SERVER, 0))).map_err(failed)?;
        let mark = format!(" {SERVER}.{} > {SERVER}.{MARKED}:", source(&socket).map_err(failed)?);
        socket.send_to(b"mark", (SERVER, MARKED)).map_err(failed)?;
        eventually("tcpdump to read what there is", READ_WITHIN, || {
            self.process.require_running()?;
            if self.text()?.contains(&mark) { Ok(()) } else { Err(Error::wrong("it has not yet")) }
        })?;
        // Whoever interrupts the lab is heard by the lab alone, so tcpdump is asked otherwise.
        kill(self.process.pid(), Signal::SIGUSR1)
            .map_err(|error| Error::program("tcpdump", error))?;
        let counts = eventually("tcpdump to count", READY_WITHIN, || {
            self.process.require_running()?;
            let text = self.text()?;
            let line = text.lines().find(|line| line.contains("dropped by kernel"));
            line.map(str::to_owned).ok_or_else(|| Error::wrong("it does not say how many"))
        })?;
        if counts.contains(" 0 packets dropped by kernel") {
            return self.seen();
        }
        Err(Error::wrong(format!("tcpdump has not seen all: {counts}")))
    }

    fn text(&self) -> Result<String, Error> {
        std::fs::read_to_string(&self.log).map_err(Error::file(&self.log))
    }
}

fn source(socket: &UdpSocket) -> std::io::Result<u16> {
    Ok(socket.local_addr()?.port())
}

/// Returns the filter of the packets that end captures.
fn mark_filter() -> String {
    format!("udp and src host {SERVER} and dst host {SERVER} and dst port {MARKED}")
}
