//! Which tunnels there are, and what fits into them.

use model::pool::EncapsulationScope;

use super::*;

const ALWAYS: EncapsulationScope = EncapsulationScope::Always;

fn pool(cidr: &str, encapsulation: Encapsulation) -> IpPool {
    IpPool { encapsulation, ..IpPool::plain(cidr, cidr.parse().unwrap()) }
}

#[test]
fn tunnels_take_their_overhead_from_the_host() {
    let settings = TunnelSettings { host_mtu: Mtu(1450), ..TunnelSettings::default() };
    for (pools, expected) in [
        (vec![], 1450),
        (vec![pool("10.0.0.0/16", Encapsulation::None)], 1450),
        (vec![pool("10.0.0.0/16", Encapsulation::Ipip(ALWAYS))], 1430),
        (vec![pool("10.0.0.0/16", Encapsulation::Vxlan(ALWAYS))], 1400),
        (vec![pool("fd00::/48", Encapsulation::Vxlan(ALWAYS))], 1380),
    ] {
        let pools: Vec<&IpPool> = pools.iter().collect();
        assert_eq!(settings.pod_mtu(&pools), Mtu(expected));
    }
}

#[test]
fn a_configured_mtu_wins() {
    let pools = [pool("10.0.0.0/16", Encapsulation::Ipip(EncapsulationScope::CrossSubnet))];
    let settings = TunnelSettings {
        mtus: [(TunnelKind::Ipip, Mtu(1440))].into(),
        host_mtu: Mtu(9000),
        ..TunnelSettings::default()
    };
    assert_eq!(settings.pod_mtu(&pools.each_ref()), Mtu(1440));
}

#[test]
fn settings_go_before_pools() {
    let pools = [pool("10.0.0.0/16", Encapsulation::Vxlan(ALWAYS)), {
        pool("fd00::/48", Encapsulation::Vxlan(ALWAYS))
    }];
    let enabled = |vxlan, has_ipv6| {
        let settings = TunnelSettings { vxlan, has_ipv6, ..TunnelSettings::default() };
        let kinds = TunnelKind::ALL.into_iter();
        kinds.filter(|kind| settings.is_enabled(*kind, &pools)).collect::<Vec<_>>()
    };
    assert_eq!(enabled(None, true), [TunnelKind::VxlanV4, TunnelKind::VxlanV6]);
    assert_eq!(enabled(None, false), [TunnelKind::VxlanV4]);
    assert_eq!(enabled(Some(false), true), []);
}
