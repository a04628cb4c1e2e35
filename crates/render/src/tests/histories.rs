//! Histories of changes: the tables are always those of the state, however it came about.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::desired::policy::{
    CompiledRule, Direction, EndpointPath, HostInterface, PolicyChange, PolicyRules, PolicyState,
    SetKind, SetMember,
};
use model::endpoint::{Control, Controls, Dscp, PacketRate};
use model::net::MacAddr;
use model::policy::{Action, Protocol};
use model::ruleset::{Element, Snapshot, Step, Tables, Transaction};
use model::tier::TierAction;
use model::vrf::Zone;
use proptest::prelude::*;

use super::cases::{
    closed_host, direction, net, policy_id, port, ranges, rule, set_id, tcp, tier, workload,
};
use super::simulated::Kernel;
use crate::{Denial, Pool, Renderer, Settings, Spoofing, Tenants, plan, render};

/// Members that a set may have, so few that they meet often.
const NETS: [&str; 6] =
    ["10.0.0.1/32", "10.0.0.2/32", "fd00::1/128", "10.1.0.0/16", "10.1.2.0/24", "fd01::/64"];

fn member(kind: SetKind, number: u8) -> SetMember {
    let text = NETS[usize::from(number) % NETS.len()];
    if kind.has_ports() {
        port("10.0.0.1", Protocol::TCP, u16::from(number) + 1)
    } else {
        net(text)
    }
}

fn members(kind: SetKind, bits: u8) -> BTreeSet<SetMember> {
    (0..6).filter(|number| bits >> number & 1 == 1).map(|number| member(kind, number)).collect()
}

const ZONES: [Zone; 3] = [Zone::Nowhere, Zone::Vrfs(5001), Zone::Default];

fn kind_of(number: u8) -> SetKind {
    if number.is_multiple_of(2) { SetKind::Selected } else { SetKind::NamedPort }
}

/// Rules that name set `number`, and literal ports and networks that other rules name too.
fn some_rule(number: u8, bits: u8) -> CompiledRule {
    let kind = kind_of(number);
    let id = set_id(kind, number);
    let mut rule = if bits & 1 == 1 { tcp(Action::Allow) } else { rule(Action::Deny) };
    match (kind.has_ports(), bits & 2 == 2) {
        (true, _) => rule.destination.service = Some(id),
        (false, true) => rule.source.in_sets.push(id),
        (false, false) => rule.source.not_in_sets.push(id),
    }
    if bits & 4 == 4 {
        rule.destination.ports = Some(ranges(&[(80, 80), (443, 443)]));
    }
    if bits & 8 == 8 {
        let nets = ["10.0.0.0/8", "10.1.0.0/16", "192.168.0.0/16"];
        rule.destination.nets = Some(nets.map(|net| net.parse().unwrap()).to_vec());
    }
    rule
}

/// A set that no rule names: only that it is there matters.
fn unnamed_set(bits: u8) -> PolicyChange {
    let id = set_id(SetKind::Selected, 0x80 | bits & 3);
    if bits & 4 == 4 {
        return PolicyChange::SetRemoved(id);
    }
    PolicyChange::SetAdded { id, members: members(SetKind::Selected, bits) }
}

fn pod(number: u8, bits: u8) -> PolicyChange {
    let policies: Vec<&str> = ["p0", "p1", "p2"]
        .into_iter()
        .enumerate()
        .filter(|(index, _)| bits >> index & 1 == 1)
        .map(|(_, name)| name)
        .collect();
    let tiers = vec![tier("default", TierAction::Deny, &policies)];
    let tiers = if policies.is_empty() { vec![] } else { tiers };
    let zone = ZONES[usize::from(bits % 5).min(2)];
    let path = EndpointPath {
        ingress: Direction { zone, ..direction(tiers, &["kns.default"]) },
        egress: Direction { zone, ..direction(vec![], &["kns.default"]) },
    };
    let mac = (bits & 8 == 8).then_some(MacAddr([bits; 6]));
    let addr = format!("10.65.0.{}", bits & 16);
    let mut pod = workload(&[&addr, "fd00::9"], mac, path);
    pod.allowed_sources =
        (0..bits % 3).map(|net| NETS[usize::from(net)].parse().unwrap()).collect();
    let few = |bit: u8| (bits & bit == bit).then_some(u32::from(number) + 1);
    let control = |packets, connections| {
        let rate = |per_second| PacketRate { per_second, burst: 5 };
        Control { packets: few(packets).map(rate), connections: few(connections) }
    };
    pod.controls = Controls {
        ingress: control(8, 24),
        egress: control(64, 4),
        dscp: Dscp::new(if bits & 0x14 == 0x14 { number } else { 64 }),
    };
    let if_name = format!("cali{number}").parse().unwrap();
    PolicyChange::Workload(if_name, (bits & 32 == 0).then_some(pod))
}

/// What random numbers say to do.
fn change(state: &PolicyState, what: u8, number: u8, bits: u8) -> Option<PolicyChange> {
    let number = number % 3;
    let name = format!("p{number}");
    let id = set_id(kind_of(number), number).in_zone(ZONES[usize::from(bits >> 5).min(2)]);
    Some(match what % 6 {
        0 => pod(number, bits),
        1 => {
            let host = (bits & 1 == 1).then(|| {
                let mut host = closed_host();
                if bits & 2 == 2 {
                    let tier = tier("default", TierAction::Deny, &[&name]);
                    host.forward.egress = direction(vec![tier], &[]);
                }
                Arc::new(host)
            });
            let interface = match number {
                0 => HostInterface::All,
                _ => HostInterface::Named(format!("eth{number}").parse().unwrap()),
            };
            PolicyChange::Host(interface, host)
        }
        2 => {
            let ingress = vec![some_rule(number, bits), some_rule((number + 1) % 3, bits >> 2)];
            let rules = PolicyRules { ingress, egress: vec![] };
            PolicyChange::Policy(policy_id(&name), Some(Arc::new(rules)))
        }
        3 if bits & 64 == 64 => {
            PolicyChange::SetAdded { id, members: members(kind_of(number), bits) }
        }
        4 if bits & 64 == 64 => unnamed_set(bits),
        3 | 4 => {
            let there = state.sets.get(&id)?;
            let wanted = members(kind_of(number), bits);
            PolicyChange::SetMembers {
                id,
                add: wanted.difference(there).copied().collect(),
                remove: there.difference(&wanted).copied().collect(),
            }
        }
        _ => {
            let rules = PolicyRules { ingress: vec![some_rule(number, bits)], egress: vec![] };
            PolicyChange::Profile("kns.default".to_owned(), Some(Arc::new(rules)))
        }
    })
}

/// A state in which all that can be named is there.
fn start() -> PolicyState {
    let mut state = PolicyState::default();
    for number in 0..3 {
        let id = set_id(kind_of(number), number);
        state.sets.extend(ZONES.map(|zone| (id.in_zone(zone), BTreeSet::new())));
        state.policies.insert(policy_id(&format!("p{number}")), Arc::default());
    }
    state.profiles.insert("kns.default".to_owned(), Arc::default());
    state
}

fn create(tables: &Tables) -> Transaction {
    plan(tables, &Snapshot::default())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn tables_are_a_function_of_the_state(
        named_sets in 0_usize..4,
        is_refusing: bool,
        may_spoof: bool,
        has_tenants: bool,
        steps in prop::collection::vec(
            prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>()), 1..4), 1..12),
    ) {
        let spoofing = if may_spoof { Spoofing::Any } else { Spoofing::Disabled };
        let denial = if is_refusing { Denial::Reject } else { Denial::Drop };
        let vrf = ("red".parse().unwrap(), ("5001".parse().unwrap(), Zone::Vrfs(5001)));
        let vrfs = [vrf].into_iter().filter(|_| has_tenants).collect();
        let tenants = Tenants { vrfs, ..Tenants::default() };
        let settings = Settings { tenants, denial, spoofing, named_sets, ..Settings::default() };
        let mut renderer = Renderer::new(start(), settings.clone());
        let mut kernel = Kernel::default();
        kernel.apply(&create(renderer.tables()));
        for step in steps {
            let mut state = renderer.state().clone();
            let mut changes = Vec::new();
            for (what, number, bits) in step {
                if let Some(change) = change(&state, what, number, bits) {
                    state.apply(&change);
                    changes.push(change);
                }
            }
            let earlier = kernel.snapshot();
            kernel.apply(&renderer.apply(&changes));
            prop_assert_eq!(renderer.state(), &state);
            let at_once = render(&state, &settings);
            prop_assert_eq!(renderer.tables(), &at_once);
            prop_assert_eq!(&kernel.0, &at_once);
            // The same from what the kernel was found to hold, and then nothing is left to do.
            let mut adopted = Kernel(render(&start(), &settings));
            adopted.apply(&plan(&at_once, &adopted.snapshot()));
            prop_assert_eq!(&adopted.0, &at_once);
            prop_assert!(plan(&at_once, &kernel.snapshot()).is_empty());
            prop_assert!(earlier.generation == 7);
        }
    }
}

fn one_step(transaction: &Transaction) -> &Step {
    let [(_, step)] = transaction.steps.as_slice() else { panic!("{transaction:?}") };
    step
}

#[test]
fn an_address_is_one_element() {
    let id = set_id(SetKind::Selected, 0);
    let mut renderer = Renderer::new(start(), Settings::default());
    let add = [net("10.0.0.1/32")].into();
    let change = PolicyChange::SetMembers { id, add, remove: BTreeSet::new() };
    let transaction = renderer.apply(std::slice::from_ref(&change));
    let element = Element::Addr("10.0.0.1".parse().unwrap());
    assert_eq!(*one_step(&transaction), Step::Add(format!("cali40{id}"), vec![element]));
}

#[test]
fn sets_beyond_the_limit_share_one() {
    let id = set_id(SetKind::Selected, 0x80);
    let mut state = start();
    state.sets.insert(id, [net("10.0.0.1/32")].into());
    let settings = Settings { named_sets: 1, ..Settings::default() };
    let mut renderer = Renderer::new(state, settings);
    let add = [net("10.0.0.2/32")].into();
    let change = PolicyChange::SetMembers { id, add, remove: BTreeSet::new() };
    let transaction = renderer.apply(std::slice::from_ref(&change));
    let element = Element::Member(id.number(), "10.0.0.2".parse().unwrap());
    assert_eq!(
        *one_step(&transaction),
        Step::Add("cali4-members-selectors".to_owned(), vec![element])
    );
}

#[test]
fn a_pod_with_a_known_path_is_its_elements() {
    let path = || EndpointPath {
        ingress: direction(vec![], &["kns.default"]),
        egress: direction(vec![], &["kns.default"]),
    };
    let mut state = start();
    state.workloads.insert("cali0".parse().unwrap(), workload(&["10.65.0.1"], None, path()));
    let mut renderer = Renderer::new(state, Settings::default());
    let pod = workload(&["10.65.0.2"], None, path());
    let change = PolicyChange::Workload("cali1".parse().unwrap(), Some(pod));
    let texts = renderer.apply(&[change]).steps;
    let texts: Vec<String> = texts.iter().map(|(family, step)| step.text(*family)).collect();
    assert_eq!(texts.len(), 5, "{texts:#?}");
    assert!(texts.iter().all(|text| text.starts_with("add element")), "{texts:#?}");
}

#[test]
fn a_rule_at_the_end_leaves_the_others_and_their_counters() {
    let mut renderer = Renderer::new(start(), Settings::default());
    let rules = |rules: Vec<CompiledRule>| {
        let rules = Arc::new(PolicyRules { ingress: rules, egress: vec![] });
        PolicyChange::Policy(policy_id("p0"), Some(rules))
    };
    let v4 = |action| CompiledRule { family: Some(model::net::Family::V4), ..rule(action) };
    let path = EndpointPath {
        ingress: direction(vec![tier("default", TierAction::Deny, &["p0"])], &[]),
        egress: direction(vec![], &[]),
    };
    let pod = workload(&["10.65.0.1"], None, path);
    let arrival = PolicyChange::Workload("cali0".parse().unwrap(), Some(pod));
    renderer.apply(&[arrival, rules(vec![v4(Action::Allow)])]);
    let transaction = renderer.apply(&[rules(vec![v4(Action::Allow), v4(Action::Deny)])]);
    assert!(
        matches!(one_step(&transaction), Step::Append(chain, _) if chain == "cali-pi-np/default/p0")
    );
}

#[test]
fn what_does_not_change_costs_nothing() {
    let mut renderer = Renderer::new(start(), Settings::default());
    let again = PolicyChange::Policy(policy_id("p0"), Some(Arc::default()));
    assert!(renderer.apply(&[again]).is_empty());
    assert!(renderer.configure(Settings::default()).is_empty());
}

#[test]
fn settings_change_only_what_they_say() {
    let mut renderer = Renderer::new(start(), Settings::default());
    let mut kernel = Kernel::default();
    kernel.apply(&create(renderer.tables()));
    let pool = Pool { net: "10.244.0.0/16".parse().unwrap(), is_translated: false };
    let settings = Settings { pools: vec![pool], ..Settings::default() };
    let transaction = renderer.configure(settings.clone());
    let all = Element::Net(pool.net);
    assert_eq!(*one_step(&transaction), Step::Add("cali-all-ipam-pools".to_owned(), vec![all]));
    kernel.apply(&transaction);
    assert_eq!(kernel.0, render(&start(), &settings));
}

#[test]
fn a_table_made_in_another_way_is_made_anew() {
    let tables = render(&start(), &Settings::default());
    for spoil in [
        |snapshot: &mut Snapshot| {
            snapshot.tables.values_mut().for_each(|table| table.is_strange = true);
        },
        |snapshot: &mut Snapshot| {
            for table in snapshot.tables.values_mut() {
                table.chains.get_mut("filter-FORWARD").unwrap().base = None;
            }
        },
        |snapshot: &mut Snapshot| {
            for table in snapshot.tables.values_mut() {
                table.sets.values_mut().for_each(|set| set.kind = None);
            }
        },
    ] {
        let mut kernel = Kernel(tables.clone());
        let mut found = kernel.snapshot();
        spoil(&mut found);
        let transaction = plan(&tables, &found);
        assert!(transaction.steps.iter().any(|(_, step)| *step == Step::DeleteTable));
        assert_eq!(transaction.generation, Some(7));
        kernel.apply(&transaction);
        assert_eq!(kernel.0, tables);
    }
    let gone = plan(&Tables::new(), &Kernel(tables).snapshot());
    assert!(gone.steps.iter().all(|(_, step)| *step == Step::DeleteTable));
}
