//! The MTU that pods get: what the host's interfaces carry, less what tunnels need.

use calc::TunnelSettings;
use calc::tunnels::ETHERNET;
use config::felix::FelixConfig;
use config::value::Pattern;
use model::desired::Checksums;
use model::net::{Family, IfName, Mtu};
use model::node::TunnelKind;
use model::pool::IpPool;

use super::host::Host;

/// Returns the MTU for pods: the smallest that one of the enabled tunnels leaves.
pub(crate) fn of_pods(felix: &FelixConfig, pools: &[IpPool], host: &Host) -> Mtu {
    let interfaces = host.interfaces.iter().filter(|interface| interface.is_up);
    let interfaces = interfaces.map(|interface| (&interface.name, interface.mtu));
    let host_mtu = of_host(felix.interfaces.mtu_pattern.as_ref(), interfaces).unwrap_or(ETHERNET);
    let pools: Vec<&IpPool> = pools.iter().collect();
    TunnelSettings { host_mtu, ..tunnels(felix) }.pod_mtu(&pools)
}

/// Returns the smallest MTU of the host's own interfaces, out of those that are up.
pub(crate) fn of_host<'a>(
    pattern: Option<&Pattern>,
    interfaces: impl Iterator<Item = (&'a IfName, Mtu)>,
) -> Option<Mtu> {
    let pattern = pattern?;
    let own = interfaces.filter(|(name, _)| pattern.is_match(name.as_str()));
    own.map(|(_, mtu)| mtu).min()
}

/// Returns the settings of tunnels; of the host's MTU they know nothing yet.
pub(crate) fn tunnels(felix: &FelixConfig) -> TunnelSettings {
    let (tunnels, wireguard) = (&felix.encapsulation, &felix.wireguard);
    let mtus = [
        (TunnelKind::Ipip, tunnels.ipip_mtu.get()),
        (TunnelKind::VxlanV4, tunnels.vxlan_mtu.get()),
        (TunnelKind::VxlanV6, tunnels.vxlan_mtu_v6.get()),
        (TunnelKind::WireguardV4, wireguard.mtu.get()),
        (TunnelKind::WireguardV6, wireguard.mtu_v6.get()),
    ];
    let default = TunnelSettings::default();
    TunnelSettings {
        ipip: tunnels.ipip_enabled,
        vxlan: tunnels.vxlan_enabled,
        wireguard: [(Family::V4, wireguard.is_enabled), (Family::V6, wireguard.is_enabled_v6)]
            .into(),
        has_ipv6: felix.interfaces.ipv6_support,
        vni: tunnels.vxlan_vni.get(),
        port: u16::try_from(tunnels.vxlan_port.get()).unwrap_or(default.port),
        mtus: mtus
            .into_iter()
            .filter(|(_, mtu)| *mtu > 0)
            .map(|(kind, mtu)| (kind, Mtu(mtu)))
            .collect(),
        checksums: tunnels
            .features
            .is_checksum_offload_broken()
            .map(|is_broken| if is_broken { Checksums::Filled } else { Checksums::Offloaded }),
        ..default
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::startup::host::Interface;

    #[test]
    fn pods_get_what_the_smallest_interface_of_the_host_carries() {
        let mtu = |interfaces: &[(&str, u32)]| {
            let interface = |(name, mtu): &(&str, u32)| Interface {
                name: name.parse().unwrap(),
                mtu: Mtu(*mtu),
                is_up: true,
                addrs: Vec::new(),
            };
            let interfaces = interfaces.iter().map(interface).collect();
            of_pods(&FelixConfig::default(), &[], &Host { interfaces, ..Host::default() })
        };
        let all = [("lo", 65536), ("eth0", 1500), ("ens5", 1450), ("docker0", 900)];
        assert_eq!(mtu(&all), Mtu(1450));
        assert_eq!(mtu(&[("lo", 65536)]), Mtu(1500), "without an interface it is Ethernet's");
    }

    #[test]
    fn the_defaults_are_those_of_the_decisions() {
        let both = [(Family::V4, false), (Family::V6, false)].into();
        let expected = TunnelSettings { wireguard: both, ..TunnelSettings::default() };
        assert_eq!(tunnels(&FelixConfig::default()), expected);
    }
}
