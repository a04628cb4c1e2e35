//! Neighbours: which Ethernet address has which IP address (arp(7), RFC 4861).

use std::net::IpAddr;

use model::net::{IfIndex, MacAddr};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::dump::refused;
use super::transport::{Failure, Request};
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

/// Where a VXLAN device sends packets for an Ethernet address (`bridge fdb`).
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Forward {
    /// The device.
    pub link: IfIndex,
    /// The Ethernet address; all zeros is every other.
    pub mac: MacAddr,
    /// The machine that it is sent to.
    pub to: IpAddr,
}

/// A change of a neighbour or of a forward.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NeighbourChange {
    /// Enter a neighbour that stays, in place of any with its address.
    Upsert(IfIndex, IpAddr, MacAddr),
    /// Delete a neighbour; it may be gone already.
    Delete(IfIndex, IpAddr),
    /// Enter a forward that stays, in place of any with its Ethernet address.
    UpsertForward(Forward),
    /// Delete a forward; it may be gone already.
    DeleteForward(Forward),
}

impl Netlink {
    /// Lists the neighbours on one link whose Ethernet address is known.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kernel refuses or its answer makes no sense.
    pub async fn neighbours_of(&self, link: IfIndex) -> Result<Vec<Neighbour>, Error> {
        let mut message = NeighbourMessage::default();
        message.attributes.push(NeighbourAttribute::IfIndex(link.0));
        let found = self.dump("neighbours", RouteNetlinkMessage::GetNeighbour(message)).await?;
        let neighbours = found.iter().filter_map(of_message);
        Ok(neighbours.filter(|neighbour| neighbour.link == link).collect())
    }

    /// Lists the forwards of a VXLAN device.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kernel refuses or its answer makes no sense.
    pub async fn forwards_of(&self, link: IfIndex) -> Result<Vec<Forward>, Error> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = link.0;
        let found = self.dump("forwards", RouteNetlinkMessage::GetNeighbour(message)).await?;
        let forwards = found.iter().filter_map(forward_of_message);
        Ok(forwards.filter(|forward| forward.link == link).collect())
    }

    /// Makes many changes in few system calls, in their order; returns what came of each.
    ///
    /// # Errors
    ///
    /// [`Error`] if the socket fails: then it is unknown which changes were made.
    pub async fn apply_neighbours(
        &self,
        changes: &[NeighbourChange],
    ) -> Result<Vec<Result<(), Error>>, Error> {
        let requests = changes.iter().map(request).collect();
        let refusals = self.transport.batch(requests).await.map_err(|failure| match failure {
            Failure::Broken(error) => error,
            Failure::Refused(reason) => refused("write", "neighbours".to_owned(), reason),
            Failure::Interrupted => Error::KeepsChanging { table: "neighbours", attempts: 1 },
        })?;
        let mut outcomes: Vec<Result<(), Error>> = changes.iter().map(|_| Ok(())).collect();
        for (place, reason) in refusals {
            let (Some(change), Some(outcome)) = (changes.get(place), outcomes.get_mut(place))
            else {
                continue;
            };
            let is_delete =
                matches!(change, NeighbourChange::Delete(..) | NeighbourChange::DeleteForward(_));
            let error = refused(if is_delete { "delete" } else { "add" }, words(change), reason);
            *outcome = if is_delete && error.is_missing() { Ok(()) } else { Err(error) };
        }
        Ok(outcomes)
    }

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
        let change = NeighbourChange::Upsert(link, addr, mac);
        self.request(request(&change), "add", || words(&change)).await.map(drop)
    }

    /// Deletes a neighbour; returns whether it was there.
    ///
    /// # Errors
    ///
    /// [`Error`] if the kernel refuses for another reason than absence.
    pub async fn delete_neighbour(&self, link: IfIndex, addr: IpAddr) -> Result<bool, Error> {
        let change = NeighbourChange::Delete(link, addr);
        match self.request(request(&change), "delete", || words(&change)).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn request(change: &NeighbourChange) -> Request {
    let upsert = |mut message: NeighbourMessage, mac: MacAddr| {
        message.header.state = NeighbourState::Permanent;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        (RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
    };
    let forward = |forward: &Forward| {
        let mut message = message(forward.link, forward.to);
        message.header.family = AddressFamily::Bridge;
        message.header.flags = NeighbourFlags::Own;
        message
    };
    match change {
        NeighbourChange::Upsert(link, addr, mac) => upsert(message(*link, *addr), *mac),
        NeighbourChange::UpsertForward(found) => upsert(forward(found), found.mac),
        NeighbourChange::Delete(link, addr) => {
            (RouteNetlinkMessage::DelNeighbour(message(*link, *addr)), 0)
        }
        NeighbourChange::DeleteForward(found) => {
            let mut message = forward(found);
            message.attributes.push(NeighbourAttribute::LinkLayerAddress(found.mac.0.to_vec()));
            (RouteNetlinkMessage::DelNeighbour(message), 0)
        }
    }
}

fn words(change: &NeighbourChange) -> String {
    match change {
        NeighbourChange::Upsert(link, addr, mac) => {
            format!("neighbour {addr} lladdr {mac} on link number {}", link.0)
        }
        NeighbourChange::Delete(link, addr) => {
            format!("neighbour {addr} on link number {}", link.0)
        }
        NeighbourChange::UpsertForward(forward) | NeighbourChange::DeleteForward(forward) => {
            format!("forward {} dst {} on link number {}", forward.mac, forward.to, forward.link.0)
        }
    }
}

fn forward_of_message(message: &RouteNetlinkMessage) -> Option<Forward> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    let (mut to, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            // Their family is "bridge", so the packet's reader leaves addresses as they are.
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                to = <[u8; 4]>::try_from(bytes.as_slice())
                    .map(IpAddr::from)
                    .or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from))
                    .ok();
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddr);
            }
            _ => {}
        }
    }
    Some(Forward { link: IfIndex(message.header.ifindex), mac: mac?, to: to? })
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
