//! What the start has to know of the machine: its interfaces, addresses and routes.

use std::net::IpAddr;

use kernel::Netlink;
use kernel::netlink::{Error, RouteFilter};
use model::desired::RouteProtocol;
use model::net::{Cidr, IfName, InterfaceAddr, Mtu};

/// The machine, as far as the start's decisions depend on it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Host {
    /// Its interfaces, in the kernel's order.
    pub(crate) interfaces: Vec<Interface>,
    /// The destinations of routes that somebody else made, default routes left out.
    pub(crate) foreign_routes: Vec<Cidr>,
}

/// One interface.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Interface {
    /// Its name.
    pub(crate) name: IfName,
    /// The largest packet that it carries.
    pub(crate) mtu: Mtu,
    /// Is it switched on?
    pub(crate) is_up: bool,
    /// Its addresses, in the kernel's order.
    pub(crate) addrs: Vec<InterfaceAddr>,
}

impl Host {
    /// Reads the namespace that `netlink` is open in.
    pub(crate) async fn read(netlink: &Netlink) -> Result<Self, Error> {
        let (links, addrs) = (netlink.links().await?, netlink.addrs().await?);
        let interfaces = links.into_iter().map(|link| Interface {
            addrs: addrs
                .iter()
                .filter(|addr| addr.link == link.index)
                .map(|addr| addr.addr)
                .collect(),
            name: link.name,
            mtu: link.mtu,
            is_up: link.is_up,
        });
        let ours = [RouteProtocol::CALICO, RouteProtocol::BIRD];
        let routes = netlink.routes(&RouteFilter::of_protocols([])).await?;
        let foreign = routes.iter().filter(|route| !ours.contains(&route.protocol));
        let foreign_routes = foreign.map(|route| route.dst).filter(|dst| dst.prefix_len() > 0);
        Ok(Self { interfaces: interfaces.collect(), foreign_routes: foreign_routes.collect() })
    }

    /// Returns `addr` with the prefix length that it has on an interface, with the interface.
    pub(crate) fn find(&self, addr: IpAddr) -> Option<(&Interface, InterfaceAddr)> {
        let mut all = self
            .interfaces
            .iter()
            .flat_map(|interface| interface.addrs.iter().map(move |found| (interface, *found)));
        all.find(|(_, found)| found.addr() == addr)
    }

    /// Returns the networks that the machine is in or has a route to.
    pub(crate) fn networks(&self) -> impl Iterator<Item = Cidr> {
        let own = self.interfaces.iter().flat_map(|interface| &interface.addrs);
        own.map(InterfaceAddr::network).chain(self.foreign_routes.iter().copied())
    }
}
