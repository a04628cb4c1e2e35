//! Between the kernel's numbers and the engine's names: listing routes and changing them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use calc::next_hop::{Underlay, UnderlayTable};
use config::value::Pattern;
use kernel::netlink::{Error, Link, LinkAddr, NextHop, RouteEntry, RouteFilter, Target};
use kernel::route_table::{Change, KernelRoutes, RouteTable as _};
use kernel::tunnels::{self, KernelTunnels, Tunnels as _};
use kernel::{Netlink, sysctl};
use model::desired::{Route, RouteProtocol, RouteTarget, TunnelDevice};
use model::net::{Cidr, Family, IfIndex, IfName, InterfaceAddr, Mtu, zone};
use model::vrf::VrfId;

use super::event::{
    Applied, DeviceApplied, DeviceChange, EntryApplied, EntryChange, KernelState,
    PeeringAddrApplied, PeeringAddrChange, RouteChange,
};
use crate::startup::mtu;

/// Which of the kernel's routes are ours (ADR 3).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ownership {
    /// How the names of workload interfaces start.
    pub(crate) interface_prefix: String,
    /// What local workloads' routes carry.
    pub(crate) device_route_protocol: RouteProtocol,
    /// The names of the links between nodes.
    pub(crate) mtu_pattern: Option<Pattern>,
}

/// The links of this node by number and by name.
#[derive(Clone, Debug, Default)]
struct Links {
    by_index: BTreeMap<IfIndex, IfName>,
    workloads: BTreeSet<IfName>,
    vrf_tunnels: BTreeSet<IfName>,
    host_mtu: Option<Mtu>,
}

/// Lists what the kernel holds, as far as it concerns us.
///
/// # Errors
///
/// [`Error`] if the kernel cannot be asked; the state is unknown then.
pub(crate) async fn list(netlink: &Netlink, ownership: &Ownership) -> Result<KernelState, Error> {
    let (links, addrs, routes) = tokio::join!(netlink.links(), netlink.addrs(), async {
        netlink.routes(&RouteFilter::of_protocols([])).await
    });
    let links = Links::new(links?, ownership);
    let workload_link_addrs = links.addrs_of_workloads(addrs?);
    let ours = TunnelDevice::names();
    let tunnels = if ours.iter().any(|name| links.by_index.values().any(|link| link == name)) {
        KernelTunnels::new(netlink.clone()).list(&ours).await?
    } else {
        tunnels::State::default()
    };
    let sorted_out = sorted_out(routes?, &links, ownership);
    Ok(KernelState { workload_link_addrs, tunnels, ..sorted_out })
}

/// Makes changes of tunnel devices, and returns what came of each.
///
/// What comes out of a tunnel may answer by another way: where the host checks strictly by which
/// way packets come, it is told to be less strict about tunnels (RFC 3704 §2.4).
pub(crate) async fn apply_devices(
    netlink: &Netlink,
    changes: Vec<DeviceChange>,
) -> Vec<DeviceApplied> {
    let tunnels = KernelTunnels::new(netlink.clone());
    let mut applied = Vec::new();
    for change in changes {
        let result = match &change {
            DeviceChange::Upsert(name, device) => tunnels.upsert(name, device).await,
            DeviceChange::Delete(name, _) => tunnels.delete(name).await,
        };
        if let DeviceChange::Upsert(name, _) = &change {
            let parameter = sysctl::of_interface(Family::V4, name, "rp_filter");
            if let (Ok(()), Err(error)) = (&result, sysctl::write(&parameter, "2")) {
                tracing::warn!(%error, "packets from tunnels may be dropped as strangers");
            }
        }
        applied.push((change, result.map_err(|error| error.to_string())));
    }
    applied
}

/// Makes changes of tunnels' entries in their order, and returns what came of each.
pub(crate) async fn apply_entries(
    netlink: &Netlink,
    changes: Vec<EntryChange>,
) -> Vec<EntryApplied> {
    let requests: Vec<tunnels::EntryChange> = changes
        .iter()
        .cloned()
        .map(|change| match change {
            EntryChange::Upsert(key, entry) => tunnels::EntryChange::Upsert(key, entry),
            EntryChange::Delete(key, entry) => tunnels::EntryChange::Delete(key, entry),
        })
        .collect();
    match KernelTunnels::new(netlink.clone()).apply(&requests).await {
        Ok(results) => {
            let results = results.into_iter().map(|done| done.map_err(|error| error.to_string()));
            changes.into_iter().zip(results).collect()
        }
        Err(error) => changes.into_iter().map(|change| (change, Err(error.to_string()))).collect(),
    }
}

/// Makes changes of addresses on workloads' interfaces, and returns what came of each.
pub(crate) async fn apply_peering_addrs(
    netlink: &Netlink,
    changes: Vec<PeeringAddrChange>,
) -> Vec<PeeringAddrApplied> {
    let mut applied = Vec::new();
    for change in changes {
        let result = apply_peering_addr(netlink, &change).await;
        applied.push((change, result));
    }
    applied
}

async fn apply_peering_addr(netlink: &Netlink, change: &PeeringAddrChange) -> Result<(), String> {
    let (name, addr) = change.key();
    let host = Cidr::host(*addr);
    let addr = InterfaceAddr::new(*addr, host.prefix_len()).map_err(|error| error.to_string())?;
    let link = netlink.link(name).await.map_err(|error| error.to_string())?;
    match (change, link) {
        (PeeringAddrChange::Upsert(..), Some(link)) => netlink.add_own_addr(link.index, addr).await,
        (PeeringAddrChange::Delete(..), Some(link)) => {
            netlink.delete_addr(link.index, addr).await.map(drop)
        }
        (PeeringAddrChange::Upsert(..), None) => return Err("the interface has gone".to_owned()),
        (PeeringAddrChange::Delete(..), None) => Ok(()),
    }
    .map_err(|error| error.to_string())
}

/// Makes `changes` in their order, and returns what came of each.
pub(crate) async fn apply(netlink: &Netlink, changes: Vec<RouteChange>) -> Vec<Applied> {
    let table = KernelRoutes::new(netlink.clone(), RouteFilter::of_protocols([]));
    let requests: Vec<Change> = changes
        .iter()
        .cloned()
        .map(|change| match change {
            RouteChange::Upsert(key, route) => Change::Upsert(key, route),
            RouteChange::Delete(key, route) => Change::Delete(key, route),
        })
        .collect();
    match table.apply(&requests).await {
        Ok(results) => {
            let results = results.into_iter().map(|done| done.map_err(|error| error.to_string()));
            changes.into_iter().zip(results).collect()
        }
        Err(error) => changes.into_iter().map(|change| (change, Err(error.to_string()))).collect(),
    }
}

impl Links {
    fn new(links: Vec<Link>, ownership: &Ownership) -> Self {
        let prefix = &ownership.interface_prefix;
        let is_workload = |link: &&Link| link.name.as_str().starts_with(prefix);
        let up = links.iter().filter(|link| link.is_up);
        let workloads = up.clone().filter(is_workload).map(|link| link.name.clone()).collect();
        let of_vrf = up.clone().filter(|link| VrfId::of_tunnel(&link.name).is_some());
        let vrf_tunnels = of_vrf.map(|link| link.name.clone()).collect();
        let up = up.map(|link| (&link.name, link.mtu));
        let host_mtu = mtu::of_host(ownership.mtu_pattern.as_ref(), up);
        let by_index = links.into_iter().map(|link| (link.index, link.name)).collect();
        Self { by_index, workloads, vrf_tunnels, host_mtu }
    }

    /// Returns the addresses of workloads' interfaces, and whether each is ours.
    fn addrs_of_workloads(&self, addrs: Vec<LinkAddr>) -> BTreeMap<(IfName, IpAddr), bool> {
        let named = addrs.into_iter().filter_map(|found| {
            let name = self.by_index.get(&found.link)?;
            let is_workload = self.workloads.contains(name);
            is_workload.then(|| ((name.clone(), found.addr.addr()), found.is_ours))
        });
        named.collect()
    }

    /// Returns the ranges of link-local addresses with their links, as `zone` numbers them; they
    /// come before what routes say.
    fn ranges(&self) -> impl Iterator<Item = (Cidr, (u32, IfName))> {
        let others = |name: &IfName| !self.workloads.contains(name);
        self.by_index.iter().filter(move |(_, name)| others(name)).filter_map(|(index, name)| {
            let any = zone::on_link(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), *index)?;
            Some((Cidr::containing(any, 32).ok()?, (0, name.clone())))
        })
    }
}

/// Separates our routes from everybody else's.
fn sorted_out(routes: Vec<RouteEntry>, links: &Links, ownership: &Ownership) -> KernelState {
    let mut own = BTreeMap::new();
    let mut underlay = Vec::new();
    let mut ways: BTreeMap<Cidr, (u32, IfName)> = links.ranges().collect();
    for entry in routes {
        if let Some(route) = own_route(&entry, links, ownership) {
            own.insert(entry.key(), route);
            continue;
        }
        if let Some(name) = way_of(&entry, links) {
            let way = (entry.metric, name);
            let known = ways.entry(entry.dst).or_insert_with(|| way.clone());
            *known = way.min(known.clone());
        }
        underlay.extend(underlay_of(&entry).map(|found| (entry.metric, entry.dst, found)));
    }
    // Of several routes to one network the kernel takes the one with the lowest metric.
    underlay.sort_by_key(|(metric, dst, _)| (*metric, *dst));
    let underlay = UnderlayTable::new(underlay.into_iter().map(|(_, dst, found)| (dst, found)));
    KernelState {
        routes: own,
        underlay,
        ways: ways.into_iter().map(|(dst, (_, name))| (dst, name)).collect(),
        workload_links: links.workloads.clone(),
        vrf_tunnels: links.vrf_tunnels.clone(),
        host_mtu: links.host_mtu,
        ..KernelState::default()
    }
}

/// Returns the route in the engine's terms if it is ours, whatever its metric.
fn own_route(entry: &RouteEntry, links: &Links, ownership: &Ownership) -> Option<Route> {
    let target = match &entry.target {
        Target::Link(index) => {
            let name = links.by_index.get(index)?;
            let is_workload = name.as_str().starts_with(&ownership.interface_prefix);
            let is_device_route = entry.protocol == ownership.device_route_protocol;
            let is_tunnel = TunnelDevice::is_ours(name) && is_calico(entry);
            let is_ours = is_tunnel || (is_workload && (is_device_route || is_calico(entry)));
            is_ours.then(|| RouteTarget::Link(name.clone()))?
        }
        Target::Via(hops) if is_calico(entry) && RouteEntry::tunnel_of(hops).is_some() => {
            let (link, gateway) = RouteEntry::tunnel_of(hops)?;
            RouteTarget::Tunnel(links.by_index.get(&link)?.clone(), gateway)
        }
        Target::Via(hops) if is_calico(entry) => {
            RouteTarget::Via(hops.iter().map(NextHop::addr).collect())
        }
        Target::Blackhole if is_calico(entry) => RouteTarget::Blackhole,
        Target::Via(_)
        | Target::Blackhole
        | Target::Throw
        | Target::Unreachable
        | Target::Other(_) => return None,
    };
    Some(Route { target, protocol: entry.protocol })
}

fn is_calico(entry: &RouteEntry) -> bool {
    entry.protocol == RouteProtocol::CALICO
}

/// Returns the interface that a route leads out of.
fn way_of(entry: &RouteEntry, links: &Links) -> Option<IfName> {
    let index = match &entry.target {
        Target::Link(index) => *index,
        Target::Via(hops) => hops.first()?.link?,
        Target::Blackhole | Target::Throw | Target::Unreachable | Target::Other(_) => return None,
    };
    links.by_index.get(&index).cloned()
}

/// Returns what the route says of reaching next hops, if it says anything.
fn underlay_of(entry: &RouteEntry) -> Option<Underlay> {
    match &entry.target {
        Target::Link(_) => Some(Underlay::OnLink),
        Target::Via(hops) => hops.first().map(|hop| Underlay::Via(hop.addr())),
        Target::Blackhole | Target::Throw | Target::Unreachable | Target::Other(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPLINK: IfIndex = IfIndex(2);
    const WORKLOAD: IfIndex = IfIndex(7);
    const TUNNEL: IfIndex = IfIndex(8);

    fn links() -> Links {
        let named = |index: IfIndex, name: &str| (index, name.parse::<IfName>().unwrap());
        Links {
            by_index: [
                named(UPLINK, "eth0"),
                named(WORKLOAD, "cali123"),
                named(TUNNEL, "vxlan.calico"),
            ]
            .into(),
            workloads: ["cali123".parse().unwrap()].into(),
            vrf_tunnels: BTreeSet::new(),
            host_mtu: None,
        }
    }

    fn ownership() -> Ownership {
        Ownership {
            interface_prefix: "cali".to_owned(),
            device_route_protocol: RouteProtocol::BOOT,
            mtu_pattern: None,
        }
    }

    fn via(gateway: &str) -> Target {
        Target::Via(vec![NextHop::on(UPLINK, gateway.parse().unwrap())])
    }

    fn tunnel(gateway: &str) -> Target {
        let hop = NextHop::on(TUNNEL, gateway.parse().unwrap());
        Target::Via(vec![NextHop { is_on_link: true, ..hop }])
    }

    fn sorted(routes: &[(&str, Target, u8)]) -> KernelState {
        let routes = routes.iter().map(|(dst, target, protocol)| {
            RouteEntry::new(dst.parse().unwrap(), target.clone(), RouteProtocol(*protocol))
        });
        sorted_out(routes.collect(), &links(), &ownership())
    }

    #[test]
    fn ours_are_known_by_protocol_and_interface() {
        let state = sorted(&[
            ("0.0.0.0/0", via("10.0.0.254"), 3),
            ("10.0.0.0/24", Target::Link(UPLINK), 2),
            ("10.9.0.0/24", Target::Link(UPLINK), 80),
            ("10.244.0.0/26", Target::Blackhole, 80),
            ("10.244.1.0/26", via("10.0.0.2"), 80),
            ("10.244.2.0/26", via("10.0.0.3"), 12),
            ("10.244.3.0/26", tunnel("10.244.3.0"), 80),
            ("10.244.0.5/32", Target::Link(WORKLOAD), 3),
            ("192.0.2.0/24", Target::Blackhole, 4),
        ]);
        let ours: Vec<String> =
            state.routes.iter().map(|(dst, route)| format!("{dst} {route}")).collect();
        assert_eq!(
            ours,
            [
                "10.244.0.0/26 blackhole proto 80",
                "10.244.0.5/32 dev cali123 scope link proto 3",
                "10.244.1.0/26 via 10.0.0.2 proto 80",
                "10.244.3.0/26 via 10.244.3.0 dev vxlan.calico onlink proto 80",
            ]
        );
    }

    #[test]
    fn next_hops_are_reached_by_others_routes_only() {
        let state = sorted(&[
            ("0.0.0.0/0", via("10.0.0.254"), 3),
            ("10.0.0.0/24", Target::Link(UPLINK), 2),
            ("10.244.1.0/26", via("10.0.0.2"), 80),
        ]);
        let gateway = |next_hop: &str| state.underlay.gateway(next_hop.parse().unwrap());
        assert_eq!(gateway("10.0.0.2"), Some("10.0.0.2".parse().unwrap()));
        assert_eq!(gateway("10.244.1.1"), Some("10.0.0.254".parse().unwrap()));
    }

    #[test]
    fn the_lowest_metric_reaches_a_next_hop() {
        let mut worse =
            RouteEntry::new("0.0.0.0/0".parse().unwrap(), via("10.0.0.253"), RouteProtocol(3));
        worse.metric = 100;
        let better =
            RouteEntry::new("0.0.0.0/0".parse().unwrap(), via("10.0.0.254"), RouteProtocol(3));
        let fabric =
            RouteEntry::new("10.0.0.0/24".parse().unwrap(), Target::Link(UPLINK), RouteProtocol(2));
        let state = sorted_out(vec![worse, better, fabric], &links(), &ownership());
        assert_eq!(
            state.underlay.gateway("192.0.2.9".parse().unwrap()),
            Some("10.0.0.254".parse().unwrap())
        );
    }
}
