//! Does a packet have the marks of a rule, and if not, which one does it lack?

use std::net::IpAddr;

use model::endpoint::NamedPort;
use model::id::{NamespacedName, NodeName};
use model::policy::{EntityMatch, IcmpMatch, PortMatch, Protocol, Rule};
use model::vrf::{VrfName, Vrfs, Zone};
use selector::Selector;

use crate::policy::Inputs;
use crate::policy::compile::{End, port_protocol};
use crate::policy::oracle::answers_in;
use crate::policy::packet::Packet;
use crate::policy::question::service_of;

/// Who can tell whether a packet has the marks of rules.
pub(super) struct Judge<'a> {
    pub(super) inputs: &'a Inputs,
    pub(super) packet: &'a Packet,
    /// Where the endpoint is whose rules they are.
    pub(super) node: &'a NodeName,
    /// Which end of the packet's way is the endpoint itself, if that is sure.
    pub(super) own: Option<End>,
    pub(super) vrfs: &'a Vrfs,
    /// Whom addresses mean to the endpoint whose rules they are.
    pub(super) zone: Zone,
}

impl Judge<'_> {
    /// Returns the first mark of `rule` that the packet does not have.
    pub(super) fn mismatch(&self, rule: &Rule) -> Option<String> {
        let packet = self.packet;
        let has = |wanted: IcmpMatch| {
            packet.icmp.is_some_and(|(kind, code)| {
                kind == wanted.kind && wanted.code.is_none_or(|wanted| wanted == code)
            })
        };
        if let Some(family) = rule.family.filter(|family| *family != packet.family()) {
            return Some(format!("it is {}, not {family}", packet.family()));
        }
        if let Some(protocol) = rule.protocol.filter(|protocol| *protocol != packet.protocol) {
            return Some(format!("it is {}, not {protocol}", packet.protocol));
        }
        if rule.not_protocol == Some(packet.protocol) {
            return Some(format!("it is {}", packet.protocol));
        }
        if let Some(icmp) = rule.icmp.filter(|icmp| !has(*icmp)) {
            return Some(format!("it is not {}", message(icmp)));
        }
        if let Some(icmp) = rule.not_icmp.filter(|icmp| has(*icmp)) {
            return Some(format!("it is {}", message(icmp)));
        }
        let has_ports = port_protocol(rule).is_some();
        [End::Source, End::Destination].into_iter().find_map(|end| {
            let who = self.who(rule, end);
            who.addr_mismatch().or_else(|| has_ports.then(|| who.port_mismatch()).flatten())
        })
    }

    fn who<'a>(&'a self, rule: &'a Rule, end: End) -> Who<'a> {
        let packet = self.packet;
        let (wanted, addr, port) = match end {
            End::Source => (&rule.source, packet.source, packet.source_port),
            End::Destination => (&rule.destination, packet.destination, packet.destination_port),
        };
        let near = (self.own == Some(end)).then_some(self.node);
        Who { judge: self, near, end, wanted, addr, port, protocol: packet.protocol }
    }
}

fn message(icmp: IcmpMatch) -> String {
    match icmp.code {
        Some(code) => format!("ICMP type {} code {code}", icmp.kind),
        None => format!("ICMP type {}", icmp.kind),
    }
}

/// One end of the packet's way, and what it should be.
struct Who<'a> {
    judge: &'a Judge<'a>,
    /// The node whose named ports are meant; `None` is all.
    near: Option<&'a NodeName>,
    end: End,
    wanted: &'a EntityMatch,
    addr: IpAddr,
    port: u16,
    protocol: Protocol,
}

impl Who<'_> {
    fn addr_mismatch(&self) -> Option<String> {
        let Self { wanted, addr, .. } = self;
        let end = match self.end {
            End::Source => "source",
            End::Destination => "destination",
        };
        if let Some(nets) = &wanted.nets
            && !nets.iter().any(|net| net.contains(*addr))
        {
            return Some(format!("{end} {addr} is in none of its nets {nets:?}"));
        }
        if let Some(net) = wanted.not_nets.iter().find(|net| net.contains(*addr)) {
            return Some(format!("{end} {addr} is in {net} of its notNets"));
        }
        let selected = |selector: &Selector| self.names_of_selected(selector);
        if let Some(selector) = &wanted.selector
            && selected(selector).is_empty()
        {
            return Some(format!("{end} {addr} is nobody that selector {selector} matches"));
        }
        if let Some(selector) = &wanted.not_selector
            && let Some(name) = selected(selector).first()
        {
            return Some(format!("{end} {addr} is {name}, whom notSelector {selector} matches"));
        }
        let service = wanted.service.as_ref().filter(|service| !self.answers_for(service));
        service.map(|service| format!("{end} {addr} does not answer for Service {service}"))
    }

    fn port_mismatch(&self) -> Option<String> {
        let Self { wanted, addr, port, .. } = self;
        let is_one = |list: &[PortMatch]| list.iter().any(|wanted| self.is_port(wanted));
        let written = |list: &[PortMatch]| {
            list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        if let Some(ports) = &wanted.ports
            && !is_one(ports)
        {
            return Some(format!("port {port} of {addr} is none of {}", written(ports)));
        }
        let is_excluded = is_one(&wanted.not_ports);
        is_excluded
            .then(|| format!("port {port} of {addr} is one of {}", written(&wanted.not_ports)))
    }

    fn is_port(&self, wanted: &PortMatch) -> bool {
        match wanted {
            PortMatch::Range(low, high) => (*low..=*high).contains(&self.port),
            PortMatch::Named(name) => {
                let all = Selector::all();
                let selector = self.wanted.selector.as_ref().unwrap_or(&all);
                let is_it = |port: &NamedPort| {
                    port.name == *name
                        && Protocol(port.protocol) == self.protocol
                        && port.port == self.port
                };
                let inputs = self.judge.inputs;
                let is_near = |node| self.near.is_none_or(|near| near == node);
                inputs.workloads.values().any(|endpoint| {
                    is_near(&endpoint.node)
                        && self.is_meant(endpoint.vrf.as_ref())
                        && endpoint.addrs.contains(&self.addr)
                        && endpoint.ports.iter().any(is_it)
                        && selector.matches(&inputs.workload_labels(endpoint))
                }) || inputs.hosts.values().any(|host| {
                    is_near(&host.node)
                        && self.is_meant(None)
                        && host.expected_addrs.contains(&self.addr)
                        && host.ports.iter().any(is_it)
                        && selector.matches(&inputs.host_labels(host))
                })
            }
        }
    }

    /// Returns the names of all that have the address and that `selector` matches.
    fn names_of_selected(&self, selector: &Selector) -> Vec<String> {
        let inputs = self.judge.inputs;
        let workloads = inputs.workloads.values().filter(|endpoint| {
            endpoint.addrs.contains(&self.addr)
                && self.is_meant(endpoint.vrf.as_ref())
                && selector.matches(&inputs.workload_labels(endpoint))
        });
        let hosts = inputs.hosts.values().filter(|host| {
            host.expected_addrs.contains(&self.addr)
                && self.is_meant(None)
                && selector.matches(&inputs.host_labels(host))
        });
        let sets = inputs.network_sets.values().filter(|set| {
            self.judge.zone != Zone::Nowhere
                && set.nets.iter().any(|net| net.contains(self.addr))
                && selector.matches(&inputs.network_set_labels(set))
        });
        let workloads = workloads.map(|endpoint| match &endpoint.vrf {
            Some(vrf) => format!("pod {} of VRF {vrf}", endpoint.pod),
            None => format!("pod {}", endpoint.pod),
        });
        let hosts = hosts.map(|host| format!("host endpoint {}", host.name));
        let sets = sets.map(|set| format!("in network set {}", set.name));
        workloads.chain(hosts).chain(sets).collect()
    }

    /// Does the address of who is in `vrf` mean him to the endpoint whose rules they are?
    fn is_meant(&self, vrf: Option<&VrfName>) -> bool {
        let zone = self.judge.zone;
        zone != Zone::Nowhere && self.judge.vrfs.zone(vrf) == zone
    }

    /// Is it an address, and for a receiver also a port, of the Service's endpoints?
    fn answers_for(&self, service: &NamespacedName) -> bool {
        let Judge { inputs, vrfs, zone, .. } = self.judge;
        if !answers_in(inputs, vrfs, &service.namespace, self.addr, *zone) {
            return false;
        }
        let slices = inputs.slices.values();
        let mut slices = slices.filter(|slice| service_of(slice).as_ref() == Some(service));
        slices.any(|slice| {
            let has_addr = slice.endpoints.iter().any(|one| one.addrs.contains(&self.addr));
            let has_port = || {
                slice
                    .ports
                    .iter()
                    .any(|one| one.protocol == self.protocol && one.port == Some(self.port))
            };
            has_addr && (self.end == End::Source || has_port())
        })
    }
}
