//! One route table as a map from destination and metric to [`model::desired::Route`].
//!
//! [`KernelRoutes`] is the kernel's own, [`crate::fake::Routes`] a working one in
//! memory; both pass the tests in `tests/route_table.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;

use model::desired::{Route, RouteKey, RouteTarget};
use model::net::{IfIndex, IfName};

use crate::netlink::{Error, Link, Netlink, NextHop, RouteChange, RouteEntry, RouteFilter, Target};

/// A table of routes, seen through a filter.
pub trait RouteTable {
    /// Lists the routes that pass the filter.
    fn list(&self) -> impl Future<Output = Result<BTreeMap<RouteKey, Route>, Error>> + Send;

    /// Makes changes in their order; returns what came of each.
    ///
    /// The outer error means that it is unknown what was done: list again.
    fn apply(
        &self,
        changes: &[Change],
    ) -> impl Future<Output = Result<Vec<Result<(), Error>>, Error>> + Send;
}

/// A change of one route.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// Write the route in place of any other with that destination and metric.
    Upsert(RouteKey, Route),
    /// Delete the route with that destination and metric if it has the same protocol, and leads out
    /// of the same link if it needs no gateway; it may be gone already. Of metric zero, IPv4's
    /// default, the kernel takes whichever is best of those.
    Delete(RouteKey, Route),
}

/// A table of the kernel's, in the namespace of a [`Netlink`].
#[derive(Clone, Debug)]
pub struct KernelRoutes {
    netlink: Netlink,
    filter: RouteFilter,
}

/// Up to so many interfaces are asked for one by one; beyond, all are listed.
const FEW: usize = 4;

impl KernelRoutes {
    /// Makes the view of the routes that `filter` asks for.
    #[must_use]
    pub const fn new(netlink: Netlink, filter: RouteFilter) -> Self {
        Self { netlink, filter }
    }

    /// Returns the numbers of the interfaces that routes lead out of.
    async fn indexes(&self, changes: &[Change]) -> Result<BTreeMap<IfName, IfIndex>, Error> {
        let names: BTreeSet<&IfName> = changes.iter().filter_map(Change::if_name).collect();
        let mut found = BTreeMap::new();
        if names.len() > FEW {
            found.extend(self.netlink.links().await?.into_iter().map(name_and_index));
        } else {
            for name in names {
                found.extend(self.netlink.link(name).await?.map(name_and_index));
            }
        }
        Ok(found)
    }

    fn entry(
        &self,
        (key, route): (&RouteKey, &Route),
        indexes: &BTreeMap<IfName, IfIndex>,
    ) -> Result<RouteEntry, Error> {
        let target = match &route.target {
            RouteTarget::Blackhole => Target::Blackhole,
            RouteTarget::Via(gateways) => {
                Target::Via(gateways.iter().copied().map(NextHop::at).collect())
            }
            RouteTarget::Link(if_name) => Target::Link(index_of(if_name, indexes)?),
            RouteTarget::Tunnel(if_name, gateway) => {
                let hop = NextHop::on(index_of(if_name, indexes)?, *gateway);
                Target::Via(vec![NextHop { is_on_link: true, ..hop }])
            }
        };
        Ok(self.entry_to(*key, target, route))
    }

    fn entry_to(&self, key: RouteKey, target: Target, route: &Route) -> RouteEntry {
        let RouteKey { dst, metric } = key;
        let (table, protocol) = (self.filter.table, route.protocol);
        RouteEntry { dst, target, protocol, table, metric }
    }

    fn change(
        &self,
        change: &Change,
        indexes: &BTreeMap<IfName, IfIndex>,
    ) -> Result<RouteChange, Error> {
        match change {
            Change::Upsert(key, route) => {
                Ok(RouteChange::Upsert(self.entry((key, route), indexes)?))
            }
            Change::Delete(key, route) => {
                let target = match &route.target {
                    RouteTarget::Blackhole => Target::Blackhole,
                    // The address may be that of another workload by now.
                    RouteTarget::Link(name) => Target::Link(index_of(name, indexes)?),
                    RouteTarget::Via(_) | RouteTarget::Tunnel(..) => Target::Via(Vec::new()),
                };
                Ok(RouteChange::Delete(self.entry_to(*key, target, route)))
            }
        }
    }
}

impl RouteTable for KernelRoutes {
    async fn list(&self) -> Result<BTreeMap<RouteKey, Route>, Error> {
        let entries = self.netlink.routes(&self.filter).await?;
        let names: BTreeMap<IfIndex, IfName> = if entries.iter().any(RouteEntry::needs_link) {
            self.netlink.links().await?.into_iter().map(|link| (link.index, link.name)).collect()
        } else {
            BTreeMap::new()
        };
        let mut routes = BTreeMap::new();
        for entry in entries {
            let Some(route) = described(&entry, &names) else { continue };
            // Of several the kernel uses the first.
            routes.entry(entry.key()).or_insert(route);
        }
        Ok(routes)
    }

    async fn apply(&self, changes: &[Change]) -> Result<Vec<Result<(), Error>>, Error> {
        let indexes = self.indexes(changes).await?;
        let mut outcomes = Vec::with_capacity(changes.len());
        let (mut sent, mut places) = (Vec::new(), Vec::new());
        for (place, change) in changes.iter().enumerate() {
            match self.change(change, &indexes) {
                Ok(change) => {
                    sent.push(change);
                    places.push(place);
                    outcomes.push(Ok(()));
                }
                // An interface that is gone has taken its routes along.
                Err(Error::NoSuchLink { .. }) if matches!(change, Change::Delete(..)) => {
                    outcomes.push(Ok(()));
                }
                Err(error) => outcomes.push(Err(error)),
            }
        }
        for (result, place) in self.netlink.apply_routes(&sent).await?.into_iter().zip(places) {
            if let (Some(outcome), Some(change)) = (outcomes.get_mut(place), changes.get(place)) {
                *outcome = result.map_err(|error| error.about(format!("route {change}")));
            }
        }
        Ok(outcomes)
    }
}

impl Change {
    /// Returns the destination and the metric.
    #[must_use]
    pub const fn key(&self) -> RouteKey {
        match self {
            Self::Upsert(key, _) | Self::Delete(key, _) => *key,
        }
    }

    fn if_name(&self) -> Option<&IfName> {
        let (Self::Upsert(_, route) | Self::Delete(_, route)) = self;
        match &route.target {
            RouteTarget::Link(if_name) => Some(if_name),
            // Those are deleted whatever they lead out of.
            RouteTarget::Tunnel(if_name, _) if matches!(self, Self::Upsert(..)) => Some(if_name),
            RouteTarget::Tunnel(..) | RouteTarget::Blackhole | RouteTarget::Via(_) => None,
        }
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Upsert(key, route) | Self::Delete(key, route) => write!(f, "{key} {route}"),
        }
    }
}

fn index_of(if_name: &IfName, indexes: &BTreeMap<IfName, IfIndex>) -> Result<IfIndex, Error> {
    let missing = || Error::NoSuchLink { if_name: if_name.clone() };
    indexes.get(if_name).copied().ok_or_else(missing)
}

fn name_and_index(link: Link) -> (IfName, IfIndex) {
    (link.name, link.index)
}

/// Puts a kernel's route in `model`'s words; `None` if it has none there, or if its link has gone
/// since, and the route with it.
#[must_use]
pub fn described(entry: &RouteEntry, names: &BTreeMap<IfIndex, IfName>) -> Option<Route> {
    let target = match &entry.target {
        Target::Blackhole => Some(RouteTarget::Blackhole),
        Target::Link(index) => names.get(index).cloned().map(RouteTarget::Link),
        Target::Via(hops) if RouteEntry::tunnel_of(hops).is_some() => {
            let (link, gateway) = RouteEntry::tunnel_of(hops)?;
            Some(RouteTarget::Tunnel(names.get(&link)?.clone(), gateway))
        }
        Target::Via(hops) => {
            let gateways: BTreeSet<IpAddr> = hops.iter().map(NextHop::addr).collect();
            Some(RouteTarget::Via(gateways))
        }
        Target::Throw | Target::Unreachable | Target::Other(_) => None,
    };
    target.map(|target| Route { target, protocol: entry.protocol })
}
