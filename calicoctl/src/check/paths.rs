//! Whether the fabric carries packets as large as those that pods have this node send.
//!
//! A fabric that drops large packets is the cruellest of faults: pods connect, small requests are
//! answered, and whoever sends much hangs. Who else is a node is read from what is in this node's
//! kernel, so that no API server is needed: gateways of our routes, far ends of VXLAN, peers of
//! WireGuard.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use kernel::echo::{Question, ask};
use kernel::netlink::{Link, Netlink, RouteFilter, Target};
use kernel::wireguard::Wireguard;
use model::desired::RouteProtocol;
use model::net::{IfIndex, IfName};

/// How long nodes may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The most nodes that are asked: what is wrong with a fabric shows at some of them.
const MOST: usize = 500;
/// Lengths of packets that fabrics and tunnels below them are known to stop at, in bytes.
const KNOWN: [u16; 20] = [
    8950, 8900, 4500, 4000, 1500, 1492, 1480, 1476, 1460, 1454, 1450, 1440, 1430, 1420, 1400, 1380,
    1350, 1300, 1280, 576,
];
/// WireGuard's devices.
const WIREGUARD: [&str; 2] = ["wireguard.cali", "wg-v6.cali"];
/// Bytes that WireGuard puts around a packet, the UDP header included.
const WIREGUARD_HEAD: u16 = 40;
/// Bytes of the headers of UDP, VXLAN and Ethernet, as VXLAN puts them around a packet.
const VXLAN_HEAD: u16 = 30;

/// The way to another node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Way {
    /// The node's own address.
    pub node: IpAddr,
    /// The link by which packets to its pods leave.
    pub device: String,
    /// The longest packet that goes there, all headers included, in bytes.
    pub len: u16,
    /// The longest that was answered; `None` if even the smallest was not, which says nothing:
    /// echo requests may be forbidden there.
    pub carried: Option<u16>,
}

/// Finds the ways of this node and tries them.
///
/// # Errors
///
/// Why nothing can be said, for people.
pub(super) async fn look() -> Result<Vec<Way>, String> {
    let mut ways: Vec<Way> = find().await?.into_values().take(MOST).collect();
    // Waits in the kernel; nothing else is done meanwhile.
    let asked: Vec<_> =
        ways.iter().flat_map(|way| [0, way.len].map(|len| question(way, len))).collect();
    let answered = answers(&asked)?;
    for way in &mut ways {
        let is = |len| answered.contains(&question(way, len));
        way.carried = is(way.len).then_some(way.len).or_else(|| is(0).then_some(0));
    }
    let short = |way: &&Way| way.carried == Some(0);
    let lens = |way: &Way| {
        let shorter: Vec<u16> = KNOWN.into_iter().filter(|len| *len < way.len).collect();
        let way = way.clone();
        shorter.into_iter().map(move |len| question(&way, len))
    };
    let asked: Vec<_> = ways.iter().filter(short).flat_map(lens).collect();
    let answered = answers(&asked)?;
    for way in ways.iter_mut().filter(|way| way.carried == Some(0)) {
        let lens = answered.iter().filter(|question| question.to == way.node);
        way.carried = lens.map(|question| question.len).max().or(way.carried);
    }
    Ok(ways)
}

fn answers(questions: &[Question]) -> Result<BTreeSet<Question>, String> {
    ask(questions, PATIENCE).map_err(|error| error.to_string())
}

const fn question(way: &Way, len: u16) -> Question {
    Question { to: way.node, len }
}

/// Returns the way to each node, that with the longest packets if there are several.
async fn find() -> Result<BTreeMap<IpAddr, Way>, String> {
    let failed = |error: kernel::netlink::Error| error.to_string();
    let netlink = Netlink::open().map_err(failed)?;
    let links = netlink.links().await.map_err(failed)?;
    let links: BTreeMap<IfIndex, Link> = links.into_iter().map(|link| (link.index, link)).collect();
    let mut ways = BTreeMap::new();
    for link in links.values().filter(|link| link.kind.as_deref() == Some("vxlan")) {
        for forward in netlink.forwards_of(link.index).await.map_err(failed)? {
            add(&mut ways, forward.to, link, VXLAN_HEAD.saturating_add(header(forward.to)));
        }
    }
    let filter = RouteFilter::of_protocols([RouteProtocol(80)]);
    for route in netlink.routes(&filter).await.map_err(failed)? {
        let Target::Via(hops) = route.target else { continue };
        for hop in hops {
            let Some(link) = hop.link.and_then(|index| links.get(&index)) else { continue };
            match link.kind.as_deref() {
                // Its gateways are addresses of tunnels; the forwards tell the nodes'.
                Some("vxlan") => {}
                Some("ipip") => add(&mut ways, hop.gateway, link, header(hop.gateway)),
                _ => add(&mut ways, hop.gateway, link, 0),
            }
        }
    }
    let wireguard = links.values().filter(|link| WIREGUARD.contains(&link.name.as_str()));
    for (link, peer) in
        wireguard.flat_map(|link| peers(&link.name).into_iter().map(move |peer| (link, peer)))
    {
        add(&mut ways, peer, link, WIREGUARD_HEAD.saturating_add(header(peer)));
    }
    Ok(ways)
}

/// Returns the addresses of the peers of a WireGuard device; none if it cannot be read.
fn peers(device: &IfName) -> Vec<IpAddr> {
    let read = Wireguard::open().and_then(|mut wireguard| wireguard.device(device));
    let peers = read.map(|device| device.peers).unwrap_or_default();
    peers.into_values().filter_map(|peer| Some(peer.peer_addr?.ip())).collect()
}

fn add(ways: &mut BTreeMap<IpAddr, Way>, node: IpAddr, link: &Link, head: u16) {
    let mtu = u16::try_from(link.mtu.0).unwrap_or(u16::MAX);
    let len = mtu.saturating_add(head);
    let way = Way { node, device: link.name.to_string(), len, carried: None };
    let known = ways.entry(node).or_insert_with(|| way.clone());
    if known.len < len {
        *known = way;
    }
}

/// Bytes of an IP header to that address.
const fn header(addr: IpAddr) -> u16 {
    match addr {
        IpAddr::V4(_) => 20,
        IpAddr::V6(_) => 40,
    }
}
