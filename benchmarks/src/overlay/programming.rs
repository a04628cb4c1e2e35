//! What it takes to lead to a thousand other nodes by VXLAN: a neighbour, a forward and four routes
//! for each, put into the kernel by ours and by ip(8) and bridge(8) reading the same from a file.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use kernel::netlink::{Netlink, RouteFilter};
use kernel::route_table::Change;
use kernel::route_table::KernelRoutes;
use kernel::tunnels::{EntryChange, KernelTunnels};
use kernel::{RouteTable as _, Tunnels as _};
use lab::Error;
use lab::process::{ip, output};
use model::desired::{
    Checksums, Route, RouteProtocol, RouteTarget, TunnelDevice, TunnelDeviceKind, TunnelEntry,
    TunnelEntryKey, Vxlan,
};
use model::net::{Cidr, IfName, MacAddr, Mtu};

use crate::cpu::{self, Cpu};

/// Blocks of each node.
pub(super) const BLOCKS: u32 = 4;
/// What the device is called, for ours and for theirs.
const DEVICE: &str = "vxlan.calico";
/// The pool of the other nodes' pods.
pub(super) const POOL: &str = "10.128.0.0/12";
/// The first of the pods' addresses, of the tunnels', and of the nodes'.
const PODS: u32 = 0x0a80_0000;
const TUNNELS: u32 = 0x0af0_0000;
const NODES: u32 = 0xc612_0000;
/// Addresses of a block.
const BLOCK: u32 = 64;

/// Another node, as this one leads to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Far {
    pub(super) number: u32,
    pub(super) addr: Ipv4Addr,
    pub(super) tunnel: Ipv4Addr,
    pub(super) mac: MacAddr,
}

impl Far {
    /// Returns the node of a number, counted from zero.
    pub(super) fn new(number: u32) -> Self {
        let [_, _, high, low] = number.to_be_bytes();
        Self {
            number,
            addr: Ipv4Addr::from(NODES.wrapping_add(number).wrapping_add(0x100)),
            tunnel: Ipv4Addr::from(TUNNELS.wrapping_add(number)),
            mac: MacAddr([0x66, 0, 0, 0, high, low]),
        }
    }

    /// Returns its blocks.
    pub(super) fn blocks(self) -> impl Iterator<Item = (Ipv4Addr, u8)> {
        let first = self.number.wrapping_mul(BLOCKS);
        let addr =
            move |block: u32| PODS.wrapping_add(first.wrapping_add(block).wrapping_mul(BLOCK));
        (0..BLOCKS).map(move |block| (Ipv4Addr::from(addr(block)), 26))
    }
}

/// How long one way took, and how much of that was processor time, in one round.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Took {
    pub(super) wall: Duration,
    pub(super) processor: Duration,
}

/// What was measured, round by round.
#[derive(Debug, Default)]
pub(super) struct Programming {
    /// Routes of a round.
    pub(super) routes: usize,
    pub(super) ours: Vec<Took>,
    pub(super) theirs: Vec<Took>,
}

/// Puts `nodes` other nodes into this network namespace, by both ways in turns.
///
/// # Errors
///
/// [`Error`] if the kernel refuses something.
pub(super) fn measure(dir: &Path, nodes: u32, rounds: usize) -> Result<Programming, Error> {
    let far: Vec<Far> = (0..nodes).map(Far::new).collect();
    let files = write_batches(dir, &far)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Error::wrong)?;
    let mut found = Programming::default();
    for round in 0..=rounds {
        let ours = runtime.block_on(by_ours(&far))?;
        found.routes = require_routes(nodes)?;
        ip(&["link", "delete", DEVICE])?;
        let theirs = runtime.block_on(by_batch(&files))?;
        require_routes(nodes)?;
        ip(&["link", "delete", DEVICE])?;
        // The first of each finds nothing in any cache.
        if round > 0 {
            found.ours.push(ours);
            found.theirs.push(theirs);
        }
    }
    Ok(found)
}

async fn by_ours(far: &[Far]) -> Result<Took, Error> {
    let device = device().await?;
    let (netlink, tunnels) = device;
    let name = DEVICE.parse::<IfName>().map_err(Error::wrong)?;
    let entries: Vec<EntryChange> = far.iter().flat_map(|far| entries(&name, far)).collect();
    let changes: Vec<Change> = far.iter().flat_map(|far| routes(&name, far)).collect();
    let table = KernelRoutes::new(netlink, RouteFilter::of_protocols([RouteProtocol(80)]));
    let before = cpu::of_process(std::process::id());
    let started = Instant::now();
    let outcomes = tunnels.apply(&entries).await.map_err(Error::wrong)?;
    outcomes.into_iter().collect::<Result<(), _>>().map_err(Error::wrong)?;
    let outcomes = table.apply(&changes).await.map_err(Error::wrong)?;
    outcomes.into_iter().collect::<Result<(), _>>().map_err(Error::wrong)?;
    let wall = started.elapsed();
    let processor = cpu::of_process(std::process::id()).saturating_sub(before);
    Ok(Took { wall, processor })
}

async fn by_batch(files: &[std::path::PathBuf; 2]) -> Result<Took, Error> {
    device().await?;
    let [bridge, ip] = files;
    let before = Cpu::now();
    let started = Instant::now();
    output(Command::new("bridge").arg("-batch").arg(bridge))?;
    output(Command::new("ip").arg("-batch").arg(ip))?;
    let wall = started.elapsed();
    let [children, _] = Cpu::now().since(before, 1);
    Ok(Took { wall, processor: Duration::from_millis(children) })
}

/// Makes the device as ours is made, for both ways.
async fn device() -> Result<(Netlink, KernelTunnels), Error> {
    let netlink = Netlink::open().map_err(Error::wrong)?;
    let tunnels = KernelTunnels::new(netlink.clone());
    let vxlan = Vxlan {
        vni: 4096,
        port: 4789,
        local: IpAddr::V4(Ipv4Addr::LOCALHOST),
        mac: MacAddr([0x66, 1, 0, 0, 0, 1]),
        checksums: Checksums::Offloaded,
    };
    let addr = Some(IpAddr::V4(Ipv4Addr::from(TUNNELS.wrapping_sub(1))));
    let device = TunnelDevice { kind: TunnelDeviceKind::Vxlan(vxlan), mtu: Mtu(1450), addr };
    let name = DEVICE.parse::<IfName>().map_err(Error::wrong)?;
    tunnels.upsert(&name, &device).await.map_err(Error::wrong)?;
    Ok((netlink, tunnels))
}

fn entries(device: &IfName, far: &Far) -> [EntryChange; 2] {
    [
        EntryChange::Upsert(
            TunnelEntryKey::Neighbour(device.clone(), far.tunnel.into()),
            TunnelEntry::Mac(far.mac),
        ),
        EntryChange::Upsert(
            TunnelEntryKey::Forward(device.clone(), far.mac),
            TunnelEntry::Node(far.addr.into()),
        ),
    ]
}

fn routes(device: &IfName, far: &Far) -> Vec<Change> {
    let target = RouteTarget::Tunnel(device.clone(), far.tunnel.into());
    let route = Route { target, protocol: RouteProtocol(80) };
    let blocks = far.blocks().filter_map(|(addr, len)| Cidr::containing(addr.into(), len).ok());
    blocks.map(|block| Change::Upsert(block.into(), route.clone())).collect()
}

/// Writes the same as files that bridge(8) and ip(8) read.
fn write_batches(dir: &Path, far: &[Far]) -> Result<[std::path::PathBuf; 2], Error> {
    let (mut bridge, mut ip) = (String::new(), String::new());
    for far in far {
        let Far { addr, tunnel, mac, .. } = far;
        let forward = format!("fdb replace {mac} dev {DEVICE} dst {addr} self permanent");
        let neighbour = format!("neigh replace {tunnel} lladdr {mac} dev {DEVICE} nud permanent");
        writeln!(bridge, "{forward}").map_err(Error::wrong)?;
        writeln!(ip, "{neighbour}").map_err(Error::wrong)?;
        for (block, len) in far.blocks() {
            let way = format!("via {tunnel} dev {DEVICE} onlink proto 80");
            writeln!(ip, "route replace {block}/{len} {way}").map_err(Error::wrong)?;
        }
    }
    let files = [dir.join("bridge.batch"), dir.join("ip.batch")];
    for (file, text) in files.iter().zip([bridge, ip]) {
        std::fs::write(file, text).map_err(Error::file(file))?;
    }
    Ok(files)
}

/// Returns how many routes lead to other nodes; all of them must.
fn require_routes(nodes: u32) -> Result<usize, Error> {
    let said = ip(&["route", "show", "dev", DEVICE, "proto", "80"])?;
    let found = said.lines().count();
    let expected = usize::try_from(nodes.saturating_mul(BLOCKS)).unwrap_or(usize::MAX);
    if found == expected {
        return Ok(found);
    }
    Err(Error::wrong(format!("{found} routes are in the kernel, not {expected}")))
}
