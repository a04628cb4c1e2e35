//! What becomes of a packet, from the state alone: what the kernel must do.

use std::net::IpAddr;

use model::desired::policy::{
    CompiledEntity, CompiledRule, Direction, HostInterface, PolicyRules, PolicyState, Ports, SetId,
    SetMember, TierPath,
};
use model::net::{Cidr, Family, IfName};
use model::policy::{Action, IcmpMatch};
use model::tier::TierAction;
use model::vrf::Zone;

use super::packet::{Cause, Decision, Packet, Way};

/// An endpoint, as the kernel knows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Attachment {
    /// A pod's interface.
    Workload(IfName),
    /// One of the machine's own interfaces.
    Host(HostInterface),
}

/// Returns what becomes of `packet`; `None` if there is no such endpoint, or no such way for it.
#[must_use]
pub fn verdict(
    state: &PolicyState,
    attachment: &Attachment,
    packet: &Packet,
    way: Way,
) -> Option<Decision> {
    let direction = match attachment {
        Attachment::Workload(name) => {
            let path = &state.workloads.get(name)?.path;
            match way {
                Way::Ingress => &path.ingress,
                Way::Egress => &path.egress,
                Way::ForwardIngress
                | Way::ForwardEgress
                | Way::PreDnat
                | Way::UntrackedIngress
                | Way::UntrackedEgress => return None,
            }
        }
        Attachment::Host(interface) => {
            let host = state.hosts.get(interface)?;
            match way {
                Way::Ingress => &host.normal.ingress,
                Way::Egress => &host.normal.egress,
                Way::ForwardIngress => &host.forward.ingress,
                Way::ForwardEgress => &host.forward.egress,
                Way::PreDnat => &host.pre_dnat,
                Way::UntrackedIngress => &host.untracked.ingress,
                Way::UntrackedEgress => &host.untracked.egress,
            }
        }
    };
    Some(Evaluation { state, packet, way, zone: direction.zone }.direction(direction))
}

struct Evaluation<'a> {
    state: &'a PolicyState,
    packet: &'a Packet,
    way: Way,
    /// Whom the sets of rules mean.
    zone: Zone,
}

impl Evaluation<'_> {
    fn direction(&self, direction: &Direction) -> Decision {
        if let Some(decision) = direction.tiers.iter().find_map(|tier| self.tier(tier)) {
            return decision;
        }
        if !self.way.has_profiles() {
            return Decision::Undecided;
        }
        for name in &direction.profiles {
            let matching = self.state.profiles.get(name).and_then(|rules| self.first(rules));
            match matching {
                Some((index, Action::Allow)) => {
                    return Decision::Allowed(Cause::Profile(name.clone(), index));
                }
                Some((index, Action::Deny)) => {
                    return Decision::Denied(Cause::Profile(name.clone(), index));
                }
                Some((_, Action::Log | Action::Pass)) | None => {}
            }
        }
        Decision::Denied(Cause::NoProfile)
    }

    /// Returns what a tier decides, if it does.
    fn tier(&self, tier: &TierPath) -> Option<Decision> {
        for id in &tier.policies {
            let matching = self.state.policies.get(id).and_then(|rules| self.first(rules));
            match matching {
                Some((index, Action::Allow)) => {
                    return Some(Decision::Allowed(Cause::Policy(id.clone(), index)));
                }
                Some((index, Action::Deny)) => {
                    return Some(Decision::Denied(Cause::Policy(id.clone(), index)));
                }
                Some((_, Action::Pass)) => return None,
                Some((_, Action::Log)) | None => {}
            }
        }
        let denies = tier.default_action == TierAction::Deny && !self.way.is_early();
        denies.then(|| Decision::Denied(Cause::TierDefault(tier.tier.clone())))
    }

    /// Returns the first rule that matches and does more than log.
    fn first(&self, rules: &PolicyRules) -> Option<(usize, Action)> {
        let rules = if self.way.is_ingress() { &rules.ingress } else { &rules.egress };
        let mut rules = rules.iter().enumerate();
        rules
            .find(|(_, rule)| rule.action != Action::Log && self.is_match(rule))
            .map(|(index, rule)| (index, rule.action))
    }

    fn is_match(&self, rule: &CompiledRule) -> bool {
        let packet = self.packet;
        let is_icmp = |wanted: &IcmpMatch| {
            packet.icmp.is_some_and(|(kind, code)| {
                kind == wanted.kind && wanted.code.is_none_or(|wanted| wanted == code)
            })
        };
        rule.family.is_none_or(|family| family == packet.family())
            && rule.protocol.is_none_or(|protocol| protocol == packet.protocol)
            && rule.not_protocol.is_none_or(|protocol| protocol != packet.protocol)
            && rule.icmp.as_ref().is_none_or(is_icmp)
            && !rule.not_icmp.as_ref().is_some_and(is_icmp)
            && self.is_entity(&rule.source, packet.source, packet.source_port)
            && self.is_entity(&rule.destination, packet.destination, packet.destination_port)
    }

    fn is_entity(&self, wanted: &CompiledEntity, addr: IpAddr, port: u16) -> bool {
        let is_in = |nets: &[Cidr]| nets.iter().any(|net| net.contains(addr));
        let has_addr = |id: &SetId| self.has_addr(id, addr);
        wanted.nets.as_deref().is_none_or(is_in)
            && !is_in(&wanted.not_nets)
            && wanted.in_sets.iter().all(has_addr)
            && !wanted.not_in_sets.iter().any(has_addr)
            && wanted.ports.as_ref().is_none_or(|ports| self.is_port(ports, addr, port))
            && !self.is_port(&wanted.not_ports, addr, port)
            && wanted.service.is_none_or(|id| self.has_port(&id, addr, port))
    }

    fn is_port(&self, ports: &Ports, addr: IpAddr, port: u16) -> bool {
        ports.ranges.iter().any(|(low, high)| (*low..=*high).contains(&port))
            || ports.named.iter().any(|id| self.has_port(id, addr, port))
    }

    /// Asks for each network that an address can lie in: sets may have many more members.
    fn has_addr(&self, id: &SetId, addr: IpAddr) -> bool {
        let Some(members) = self.state.sets.get(&id.in_zone(self.zone)) else { return false };
        let lens = (0..=Family::of(addr).bits()).rev();
        let mut nets = lens.filter_map(|len| Cidr::containing(addr, len).ok());
        nets.any(|net| members.contains(&SetMember::Net(net)))
    }

    fn has_port(&self, id: &SetId, addr: IpAddr, port: u16) -> bool {
        let member = SetMember::Port(addr, self.packet.protocol, port);
        let members = self.state.sets.get(&id.in_zone(self.zone));
        members.is_some_and(|members| members.contains(&member))
    }
}
