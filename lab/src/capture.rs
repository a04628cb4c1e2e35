//! What goes over the fabric, as tcpdump(8) sees it.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use crate::Error;
use crate::cluster::eventually;
use crate::process::{Process, Program};

/// How long tcpdump may take until it listens.
const READY_WITHIN: Duration = Duration::from_secs(20);

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
        let command = command.into_iter().chain(["-B", "131072", "-s", "128", filter]);
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
        let is_packet = |line: &&str| line.contains(" IP ") || line.contains(" IP6 ");
        Ok(Seen { packets: text.lines().filter(is_packet).map(str::to_owned).collect() })
    }

    /// Ends the capture and returns what it has seen.
    ///
    /// # Errors
    ///
    /// [`Error::Wrong`] if the kernel had to leave packets out: then nothing is proven.
    pub fn end(self) -> Result<Seen, Error> {
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
