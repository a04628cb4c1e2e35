//! The calico-node that is measured.

use std::fmt::Display;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use lab::Error;
use lab::control_plane::Identity;
use lab::process::{Process, Program};

use crate::cni::world::{NODE, NODE_ADDR, World};
use crate::memory;

/// How long it may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// A calico-node that is ready; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    process: Process,
    /// From its start until it was ready.
    pub(crate) ready_after: Duration,
}

impl Daemon {
    /// Starts the calico-node in `bin` and waits until it is ready.
    ///
    /// # Errors
    ///
    /// [`Error`] with the end of its log if it does not become ready.
    pub(crate) async fn start(world: &World, bin: &Path) -> Result<Self, Error> {
        let log = world.directory().join("calico-node.log");
        let program = Program::new("calico-node", &log, [bin.join("calico-node")])
            .env("NODENAME", NODE)
            .env("KUBECONFIG", world.kubeconfig(Identity::Node))
            .env("IP", format!("{NODE_ADDR}/24"))
            .env("CALICO_IPV4POOL_IPIP", "Never")
            .env("CALICO_IPV4POOL_VXLAN", "Never")
            .env("FELIX_HEALTHENABLED", "true");
        let started = Instant::now();
        let process = program.start()?;
        while !is_ready() {
            process.require_running()?;
            if started.elapsed() > READY_WITHIN {
                return Err(Error::Timeout {
                    what: "calico-node to be ready".to_owned(),
                    seconds: READY_WITHIN.as_secs(),
                    detail: format!("; its log:\n{}", lab::process::tail(&log)),
                });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { process, ready_after: started.elapsed() })
    }

    /// Returns its process id.
    pub(crate) fn pid(&self) -> impl Display + Copy + use<> {
        self.process.pid()
    }

    /// Returns its resident memory in KiB.
    ///
    /// # Errors
    ///
    /// [`Error`] if it has ended.
    pub(crate) fn resident_kib(&self) -> Result<u64, Error> {
        self.process.require_running()?;
        memory::resident_kib(self.process.pid())
    }
}

/// Asks for readiness as a kubelet would.
fn is_ready() -> bool {
    let ask = || {
        let mut connection = TcpStream::connect("127.0.0.1:9099")?;
        connection.set_read_timeout(Some(Duration::from_secs(5)))?;
        connection.write_all(b"GET /readiness HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = [0; 12];
        connection.read_exact(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    ask().is_ok_and(|answer| answer.ends_with(b" 200") || answer.ends_with(b" 204"))
}
