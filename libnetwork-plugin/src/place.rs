//! What is reached through each of a container's interfaces.
//!
//! A packet must leave by the interface whose address it has, or policy takes it for a forged one.
//! So each interface has a gateway of its own, since Docker refuses a second route to the first
//! one's, and the subnet of its network is reached through it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

use crate::error::Error;
use crate::link;
use crate::state::{Endpoint, Place};

/// How many gateways there are: 169.254.1.1 and on.
const GATEWAYS: u8 = 254;

/// Returns where the endpoint `id` is to be in `sandbox`; `subnets` are those of its network.
///
/// # Errors
///
/// [`Error::Wrong`] if the container has too many interfaces.
pub(crate) fn choose(
    id: &str,
    sandbox: &str,
    subnets: impl Iterator<Item = String>,
    endpoints: &BTreeMap<String, Endpoint>,
) -> Result<Place, Error> {
    let others = endpoints.iter().filter(|(other, _)| *other != id);
    let others = others.filter_map(|(_, endpoint)| endpoint.place.as_ref());
    let others: Vec<&Place> = others.filter(|place| place.sandbox == sandbox).collect();
    let mut gateways = (1..=GATEWAYS).map(|number| Ipv4Addr::new(169, 254, 1, number));
    let free = gateways.find(|addr| others.iter().all(|place| place.gateway != *addr));
    let gateway = free.ok_or_else(|| {
        Error::wrong(format!("the container has {GATEWAYS} interfaces of driver calico already"))
    })?;
    let is_free = |subnet: &String| others.iter().all(|place| !place.routes.contains(subnet));
    let routes: BTreeSet<String> = subnets.filter(is_free).collect();
    Ok(Place { sandbox: sandbox.to_owned(), gateway, routes })
}

/// Returns the answer to `Join`: which interface to move, and what is reached through it.
pub(crate) fn answer(interface: &str, prefix: &str, addrs: &[IpAddr], place: &Place) -> Value {
    /// A network behind a router, and one that the interface leads to directly.
    const NEXT_HOP: u8 = 0;
    const CONNECTED: u8 = 1;
    let mut fields = vec![("InterfaceName", json!({"SrcName": interface, "DstPrefix": prefix}))];
    let mut routes = Vec::new();
    if addrs.iter().any(IpAddr::is_ipv4) {
        let gateway = place.gateway;
        fields.push(("Gateway", json!(gateway)));
        routes.push(json!({"Destination": format!("{gateway}/32"), "RouteType": CONNECTED}));
        routes.extend(place.routes.iter().map(
            |subnet| json!({"Destination": subnet, "RouteType": NEXT_HOP, "NextHop": gateway}),
        ));
    }
    // The address of every host's side is the same, so only the first interface can lead to it.
    let is_first = place.gateway == Ipv4Addr::new(169, 254, 1, 1);
    if is_first && addrs.iter().any(IpAddr::is_ipv6) {
        let gateway = link::GATEWAY_V6;
        fields.push(("GatewayIPv6", json!(gateway)));
        routes.push(json!({"Destination": format!("{gateway}/128"), "RouteType": CONNECTED}));
    }
    fields.push(("StaticRoutes", routes.into()));
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(place: Place) -> Endpoint {
        Endpoint { place: Some(place), ..Endpoint::default() }
    }

    fn subnets(list: &[&str]) -> impl Iterator<Item = String> {
        list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn each_interface_of_a_container_has_a_gateway_of_its_own() {
        let mut endpoints = BTreeMap::new();
        let first = choose("a", "s", subnets(&["10.65.0.0/16"]), &endpoints).unwrap();
        endpoints.insert("a".to_owned(), endpoint(first.clone()));
        assert_eq!(choose("a", "s", subnets(&["10.65.0.0/16"]), &endpoints).unwrap(), first);
        let second = choose("b", "s", subnets(&["10.65.0.0/16"]), &endpoints).unwrap();
        assert_eq!(second.gateway, Ipv4Addr::new(169, 254, 1, 2));
        assert!(second.routes.is_empty(), "the first leads there");
        let elsewhere = choose("c", "other", subnets(&["10.65.0.0/16"]), &endpoints).unwrap();
        assert_eq!((elsewhere.gateway, elsewhere.routes), (first.gateway, first.routes));
    }

    #[test]
    fn docker_is_told_gateways_and_routes_of_the_families_in_use() {
        let place = choose("a", "s", subnets(&["10.65.0.0/16"]), &BTreeMap::new()).unwrap();
        let v4 = answer("temp0", "cali", &["10.65.0.1".parse().unwrap()], &place);
        assert_eq!(
            v4,
            json!({
                "InterfaceName": {"SrcName": "temp0", "DstPrefix": "cali"},
                "Gateway": "169.254.1.1",
                "StaticRoutes": [
                    {"Destination": "169.254.1.1/32", "RouteType": 1},
                    {"Destination": "10.65.0.0/16", "RouteType": 0, "NextHop": "169.254.1.1"},
                ],
            })
        );
        let both = ["10.65.0.1", "fd00::1"].map(|text| text.parse().unwrap());
        assert_eq!(answer("temp0", "cali", &both, &place)["GatewayIPv6"], link::GATEWAY_V6);
        let second = Place { gateway: Ipv4Addr::new(169, 254, 1, 2), ..place };
        assert!(answer("temp0", "cali", &both, &second).get("GatewayIPv6").is_none());
    }
}
