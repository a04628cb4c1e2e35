//! BIRD 2 beside the cluster: a router of somebody else's, in the lab's own namespace.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Error;
use crate::process::{Process, Program, output};

/// A neighbour as BIRD is told of it.
#[derive(Clone, Copy, Debug)]
pub struct Neighbour {
    /// Its address, directly connected.
    pub addr: IpAddr,
    /// Its AS number.
    pub asn: u32,
}

/// A running BIRD; dropping it ends it.
#[derive(Debug)]
pub struct Bird {
    socket: PathBuf,
    process: Process,
}

impl Bird {
    /// Starts a router that takes all routes, tells all, and forwards by them.
    ///
    /// # Errors
    ///
    /// [`Error`] if it cannot be started.
    pub fn start(dir: &Path, asn: u32, neighbours: &[Neighbour]) -> Result<Self, Error> {
        let mut text = "router id 192.0.2.1;\n\
            protocol device {}\n\
            protocol kernel { ipv4 { export all; }; }\n"
            .to_owned();
        for (number, Neighbour { addr, asn: theirs }) in neighbours.iter().enumerate() {
            writeln!(
                text,
                "protocol bgp peer{number} {{ local as {asn}; neighbor {addr} as {theirs}; \
                 connect retry time 1; connect delay time 1; error wait time 1, 2; \
                 ipv4 {{ import all; export all; next hop self; }}; }}"
            )
            .map_err(Error::wrong)?;
        }
        let (config, socket) = (dir.join("bird.conf"), dir.join("bird.socket"));
        std::fs::write(&config, text).map_err(Error::file(&config))?;
        let config = config.to_string_lossy().into_owned();
        let command = ["bird", "-f", "-c", &config, "-s", &socket.to_string_lossy()];
        let process = Program::new("bird", &dir.join("bird.log"), command).start()?;
        Ok(Self { socket, process })
    }

    /// Asks as with birdc(8).
    ///
    /// # Errors
    ///
    /// [`Error::Program`] if it does not answer.
    pub fn ask(&self, question: &str) -> Result<String, Error> {
        self.process.require_running()?;
        let mut command = Command::new("birdc");
        command.arg("-s").arg(&self.socket).args(question.split(' '));
        output(&mut command)
    }

    /// Returns the destinations that it learned by BGP.
    ///
    /// # Errors
    ///
    /// As for [`Bird::ask`].
    pub fn destinations(&self) -> Result<BTreeSet<String>, Error> {
        let text = self.ask("show route where source = RTS_BGP")?;
        let first = text.lines().filter_map(|line| line.split_whitespace().next());
        Ok(first.filter(|word| word.contains('/')).map(str::to_owned).collect())
    }
}
