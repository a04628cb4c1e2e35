//! Which connections policy no longer allows, and how they end: decided without IO.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use calc::policy::enforced::{Attachment, verdict};
use calc::policy::{Decision, Packet, Way};
use kernel::conntrack::Tuple;
use model::desired::policy::{HostInterface, PolicyState};
use model::net::IfName;
use model::policy::Protocol;
use render::{Failsafe, Settings};

use super::connections::Homes;

/// How a connection is ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ending {
    /// Whoever sends next gets a TCP reset (RFC 9293 §3.5.2).
    Reset,
    /// The socket on this machine is closed, and whoever sends next gets a reset all the same.
    Close {
        /// This machine's end.
        local: SocketAddr,
        /// The other end.
        remote: SocketAddr,
    },
    /// The kernel forgets it, and judges the next packet as a new connection's.
    Forget,
}

/// What connections are judged by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judge<'a> {
    /// What the kernel enforces.
    pub(crate) state: &'a PolicyState,
    /// Whose addresses are this node's workloads'.
    pub(crate) homes: &'a Homes,
    /// This machine's own addresses, and whose they are: it always reaches its workloads, as in
    /// Calico.
    pub(crate) hosts: &'a BTreeMap<IpAddr, IfName>,
    /// By which interfaces packets leave for others' addresses.
    pub(crate) ways: &'a BTreeMap<IpAddr, IfName>,
    /// What host endpoints' policies never cut off.
    pub(crate) settings: &'a Settings,
}

impl Judge<'_> {
    /// Returns how a connection in `zone` ends; `None` if policy allows it, or has no say in it.
    pub(crate) fn ending(&self, zone: u16, original: &Tuple, reply: &Tuple) -> Option<Ending> {
        let packet = first_packet(original, reply);
        let is_denied = |addr: IpAddr, way| {
            let Some(name) = self.homes.get(&(zone, addr)) else { return false };
            let attachment = Attachment::Workload(name.clone());
            let decision = verdict(self.state, &attachment, &packet, way);
            matches!(decision, Some(Decision::Denied(_)))
        };
        let is_denied = is_denied(packet.source, Way::Egress)
            || (!self.hosts.contains_key(&packet.source)
                && is_denied(packet.destination, Way::Ingress))
            || (zone == 0 && self.is_not_passed_on(&packet, original));
        let ending = if packet.protocol == Protocol::TCP { Ending::Reset } else { Ending::Forget };
        is_denied.then_some(ending).or_else(|| self.ending_here(zone, &packet, original))
    }

    /// Do host endpoints deny a connection that this machine passes on?
    ///
    /// By which interface packets come is not known: that by which answers leave is taken. In zones
    /// of VRFs' connections nobody knows that.
    fn is_not_passed_on(&self, packet: &Packet, original: &Tuple) -> bool {
        let is_own = |addr| self.hosts.contains_key(&addr);
        if is_own(packet.source) || is_own(packet.destination) {
            return false;
        }
        let decide = |addr, packet: &Packet, way| {
            let attachment = self.attachment(self.ways.get(&addr)?)?;
            verdict(self.state, &attachment, packet, way)
        };
        let is_denied = |decision| matches!(decision, Some(Decision::Denied(_)));
        let asked = asked(original);
        let is_failsafe = is_failsafe(&self.settings.failsafe_in, &asked, asked.source);
        let early = (!is_failsafe).then(|| decide(packet.source, &asked, Way::PreDnat)).flatten();
        let enters = match early {
            Some(Decision::Undecided) | None => decide(packet.source, packet, Way::ForwardIngress),
            decided => decided,
        };
        is_denied(enters) || is_denied(decide(packet.destination, packet, Way::ForwardEgress))
    }

    /// Returns how a connection of this machine's own ends that its host endpoints deny.
    ///
    /// Of a connection it is not known by which interface it goes: that of its address is taken.
    fn ending_here(&self, zone: u16, packet: &Packet, original: &Tuple) -> Option<Ending> {
        let is_here =
            |addr| self.hosts.contains_key(&addr) || self.homes.contains_key(&(zone, addr));
        let ends =
            [(packet.source, packet.source_port), (packet.destination, packet.destination_port)];
        let [source, destination] = ends.map(SocketAddr::from);
        // What stays on the machine, its pods included, leaves by no interface of its own.
        let (way, local, remote, failsafes) = match ends.map(|(addr, _)| is_here(addr)) {
            [true, false] => (Way::Egress, source, destination, &self.settings.failsafe_out),
            [false, true] => (Way::Ingress, destination, source, &self.settings.failsafe_in),
            _ => return None,
        };
        if is_failsafe(failsafes, packet, remote.ip()) {
            return None;
        }
        let attachment = self.attachment(self.hosts.get(&local.ip())?)?;
        let decide = |packet: &Packet, way| verdict(self.state, &attachment, packet, way);
        let early = (way == Way::Ingress).then(|| decide(&asked(original), Way::PreDnat)).flatten();
        let decision = match early {
            Some(Decision::Undecided) | None => decide(packet, way),
            decided => decided,
        };
        let is_tcp = packet.protocol == Protocol::TCP;
        let ending = if is_tcp { Ending::Close { local, remote } } else { Ending::Forget };
        matches!(decision, Some(Decision::Denied(_))).then_some(ending)
    }

    /// Returns the host endpoint for one of this machine's interfaces.
    fn attachment(&self, name: &IfName) -> Option<Attachment> {
        let prefixes = &self.settings.workload_prefixes;
        let is_workload = prefixes.iter().any(|prefix| name.as_str().starts_with(prefix));
        if is_workload || name.as_str() == "lo" {
            return None;
        }
        let named = HostInterface::Named(name.clone());
        let is_named = self.state.hosts.contains_key(&named);
        Some(Attachment::Host(if is_named { named } else { HostInterface::All }))
    }
}

/// Does one of these let a packet pass whose other end this is?
fn is_failsafe(failsafes: &[Failsafe], packet: &Packet, other: IpAddr) -> bool {
    failsafes.iter().any(|one| {
        one.protocol == packet.protocol
            && one.port == packet.destination_port
            && one.net.is_none_or(|net| net.contains(other))
    })
}

/// Returns the packet as it was sent.
const fn asked(original: &Tuple) -> Packet {
    Packet {
        source: original.source,
        destination: original.destination,
        protocol: original.protocol,
        source_port: original.source_port,
        destination_port: original.destination_port,
        icmp: original.icmp,
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
        CompiledEntity, CompiledRule, Direction, EndpointPath, HostPolicy, PolicyRules, Ports,
        TierPath, WorkloadPolicy,
    };
    use model::id::NamespacedName;
    use model::policy::{Action, PolicyId, PolicyKind};
    use model::tier::TierAction;

    use super::*;

    const WEB: [u8; 4] = [10, 0, 0, 1];
    const DB: [u8; 4] = [10, 0, 0, 2];
    const SERVICE: [u8; 4] = [10, 96, 0, 1];
    const HOST: [u8; 4] = [192, 168, 0, 1];
    const LOOP: [u8; 4] = [127, 0, 0, 1];
    const OUTSIDE: [u8; 4] = [10, 9, 0, 1];
    const BEYOND: [u8; 4] = [10, 8, 0, 1];

    fn id() -> PolicyId {
        PolicyId { kind: PolicyKind::Global, namespace: None, name: "p".to_owned() }
    }

    fn allow() -> CompiledRule {
        CompiledRule::of(Action::Allow)
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
        let open = Direction { profiles: vec!["open".to_owned()], ..Direction::default() };
        let closed = Direction { tiers: vec![tier], ..Direction::default() };
        let all = allow();
        let workload = |name: &str, addr: [u8; 4], ingress: &Direction| {
            let policy = WorkloadPolicy {
                endpoint: NamespacedName { namespace: "red".to_owned(), name: name.to_owned() },
                addrs: vec![addr.into()],
                mac: None,
                allowed_sources: Vec::new(),
                controls: model::endpoint::Controls::default(),
                path: Arc::new(EndpointPath { ingress: ingress.clone(), egress: open.clone() }),
            };
            (format!("cali{name}").parse().unwrap(), policy)
        };
        // The machine takes only TCP 80, and asks nobody.
        let host = HostPolicy {
            endpoint: "node".to_owned(),
            addrs: Vec::new(),
            normal: EndpointPath { ingress: closed.clone(), egress: Direction::default() },
            forward: EndpointPath::default(),
            pre_dnat: Direction::default(),
            untracked: EndpointPath::default(),
        };
        let rules = PolicyRules { ingress: vec![rule], egress: vec![] };
        let everything = PolicyRules { ingress: vec![all.clone()], egress: vec![all] };
        PolicyState {
            workloads: [workload("web", WEB, &open), workload("db", DB, &closed)].into(),
            policies: [(id(), Arc::new(rules))].into(),
            profiles: [("open".to_owned(), Arc::new(everything))].into(),
            hosts: [(HostInterface::All, Arc::new(host))].into(),
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
        ending_in(&state(), 0, protocol, from, (asked, answers))
    }

    fn ending_in(
        state: &PolicyState,
        zone: u16,
        protocol: Protocol,
        from: [u8; 4],
        (asked, answers): (([u8; 4], u16), ([u8; 4], u16)),
    ) -> Option<Ending> {
        let homes = state.workloads.iter();
        let homes =
            homes.flat_map(|(name, one)| one.addrs.iter().map(|addr| ((0, *addr), name.clone())));
        let hosts = [(HOST, "eth0"), (LOOP, "lo")];
        let hosts = hosts.map(|(addr, name)| (IpAddr::from(addr), name.parse().unwrap()));
        let (homes, hosts) = (homes.collect(), hosts.into());
        let ways = [(WEB, "caliweb"), (DB, "calidb"), (OUTSIDE, "eth0"), (BEYOND, "eth1")];
        let ways = ways.map(|(addr, name)| (IpAddr::from(addr), name.parse().unwrap())).into();
        let settings = Settings::default();
        let judge = Judge { state, homes: &homes, hosts: &hosts, ways: &ways, settings: &settings };
        let (original, reply) =
            (tuple(protocol, (from, 40_000), asked), tuple(protocol, answers, (from, 40_000)));
        judge.ending(zone, &original, &reply)
    }

    #[test]
    fn only_what_policy_denies_ends() {
        let elsewhere = OUTSIDE;
        let (tcp, udp) = (Protocol::TCP, Protocol::UDP);
        let cases = [
            (tcp, WEB, (DB, 80), None),
            (tcp, WEB, (DB, 81), Some(Ending::Reset)),
            (udp, WEB, (DB, 80), Some(Ending::Forget)),
            (udp, elsewhere, (DB, 80), Some(Ending::Forget)),
            (udp, DB, (WEB, 80), None),
            (udp, DB, (elsewhere, 80), None),
            (tcp, HOST, (DB, 81), None),
            (tcp, elsewhere, (HOST, 80), None),
            (udp, elsewhere, (HOST, 80), Some(Ending::Forget)),
            (udp, HOST, (elsewhere, 80), Some(Ending::Forget)),
            // Failsafe ports, and what stays on the machine.
            (tcp, elsewhere, (HOST, 22), None),
            (udp, HOST, (elsewhere, 53), None),
            (udp, HOST, (HOST, 81), None),
            (udp, elsewhere, (LOOP, 81), None),
        ];
        for (protocol, from, to, expected) in cases {
            assert_eq!(ending(protocol, from, to, to), expected, "{protocol} {from:?} -> {to:?}");
        }
    }

    #[test]
    fn sockets_of_the_machine_are_closed() {
        let elsewhere = OUTSIDE;
        let at = |addr: [u8; 4], port| SocketAddr::from((addr, port));
        let close = |local, remote| Some(Ending::Close { local, remote });
        let incoming = ending(Protocol::TCP, elsewhere, (HOST, 81), (HOST, 81));
        assert_eq!(incoming, close(at(HOST, 81), at(elsewhere, 40_000)));
        let outgoing = ending(Protocol::TCP, HOST, (elsewhere, 81), (elsewhere, 81));
        assert_eq!(outgoing, close(at(HOST, 40_000), at(elsewhere, 81)));
    }

    #[test]
    fn what_the_machine_passes_on_is_judged_where_it_comes_in_and_leaves() {
        let (tcp, udp) = (Protocol::TCP, Protocol::UDP);
        let reset = Some(Ending::Reset);
        let closed = |change: fn(&mut HostPolicy, Direction)| {
            let mut state = state();
            let direction = state.hosts[&HostInterface::All].normal.ingress.clone();
            change(Arc::make_mut(state.hosts.get_mut(&HostInterface::All).unwrap()), direction);
            state
        };
        let inward = closed(|host, closed| host.forward.ingress = closed);
        let unknown = [10, 7, 0, 1];
        let cases = [
            (tcp, OUTSIDE, (WEB, 80), None),
            (tcp, OUTSIDE, (WEB, 81), reset),
            (udp, OUTSIDE, (WEB, 80), Some(Ending::Forget)),
            (tcp, OUTSIDE, (BEYOND, 81), reset),
            // Its pods come in by no interface of the machine's own.
            (tcp, WEB, (OUTSIDE, 81), None),
            (tcp, DB, (WEB, 81), None),
            // Nor does the machine itself pass on what it sends.
            (tcp, HOST, (WEB, 81), None),
            (tcp, unknown, (WEB, 81), None),
        ];
        for (protocol, from, to, expected) in cases {
            let ending = ending_in(&inward, 0, protocol, from, (to, to));
            assert_eq!(ending, expected, "{protocol} {from:?} -> {to:?}");
        }
        let early = closed(|host, closed| {
            host.forward.ingress = closed.clone();
            host.pre_dnat = closed;
        });
        // What is allowed before destinations are translated, nothing later refuses.
        assert_eq!(ending_in(&early, 0, tcp, OUTSIDE, ((SERVICE, 80), (WEB, 81))), None);
        assert_eq!(ending_in(&early, 0, tcp, OUTSIDE, ((SERVICE, 82), (WEB, 80))), None);
        assert_eq!(ending_in(&early, 0, tcp, OUTSIDE, ((SERVICE, 82), (WEB, 81))), reset);
        // Egress rules are none there, so nothing is allowed to leave.
        let outward = closed(|host, closed| host.forward.egress = closed);
        assert_eq!(ending_in(&outward, 0, tcp, WEB, ((OUTSIDE, 80), (OUTSIDE, 80))), reset);
        assert_eq!(ending_in(&outward, 0, tcp, OUTSIDE, ((WEB, 80), (WEB, 80))), None);
    }

    #[test]
    fn equal_addresses_of_other_tenants_keep_their_connections() {
        let of = |zone| ending_in(&state(), zone, Protocol::TCP, WEB, ((DB, 81), (DB, 81)));
        assert_eq!([0, 5001].map(of), [Some(Ending::Reset), None]);
    }

    #[test]
    fn services_are_judged_by_who_answers() {
        let tcp = Protocol::TCP;
        assert_eq!(ending(tcp, WEB, (SERVICE, 81), (DB, 80)), None);
        assert_eq!(ending(tcp, WEB, (SERVICE, 80), (DB, 81)), Some(Ending::Reset));
    }
}
