//! How much memory an idle calico-node holds.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use lab::Error;
use lab::control_plane::Identity;
use lab::process::Program;

use crate::memory;

use super::world::{NODE, NODE_ADDR, World};

/// How long it may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long it is left alone before its memory is read.
const IDLE: Duration = Duration::from_secs(10);

/// Starts the calico-node in `bin`, waits until it is ready and idle, and returns its
/// resident memory in KiB.
///
/// # Errors
///
/// [`Error`] with the end of its log if it does not become ready.
pub(crate) async fn idle_kib(world: &World, bin: &Path) -> Result<u64, Error> {
    let log = world.directory().join("calico-node.log");
    let program = Program::new("calico-node", &log, [bin.join("calico-node")])
        .env("NODENAME", NODE)
        .env("KUBECONFIG", world.kubeconfig(Identity::Node))
        .env("IP", format!("{NODE_ADDR}/24"))
        .env("CALICO_IPV4POOL_IPIP", "Never")
        .env("CALICO_IPV4POOL_VXLAN", "Never")
        .env("FELIX_HEALTHENABLED", "true");
    let process = program.start()?;
    let started = Instant::now();
    while !is_ready() {
        process.require_running()?;
        if started.elapsed() > READY_WITHIN {
            return Err(Error::Timeout {
                what: "calico-node to be ready".to_owned(),
                seconds: READY_WITHIN.as_secs(),
                detail: format!("; its log:\n{}", lab::process::tail(&log)),
            });
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    tokio::time::sleep(IDLE).await;
    process.require_running()?;
    memory::resident_kib(process.pid())
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
