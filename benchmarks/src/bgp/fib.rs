//! From a peer into the kernel: how long until its table holds all routes, and none again.
//!
//! ```text
//!  injector (BIRD) ── calico-node, or BIRD with `protocol kernel` ── the kernel's table
//! ```
//!
//! Ours is the whole daemon, with a cluster of one node around it.

use std::fmt::Display;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use api::{BgpConfiguration, BgpPeer};
use lab::Error;
use lab::control_plane::Kind;
use serde_json::json;

use super::Until;
use super::bird::{self, Control};
use super::device::{Device, Setup};
use super::network::{self, DEVICE, INJECTOR, Place};
use crate::cni::world::{World, object};
use crate::daemon::Daemon;
use crate::{cpu, memory};

/// What was measured.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) device: Device,
    pub(super) routes: u32,
    /// From the injection until the kernel has all; `None` if it took too long.
    pub(super) all: Option<Duration>,
    /// From the end of the injection until it has none of them.
    pub(super) gone: Option<Duration>,
    /// Resident memory of the device before and with the routes, in KiB.
    pub(super) resident_kib: [u64; 2],
    /// The device's processor time until all were there.
    pub(super) cpu: Duration,
}

const ASN: u32 = 65_002;
const INJECTOR_ASN: u32 = 65_001;
/// Where the node is on the bridge.
const NODE: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 4);
/// How long either way may take.
const WITHIN: Duration = Duration::from_secs(60);

/// Measures one device; only ours and BIRD install routes here. `bin` has our programs.
pub(super) fn measure(device: Device, routes: u32, bin: &Path, until: Until) -> Result<Row, Error> {
    let directory = tempfile::Builder::new().prefix("calico-benchmarks-").tempdir();
    let directory = directory.map_err(Error::file(&std::env::temp_dir()))?;
    let file = directory.path().join("routes");
    bird::write_routes(&file, routes, false)?;
    if device == Device::Ours {
        network::add_to_bridge(NODE)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(Error::wrong)?;
        let (_world, daemon) = runtime.block_on(node(bin))?;
        return inject(device, routes, (NODE, daemon.pid()), file, (directory.path(), until));
    }
    let setup = Setup { installs: true, ..setup(DEVICE, ASN, (INJECTOR.addr, INJECTOR_ASN)) };
    let process = device.start(&setup, directory.path())?;
    inject(device, routes, (DEVICE.addr, process.pid()), file, (directory.path(), until))
}

/// Starts a cluster of one node, whose only peer is the injector.
async fn node(bin: &Path) -> Result<(World, Daemon), Error> {
    let world = World::start(Kind::Embedded).await?;
    let client = world.client()?;
    let configuration: BgpConfiguration = object(json!({
        "apiVersion": api::API_VERSION, "kind": "BGPConfiguration",
        "metadata": {"name": "default"},
        "spec": {"nodeToNodeMeshEnabled": false, "asNumber": ASN},
    }))?;
    client.create(&configuration).await?;
    let daemon = Daemon::start(&world, bin).await?;
    // A node none of whose peers is up is not ready, and the injector is to come.
    let peer: BgpPeer = object(json!({
        "apiVersion": api::API_VERSION, "kind": "BGPPeer", "metadata": {"name": "injector"},
        "spec": {"peerIP": INJECTOR.addr.to_string(), "asNumber": INJECTOR_ASN,
                 "sourceAddress": "None"},
    }))?;
    client.create(&peer).await?;
    Ok((world, daemon))
}

fn inject(
    device: Device,
    routes: u32,
    (addr, pid): (Ipv4Addr, impl Display + Copy),
    file: PathBuf,
    (directory, until): (&Path, Until),
) -> Result<Row, Error> {
    let injector = Setup { routes: Some(file), ..setup(INJECTOR, INJECTOR_ASN, (addr, ASN)) };
    let _injector = Device::Bird.start(&injector, directory)?;
    let injector = Control(directory.join(format!("{}.ctl", INJECTOR.netns)));
    bird::wait("a control socket", WITHIN, || {
        Ok((injector.ask("show status").is_ok(), String::new()))
    })?;
    injector.wait_established()?;
    let (idle, before, base) = (memory::resident_kib(pid)?, cpu::of_process(pid), installed(pid)?);
    let holds = |count: u32| {
        bird::wait("the kernel's routes", until.within(WITHIN), || {
            let seen = installed(pid)?.saturating_sub(base);
            Ok((seen == count, seen.to_string()))
        })
    };
    let since = Instant::now();
    injector.ask("enable injected")?;
    let all = holds(routes).ok().map(|_| since.elapsed());
    let resident_kib = [idle, memory::resident_kib(pid)?];
    let cpu = cpu::of_process(pid).saturating_sub(before);
    let since = Instant::now();
    injector.ask("disable injected")?;
    let gone = holds(0).ok().map(|_| since.elapsed());
    Ok(Row { device, routes, all, gone, resident_kib, cpu })
}

fn setup(place: Place, asn: u32, peer: (Ipv4Addr, u32)) -> Setup {
    Setup { place, asn, peers: vec![peer], is_reflector: false, installs: false, routes: None }
}

/// Returns how many IPv4 prefixes the kernel's tables hold where a process is.
fn installed(pid: impl Display) -> Result<u32, Error> {
    let file = PathBuf::from(format!("/proc/{pid}/net/fib_triestat"));
    let text = std::fs::read_to_string(&file).map_err(Error::file(&file))?;
    prefixes(&text).ok_or_else(|| Error::wrong(format!("no count in {}", file.display())))
}

/// Of several tables the largest one counts.
fn prefixes(text: &str) -> Option<u32> {
    let counts = text.lines().filter_map(|line| line.trim().strip_prefix("Prefixes:"));
    counts.filter_map(|count| count.trim().parse().ok()).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_those_of_the_largest_table() {
        let text = "Basic info:\nMain:\n\tLeaves:\t7\n\tPrefixes:       9\nLocal:\n\tPrefixes: 4\n";
        assert_eq!(prefixes(text), Some(9));
    }
}
