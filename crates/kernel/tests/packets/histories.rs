//! Histories of changes on a real kernel: it takes every transaction, and then
//! holds what the state stands for.

use std::collections::BTreeSet;
use std::sync::Arc;

use kernel::Nftables;
use model::desired::policy::{
    CompiledRule, Direction, EndpointPath, HostInterface, HostPolicy, PolicyChange, PolicyRules,
    PolicyState, Ports, SetId, SetKind, SetMember, TierPath, WorkloadPolicy,
};
use model::endpoint::{Control, Controls, Dscp, PacketRate};
use model::id::NamespacedName;
use model::net::MacAddr;
use model::policy::{Action, Protocol};
use model::ruleset::Snapshot;
use model::tier::TierAction;
use render::{Denial, Renderer, Settings, Spoofing, plan};

use crate::policies::{id, rule, set_id, tcp_to};
use crate::sandbox::Sandbox;

const HISTORIES: u64 = 10;
const CHANGES: u32 = 60;

/// Numbers that look random and are the same on every run (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ mixed >> 31) % limit as u64).unwrap()
    }

    fn is_so(&mut self) -> bool {
        self.below(2) == 0
    }

    fn some<T: Copy>(&mut self, all: &[T]) -> Vec<T> {
        all.iter().copied().filter(|_| self.is_so()).collect()
    }
}

const SETS: [SetKind; 4] =
    [SetKind::Selected, SetKind::Selected, SetKind::NamedPort, SetKind::ServicePorts];
const POLICIES: [&str; 3] = ["a", "b", "c"];
const NETS: [&str; 8] = [
    "10.0.0.1/32",
    "10.0.0.2/32",
    "10.0.0.0/24",
    "10.0.0.0/25",
    "10.0.0.128/25",
    "0.0.0.0/0",
    "fd00::1/128",
    "fd00::/8",
];

fn set(number: usize) -> SetId {
    // Digests that start with a one, and so share if any do, and with zeros.
    let bytes = [0x81, 1, 2, 3];
    set_id(SETS[number], bytes[number])
}

fn members(numbers: &mut Numbers, kind: SetKind) -> BTreeSet<SetMember> {
    if kind.has_ports() {
        let addr = "10.0.0.1".parse().unwrap();
        let ports = numbers.some(&[80, 81, 82]);
        return ports.into_iter().map(|port| SetMember::Port(addr, Protocol::TCP, port)).collect();
    }
    numbers.some(&NETS).into_iter().map(|net| SetMember::Net(net.parse().unwrap())).collect()
}

fn some_rule(numbers: &mut Numbers) -> CompiledRule {
    let mut rule = match numbers.below(3) {
        0 => rule(Action::Pass, None),
        1 => rule(Action::Deny, Some(Protocol::UDP)),
        _ => tcp_to(&[(80, 80), (443, 443)]),
    };
    match numbers.below(4) {
        0 => rule.source.in_sets = vec![set(0), set(1)],
        1 => rule.destination.not_in_sets = vec![set(1)],
        2 => rule.destination.service = Some(set(3)),
        _ => rule.source.not_ports = Ports { ranges: vec![(1, 9)], named: vec![set(2)] },
    }
    if numbers.is_so() {
        let nets = numbers.some(&NETS);
        rule.source.not_nets = nets.into_iter().map(|net| net.parse().unwrap()).collect();
    }
    rule
}

fn rules(numbers: &mut Numbers) -> Arc<PolicyRules> {
    let mut some = |count| (0..numbers.below(count)).map(|_| some_rule(numbers)).collect();
    Arc::new(PolicyRules { ingress: some(4), egress: some(2) })
}

fn path(numbers: &mut Numbers) -> EndpointPath {
    let mut direction = || {
        let policies: Vec<_> = numbers.some(&POLICIES).into_iter().map(id).collect();
        let (tier, default_action) = ("default".to_owned(), TierAction::Deny);
        let tier = TierPath { tier, default_action, policies };
        let tiers = if tier.policies.is_empty() { vec![] } else { vec![tier] };
        Direction { tiers, profiles: vec!["p".to_owned()], ..Direction::default() }
    };
    EndpointPath { ingress: direction(), egress: direction() }
}

fn workload(numbers: &mut Numbers) -> WorkloadPolicy {
    let addrs = ["10.65.0.1".parse().unwrap(), "fd65::1".parse().unwrap()];
    WorkloadPolicy {
        endpoint: NamespacedName { namespace: "default".to_owned(), name: "pod".to_owned() },
        addrs: numbers.some(&addrs),
        mac: numbers.is_so().then_some(MacAddr([2; 6])),
        allowed_sources: numbers
            .some(&["10.9.0.0/16", "fd09::/64"].map(|net| net.parse().unwrap())),
        controls: Controls {
            ingress: control(numbers),
            egress: control(numbers),
            dscp: numbers.is_so().then(|| Dscp::new(46)).flatten(),
        },
        path: Arc::new(path(numbers)),
    }
}

fn control(numbers: &mut Numbers) -> Control {
    let packets = PacketRate { per_second: 100_000, burst: 100_000 };
    Control {
        packets: numbers.is_so().then_some(packets),
        connections: numbers.is_so().then_some(100_000),
    }
}

fn host(numbers: &mut Numbers) -> HostPolicy {
    HostPolicy {
        endpoint: "node".to_owned(),
        addrs: Vec::new(),
        normal: path(numbers),
        forward: path(numbers),
        pre_dnat: path(numbers).ingress,
        untracked: path(numbers),
    }
}

fn change(numbers: &mut Numbers, state: &PolicyState) -> PolicyChange {
    match numbers.below(5) {
        0 => {
            let name = ["cali1", "cali2", "cali3"][numbers.below(3)].parse().unwrap();
            let value = numbers.is_so().then(|| workload(numbers));
            PolicyChange::Workload(name, value)
        }
        1 => {
            let named = HostInterface::Named("eth0".parse().unwrap());
            let interface = if numbers.is_so() { HostInterface::All } else { named };
            PolicyChange::Host(interface, numbers.is_so().then(|| Arc::new(host(numbers))))
        }
        2 => PolicyChange::Policy(id(POLICIES[numbers.below(3)]), Some(rules(numbers))),
        3 => PolicyChange::Profile("p".to_owned(), Some(rules(numbers))),
        _ => {
            let id = set(numbers.below(SETS.len()));
            let there = &state.sets[&id];
            let wanted = members(numbers, id.kind());
            PolicyChange::SetMembers {
                id,
                add: wanted.difference(there).copied().collect(),
                remove: there.difference(&wanted).copied().collect(),
            }
        }
    }
}

fn start() -> PolicyState {
    PolicyState {
        sets: (0..SETS.len()).map(|number| (set(number), BTreeSet::new())).collect(),
        policies: POLICIES.iter().map(|name| (id(name), Arc::default())).collect(),
        profiles: [("p".to_owned(), Arc::default())].into(),
        ..PolicyState::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_kernel_takes_every_change() {
    for seed in 0..HISTORIES {
        let node = Sandbox::new().await;
        let mut nftables = Nftables::open_in(&node.netns).unwrap();
        let mut numbers = Numbers(seed);
        // In half of the histories sets share one of the kernel's.
        let named_sets = if seed % 2 == 0 { 1_000 } else { 1 };
        // And in half of those denied packets are refused, or workloads send from elsewhere.
        let denial = if seed / 2 % 2 == 0 { Denial::Drop } else { Denial::Reject };
        let spoofing = if seed / 4 % 2 == 0 { Spoofing::Disabled } else { Spoofing::Any };
        let settings = Settings { denial, spoofing, named_sets, ..Settings::default() };
        let mut renderer = Renderer::new(start(), settings);
        let found = nftables.snapshot().unwrap();
        nftables.apply(&plan(renderer.tables(), &found)).unwrap();
        for number in 0..CHANGES {
            let mut state = renderer.state().clone();
            let changes: Vec<PolicyChange> = (0..=numbers.below(3))
                .map(|_| {
                    let change = change(&mut numbers, &state);
                    state.apply(&change);
                    change
                })
                .collect();
            let transaction = renderer.apply(&changes);
            nftables.apply(&transaction).unwrap_or_else(|error| {
                panic!("history {seed}, change {number}: {error}\n{changes:#?}")
            });
            let found = nftables.snapshot().unwrap();
            let wanted = Snapshot::of(renderer.tables(), found.generation);
            assert_eq!(found, wanted, "history {seed}, change {number}: {changes:#?}");
        }
    }
}
