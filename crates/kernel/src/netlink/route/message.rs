//! Routes as netlink messages, both ways (rtnetlink(7)).

use std::net::IpAddr;

use model::desired::RouteProtocol;
use model::net::{Cidr, Family, IfIndex};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop,
    RouteNextHopFlags, RouteScope, RouteType, RouteVia,
};

use super::{NextHop, RouteEntry, Target};
use crate::netlink::Error;

/// Returns the question for one family's routes in a table; protocol zero is everybody's.
pub(super) fn question(family: Family, table: u32, protocol: RouteProtocol) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(family);
    message.header.protocol = protocol.0.into();
    // The strict check wants these empty; a preset value would be refused or filter.
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unspec;
    set_table(&mut message, table);
    message
}

/// Returns the question which route a packet to `addr` takes, as the table has it.
pub(super) fn lookup(addr: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    let whole = Cidr::host(addr);
    message.header.address_family = family_of(whole.family());
    message.header.destination_prefix_length = whole.prefix_len();
    // The strict check wants these empty.
    message.header.protocol = 0.into();
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unspec;
    message.header.flags = RouteFlags::FibMatch;
    message.attributes.push(RouteAttribute::Destination(addr.into()));
    message
}

/// Returns the message that writes `route`.
pub(super) fn of_route(route: &RouteEntry) -> Result<RouteMessage, Error> {
    let mut message = about(route);
    message.header.kind = RouteType::Unicast;
    message.header.scope = RouteScope::Universe;
    match &route.target {
        Target::Link(index) => {
            message.header.scope = RouteScope::Link;
            message.attributes.push(RouteAttribute::Oif(index.0));
        }
        Target::Blackhole => message.header.kind = RouteType::BlackHole,
        Target::Throw => message.header.kind = RouteType::Throw,
        Target::Unreachable => message.header.kind = RouteType::Unreachable,
        Target::Other(_) => {
            return Err(unwritable(route, "its type is none that we write"));
        }
        Target::Via(hops) => {
            // IPv4 goes by way of IPv6 (RFC 8950), but not the other way round.
            let is_odd = |hop: &NextHop| hop.gateway.is_ipv4() && route.dst.family() == Family::V6;
            if hops.iter().any(is_odd) {
                return Err(unwritable(route, "a gateway must be of the destination's family"));
            }
            match hops.as_slice() {
                [] => return Err(unwritable(route, "it names no gateway")),
                [hop] => {
                    message.attributes.push(to_gateway(route.dst.family(), hop.gateway));
                    message.attributes.extend(hop.link.map(|link| RouteAttribute::Oif(link.0)));
                    if hop.is_on_link {
                        message.header.flags |= RouteFlags::Onlink;
                    }
                }
                hops => {
                    let family = route.dst.family();
                    let hops = hops.iter().map(|hop| of_hop(family, hop)).collect();
                    message.attributes.push(RouteAttribute::MultiPath(hops));
                }
            }
        }
    }
    Ok(message)
}

/// Returns the message that deletes `route` and no other owner's.
pub(super) fn to_delete(route: &RouteEntry) -> RouteMessage {
    let mut message = about(route);
    // IPv4 takes "nowhere" for any scope.
    message.header.scope = RouteScope::NoWhere;
    if let Target::Link(index) = route.target {
        message.attributes.push(RouteAttribute::Oif(index.0));
    }
    message.header.kind = match route.target {
        Target::Link(_) | Target::Via(_) => RouteType::Unicast,
        Target::Blackhole => RouteType::BlackHole,
        Target::Throw => RouteType::Throw,
        Target::Unreachable => RouteType::Unreachable,
        Target::Other(kind) => kind.into(),
    };
    message
}

/// Reads the kernel's description of a route; `None` for what is no IP route.
pub(crate) fn of_route_message(message: &RouteMessage) -> Option<RouteEntry> {
    let header = &message.header;
    let mut dst = match header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        AddressFamily::Inet6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    let (mut gateway, mut link, mut hops) = (None, None, Vec::new());
    let (mut metric, mut table) = (0, u32::from(header.table));
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(addr) => dst = ip(addr)?,
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => gateway = gateway_of(attribute),
            RouteAttribute::Oif(index) => link = Some(IfIndex(*index)),
            RouteAttribute::Priority(found) => metric = *found,
            RouteAttribute::Table(found) => table = *found,
            RouteAttribute::MultiPath(found) => hops = found.iter().filter_map(hop).collect(),
            _ => {}
        }
    }
    let is_on_link = header.flags.contains(RouteFlags::Onlink);
    hops.extend(gateway.map(|gateway| NextHop { gateway, link, is_on_link }));
    hops.sort();
    Some(RouteEntry {
        dst: Cidr::containing(dst, header.destination_prefix_length).ok()?,
        target: match (header.kind, link) {
            (RouteType::BlackHole, _) => Target::Blackhole,
            (RouteType::Throw, _) => Target::Throw,
            (RouteType::Unreachable, _) => Target::Unreachable,
            (RouteType::Unicast, _) if !hops.is_empty() => Target::Via(hops),
            (RouteType::Unicast, Some(link)) => Target::Link(link),
            (kind, _) => Target::Other(kind.into()),
        },
        protocol: RouteProtocol(header.protocol.into()),
        table,
        metric,
    })
}

/// Starts a message with what identifies a route.
fn about(route: &RouteEntry) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(route.dst.family());
    message.header.destination_prefix_length = route.dst.prefix_len();
    message.header.protocol = route.protocol.0.into();
    set_table(&mut message, route.table);
    message.attributes.push(RouteAttribute::Destination(route.dst.addr().into()));
    if route.metric != 0 {
        message.attributes.push(RouteAttribute::Priority(route.metric));
    }
    message
}

/// The header's field holds tables up to 255; the attribute holds all.
fn set_table(message: &mut RouteMessage, table: u32) {
    message.header.table = u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    message.attributes.push(RouteAttribute::Table(table));
}

fn of_hop(family: Family, hop: &NextHop) -> RouteNextHop {
    let mut next = RouteNextHop::default();
    next.interface_index = hop.link.map_or(0, |link| link.0);
    if hop.is_on_link {
        next.flags |= RouteNextHopFlags::Onlink;
    }
    next.attributes.push(to_gateway(family, hop.gateway));
    next
}

fn hop(next: &RouteNextHop) -> Option<NextHop> {
    let gateway = next.attributes.iter().find_map(gateway_of)?;
    let link = (next.interface_index != 0).then_some(IfIndex(next.interface_index));
    Some(NextHop { gateway, link, is_on_link: next.flags.contains(RouteNextHopFlags::Onlink) })
}

/// Returns what names `gateway` in a route of `family`: of another family it needs `RTA_VIA`.
fn to_gateway(family: Family, gateway: IpAddr) -> RouteAttribute {
    match gateway {
        IpAddr::V6(addr) if family == Family::V4 => RouteAttribute::Via(RouteVia::Inet6(addr)),
        IpAddr::V4(_) | IpAddr::V6(_) => RouteAttribute::Gateway(gateway.into()),
    }
}

fn gateway_of(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(addr) => ip(addr),
        RouteAttribute::Via(RouteVia::Inet(addr)) => Some((*addr).into()),
        RouteAttribute::Via(RouteVia::Inet6(addr)) => Some((*addr).into()),
        _ => None,
    }
}

fn ip(addr: &RouteAddress) -> Option<IpAddr> {
    match addr {
        RouteAddress::Inet(addr) => Some((*addr).into()),
        RouteAddress::Inet6(addr) => Some((*addr).into()),
        _ => None,
    }
}

fn family_of(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

fn unwritable(route: &RouteEntry, problem: &'static str) -> Error {
    Error::Unwritable { dst: route.dst.to_string(), problem }
}
