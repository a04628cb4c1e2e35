//! Which connections policy no longer allows, and how they end: decided without IO.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use calc::policy::enforced::{Attachment, verdict};
use calc::policy::{Decision, Packet, Way};
use kernel::conntrack::Tuple;
use model::desired::policy::PolicyState;
use model::net::IfName;
use model::policy::Protocol;

/// How a connection is ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ending {
    /// Whoever sends next gets a TCP reset (RFC 9293 §3.5.2).
    Reset,
    /// The kernel forgets it, and judges the next packet as a new connection's.
    Forget,
}

/// What connections are judged by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judge<'a> {
    /// What the kernel enforces.
    pub(crate) state: &'a PolicyState,
    /// Whose addresses are this node's workloads'.
    pub(crate) homes: &'a BTreeMap<IpAddr, IfName>,
    /// This machine's own addresses: it always reaches its workloads, as in Calico.
    pub(crate) hosts: &'a BTreeSet<IpAddr>,
}

impl Judge<'_> {
    /// Returns how a connection ends; `None` if policy allows it, or has no say in it.
    pub(crate) fn ending(&self, original: &Tuple, reply: &Tuple) -> Option<Ending> {
        let packet = first_packet(original, reply);
        let is_denied = |addr: IpAddr, way| {
            let Some(name) = self.homes.get(&addr) else { return false };
            let attachment = Attachment::Workload(name.clone());
            let decision = verdict(self.state, &attachment, &packet, way);
            matches!(decision, Some(Decision::Denied(_)))
        };
        let is_denied = is_denied(packet.source, Way::Egress)
            || (!self.hosts.contains(&packet.source)
                && is_denied(packet.destination, Way::Ingress));
        let ending = if packet.protocol == Protocol::TCP { Ending::Reset } else { Ending::Forget };
        is_denied.then_some(ending)
    }
}

/// Returns the packet as policy has seen it: its destination is translated by then, its
/// source not yet.
const fn first_packet(original: &Tuple, reply: &Tuple) -> Packet {
    Packet {
        source: original.source,
        destination: reply.source,
        protocol: original.protocol,
        source_port: original.source_port,
        destination_port: reply.source_port,
        icmp: original.icmp,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::desired::policy::{
        CompiledEntity, CompiledRule, Direction, EndpointPath, PolicyRules, Ports, TierPath,
        WorkloadPolicy,
    };
    use model::id::NamespacedName;
    use model::policy::{Action, PolicyId, PolicyKind};
    use model::tier::TierAction;

    use super::*;

    const WEB: [u8; 4] = [10, 0, 0, 1];
    const DB: [u8; 4] = [10, 0, 0, 2];
    const SERVICE: [u8; 4] = [10, 96, 0, 1];
    const HOST: [u8; 4] = [192, 168, 0, 1];

    fn id() -> PolicyId {
        PolicyId { kind: PolicyKind::Global, namespace: None, name: "p".to_owned() }
    }

    fn allow() -> CompiledRule {
        CompiledRule {
            action: Action::Allow,
            family: None,
            protocol: None,
            not_protocol: None,
            icmp: None,
            not_icmp: None,
            source: CompiledEntity::default(),
            destination: CompiledEntity::default(),
            never: None,
        }
    }

    /// `db` takes only TCP 80.
    fn state() -> PolicyState {
        let ports = Some(Ports { ranges: vec![(80, 80)], named: vec![] });
        let destination = CompiledEntity { ports, ..CompiledEntity::default() };
        let rule = CompiledRule { protocol: Some(Protocol::TCP), destination, ..allow() };
        let tier = TierPath {
            tier: "default".to_owned(),
            default_action: TierAction::Deny,
            policies: vec![id()],
        };
        let open = Direction { tiers: vec![], profiles: vec!["open".to_owned()] };
        let closed = Direction { tiers: vec![tier], profiles: vec![] };
        let all = allow();
        let workload = |name: &str, addr: [u8; 4], ingress: &Direction| {
            let policy = WorkloadPolicy {
                endpoint: NamespacedName { namespace: "red".to_owned(), name: name.to_owned() },
                addrs: vec![addr.into()],
                mac: None,
                path: Arc::new(EndpointPath { ingress: ingress.clone(), egress: open.clone() }),
            };
            (format!("cali{name}").parse().unwrap(), policy)
        };
        let rules = PolicyRules { ingress: vec![rule], egress: vec![] };
        let everything = PolicyRules { ingress: vec![all.clone()], egress: vec![all] };
        PolicyState {
            workloads: [workload("web", WEB, &open), workload("db", DB, &closed)].into(),
            policies: [(id(), Arc::new(rules))].into(),
            profiles: [("open".to_owned(), Arc::new(everything))].into(),
            ..PolicyState::default()
        }
    }

    fn tuple(protocol: Protocol, from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Tuple {
        Tuple {
            source: from.0.into(),
            destination: to.0.into(),
            protocol,
            source_port: from.1,
            destination_port: to.1,
            icmp: None,
        }
    }

    /// What becomes of a connection to `asked`, which is answered by `answers`.
    fn ending(
        protocol: Protocol,
        from: [u8; 4],
        asked: ([u8; 4], u16),
        answers: ([u8; 4], u16),
    ) -> Option<Ending> {
        let state = state();
        let homes = state.workloads.iter();
        let homes =
            homes.flat_map(|(name, one)| one.addrs.iter().map(|addr| (*addr, name.clone())));
        let (homes, hosts) = (homes.collect(), [IpAddr::from(HOST)].into());
        let judge = Judge { state: &state, homes: &homes, hosts: &hosts };
        let (original, reply) =
            (tuple(protocol, (from, 40_000), asked), tuple(protocol, answers, (from, 40_000)));
        judge.ending(&original, &reply)
    }

    #[test]
    fn only_what_policy_denies_ends() {
        let elsewhere = [10, 9, 0, 1];
        let (tcp, udp) = (Protocol::TCP, Protocol::UDP);
        let cases = [
            (tcp, WEB, (DB, 80), None),
            (tcp, WEB, (DB, 81), Some(Ending::Reset)),
            (udp, WEB, (DB, 80), Some(Ending::Forget)),
            (udp, elsewhere, (DB, 80), Some(Ending::Forget)),
            (udp, DB, (WEB, 80), None),
            (udp, DB, (elsewhere, 80), None),
            (udp, elsewhere, (HOST, 80), None),
            (tcp, HOST, (DB, 81), None),
        ];
        for (protocol, from, to, expected) in cases {
            assert_eq!(ending(protocol, from, to, to), expected, "{protocol} {from:?} -> {to:?}");
        }
    }

    #[test]
    fn services_are_judged_by_who_answers() {
        let tcp = Protocol::TCP;
        assert_eq!(ending(tcp, WEB, (SERVICE, 81), (DB, 80)), None);
        assert_eq!(ending(tcp, WEB, (SERVICE, 80), (DB, 81)), Some(Ending::Reset));
    }
}
