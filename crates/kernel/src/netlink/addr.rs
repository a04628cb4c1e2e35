//! Addresses on links (RFC 4862 for what IPv6 does with them).

use std::net::IpAddr;
use std::time::Duration;

use model::desired::RouteProtocol;
use model::net::{Family, IfIndex, InterfaceAddr};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::link::Link;
use super::{Error, Netlink};

/// An address on a link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LinkAddr {
    /// The link's number.
    pub link: IfIndex,
    /// The address and the length of its network's prefix.
    pub addr: InterfaceAddr,
    /// How far it is valid.
    pub scope: AddrScope,
    /// Is IPv6 still looking for duplicates of it, or has it found one?
    pub is_tentative: bool,
    /// Is it one of IPv4's additional addresses in a network that has another?
    pub is_secondary: bool,
    /// Has it been put there by this project (`IFA_PROTO`)? Kernels before 5.18 cannot tell.
    pub is_ours: bool,
}

/// How far an address is valid.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum AddrScope {
    /// Everywhere.
    Global,
    /// On its link.
    Link,
    /// On this machine.
    Host,
}

/// What marks addresses as ours: the number that marks our routes.
const OURS: u8 = RouteProtocol::CALICO.0;

/// How long to wait between two looks at a link-local address.
const LINK_LOCAL_PAUSE: Duration = Duration::from_millis(5);

impl Netlink {
    /// Lists the addresses of all links.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kernel refuses or its answer makes no sense.
    pub async fn addrs(&self) -> Result<Vec<LinkAddr>, Error> {
        let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let found = self.dump("addresses", message).await?;
        Ok(found.iter().filter_map(of_message).collect())
    }

    /// Lists the addresses of one link.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kernel refuses or its answer makes no sense.
    pub async fn addrs_of(&self, link: IfIndex) -> Result<Vec<LinkAddr>, Error> {
        let mut message = AddressMessage::default();
        message.header.index = link.0;
        let found = self.dump("addresses", RouteNetlinkMessage::GetAddress(message)).await;
        match found {
            Ok(found) => {
                let addrs = found.iter().filter_map(of_message);
                Ok(addrs.filter(|addr| addr.link == link).collect())
            }
            Err(error) if error.is_missing() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Puts an address on a link; it may be there already.
    ///
    /// IPv6 addresses are usable at once: workloads' addresses are unique by
    /// allocation, so nothing is gained by looking for duplicates (RFC 4862 §5.4).
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no such link or the kernel refuses.
    pub async fn add_addr(&self, link: IfIndex, addr: InterfaceAddr) -> Result<(), Error> {
        self.put_addr(link, addr, message(link, addr)).await
    }

    /// Puts an address on a link that is valid only there, and marks it as ours; as
    /// [`Netlink::add_addr`] otherwise.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no such link or the kernel refuses.
    pub async fn add_own_addr(&self, link: IfIndex, addr: InterfaceAddr) -> Result<(), Error> {
        let mut message = message(link, addr);
        message.header.scope = AddressScope::Link;
        message.attributes.push(AddressAttribute::Protocol(OURS.into()));
        self.put_addr(link, addr, message).await
    }

    async fn put_addr(
        &self,
        link: IfIndex,
        addr: InterfaceAddr,
        mut message: AddressMessage,
    ) -> Result<(), Error> {
        if Family::of(addr.addr()) == Family::V6 {
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let request = (RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE);
        let object = || format!("address {addr} on link number {}", link.0);
        self.request(request, "add", object).await.map(drop)
    }

    /// Takes an address off a link; returns whether it was there.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kernel refuses for another reason than absence.
    pub async fn delete_addr(&self, link: IfIndex, addr: InterfaceAddr) -> Result<bool, Error> {
        let request = (RouteNetlinkMessage::DelAddress(message(link, addr)), 0);
        let object = || format!("address {addr} on link number {}", link.0);
        match self.request(request, "delete", object).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits until `link` has a link-local address that can be used, and returns it.
    ///
    /// # Errors
    ///
    /// [`Error::NoLinkLocal`] if there is none within `timeout`.
    pub async fn wait_link_local(&self, link: &Link, timeout: Duration) -> Result<IpAddr, Error> {
        let look = async {
            loop {
                let addrs = self.addrs_of(link.index).await?;
                let usable = addrs.iter().find(|found| {
                    found.scope == AddrScope::Link
                        && Family::of(found.addr.addr()) == Family::V6
                        && !found.is_tentative
                });
                if let Some(found) = usable {
                    return Ok(found.addr.addr());
                }
                tokio::time::sleep(LINK_LOCAL_PAUSE).await;
            }
        };
        tokio::time::timeout(timeout, look)
            .await
            .unwrap_or_else(|_| Err(Error::NoLinkLocal { if_name: link.name.clone() }))
    }
}

fn message(link: IfIndex, addr: InterfaceAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = link.0;
    message.header.prefix_len = addr.prefix_len();
    message.header.family = match addr.addr() {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.attributes.push(AddressAttribute::Local(addr.addr()));
    message.attributes.push(AddressAttribute::Address(addr.addr()));
    message
}

fn of_message(message: &RouteNetlinkMessage) -> Option<LinkAddr> {
    match message {
        RouteNetlinkMessage::NewAddress(message) => of_address_message(message),
        _ => None,
    }
}

/// Reads the kernel's description of an address; `None` for other families than IP's.
pub(crate) fn of_address_message(message: &AddressMessage) -> Option<LinkAddr> {
    let (mut addr, mut local, mut flags) = (None, None, AddressFlags::empty());
    let mut is_ours = false;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(found) => addr = Some(*found),
            AddressAttribute::Local(found) => local = Some(*found),
            AddressAttribute::Flags(found) => flags = *found,
            AddressAttribute::Protocol(found) => is_ours = u8::from(*found) == OURS,
            _ => {}
        }
    }
    // On a point-to-point link `Address` is the far end, so `Local` goes first.
    let addr = InterfaceAddr::new(local.or(addr)?, message.header.prefix_len).ok()?;
    Some(LinkAddr {
        link: IfIndex(message.header.index),
        addr,
        scope: match message.header.scope {
            AddressScope::Host | AddressScope::Nowhere => AddrScope::Host,
            AddressScope::Link => AddrScope::Link,
            _ => AddrScope::Global,
        },
        is_tentative: flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed),
        is_secondary: Family::of(addr.addr()) == Family::V4
            && flags.contains(AddressFlags::Secondary),
        is_ours,
    })
}
