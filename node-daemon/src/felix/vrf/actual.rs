//! Reading the kernel's side of VRFs, and changing it.

use std::collections::{BTreeMap, BTreeSet};

use ::kernel::Errno;
use ::kernel::netlink::{self, Link, Netlink, RouteEntry, RouteFilter, Target};
use ::kernel::route_table::{self, Change, KernelRoutes, RouteTable as _};
use ::kernel::sysctl;
use ::kernel::tunnels::{KernelTunnels, Tunnels as _};
use model::desired::{Route, RouteKey, RouteProtocol, RouteTarget};
use model::net::{Cidr, Family, IfIndex, IfName};

use super::plan::{Actual, Step, Table, is_ours, is_tunnel};
use super::{ALIAS, Wanted};

/// The metric of a table's last route, which any other comes before (the kernel's documentation of
/// VRF advises it).
const LAST: u32 = 4_278_198_272;

/// Why the kernel could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// What was asked for failed.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// The kernel has no VRFs.
    #[error(
        "this kernel knows no VRF, so no pool's VRF is on this node: load the module `vrf` \
         (CONFIG_NET_VRF), or keep its pools off this node by their nodeSelector"
    )]
    Unsupported,
}

/// The door to VRFs.
#[derive(Debug)]
pub(super) struct Kernel {
    netlink: Netlink,
    /// How the names of workloads' links start.
    prefix: String,
}

impl Kernel {
    pub(super) const fn new(netlink: Netlink, prefix: String) -> Self {
        Self { netlink, prefix }
    }

    /// Reads what there is of ours, or in its place.
    pub(super) async fn read(&self, wanted: &Wanted) -> Result<Actual, Error> {
        let links = self.netlink.links().await?;
        let links: BTreeMap<IfName, Link> =
            links.into_iter().map(|link| (link.name.clone(), link)).collect();
        let workloads = links.keys().filter(|name| name.as_str().starts_with(&self.prefix));
        let names: BTreeMap<IfIndex, IfName> =
            links.iter().map(|(name, link)| (link.index, name.clone())).collect();
        let tunnels = links.iter().filter(|(name, link)| is_tunnel(name, link));
        let tunnels: Vec<IfName> = tunnels.map(|(name, _)| name.clone()).collect();
        let mut actual = Actual {
            workloads: workloads.cloned().collect(),
            tunnels: KernelTunnels::new(self.netlink.clone()).list(&tunnels).await?,
            families: families(),
            ..Actual::default()
        };
        let ours = links.values().filter(|link| is_ours(link));
        let tables = wanted.devices.by_name.values().map(|device| device.id.table());
        let tables: BTreeSet<u32> = ours.filter_map(|link| link.vrf_table).chain(tables).collect();
        for number in tables {
            let (families, protocols) = (actual.families.iter().copied().collect(), [].into());
            let filter = RouteFilter { table: number, families, protocols };
            let entries = self.netlink.routes(&filter).await?.into_iter();
            // A kernel without strict checking lists other tables, too.
            let entries = entries.filter(|entry| entry.table == number);
            let mut table = Table::default();
            for entry in entries {
                if is_last(&entry) {
                    table.guarded.insert(entry.dst.family());
                } else if let Some(route) = self.own_route(&entry, &names, wanted) {
                    table.routes.insert(entry.dst, route);
                }
            }
            actual.tables.insert(number, table);
        }
        actual.links = links;
        Ok(actual)
    }

    /// Returns a route if it is ours.
    fn own_route(
        &self,
        entry: &RouteEntry,
        names: &BTreeMap<IfIndex, IfName>,
        wanted: &Wanted,
    ) -> Option<Route> {
        let route = route_table::described(entry, names)?;
        let is_workloads = matches!(&route.target, RouteTarget::Link(name) if name.as_str().starts_with(&self.prefix));
        let is_ours = route.protocol == RouteProtocol::CALICO
            || (is_workloads && route.protocol == wanted.device_route_protocol);
        (is_ours && entry.key() == RouteKey::from(entry.dst)).then_some(route)
    }

    /// Makes one change.
    pub(super) async fn apply(&self, step: &Step) -> Result<(), Error> {
        match step {
            Step::AddVrf(name, table) => match self.netlink.add_vrf(name, *table).await {
                Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => {
                    return Err(Error::Unsupported);
                }
                done => done?,
            },
            Step::Mark(_, link) => self.netlink.set_link_alias(*link, ALIAS).await?,
            Step::SetUp(name, link) => {
                self.netlink.set_link_up(*link).await?;
                let_forward(name);
            }
            Step::Guard(table, family) => self.netlink.upsert_route(&last(*table, *family)).await?,
            Step::Unguard(table, family) => {
                self.netlink.delete_route(&last(*table, *family)).await?;
            }
            Step::Tunnel(name, device) => {
                KernelTunnels::new(self.netlink.clone()).upsert(name, device).await?;
                let_forward(name);
            }
            Step::Enslave(_, link, vrf) => self.netlink.set_master(*link, Some(*vrf)).await?,
            Step::Entries(changes) => {
                let done = KernelTunnels::new(self.netlink.clone()).apply(changes).await?;
                done.into_iter().collect::<Result<(), _>>()?;
            }
            Step::Routes(table, changes) => return self.routes(*table, changes).await,
            Step::Delete(name) => {
                self.netlink.delete_link(name).await?;
            }
            Step::Look => {}
        }
        Ok(())
    }

    async fn routes(&self, table: u32, changes: &[Change]) -> Result<(), Error> {
        let filter = RouteFilter { table, ..RouteFilter::of_protocols([]) };
        let done = KernelRoutes::new(self.netlink.clone(), filter).apply(changes).await?;
        done.into_iter().try_for_each(|done| Ok(done?))
    }
}

/// Returns the route by which what a table has no other for goes nowhere.
fn last(table: u32, family: Family) -> RouteEntry {
    let any = match family {
        Family::V4 => std::net::IpAddr::from([0; 4]),
        Family::V6 => std::net::IpAddr::from([0; 16]),
    };
    let dst = Cidr::containing(any, 0).unwrap_or_else(|_| Cidr::host(any));
    RouteEntry {
        table,
        metric: LAST,
        ..RouteEntry::new(dst, Target::Unreachable, RouteProtocol::CALICO)
    }
}

fn is_last(entry: &RouteEntry) -> bool {
    *entry == last(entry.table, entry.dst.family())
}

/// Returns the families that this kernel has.
fn families() -> Vec<Family> {
    let has = |family: &Family| {
        sysctl::read(&format!("net/ipv{}/conf/all/forwarding", family.number())).is_ok()
    };
    Family::ALL.into_iter().filter(has).collect()
}

/// Lets packets pass that come in by a VRF's device: what its links receive counts as received by it.
fn let_forward(name: &IfName) {
    for family in Family::ALL {
        match sysctl::write(&sysctl::of_interface(family, name, "forwarding"), "1") {
            // A kernel without IPv6.
            Ok(()) | Err(sysctl::Error::Missing { .. }) => {}
            Err(error) => tracing::warn!(%error, "packets of a VRF may be dropped"),
        }
    }
}
