//! What a container's attachment should look like: decided before anything is touched.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use cni::result::Ip;
use cni::{Error, ErrorCode, NetworkConfig, Success};
use kernel::netlink::MAIN_TABLE;
use model::desired::Setting;
use model::net::{Cidr, Family, IfName, InterfaceAddr};

use crate::vrf::VrfDevice;

/// The gateway of every container's IPv4: no interface has it, since the host's
/// side of the veth answers ARP for every address (`proxy_arp`).
pub(crate) const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// What one container should have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Plan {
    /// The host's side of the veth.
    pub(crate) host_name: IfName,
    /// The container's side.
    pub(crate) if_name: IfName,
    /// The container's addresses, at most one of each family.
    pub(crate) addrs: Vec<IpAddr>,
    /// What the container reaches through the host.
    pub(crate) routes: Vec<Cidr>,
    /// May the container forward packets?
    pub(crate) forwards: bool,
    /// The table with the routes to the container.
    pub(crate) table: u32,
}

impl Plan {
    /// Decides what follows from the addresses that were given.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Delegate`] if there is no address or several of a family,
    /// [`ErrorCode::InvalidConfig`] if `ipam.routes` is wrong.
    pub(crate) fn new(
        config: &NetworkConfig,
        host_name: &IfName,
        if_name: &IfName,
        addrs: Vec<IpAddr>,
        vrf: Option<&VrfDevice>,
    ) -> Result<Self, Error> {
        check_addrs(&addrs)?;
        let routes = routes(config, &addrs)?;
        let forwards = config.container_settings.allows_forwarding;
        let (host_name, if_name) = (host_name.clone(), if_name.clone());
        let table = vrf.map_or(MAIN_TABLE, |vrf| vrf.table);
        Ok(Self { host_name, if_name, addrs, routes, forwards, table })
    }

    /// Returns the families that the container has addresses of.
    pub(crate) fn families(&self) -> BTreeSet<Family> {
        self.addrs.iter().map(|addr| Family::of(*addr)).collect()
    }

    /// Returns the container's addresses in the form that they have on its
    /// interface: alone in their networks, so that everything goes through the host.
    pub(crate) fn interface_addrs(&self) -> Vec<InterfaceAddr> {
        let alone = |addr: &IpAddr| InterfaceAddr::new(*addr, Family::of(*addr).bits()).ok();
        self.addrs.iter().filter_map(alone).collect()
    }

    /// Returns the addresses for the result.
    pub(crate) fn ips(&self, interface: usize) -> Vec<Ip> {
        let ip = |address| Ip { address, gateway: None, interface: Some(interface) };
        self.interface_addrs().into_iter().map(ip).collect()
    }

    /// Returns the parameters of the host's side, to be set before the link comes up.
    pub(crate) fn host_settings(&self) -> Vec<Setting> {
        Setting::of_host_side(&self.host_name, &self.families())
    }

    /// Returns the parameters inside the container's namespace.
    pub(crate) fn container_settings(&self) -> Vec<Setting> {
        let forwards = if self.forwards { "1" } else { "0" };
        let mut settings = Vec::new();
        if self.families().contains(&Family::V4) {
            settings.push(Setting::must("net/ipv4/ip_forward".to_owned(), forwards));
        }
        if self.families().contains(&Family::V6) {
            for scope in ["all", "default", "lo", self.if_name.as_str()] {
                settings.push(Setting::must(format!("net/ipv6/conf/{scope}/disable_ipv6"), "0"));
            }
            settings.push(Setting::must(format!("net/ipv6/conf/{}/accept_dad", self.if_name), "0"));
            settings.push(Setting::must("net/ipv6/conf/all/forwarding".to_owned(), forwards));
        }
        settings
    }
}

fn check_addrs(addrs: &[IpAddr]) -> Result<(), Error> {
    let count = |family| addrs.iter().filter(|addr| Family::of(**addr) == family).count();
    let problem = if addrs.is_empty() {
        "gave no address: check ipam.assign_ipv4, ipam.assign_ipv6 and the pools"
    } else if Family::ALL.into_iter().any(|family| count(family) > 1) {
        "gave several addresses of one family, which a workload cannot have: check its ranges"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorCode::Delegate, format!("the IPAM plugin {problem}")))
}

/// Decides what the container reaches through the host: everything, unless
/// `ipam.routes` says what.
fn routes(config: &NetworkConfig, addrs: &[IpAddr]) -> Result<Vec<Cidr>, Error> {
    let listed = config.ipam.as_ref().map(|ipam| ipam.routes.as_slice()).unwrap_or_default();
    let mut routes = Vec::new();
    for text in listed {
        let dst: InterfaceAddr = text.parse().map_err(|error: model::net::InvalidCidr| {
            let message = "network configuration has a wrong `ipam.routes[].dst`";
            Error::new(ErrorCode::InvalidConfig, message).with_details(error.to_string())
        })?;
        routes.push(dst.network());
    }
    if listed.is_empty() || config.includes_default_routes {
        let all = |addr: &IpAddr| match Family::of(*addr) {
            Family::V4 => Cidr::containing(Ipv4Addr::UNSPECIFIED.into(), 0),
            Family::V6 => Cidr::containing(std::net::Ipv6Addr::UNSPECIFIED.into(), 0),
        };
        routes.extend(addrs.iter().filter_map(|addr| all(addr).ok()));
    }
    let has_addr = |route: &Cidr| addrs.iter().any(|addr| Family::of(*addr) == route.family());
    routes.retain(has_addr);
    let mut seen = BTreeSet::new();
    routes.retain(|route| seen.insert(*route));
    Ok(routes)
}

/// Returns the bare addresses of a delegate's result.
pub(crate) fn addrs_of(result: &Success) -> Vec<IpAddr> {
    result.ips.iter().map(|ip| ip.address.addr()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(keys: &str, addrs: &[&str]) -> Result<Plan, Error> {
        let text = format!(r#"{{"name":"n","type":"calico"{keys}}}"#);
        let config = NetworkConfig::parse(text.as_bytes()).unwrap();
        let addrs = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
        Plan::new(&config, &"cali1".parse().unwrap(), &"eth0".parse().unwrap(), addrs, None)
    }

    fn routes(keys: &str, addrs: &[&str]) -> Vec<String> {
        plan(keys, addrs).unwrap().routes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn everything_goes_through_the_host() {
        assert_eq!(routes("", &["10.0.0.5"]), ["0.0.0.0/0"]);
        assert_eq!(routes("", &["10.0.0.5", "fd00::5"]), ["0.0.0.0/0", "::/0"]);
    }

    #[test]
    fn listed_routes_replace_the_default_ones_unless_both_are_wanted() {
        let listed = r#","ipam":{"type":"x","routes":[{"dst":"10.1.2.3/8"},{"dst":"fd00::/8"}]}"#;
        assert_eq!(routes(listed, &["10.0.0.5"]), ["10.0.0.0/8"]);
        let both = format!(r#"{listed},"include_default_routes":true"#);
        assert_eq!(routes(&both, &["10.0.0.5"]), ["10.0.0.0/8", "0.0.0.0/0"]);
    }

    #[test]
    fn addresses_stand_alone() {
        let plan = plan("", &["10.0.0.5", "fd00::5"]).unwrap();
        let addrs: Vec<_> = plan.interface_addrs().iter().map(ToString::to_string).collect();
        assert_eq!(addrs, ["10.0.0.5/32", "fd00::5/128"]);
    }

    #[test]
    fn one_address_of_each_family_and_no_more() {
        for addrs in [&[][..], &["10.0.0.5", "10.0.0.6"], &["fd00::1", "10.0.0.5", "fd00::2"]] {
            assert_eq!(plan("", addrs).unwrap_err().code, ErrorCode::Delegate, "{addrs:?}");
        }
    }

    #[test]
    fn wrong_routes_are_told_so() {
        let error = plan(r#","ipam":{"type":"x","routes":[{"dst":"10.0.0.0"}]}"#, &["10.0.0.5"]);
        assert_eq!(error.unwrap_err().code, ErrorCode::InvalidConfig);
    }

    #[test]
    fn only_the_families_in_use_are_set_up() {
        let text = |settings: Vec<Setting>| -> Vec<String> {
            settings.iter().map(|each| format!("{}={}", each.name, each.value)).collect()
        };
        let v4 = plan("", &["10.0.0.5"]).unwrap();
        assert_eq!(text(v4.container_settings()), ["net/ipv4/ip_forward=0"]);
        let forwards = r#","container_settings":{"allow_ip_forwarding":true}"#;
        let v6 = plan(forwards, &["fd00::5"]).unwrap();
        assert_eq!(
            text(v6.container_settings()),
            [
                "net/ipv6/conf/all/disable_ipv6=0",
                "net/ipv6/conf/default/disable_ipv6=0",
                "net/ipv6/conf/lo/disable_ipv6=0",
                "net/ipv6/conf/eth0/disable_ipv6=0",
                "net/ipv6/conf/eth0/accept_dad=0",
                "net/ipv6/conf/all/forwarding=1",
            ]
        );
    }
}
