//! From `FelixConfiguration` to what WireGuard is to be like.

use std::collections::BTreeMap;

use calc::wireguard::{DeviceSettings, HostEncryption, Strictness, WireguardSettings};
use config::FelixConfig;
use model::net::{Family, IfName};

use super::Place;

/// The place of WireGuard's bit in the mask of marks, as in Calico: accept, pass, drop and two for
/// scratch go before.
const MARK_BIT: usize = 5;

/// Returns the settings. A device that cannot be is left out, and why is logged.
pub(crate) fn of(felix: &FelixConfig) -> WireguardSettings {
    let wireguard = &felix.wireguard;
    let devices = places(felix).into_iter().filter_map(|(family, place)| {
        let (is_enabled, port) = match family {
            Family::V4 => (wireguard.is_enabled, wireguard.port),
            Family::V6 => {
                (wireguard.is_enabled_v6 && felix.interfaces.ipv6_support, wireguard.port_v6)
            }
        };
        let device = DeviceSettings {
            name: place.name,
            port: u16::try_from(port.get()).ok()?,
            table: place.table,
        };
        is_enabled.then_some((family, device))
    });
    WireguardSettings {
        devices: devices.collect(),
        host_encryption: if wireguard.host_encryption {
            HostEncryption::On
        } else {
            HostEncryption::Off
        },
        strictness: if wireguard.is_strict { Strictness::Strict } else { Strictness::Lenient },
        keepalive: wireguard.keep_alive,
        rule_priority: wireguard.rule_priority.get(),
        mark: mark(felix).unwrap_or_default(),
    }
}

/// Returns what is ours, whether WireGuard is enabled or not.
pub(crate) fn places(felix: &FelixConfig) -> BTreeMap<Family, Place> {
    let Some(mark) = mark(felix) else {
        tracing::error!(
            "no WireGuard: nftablesMarkMask has fewer than six bits; use Calico's 0xffff0000"
        );
        return BTreeMap::new();
    };
    let ranges = &felix.routes.table_ranges;
    let mut tables = ranges.iter().flat_map(|range| range.first..=range.last);
    let mut place = |family, name: &str| {
        let table = tables.next()?;
        let Ok(name) = name.parse::<IfName>() else {
            tracing::error!(name, "no WireGuard: no interface can have this name");
            return None;
        };
        let rule_priority = felix.wireguard.rule_priority.get();
        Some((family, Place { name, table, rule_priority, mark }))
    };
    let v4 = place(Family::V4, &felix.wireguard.interface);
    let v6 = place(Family::V6, &felix.wireguard.interface_v6);
    v4.into_iter().chain(v6).collect()
}

fn mark(felix: &FelixConfig) -> Option<u32> {
    let mask = felix.dataplane.nftables_mask.0;
    (0..u32::BITS).map(|bit| 1_u32.rotate_left(bit)).filter(|bit| mask & bit != 0).nth(MARK_BIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_calicos() {
        let places = places(&FelixConfig::default());
        let words: Vec<String> = places
            .values()
            .map(|place| {
                let Place { name, table, rule_priority, mark } = place;
                format!("{rule_priority} {mark:#x} {table} {name}")
            })
            .collect();
        assert_eq!(words, ["99 0x200000 1 wireguard.cali", "99 0x200000 2 wg-v6.cali"]);
        assert!(of(&FelixConfig::default()).devices.is_empty());
    }
}
