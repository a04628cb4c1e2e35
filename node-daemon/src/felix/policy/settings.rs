//! From `FelixConfiguration` to what the tables are made by.

use std::collections::BTreeMap;
use std::net::IpAddr;

use calc::wireguard::{HostEncryption, Strictness};
use config::FelixConfig;
use config::value::{
    DeniedConnections, DropAction, EndpointAction, NatExclusions, Protocol as Named, ProtocolPort,
    ServiceLoopPrevention, SourceSpoofing, Switch,
};
use model::net::{Cidr, Family, IfName};
use model::policy::Protocol;
use model::ruleset::{InterfacePattern, Mark};
use render::tunnel::Tunnels;
use render::{Denial, Failsafe, HostAction, Marks, NatSettings, ServiceLoop, Settings, Spoofing};

use crate::felix::wireguard;

/// Returns the settings, without pools and nodes, which are objects of their own.
pub(crate) fn of(felix: &FelixConfig, workload_prefixes: Vec<String>) -> Settings {
    let marks = Marks::new(felix.dataplane.nftables_mask.0).unwrap_or_else(|error| {
        tracing::error!(%error, "nftablesMarkMask not followed; using Calico's");
        Marks::default()
    });
    let families = Family::ALL.into_iter();
    let families = families.filter(|family| *family == Family::V4 || felix.interfaces.ipv6_support);
    let vxlan_port = u16::try_from(felix.encapsulation.vxlan_port.get()).ok();
    Settings {
        families: families.collect(),
        workload_prefixes,
        marks,
        workload_to_host: match felix.policy.endpoint_to_host {
            EndpointAction::Drop => HostAction::Drop,
            EndpointAction::Return => HostAction::Return,
            EndpointAction::Accept => HostAction::Accept,
        },
        failsafe_in: felix.failsafe.inbound.iter().map(failsafe).collect(),
        failsafe_out: felix.failsafe.outbound.iter().map(failsafe).collect(),
        nat: nat(felix),
        floating: (felix.interfaces.floating_ips == Switch::Enabled).then(BTreeMap::new),
        refused_vxlan_port: vxlan_port.filter(|_| !felix.encapsulation.vxlan_from_workloads),
        is_ipip_allowed: felix.encapsulation.ipip_from_workloads,
        tunnels: Tunnels {
            ipip: felix.encapsulation.ipip_enabled,
            vxlan: felix.encapsulation.vxlan_enabled,
            port: vxlan_port.unwrap_or(Tunnels::default().port),
            external: felix
                .routes
                .external_nodes
                .iter()
                .filter_map(|text| external(text))
                .collect(),
            ..Tunnels::default()
        },
        denial: denial(felix),
        spoofing: match felix.interfaces.source_spoofing {
            SourceSpoofing::Disabled => Spoofing::Disabled,
            SourceSpoofing::Any => Spoofing::Any,
        },
        wireguard: wireguard(felix),
        ends_denied: felix.policy.denied_connections == DeniedConnections::End,
        is_invalid_dropped: !felix.policy.no_invalid_check,
        service_ranges: felix.policy.service_loop_prevention_nets.clone(),
        service_loop: match felix.policy.service_loop_prevention {
            ServiceLoopPrevention::Drop => ServiceLoop::Drop,
            ServiceLoopPrevention::Reject => ServiceLoop::Reject,
            ServiceLoopPrevention::Disabled => ServiceLoop::Forward,
        },
        log_prefix: felix.logging.prefix.clone(),
        ..Settings::default()
    }
}

/// Reads an entry of `externalNodesList`: an address or a range.
fn external(text: &str) -> Option<Cidr> {
    let text = text.trim();
    let found = match text.parse::<IpAddr>() {
        Ok(addr) => Some(Cidr::host(addr)),
        Err(_) => text.parse().ok(),
    };
    if found.is_none() && !text.is_empty() {
        tracing::warn!(entry = text, "externalNodesList: use an address or a CIDR; not let in");
    }
    found
}

/// Whoever comes from iptables has said what to do under its name.
fn denial(felix: &FelixConfig) -> Denial {
    let said = [felix.policy.filter_deny, felix.policy.nft_filter_deny];
    if said.contains(&DropAction::Reject) { Denial::Reject } else { Denial::Drop }
}

/// Without a device that could encrypt, nothing is strict: that would be the end of all packets
/// between nodes for a setting that is left over.
fn wireguard(felix: &FelixConfig) -> render::Wireguard {
    let settings = wireguard::settings::of(felix);
    let devices = settings.devices.into_iter();
    let devices = devices.map(|(family, device)| (family, (device.name, device.port)));
    let mark = Mark { mask: settings.mark, value: settings.mark };
    render::Wireguard {
        devices: devices.collect(),
        incoming: (settings.host_encryption == HostEncryption::On).then_some(mark),
        is_strict: settings.strictness == Strictness::Strict,
    }
}

fn failsafe(port: &ProtocolPort) -> Failsafe {
    let protocol = match port.protocol {
        Named::Tcp => Protocol::TCP,
        Named::Udp => Protocol::UDP,
    };
    Failsafe { protocol, port: port.port, net: port.net }
}

fn nat(felix: &FelixConfig) -> NatSettings {
    let nat = &felix.nat;
    NatSettings {
        ports: nat.port_range.map(|range| (range.first, range.last)),
        addr: nat.outgoing_address.map(Into::into),
        is_kept_to_hosts: nat.outgoing_exclusions == NatExclusions::IpPoolsAndHostIps,
        interface: interface(&nat.outgoing_interface),
    }
}

/// Reads a name as iptables does: with `+` at its end it is a prefix.
fn interface(filter: &str) -> Option<InterfacePattern> {
    match filter.strip_suffix('+') {
        Some(prefix) => Some(InterfacePattern::Prefix(prefix.to_owned())),
        None => filter.parse::<IfName>().ok().map(InterfacePattern::Name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_tables() {
        let prefixes = vec!["cali".to_owned()];
        assert_eq!(of(&FelixConfig::default(), prefixes), Settings::default());
    }

    #[test]
    fn either_name_has_denied_packets_refused() {
        for name in ["iptablesFilterDenyAction", "nftablesFilterDenyAction"] {
            let reject = [(name.to_owned(), "Reject".into())];
            let (felix, problems) =
                FelixConfig::resolve(&config::Sources::default().with_cluster(reject));
            assert!(problems.is_empty(), "{problems:?}");
            assert_eq!(denial(&felix), Denial::Reject, "{name}");
        }
    }

    #[test]
    fn interfaces_are_read_as_iptables_does() {
        assert_eq!(interface(""), None);
        assert_eq!(interface("eth0"), Some(InterfacePattern::Name("eth0".parse().unwrap())));
        assert_eq!(interface("eth+"), Some(InterfacePattern::Prefix("eth".to_owned())));
    }
}
