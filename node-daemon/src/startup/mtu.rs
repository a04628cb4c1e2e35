//! The MTU that pods get: what the host's interfaces carry, less what tunnels need.

use config::felix::FelixConfig;
use model::net::{Family, Mtu};
use model::pool::{Encapsulation, IpPool};

use super::host::Host;

/// What is taken if no interface of the host can be told: the MTU of Ethernet.
const FALLBACK: Mtu = Mtu(1500);

/// The least MTU that IPv6 allows on a link (RFC 8200 §5).
const LEAST: Mtu = Mtu(1280);

/// Returns the MTU for pods: the smallest that one of the enabled tunnels leaves.
pub(crate) fn of_pods(felix: &FelixConfig, pools: &[IpPool], host: &Host) -> Mtu {
    let host_mtu = of_host(felix, host);
    let tunnels = [
        (is_ipip(felix, pools), felix.encapsulation.ipip_mtu.get(), 20),
        (is_vxlan(felix, pools, Family::V4), felix.encapsulation.vxlan_mtu.get(), 50),
        (is_vxlan(felix, pools, Family::V6), felix.encapsulation.vxlan_mtu_v6.get(), 70),
        (felix.wireguard.is_enabled, felix.wireguard.mtu.get(), 60),
        (felix.wireguard.is_enabled_v6, felix.wireguard.mtu_v6.get(), 80),
    ];
    let enabled = tunnels.into_iter().filter(|(is_enabled, ..)| *is_enabled);
    let mtus = enabled.map(|(_, configured, overhead)| match configured {
        0 => Mtu(host_mtu.0.saturating_sub(overhead)).max(LEAST),
        configured => Mtu(configured),
    });
    mtus.min().unwrap_or(host_mtu)
}

/// Returns the smallest MTU of the host's own interfaces that are up.
fn of_host(felix: &FelixConfig, host: &Host) -> Mtu {
    let Some(pattern) = &felix.interfaces.mtu_pattern else { return FALLBACK };
    let interfaces = host.interfaces.iter().filter(|interface| interface.is_up);
    let own = interfaces.filter(|interface| pattern.is_match(interface.name.as_str()));
    own.map(|interface| interface.mtu).min().unwrap_or(FALLBACK)
}

fn is_ipip(felix: &FelixConfig, pools: &[IpPool]) -> bool {
    let by_pool = || pools.iter().any(|pool| matches!(pool.encapsulation, Encapsulation::Ipip(_)));
    felix.encapsulation.ipip_enabled.unwrap_or_else(by_pool)
}

fn is_vxlan(felix: &FelixConfig, pools: &[IpPool], family: Family) -> bool {
    let mut of_family = pools.iter().filter(|pool| pool.family() == family);
    let by_pool = of_family.any(|pool| matches!(pool.encapsulation, Encapsulation::Vxlan(_)));
    match (felix.encapsulation.vxlan_enabled, family) {
        (Some(is_enabled), Family::V4) => is_enabled,
        // The setting is about IPv4; IPv6 tunnels follow their pools unless it forbids all.
        (setting, _) => setting != Some(false) && by_pool,
    }
}

#[cfg(test)]
mod tests {
    use config::value::Number;
    use model::pool::{AllowedUses, AssignmentMode, EncapsulationScope};
    use selector::Selector;

    use super::*;
    use crate::startup::host::Interface;

    fn pool(cidr: &str, encapsulation: Encapsulation) -> IpPool {
        IpPool {
            name: "pool".to_owned(),
            cidr: cidr.parse().unwrap(),
            block_len: 26,
            encapsulation,
            nat_outgoing: false,
            is_disabled: false,
            is_bgp_export_disabled: false,
            node_selector: Selector::all(),
            namespace_selector: None,
            allowed_uses: AllowedUses::default(),
            assignment: AssignmentMode::Automatic,
        }
    }

    fn host(interfaces: &[(&str, u32)]) -> Host {
        let interface = |(name, mtu): &(&str, u32)| Interface {
            name: name.parse().unwrap(),
            mtu: Mtu(*mtu),
            is_up: true,
            addrs: Vec::new(),
        };
        Host { interfaces: interfaces.iter().map(interface).collect(), ..Host::default() }
    }

    #[test]
    fn tunnels_take_their_overhead_from_the_smallest_interface() {
        let always = EncapsulationScope::Always;
        let felix = FelixConfig::default();
        for (pools, expected) in [
            (vec![], 1450),
            (vec![pool("10.0.0.0/16", Encapsulation::None)], 1450),
            (vec![pool("10.0.0.0/16", Encapsulation::Ipip(always))], 1430),
            (vec![pool("10.0.0.0/16", Encapsulation::Vxlan(always))], 1400),
            (vec![pool("fd00::/48", Encapsulation::Vxlan(always))], 1380),
        ] {
            let host = host(&[("lo", 65536), ("eth0", 1500), ("ens5", 1450), ("docker0", 900)]);
            assert_eq!(of_pods(&felix, &pools, &host), Mtu(expected));
        }
    }

    #[test]
    fn a_configured_mtu_wins() {
        let mut felix = FelixConfig::default();
        felix.encapsulation.ipip_mtu = Number::clamped(1440);
        let pools = [pool("10.0.0.0/16", Encapsulation::Ipip(EncapsulationScope::CrossSubnet))];
        assert_eq!(of_pods(&felix, &pools, &host(&[("eth0", 9000)])), Mtu(1440));
    }

    #[test]
    fn without_an_interface_it_is_ethernets() {
        assert_eq!(of_pods(&FelixConfig::default(), &[], &host(&[("lo", 65536)])), Mtu(1500));
    }
}
