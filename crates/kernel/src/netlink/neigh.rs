//! Neighbours: which Ethernet address has which IP address (arp(7), RFC 4861).

use std::net::IpAddr;

use model::net::{IfIndex, MacAddr};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Error, Netlink};

/// A neighbour whose Ethernet address is known.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Neighbour {
    /// The link that it is on.
    pub link: IfIndex,
    /// Its IP address.
    pub addr: IpAddr,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Was it entered by a program, to stay until it is deleted?
    pub is_permanent: bool,
}

impl Netlink {
    /// Lists the neighbours on all links whose Ethernet address is known.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kernel refuses or its answer makes no sense.
    pub async fn neighbours(&self) -> Result<Vec<Neighbour>, Error> {
        let message = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let found = self.dump("neighbours", message).await?;
        Ok(found.iter().filter_map(of_message).collect())
    }

    /// Enters a neighbour that stays until it is deleted.
    ///
    /// # Errors
    ///
    /// [`Error`] if there is no such link or the kernel refuses.
    pub async fn upsert_neighbour(
        &self,
        link: IfIndex,
        addr: IpAddr,
        mac: MacAddr,
    ) -> Result<(), Error> {
        let mut message = message(link, addr);
        message.header.state = NeighbourState::Permanent;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        let request = (RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE);
        let object = || format!("neighbour {addr} lladdr {mac} on link number {}", link.0);
        self.request(request, "add", object).await.map(drop)
    }

    /// Deletes a neighbour; returns whether it was there.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kernel refuses for another reason than absence.
    pub async fn delete_neighbour(&self, link: IfIndex, addr: IpAddr) -> Result<bool, Error> {
        let request = (RouteNetlinkMessage::DelNeighbour(message(link, addr)), 0);
        let object = || format!("neighbour {addr} on link number {}", link.0);
        match self.request(request, "delete", object).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn message(link: IfIndex, addr: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = link.0;
    let (family, addr) = match addr {
        IpAddr::V4(addr) => (AddressFamily::Inet, NeighbourAddress::Inet(addr)),
        IpAddr::V6(addr) => (AddressFamily::Inet6, NeighbourAddress::Inet6(addr)),
    };
    message.header.family = family;
    message.attributes.push(NeighbourAttribute::Destination(addr));
    message
}

fn of_message(message: &RouteNetlinkMessage) -> Option<Neighbour> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    let (mut addr, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => {
                addr = Some(IpAddr::from(*found));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => {
                addr = Some(IpAddr::from(*found));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddr);
            }
            _ => {}
        }
    }
    Some(Neighbour {
        link: IfIndex(message.header.ifindex),
        addr: addr?,
        mac: mac?,
        is_permanent: message.header.state == NeighbourState::Permanent,
    })
}
