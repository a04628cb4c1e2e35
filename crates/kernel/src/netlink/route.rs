//! Routes by the kernel's own numbers: tables, metrics, interfaces (ip-route(8)).
//!
//! [`crate::route_table`] is the view of one table in `model`'s words.

mod message;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use model::desired::{RouteKey, RouteProtocol};
use model::net::{Cidr, Family, IfIndex, zone};
use model::peer::RoutePriority;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;

use super::dump::refused;
use super::transport::Failure;
use super::{Error, Netlink};

pub(crate) use message::of_route_message;

/// The table that is looked up when no rule says otherwise.
pub const MAIN_TABLE: u32 = 254;

/// A route, by the kernel's numbers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RouteEntry {
    /// What packets it is for.
    pub dst: Cidr,
    /// Where they go.
    pub target: Target,
    /// Whose route it is.
    pub protocol: RouteProtocol,
    /// The table that it is in.
    pub table: u32,
    /// Its metric: of two routes to the same destination the lower one is used.
    pub metric: u32,
}

/// Where a route sends packets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// Out of a link, to a neighbour on it (`scope link`).
    Link(IfIndex),
    /// To one of several gateways; never empty.
    Via(Vec<NextHop>),
    /// Nowhere, silently.
    Blackhole,
    /// Back to the rules: the packet is looked up in the table of the next one.
    Throw,
    /// Nowhere; whoever sent the packet is told (ICMP).
    Unreachable,
    /// Anything else that a route can do, by its `RTN_…` number; it can be deleted
    /// but not written.
    Other(u8),
}

/// A gateway of a route.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct NextHop {
    /// The gateway's address.
    pub gateway: IpAddr,
    /// The link that it is on; `None` lets the kernel find it.
    pub link: Option<IfIndex>,
    /// Is it taken to be on that link though no route says so?
    pub is_on_link: bool,
}

/// A change of one route.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RouteChange {
    /// Write the route in place of any with the same destination, table and metric.
    Upsert(RouteEntry),
    /// Delete the route with the same destination, table, metric and protocol, and out of the same
    /// link if it needs no gateway.
    Delete(RouteEntry),
}

/// Which routes to list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RouteFilter {
    /// The table.
    pub table: u32,
    /// The address families.
    pub families: BTreeSet<Family>,
    /// Whose routes; empty means everybody's.
    pub protocols: BTreeSet<RouteProtocol>,
}

impl RouteFilter {
    /// Returns the filter for the main table, both families and these protocols.
    #[must_use]
    pub fn of_protocols(protocols: impl IntoIterator<Item = RouteProtocol>) -> Self {
        Self {
            table: MAIN_TABLE,
            families: Family::ALL.into(),
            protocols: protocols.into_iter().collect(),
        }
    }
}

impl RouteEntry {
    /// Makes a route for the main table, with its family's default metric.
    #[must_use]
    pub fn new(dst: Cidr, target: Target, protocol: RouteProtocol) -> Self {
        let RouteKey { dst, metric } = dst.into();
        Self { dst, target, protocol, table: MAIN_TABLE, metric }
    }

    /// Makes the host's route to a workload, as plugins write it: with the metric that calico-node
    /// gives it if nobody says otherwise, so that it needs no other one afterwards.
    #[must_use]
    pub fn to_workload(addr: IpAddr, link: IfIndex) -> Self {
        let (dst, target) = (Cidr::host(addr), Target::Link(link));
        let metric = RoutePriority::NORMAL.of(dst.family());
        Self { metric, ..Self::new(dst, target, RouteProtocol::BOOT) }
    }

    /// Returns what the kernel tells it apart by from the others of its table.
    #[must_use]
    pub const fn key(&self) -> RouteKey {
        RouteKey { dst: self.dst, metric: self.metric }
    }

    /// Does it lead out of a link that it names: straight, or to a gateway that only the route
    /// knows of?
    #[must_use]
    pub fn needs_link(&self) -> bool {
        match &self.target {
            Target::Link(_) => true,
            Target::Via(hops) => Self::tunnel_of(hops).is_some(),
            Target::Blackhole | Target::Throw | Target::Unreachable | Target::Other(_) => false,
        }
    }

    /// Returns the link and the gateway of a route that leads through a tunnel: to one gateway,
    /// which is on that link because the route says so (`onlink`).
    #[must_use]
    pub const fn tunnel_of(hops: &[NextHop]) -> Option<(IfIndex, IpAddr)> {
        match hops {
            [NextHop { gateway, link: Some(link), is_on_link: true }] => Some((*link, *gateway)),
            _ => None,
        }
    }
}

impl NextHop {
    /// Makes a gateway whose link the kernel finds.
    #[must_use]
    pub const fn new(gateway: IpAddr) -> Self {
        Self { gateway, link: None, is_on_link: false }
    }

    /// Makes the gateway `addr`, on the link that it names if it is link-local.
    #[must_use]
    pub fn at(addr: IpAddr) -> Self {
        let (gateway, link) = zone::split(addr);
        Self { gateway, link, is_on_link: false }
    }

    /// Returns the gateway's address, with its link if it is link-local.
    #[must_use]
    pub fn addr(&self) -> IpAddr {
        match (self.gateway, self.link) {
            (IpAddr::V6(addr), Some(link)) => zone::on_link(addr, link).unwrap_or(self.gateway),
            _ => self.gateway,
        }
    }

    /// Makes a gateway on `link`, as an IPv6 link-local one must be.
    #[must_use]
    pub const fn on(link: IfIndex, gateway: IpAddr) -> Self {
        Self { gateway, link: Some(link), is_on_link: false }
    }
}

impl Netlink {
    /// Lists the routes that `filter` asks for; the kernel filters.
    ///
    /// Each pair of family and protocol is one consistent reading.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kernel refuses or its answer makes no sense.
    pub async fn routes(&self, filter: &RouteFilter) -> Result<Vec<RouteEntry>, Error> {
        let mut routes = Vec::new();
        let everybody = [RouteProtocol(0)].into();
        let protocols = if filter.protocols.is_empty() { &everybody } else { &filter.protocols };
        for family in &filter.families {
            for protocol in protocols {
                let question = message::question(*family, filter.table, *protocol);
                let found = self.dump("routes", RouteNetlinkMessage::GetRoute(question)).await;
                match found {
                    Ok(found) => routes.extend(found.iter().filter_map(of_message)),
                    // What the kernel says of a table that has never held a route.
                    Err(error) if error.errno() == Some(Errno::ENOENT) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(routes)
    }

    /// Writes a route in place of any with the same destination, table and metric.
    ///
    /// # Errors
    ///
    /// [`Error::Unwritable`], or [`Error`] if the kernel refuses.
    pub async fn upsert_route(&self, route: &RouteEntry) -> Result<(), Error> {
        let request = request(&RouteChange::Upsert(route.clone()))?;
        self.request(request, "write", || format!("route {route}")).await.map(drop)
    }

    /// Writes a route unless there is one with the same destination, table and metric.
    ///
    /// # Errors
    ///
    /// [`Error::is_exists`] if there is one; else as for [`Netlink::upsert_route`].
    pub async fn add_route(&self, route: &RouteEntry) -> Result<(), Error> {
        let flags = NLM_F_CREATE | netlink_packet_core::NLM_F_EXCL;
        let request = (RouteNetlinkMessage::NewRoute(message::of_route(route)?), flags);
        self.request(request, "add", || format!("route {route}")).await.map(drop)
    }

    /// Writes a route unless another one, by whatever metric, is used to the same destination or has
    /// the same metric; returns the one that is in the way.
    ///
    /// # Errors
    ///
    /// As for [`Netlink::upsert_route`].
    pub async fn add_sole_route(&self, route: &RouteEntry) -> Result<Option<RouteEntry>, Error> {
        let is_another =
            |found: &RouteEntry| found.dst == route.dst && found.target != route.target;
        let used = self.route_to(route.dst.addr()).await?;
        if let Some(other) = used.filter(|found| found.table == route.table && is_another(found)) {
            return Ok(Some(other));
        }
        match self.add_route(route).await {
            Err(error) if error.is_exists() => {
                let filter = RouteFilter { table: route.table, ..RouteFilter::of_protocols([]) };
                Ok(self.routes(&filter).await?.into_iter().find(is_another))
            }
            outcome => outcome.map(|()| None),
        }
    }

    /// Returns the route that a packet of this machine's to `addr` takes, unless there is none or
    /// it drops the packet.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kernel cannot be asked.
    pub async fn route_to(&self, addr: IpAddr) -> Result<Option<RouteEntry>, Error> {
        let request = (RouteNetlinkMessage::GetRoute(message::lookup(addr)), 0);
        match self.request(request, "look up", || format!("route to {addr}")).await {
            Ok(found) => Ok(found.as_ref().and_then(of_message)),
            // What it does with the packet is told as the reason.
            Err(error) if error.errno().is_some() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes the route with the same destination, table, metric and protocol;
    /// returns whether it was there.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kernel refuses for another reason than absence.
    pub async fn delete_route(&self, route: &RouteEntry) -> Result<bool, Error> {
        let request = request(&RouteChange::Delete(route.clone()))?;
        match self.request(request, "delete", || format!("route {route}")).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes many changes in few system calls, in their order; returns what came of each.
    ///
    /// Deleting what is not there is no error.
    ///
    /// # Errors
    ///
    /// [`Error`] if the socket fails: then it is unknown which changes were made,
    /// and the table must be listed again.
    pub async fn apply_routes(
        &self,
        changes: &[RouteChange],
    ) -> Result<Vec<Result<(), Error>>, Error> {
        let mut outcomes: Vec<Result<(), Error>> = Vec::with_capacity(changes.len());
        let mut requests = Vec::with_capacity(changes.len());
        let mut places = Vec::with_capacity(changes.len());
        for (place, change) in changes.iter().enumerate() {
            match request(change) {
                Ok(request) => {
                    requests.push(request);
                    places.push(place);
                    outcomes.push(Ok(()));
                }
                Err(error) => outcomes.push(Err(error)),
            }
        }
        let refusals = self.transport.batch(requests).await.map_err(|failure| match failure {
            Failure::Broken(error) => error,
            Failure::Refused(reason) => refused("write", "routes".to_owned(), reason),
            Failure::Interrupted => Error::KeepsChanging { table: "routes", attempts: 1 },
        })?;
        for (sent, reason) in refusals {
            let Some(place) = places.get(sent).copied() else { continue };
            let (Some(change), Some(outcome)) = (changes.get(place), outcomes.get_mut(place))
            else {
                continue;
            };
            let error = match change {
                RouteChange::Upsert(route) => refused("write", format!("route {route}"), reason),
                RouteChange::Delete(route) => refused("delete", format!("route {route}"), reason),
            };
            let is_done = matches!(change, RouteChange::Delete(_)) && error.is_missing();
            *outcome = if is_done { Ok(()) } else { Err(error) };
        }
        Ok(outcomes)
    }
}

fn request(change: &RouteChange) -> Result<super::transport::Request, Error> {
    Ok(match change {
        RouteChange::Upsert(route) => {
            let message = RouteNetlinkMessage::NewRoute(message::of_route(route)?);
            (message, NLM_F_CREATE | NLM_F_REPLACE)
        }
        RouteChange::Delete(route) => (RouteNetlinkMessage::DelRoute(message::to_delete(route)), 0),
    })
}

fn of_message(message: &RouteNetlinkMessage) -> Option<RouteEntry> {
    match message {
        RouteNetlinkMessage::NewRoute(message) => of_route_message(message),
        _ => None,
    }
}

impl fmt::Display for RouteEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} proto {}", self.dst, self.target, self.protocol.0)?;
        if self.table != MAIN_TABLE {
            write!(f, " table {}", self.table)?;
        }
        if self.metric != RouteKey::default_metric(self.dst.family()) {
            write!(f, " metric {}", self.metric)?;
        }
        Ok(())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(index) => write!(f, "dev {} scope link", index.0),
            Self::Blackhole => f.write_str("blackhole"),
            Self::Throw => f.write_str("throw"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::Other(kind) => write!(f, "type {kind}"),
            Self::Via(hops) => {
                for (place, hop) in hops.iter().enumerate() {
                    write!(f, "{}{hop}", if place == 0 { "" } else { " " })?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "via {}", self.gateway)?;
        if let Some(index) = self.link {
            write!(f, " dev {}", index.0)?;
        }
        if self.is_on_link { f.write_str(" onlink") } else { Ok(()) }
    }
}
