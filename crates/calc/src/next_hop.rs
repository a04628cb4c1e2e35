//! From a BGP next hop to a gateway that the kernel can use (RFC 4271 §5.1.3, §9.1.2.1).
//!
//! The kernel wants a gateway on a link of its own. A next hop behind a router
//! is resolved through the routes that the kernel already has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::net::{Cidr, zone};

/// Where a route that is not ours leads.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Underlay {
    /// To a network on a link: its addresses are gateways themselves.
    OnLink,
    /// To another gateway.
    Via(IpAddr),
}

/// The kernel's own routes: those by which next hops are reached.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct UnderlayTable {
    routes: BTreeMap<Cidr, Underlay>,
}

/// How many gateways may stand behind each other before it is taken for a loop.
const MAX_DEPTH: usize = 8;

impl UnderlayTable {
    /// Makes a table; of two routes to the same prefix the first wins, as the
    /// kernel lists the preferred one first.
    #[must_use]
    pub fn new(routes: impl IntoIterator<Item = (Cidr, Underlay)>) -> Self {
        let mut table = BTreeMap::new();
        for (cidr, underlay) in routes {
            table.entry(cidr).or_insert(underlay);
        }
        Self { routes: table }
    }

    /// Returns the gateway on a link that leads to `next_hop`, or `None` if it is unreachable.
    #[must_use]
    pub fn gateway(&self, next_hop: IpAddr) -> Option<IpAddr> {
        let mut addr = next_hop;
        for _ in 0..MAX_DEPTH {
            if zone::of(addr).is_some() {
                // A link-local neighbour is on the link that it names.
                return Some(addr);
            }
            match self.longest_match(addr)? {
                Underlay::OnLink => return Some(addr),
                Underlay::Via(gateway) => addr = *gateway,
            }
        }
        None
    }

    /// Returns the gateways of several next hops, leaving out what is unreachable.
    #[must_use]
    pub fn gateways(&self, next_hops: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
        next_hops.iter().filter_map(|next_hop| self.gateway(*next_hop)).collect()
    }

    fn longest_match(&self, addr: IpAddr) -> Option<&Underlay> {
        let bits = model::net::Family::of(addr).bits();
        (0..=bits).rev().find_map(|len| self.routes.get(&Cidr::containing(addr, len).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(routes: &[(&str, Option<&str>)]) -> UnderlayTable {
        UnderlayTable::new(routes.iter().map(|(cidr, gateway)| {
            let underlay =
                gateway.map_or(Underlay::OnLink, |gateway| Underlay::Via(gateway.parse().unwrap()));
            (cidr.parse().unwrap(), underlay)
        }))
    }

    fn gateway(table: &UnderlayTable, next_hop: &str) -> Option<String> {
        table.gateway(next_hop.parse().unwrap()).map(|addr| addr.to_string())
    }

    #[test]
    fn a_next_hop_on_a_link_is_its_own_gateway() {
        let table = table(&[("10.0.0.0/24", None), ("0.0.0.0/0", Some("10.0.0.1"))]);
        assert_eq!(gateway(&table, "10.0.0.7").as_deref(), Some("10.0.0.7"));
    }

    #[test]
    fn a_next_hop_behind_a_router_resolves_to_the_router() {
        let table = table(&[("10.0.0.0/24", None), ("10.1.0.0/16", Some("10.0.0.1"))]);
        assert_eq!(gateway(&table, "10.1.2.3").as_deref(), Some("10.0.0.1"));
        assert_eq!(gateway(&table, "10.2.0.1"), None);
    }

    #[test]
    fn the_longest_prefix_decides() {
        let table = table(&[
            ("10.0.0.0/8", Some("192.0.2.1")),
            ("10.0.0.0/24", None),
            ("192.0.2.0/24", None),
        ]);
        assert_eq!(gateway(&table, "10.0.0.9").as_deref(), Some("10.0.0.9"));
        assert_eq!(gateway(&table, "10.9.0.9").as_deref(), Some("192.0.2.1"));
    }

    #[test]
    fn a_link_local_neighbour_is_a_gateway_without_any_route() {
        let table = table(&[("10.1.0.0/16", Some("fe80:2::1"))]);
        assert_eq!(gateway(&table, "fe80:2::1").as_deref(), Some("fe80:2::1"));
        assert_eq!(gateway(&table, "10.1.2.3").as_deref(), Some("fe80:2::1"));
        assert_eq!(gateway(&table, "fe80::1"), None);
    }

    #[test]
    fn gateways_that_lead_to_each_other_lead_nowhere() {
        let table = table(&[("10.1.0.0/16", Some("10.2.0.1")), ("10.2.0.0/16", Some("10.1.0.1"))]);
        assert_eq!(gateway(&table, "10.1.0.5"), None);
    }
}
