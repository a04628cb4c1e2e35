//! The veth pair and everything on it: carries out a [`Plan`] in the kernel.

use std::net::IpAddr;
use std::time::Duration;

use cni::config::{Bandwidth, Rate};
use cni::{Error, ErrorCode};
use kernel::netlink::{
    Link, MAIN_TABLE, Neighbour, NextHop, RateLimit, RouteEntry, RouteFilter, Target, VethSpec,
    ifb_name,
};
use kernel::{Netlink, Netns, sysctl};
use model::desired::{Need, RouteKey, RouteProtocol, Setting};
use model::net::{Cidr, Family, IfName, MacAddr, Mtu};
use model::vrf::VrfName;

use crate::plan::{GATEWAY_V4, Plan};
use crate::vrf::VrfDevice;

/// How long the host's side may take to get its link-local address.
const LINK_LOCAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Both ends of the wire: route sockets on the host and inside the container.
#[derive(Debug)]
pub(crate) struct Ends {
    host: Netlink,
    container: Netlink,
    netns: Netns,
}

/// A veth pair.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    /// The host's side.
    pub(crate) host: Link,
    /// The container's side.
    pub(crate) container: Link,
}

/// What is already there when an ADD begins.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// Nothing.
    Nothing,
    /// A host's side of that name that leads elsewhere: an earlier container's.
    StaleHostSide,
    /// Our own pair: an earlier ADD of this container made it.
    Pair(Box<Pair>),
}

impl Ends {
    /// Opens the container's namespace.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidNetns`] if it is none, or the host's own.
    pub(crate) fn open(netns: &cni::environment::Netns) -> Result<Self, Error> {
        let path = netns.path();
        let invalid = |details: String| {
            let message = format!("CNI_NETNS {} cannot be used", path.display());
            Error::new(ErrorCode::InvalidNetns, message).with_details(details)
        };
        let own = Netns::current().and_then(|own| own.id());
        let netns = Netns::open(path).map_err(|error| invalid(error.to_string()))?;
        let id = netns.id().map_err(|error| invalid(error.to_string()))?;
        if own.is_ok_and(|own| own == id) {
            return Err(invalid(
                "it is the namespace that the plugin runs in: give the container's".to_owned(),
            ));
        }
        let host = Netlink::open().map_err(|error| refused(&error))?;
        let container = Netlink::open_in(&netns).map_err(|error| refused(&error))?;
        Ok(Self { host, container, netns })
    }

    /// Looks for what an earlier ADD has left.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Kernel`], also if the container has a foreign interface of that name.
    pub(crate) async fn find(&self, host_name: &IfName, if_name: &IfName) -> Result<Found, Error> {
        let looked = tokio::try_join!(self.host.link(host_name), self.container.link(if_name));
        match looked.map_err(|error| refused(&error))? {
            (None, None) => Ok(Found::Nothing),
            (Some(_), None) => Ok(Found::StaleHostSide),
            (Some(host), Some(container)) if are_peers(&host, &container) => {
                Ok(Found::Pair(Box::new(Pair { host, container })))
            }
            (_, Some(_)) => {
                let message = format!(
                    "the container has an interface {if_name} that is not ours: \
                     use another CNI_IFNAME or a new namespace"
                );
                Err(Error::new(ErrorCode::Kernel, message))
            }
        }
    }

    /// Finds the device of the VRF that a namespace is of.
    ///
    /// # Errors
    ///
    /// As [`VrfDevice::find`].
    pub(crate) async fn vrf(&self, vrf: &VrfName, namespace: &str) -> Result<VrfDevice, Error> {
        VrfDevice::find(&self.host, vrf, namespace).await
    }

    /// Returns the VRF that the host's side is in, and its device.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Kernel`].
    pub(crate) async fn vrf_above(
        &self,
        host_name: &IfName,
    ) -> Result<Option<(VrfName, VrfDevice)>, Error> {
        VrfDevice::above(&self.host, host_name).await.map_err(|error| refused(&error))
    }

    /// Makes the pair; the host's side is up afterwards, the container's is not.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Kernel`].
    pub(crate) async fn make_pair(
        &self,
        host_name: &IfName,
        if_name: &IfName,
        mac: Option<MacAddr>,
        (mtu, vrf): (Option<Mtu>, Option<&VrfDevice>),
    ) -> Result<Pair, Error> {
        let spec = VethSpec {
            host_name,
            // Set when the link is made, so that udev never gives it another.
            host_mac: MacAddr::WORKLOAD_HOST_SIDE,
            peer_name: if_name,
            peer_mac: mac,
            peer_netns: &self.netns,
            mtu,
            master: vrf.map(|vrf| vrf.index),
        };
        self.host.add_veth(&spec).await.map_err(|error| refused(&error))?;
        let links = tokio::try_join!(
            self.host.require_link(host_name),
            self.container.require_link(if_name)
        );
        let (mut host, container) = links.map_err(|error| refused(&error))?;
        if host.mac != Some(MacAddr::WORKLOAD_HOST_SIDE) {
            let set = self.host.set_link_mac(host.index, MacAddr::WORKLOAD_HOST_SIDE).await;
            set.map_err(|error| refused(&error))?;
            host.mac = Some(MacAddr::WORKLOAD_HOST_SIDE);
        }
        Ok(Pair { host, container })
    }

    /// Gives the pair its parameters, addresses and routes.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Kernel`].
    pub(crate) async fn apply(&self, plan: &Plan, pair: &Pair) -> Result<(), Error> {
        set_all(&plan.host_settings())?;
        self.inside(|| set_all(&plan.container_settings()))??;
        let up = self.container.set_link_up(pair.container.index).await;
        up.map_err(|error| refused(&error))?;
        for addr in plan.interface_addrs() {
            let added = self.container.add_addr(pair.container.index, addr).await;
            added.map_err(|error| refused(&error))?;
        }
        for route in self.container_routes(plan, pair).await? {
            self.container.upsert_route(&route).await.map_err(|error| refused(&error))?;
        }
        for addr in &plan.addrs {
            self.add_host_route(&host_route(*addr, plan, &pair.host), &pair.host).await?;
        }
        Ok(())
    }

    /// Limits how fast the container may receive and send, if it is limited.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Kernel`].
    pub(crate) async fn limit(&self, pair: &Pair, bandwidth: Bandwidth) -> Result<(), Error> {
        let limit = |rate: Rate| RateLimit::of_bits(rate.rate, rate.burst);
        let host = &pair.host;
        if let Some(rate) = bandwidth.ingress {
            let limited = self.host.limit_sending(host.index, limit(rate)).await;
            limited.map_err(|error| refused(&error))?;
        }
        if let (Some(rate), Some(ifb)) = (bandwidth.egress, ifb_name(&host.name)) {
            let limited = self.host.limit_receiving(host.index, &ifb, limit(rate)).await;
            limited.map_err(|error| refused(&error))?;
        }
        Ok(())
    }

    /// Returns the routes that the container should have.
    async fn container_routes(&self, plan: &Plan, pair: &Pair) -> Result<Vec<RouteEntry>, Error> {
        let link = pair.container.index;
        let route = |dst, target| RouteEntry::new(dst, target, RouteProtocol::BOOT);
        let mut routes = Vec::new();
        if plan.families().contains(&Family::V4) {
            let gateway = Cidr::host(IpAddr::V4(GATEWAY_V4));
            routes.push(route(gateway, Target::Link(link)));
        }
        let mut gateway_v6 = None;
        for dst in &plan.routes {
            let gateway = match (dst.family(), gateway_v6) {
                (Family::V4, _) => IpAddr::V4(GATEWAY_V4),
                (Family::V6, Some(gateway)) => gateway,
                (Family::V6, None) => {
                    let wait = self.host.wait_link_local(&pair.host, LINK_LOCAL_TIMEOUT);
                    *gateway_v6.insert(wait.await.map_err(|error| refused(&error))?)
                }
            };
            routes.push(route(*dst, Target::Via(vec![NextHop::on(link, gateway)])));
        }
        Ok(routes)
    }

    /// Adds a host route, unless another interface has one to the same address.
    async fn add_host_route(&self, route: &RouteEntry, link: &Link) -> Result<(), Error> {
        match self.host.add_sole_route(route).await.map_err(|error| refused(&error))? {
            None => Ok(()),
            Some(other) => {
                let message = format!(
                    "route {other} is in the way of {}'s address: its owner must remove it",
                    link.name
                );
                Err(Error::new(ErrorCode::Kernel, message))
            }
        }
    }

    /// Deletes the container's interface and with it the pair.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Kernel`].
    pub(crate) async fn delete_in_container(&self, if_name: &IfName) -> Result<bool, Error> {
        self.container.delete_link(if_name).await.map_err(|error| refused(&error))
    }

    /// Says in which ways the kernel differs from the plan.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Kernel`] if it cannot be found out.
    pub(crate) async fn differences(&self, plan: &Plan, pair: &Pair) -> Result<Vec<String>, Error> {
        let mut differences = Vec::new();
        for link in [&pair.host, &pair.container] {
            if !link.is_up {
                differences.push(format!("{} is down", link.name));
            }
        }
        if pair.host.mac != Some(MacAddr::WORKLOAD_HOST_SIDE) {
            differences.push(format!("{} has another MAC address than ours", pair.host.name));
        }
        let addrs = self.container.addrs_of(pair.container.index).await;
        let addrs = addrs.map_err(|error| refused(&error))?;
        for wanted in plan.interface_addrs() {
            if !addrs.iter().any(|found| found.addr.addr() == wanted.addr()) {
                differences.push(format!("{} lacks {wanted}", pair.container.name));
            }
        }
        self.compare_routes(plan, pair, &mut differences).await?;
        self.compare_neighbours(plan, pair, &mut differences).await?;
        differences.extend(differing(&plan.host_settings()));
        differences.extend(self.inside(|| differing(&plan.container_settings()))?);
        Ok(differences)
    }

    async fn compare_routes(
        &self,
        plan: &Plan,
        pair: &Pair,
        differences: &mut Vec<String>,
    ) -> Result<(), Error> {
        let all = RouteFilter::of_protocols([]);
        let own = RouteFilter { table: plan.table, ..RouteFilter::of_protocols([]) };
        let read = tokio::try_join!(self.host.routes(&own), self.container.routes(&all));
        let (host, container) = read.map_err(|error| refused(&error))?;
        for addr in &plan.addrs {
            let wanted = host_route(*addr, plan, &pair.host);
            let is_it = |found: &&RouteEntry| found.dst == wanted.dst;
            if host.iter().find(is_it).map(|found| &found.target) != Some(&wanted.target) {
                differences.push(format!(
                    "the host lacks route {} dev {} table {}",
                    wanted.dst, pair.host.name, plan.table
                ));
            }
        }
        // Later plugins of the chain may have changed where a route leads, so only
        // its being there counts.
        for dst in &plan.routes {
            if !container.iter().any(|found| found.dst == *dst) {
                differences.push(format!("the container lacks route {dst}"));
            }
        }
        Ok(())
    }

    /// Compares the VRF that the host's side is in with the one that it should be in.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Kernel`] if it cannot be found out.
    pub(crate) async fn compare_vrf(
        &self,
        vrf: Option<&VrfName>,
        host_name: &IfName,
    ) -> Result<Vec<String>, Error> {
        let found = self.vrf_above(host_name).await?.map(|(name, _)| name);
        if found.as_ref() == vrf {
            return Ok(Vec::new());
        }
        let text = |vrf: Option<&VrfName>| {
            vrf.map_or_else(|| "no VRF".to_owned(), |vrf| format!("VRF {vrf}"))
        };
        let (found, wanted) = (text(found.as_ref()), text(vrf));
        Ok(vec![format!("{host_name} is in {found} and not in {wanted}")])
    }

    /// Looks for neighbours that lead packets astray: of the container's addresses on the host,
    /// and of the gateway inside the container. None is well, since they are found by asking.
    async fn compare_neighbours(
        &self,
        plan: &Plan,
        pair: &Pair,
        differences: &mut Vec<String>,
    ) -> Result<(), Error> {
        let read = tokio::try_join!(self.host.neighbours(), self.container.neighbours());
        let (host, container) = read.map_err(|error| refused(&error))?;
        let astray = |found: &Neighbour, link: &Link, addr: IpAddr, mac: Option<MacAddr>| {
            found.link == link.index && found.addr == addr && Some(found.mac) != mac
        };
        for addr in &plan.addrs {
            let wrong =
                host.iter().find(|found| astray(found, &pair.host, *addr, pair.container.mac));
            if let Some(wrong) = wrong {
                let (name, mac) = (&pair.host.name, wrong.mac);
                differences.push(format!("{name} takes {mac} for the neighbour {addr}"));
            }
        }
        let gateway = IpAddr::V4(GATEWAY_V4);
        let wrong =
            container.iter().find(|found| astray(found, &pair.container, gateway, pair.host.mac));
        if let Some(wrong) = wrong {
            let (name, mac) = (&pair.container.name, wrong.mac);
            differences.push(format!("{name} takes {mac} for the neighbour {gateway}"));
        }
        Ok(())
    }

    /// Says which of `routes` the container does not have any more.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Kernel`] if it cannot be found out.
    pub(crate) async fn lost_routes(&self, routes: &[Cidr]) -> Result<Vec<String>, Error> {
        if routes.is_empty() {
            return Ok(Vec::new());
        }
        let all = RouteFilter::of_protocols([]);
        let found = self.container.routes(&all).await.map_err(|error| refused(&error))?;
        let is_lost = |dst: &&Cidr| !found.iter().any(|route| route.dst == **dst);
        let lost = routes.iter().filter(is_lost);
        Ok(lost.map(|dst| format!("the container lacks route {dst}")).collect())
    }

    fn inside<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, Error> {
        self.netns.run(f).map_err(|error| {
            Error::new(
                ErrorCode::InvalidNetns,
                format!("CNI_NETNS {} cannot be entered", self.netns),
            )
            .with_details(error.to_string())
        })
    }
}

/// Deletes a host's side, and with it the pair.
///
/// # Errors
///
/// [`ErrorCode::Kernel`].
pub(crate) async fn delete_on_host(host_name: &IfName) -> Result<bool, Error> {
    let host = Netlink::open().map_err(|error| refused(&error))?;
    host.delete_link(host_name).await.map_err(|error| refused(&error))
}

/// Deletes the link through which a container's side sends if it is limited, if there is one:
/// unlike the pair it does not go with the namespace.
///
/// # Errors
///
/// [`ErrorCode::Kernel`].
pub(crate) async fn delete_limit(host_name: &IfName) -> Result<(), Error> {
    let Some(ifb) = ifb_name(host_name) else { return Ok(()) };
    delete_on_host(&ifb).await.map(drop)
}

/// Returns the host's side called `host_name`, if there is one.
///
/// # Errors
///
/// [`ErrorCode::Kernel`].
pub(crate) async fn host_side(host_name: &IfName) -> Result<Option<Link>, Error> {
    let host = Netlink::open().map_err(|error| refused(&error))?;
    host.link(host_name).await.map_err(|error| refused(&error))
}

fn are_peers(host: &Link, container: &Link) -> bool {
    host.peer == Some(container.index) && container.peer == Some(host.index)
}

fn host_route(addr: IpAddr, plan: &Plan, link: &Link) -> RouteEntry {
    let route = RouteEntry::to_workload(addr, link.index);
    if plan.table == MAIN_TABLE {
        return route;
    }
    // In VRFs' tables routes have the kernel's metric.
    let metric = RouteKey::default_metric(route.dst.family());
    RouteEntry { table: plan.table, metric, ..route }
}

fn set_all(settings: &[Setting]) -> Result<(), Error> {
    let set = sysctl::set_all(settings);
    for error in set.map_err(|error| Error::new(ErrorCode::Kernel, error.to_string()))? {
        tracing::warn!(%error, "going on without it");
    }
    Ok(())
}

fn differing(settings: &[Setting]) -> Vec<String> {
    let must = settings.iter().filter(|setting| setting.need == Need::Must);
    let differs = must.filter_map(|setting| match sysctl::read(&setting.name) {
        Ok(value) if value == setting.value => None,
        Ok(value) => Some(format!("{} is {value} and not {}", setting.name, setting.value)),
        Err(error) => Some(error.to_string()),
    });
    differs.collect()
}

fn refused(error: &kernel::netlink::Error) -> Error {
    Error::new(ErrorCode::Kernel, error.to_string())
}
