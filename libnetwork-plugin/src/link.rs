//! The veth pair of an endpoint: our side on the host, the other for Docker to move.

use std::collections::BTreeSet;
use std::net::IpAddr;

use kernel::netlink::{RouteEntry, VethSpec};
use kernel::{Netlink, Netns, sysctl};
use model::desired::Setting;
use model::net::{Family, MacAddr, Mtu};

use crate::endpoint::PairNames;
use crate::error::Error;

/// The IPv4 gateway of a container's first network: no interface has it, since our side answers
/// ARP for every address (`proxy_arp`).
pub(crate) const GATEWAY_V4: &str = "169.254.1.1";
/// The IPv6 gateway: the link-local address that follows from our side's Ethernet address.
pub(crate) const GATEWAY_V6: &str = "fe80::ecee:eeff:feee:eeee";

/// Makes the pair anew; the host's side is up and has its routes afterwards.
///
/// # Errors
///
/// [`Error`], with nothing left behind.
pub(crate) async fn make(
    netlink: &Netlink,
    names: &PairNames,
    (addrs, mac, mtu): (&[IpAddr], Option<MacAddr>, Option<Mtu>),
) -> Result<(), Error> {
    // What an earlier try has left; Docker knows nothing of it, or would not ask again.
    netlink.delete_link(&names.host).await?;
    let netns = Netns::current()?;
    let spec = VethSpec {
        host_name: &names.host,
        host_mac: MacAddr::WORKLOAD_HOST_SIDE,
        peer_name: &names.container,
        peer_mac: mac,
        peer_netns: &netns,
        mtu,
        master: None,
    };
    netlink.add_veth(&spec).await?;
    let finished = finish(netlink, names, addrs).await;
    if finished.is_err() {
        netlink.delete_link(&names.host).await?;
    }
    finished
}

async fn finish(netlink: &Netlink, names: &PairNames, addrs: &[IpAddr]) -> Result<(), Error> {
    let host = netlink.require_link(&names.host).await?;
    let families: BTreeSet<Family> = addrs.iter().map(|addr| Family::of(*addr)).collect();
    let mut settings = Setting::of_host_side(&names.host, &families);
    if families.contains(&Family::V6) {
        // The gateway's address follows from the Ethernet address, whatever the default is.
        let name = sysctl::of_interface(Family::V6, &names.host, "addr_gen_mode");
        settings.insert(0, Setting::must(name, "0"));
    }
    for error in sysctl::set_all(&settings)? {
        tracing::warn!(%error, "going on without it");
    }
    for addr in addrs {
        let route = RouteEntry::to_workload(*addr, host.index);
        // Another interface that has the address must not lose it to us.
        if let Some(other) = netlink.add_sole_route(&route).await? {
            return Err(Error::wrong(format!(
                "route {other} is in the way of {}'s address: its owner must remove it",
                names.host
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ipv6_gateway_follows_from_our_ethernet_address() {
        // RFC 4291 §2.5.1, appendix A: the seventh bit is turned, ff:fe put in the middle.
        let MacAddr(mac) = MacAddr::WORKLOAD_HOST_SIDE;
        let bytes = [mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]];
        let prefix = u128::from(0xfe80_u16) << 112;
        let expected = std::net::Ipv6Addr::from(prefix | u128::from(u64::from_be_bytes(bytes)));
        assert_eq!(GATEWAY_V6.parse(), Ok(expected));
    }
}
