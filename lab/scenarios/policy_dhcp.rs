//! A machine's lease: a real client gets it and keeps it (RFC 2131).
//!
//! To get it, a client listens to frames, which no firewall sees. To keep it, it asks the server by
//! an ordinary datagram, and an answer that the firewall drops never comes.

use std::path::Path;
use std::time::Duration;

use lab::Error;
use lab::cluster::{BRIDGE, eventually};
use lab::node::Node;
use lab::process::Program;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a client may wait for a lease.
const WITHIN: Duration = Duration::from_secs(20);
/// The client's name in the lab, and where it says what it does.
const CLIENT: &str = "dhcp-client";
const LOG: &str = "/run/dhcp-client.log";
/// What the client says of a lease, of a renewal, and of one that the server did not answer.
const LEASED: &str = "lease of ";
const RENEWS: &str = "sending renew to server ";
const REBINDS: &str = "broadcasting renew";

/// Fails unless `node` gets a lease for the address that it has, and keeps it by asking for it.
pub(super) fn require_lease(node: &Node, dir: &Path) -> Result<(), Error> {
    let _server = serve(node, dir)?;
    let client = format!("exec busybox udhcpc -f -i eth0 -s /bin/true > {LOG} 2>&1");
    node.start_program(CLIENT, &["sh", "-c", &client], &std::collections::BTreeMap::new())?;
    let leases = |wanted: usize| {
        eventually("a lease", WITHIN, || {
            let said = node.run(&["cat", LOG])?;
            let leases = said.matches(LEASED).count();
            if leases >= wanted { Ok(said) } else { Err(Error::wrong(said)) }
        })
    };
    leases(1)?;
    let pid = node.program_pid(CLIENT)?.ok_or_else(|| Error::wrong("the client has ended"))?;
    kill(Pid::from_raw(pid), Signal::SIGUSR1).map_err(|error| Error::program(CLIENT, error))?;
    let said = leases(2)?;
    node.end_program(CLIENT, Signal::SIGTERM)?;
    eprintln!("{said}");
    if said.contains(RENEWS) && !said.contains(REBINDS) {
        return Ok(());
    }
    Err(Error::wrong(format!("the lease was not renewed by asking its server: {said}")))
}

/// Starts a server on the fabric that leases to a node the address which it has.
fn serve(node: &Node, dir: &Path) -> Result<lab::process::Process, Error> {
    let text = node.run(&["ip", "-json", "link", "show", "eth0"])?;
    let links: serde_json::Value = serde_json::from_str(&text).map_err(Error::wrong)?;
    let mac = links.pointer("/0/address").and_then(serde_json::Value::as_str);
    let mac = mac.ok_or_else(|| Error::wrong("a node without link address"))?;
    let (leases, conf) = (dir.join("dhcp.leases"), dir.join("dhcp.conf"));
    let text = format!(
        "interface {BRIDGE}\nstatic_lease {mac} {}\noption lease 3600\nlease_file {}\npidfile {}\n",
        node.addr()?,
        leases.display(),
        dir.join("dhcp.pid").display(),
    );
    for (path, text) in [(&leases, ""), (&conf, &text)] {
        std::fs::write(path, text).map_err(Error::file(path))?;
    }
    let server = ["busybox".into(), "udhcpd".into(), "-f".into(), conf.into_os_string()];
    Program::new("dhcp-server", &dir.join("dhcp-server.log"), server).start()
}
