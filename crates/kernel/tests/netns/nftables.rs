//! Facts about the door to nftables.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use kernel::nftables::{Error, Event, Monitor};
use kernel::{Netns, Nftables};
use model::net::{Cidr, Family, MacAddr};
use model::policy::{IcmpMatch, Protocol};
use model::ruleset::{
    Base, BaseKind, Chain, CtStates, Element, ElementKind, Hook, InterfacePattern, Is, Mark, Match,
    Reject, Rule, Ruleset, Set, Side, Snapshot, Statement, Step, Tables, Transaction, Verdict, Way,
};

use crate::sandbox::{Sandbox, cidr, if_name};

/// Runs nft(8) in a namespace and returns what it wrote.
fn nft(netns: &Netns, arguments: &str) -> String {
    let mut command = Command::new("nft");
    command.args(arguments.split(' '));
    let output = netns.run(|| command.output()).unwrap().expect("these tests need nftables");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nft {arguments}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The transaction that makes `tables` from nothing.
fn create(tables: &Tables) -> Transaction {
    let mut steps = Vec::new();
    for (family, ruleset) in tables {
        let mut step = |step| steps.push((*family, step));
        step(Step::CreateTable);
        for (name, set) in &ruleset.sets {
            step(Step::CreateSet(name.clone(), set.kind));
        }
        for (name, chain) in &ruleset.chains {
            step(Step::CreateChain(name.clone(), chain.base));
        }
        for (name, chain) in &ruleset.chains {
            for rule in &chain.rules {
                step(Step::Append(name.clone(), rule.clone()));
            }
        }
        for (name, set) in &ruleset.sets {
            step(Step::Add(name.clone(), set.elements.iter().cloned().collect()));
        }
    }
    Transaction { generation: None, steps }
}

fn set(elements: Vec<Element>) -> Set {
    Set { kind: elements[0].kind(), elements: elements.into_iter().collect() }
}

/// One table with everything that rules and sets can be.
fn everything(family: Family) -> Ruleset {
    let base = |kind, hook, priority| Some(Base { kind, hook, priority });
    let chain = |base, rules| Chain { base, rules };
    let filter = [marks(family), marks_of_protocols(family), endings()].concat();
    let no_track = [Statement::NoTrack, Statement::SetZone(5001)];
    let no_track = no_track.map(|one| Rule::new(vec![], vec![one])).to_vec();
    let drop = vec![Rule::new(vec![], vec![Verdict::Drop.into()])];
    let chains = [
        ("path-7", chain(None, drop)),
        ("filter-INPUT", chain(base(BaseKind::Filter, Hook::Input, 0), filter)),
        ("nat-POSTROUTING", chain(base(BaseKind::Nat, Hook::Postrouting, 100), nat(family))),
        ("raw-PREROUTING", chain(base(BaseKind::Filter, Hook::Prerouting, -300), no_track)),
    ];
    Ruleset {
        chains: chains.into_iter().map(|(name, chain)| (name.to_owned(), chain)).collect(),
        sets: sets(family),
    }
}

fn addr(family: Family) -> IpAddr {
    match family {
        Family::V4 => "10.65.0.2".parse().unwrap(),
        Family::V6 => "fd00::2".parse().unwrap(),
    }
}

fn net(family: Family) -> Cidr {
    Cidr::containing(addr(family), 8).unwrap()
}

fn sets(family: Family) -> BTreeMap<String, Set> {
    let (name, addr) = (if_name("cali0"), addr(family));
    let sets = [
        ("addrs", set(vec![Element::Addr(addr)])),
        ("members", set(vec![Element::Member(7, addr)])),
        ("nets", set(vec![Element::Net(net(family))])),
        ("addr-ports", set(vec![Element::AddrPort(addr, Protocol::TCP, 80)])),
        ("ports", set(vec![Element::Ports(1, 1), Element::Ports(80, 90)])),
        ("sources", set(vec![Element::Source(name.clone(), addr)])),
        ("macs", set(vec![Element::SourceWithMac(name.clone(), MacAddr([2; 6]), addr)])),
        ("dispatch", set(vec![Element::Dispatch(name, "path-7".to_owned())])),
    ];
    sets.into_iter().map(|(name, set)| (name.to_owned(), set)).collect()
}

const MARK: Mark = Mark { mask: 0x1_0000, value: 0x1_0000 };

fn marks(family: Family) -> Vec<Rule> {
    let prefix = InterfacePattern::Prefix("cali".to_owned());
    let name = InterfacePattern::Name(if_name("cali0"));
    let slave = Match::Interface(Way::Slave, Is::In, prefix.clone());
    let text = str::to_owned;
    let all = [
        Match::Ct(CtStates::KNOWN),
        Match::CtMarked(MARK),
        Match::Translated(Is::NotIn),
        Match::Zone(Is::NotIn, 5001),
        Match::Interface(Way::In, Is::NotIn, prefix),
        Match::Interface(Way::In, Is::In, name),
        slave,
        Match::Protocol(Is::NotIn, Protocol::SCTP),
        Match::Net(Side::Source, Is::In, net(family)),
        Match::InSet(Side::Source, Is::NotIn, text("addrs")),
        Match::InSet(Side::Destination, Is::In, text("nets")),
        Match::Member(Side::Source, Is::In, (7, text("members"))),
        Match::PortInSet(Side::Destination, Is::In, text("addr-ports")),
        Match::Marked(Is::NotIn, MARK),
        Match::Source(Is::In, text("sources")),
        Match::SourceWithMac(Is::NotIn, text("macs")),
    ];
    all.map(|one| Rule::new(vec![one], vec![Verdict::Accept.into()])).to_vec()
}

fn marks_of_protocols(family: Family) -> Vec<Rule> {
    let icmp = match family {
        Family::V4 => Protocol::ICMP,
        Family::V6 => Protocol::ICMP_V6,
    };
    let all = [
        (Protocol::TCP, Match::Ports(Side::Source, Is::In, (1, 2))),
        (Protocol::UDP, Match::Ports(Side::Destination, Is::NotIn, (53, 53))),
        (Protocol::TCP, Match::InPorts(Side::Destination, Is::In, "ports".to_owned())),
        (icmp, Match::Icmp(Is::In, IcmpMatch { kind: 8, code: None })),
        (icmp, Match::Icmp(Is::NotIn, IcmpMatch { kind: 8, code: Some(1) })),
        (icmp, Match::IcmpTypes(130, 136)),
    ];
    let rule = |(protocol, one)| {
        let protocol = Match::Protocol(Is::In, protocol);
        Rule::new(vec![protocol, one], vec![Verdict::Drop.into()])
    };
    all.map(rule).to_vec()
}

fn endings() -> Vec<Rule> {
    let path = || "path-7".to_owned();
    let statements = [
        vec![Statement::SetMark(MARK)],
        vec![Statement::Log("calico: ".to_owned()), Verdict::Return.into()],
        vec![Statement::Reject(Reject::Unreachable)],
        vec![Verdict::Jump(path()).into()],
        vec![Statement::Dispatch(Way::In, "dispatch".to_owned())],
        vec![Statement::Dispatch(Way::Slave, "dispatch".to_owned())],
        vec![Verdict::Goto(path()).into()],
    ];
    let noted = |statements| Rule::new(vec![], statements).noted("policy gnp/a rule 0");
    statements.map(noted).to_vec()
}

fn nat(family: Family) -> Vec<Rule> {
    let statements = [
        Statement::Masquerade { ports: None },
        Statement::Masquerade { ports: Some((1024, 2048)) },
        Statement::SourceNat { addr: addr(family), ports: Some((1, 2)) },
    ];
    statements.map(|statement| Rule::new(vec![], vec![statement])).to_vec()
}

fn tables() -> Tables {
    Family::ALL.into_iter().map(|family| (family, everything(family))).collect()
}

#[tokio::test]
async fn reads_back_what_it_wrote() {
    let host = Sandbox::new().await;
    let mut nftables = Nftables::open_in(&host.netns).unwrap();
    let generation = nftables.generation().unwrap();
    assert_eq!(nftables.snapshot().unwrap(), Snapshot { generation, ..Snapshot::default() });

    let tables = tables();
    nftables.apply(&create(&tables)).unwrap();
    let found = nftables.snapshot().unwrap();
    assert_eq!(found.generation, generation + 1);
    assert_eq!(found, Snapshot::of(&tables, found.generation));
}

#[tokio::test]
async fn nft_lists_what_it_wrote() {
    let host = Sandbox::new().await;
    let mut nftables = Nftables::open_in(&host.netns).unwrap();
    nftables.apply(&create(&tables())).unwrap();
    // Counters are empty, comments are tested elsewhere, and nft 1.0.6 has no name
    // for what both kinds of tables call different things.
    let listed = nft(&host.netns, "-s -n list ruleset");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/kernel/nftables.txt");
    let strip = |line: &str| line.split(" comment \"cali:").next().unwrap_or_default().to_owned();
    let text = listed.lines().map(strip).collect::<Vec<_>>().join("\n") + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(path).unwrap_or_default());
    assert!(listed.contains("; policy gnp/a rule 0\""), "{listed}");
    assert!(nft(&host.netns, "-j list ruleset").contains("\"nftables\""));
}

#[tokio::test]
async fn a_refused_step_undoes_all_and_is_named() {
    let host = Sandbox::new().await;
    let mut nftables = Nftables::open_in(&host.netns).unwrap();
    let steps = vec![
        (Family::V4, Step::CreateTable),
        (Family::V4, Step::CreateChain("a".to_owned(), None)),
        (Family::V4, Step::FlushChain("missing".to_owned())),
        (Family::V4, Step::Remove("none".to_owned(), vec![Element::Ports(1, 1)])),
    ];
    let error = nftables.apply(&Transaction { generation: None, steps }).unwrap_err();
    let Error::Refused { steps: 4, refusals } = &error else { panic!("{error}") };
    let steps: Vec<&str> = refusals.iter().map(|refusal| refusal.step.as_str()).collect();
    assert_eq!(
        steps,
        ["flush chain ip calico missing", "delete element ip calico none { 1 }"],
        "{error}"
    );
    assert!(error.is_drift());
    assert!(nftables.snapshot().unwrap().tables.is_empty());
}

#[tokio::test]
async fn a_plan_for_another_generation_is_outdated() {
    let host = Sandbox::new().await;
    let mut nftables = Nftables::open_in(&host.netns).unwrap();
    let before = nftables.generation().unwrap();
    let transaction =
        Transaction { generation: Some(before), steps: vec![(Family::V4, Step::CreateTable)] };
    nft(&host.netns, "add table ip other");
    assert!(matches!(nftables.apply(&transaction), Err(Error::Outdated)));
    let generation = Some(nftables.generation().unwrap());
    nftables.apply(&Transaction { generation, ..transaction }).unwrap();
    assert!(nftables.snapshot().unwrap().tables.contains_key(&Family::V4));
}

#[tokio::test]
async fn elements_beyond_an_attribute_are_split() {
    let host = Sandbox::new().await;
    let mut nftables = Nftables::open_in(&host.netns).unwrap();
    let all = net(Family::V4);
    let addrs = (0..50_000).map(|number| Element::Addr(all.nth(number).unwrap()));
    let nets = (0..50_000)
        .map(|number| Element::Net(Cidr::containing(all.nth(number * 4).unwrap(), 30).unwrap()));
    let sets = [("addrs", set(addrs.collect())), ("nets", set(nets.collect()))];
    let sets = sets.into_iter().map(|(name, set)| (name.to_owned(), set)).collect();
    let tables = Tables::from([(Family::V4, Ruleset { sets, ..Ruleset::default() })]);
    nftables.apply(&create(&tables)).unwrap();
    let found = nftables.snapshot().unwrap();
    assert_eq!(found, Snapshot::of(&tables, found.generation));

    // Networks between others go and come in one transaction.
    let one = |text| vec![Element::Net(cidr(text))];
    let name = || "nets".to_owned();
    let steps = vec![
        (Family::V4, Step::Remove(name(), one("10.0.0.4/30"))),
        (Family::V4, Step::Add(name(), one("10.0.0.4/31"))),
        (Family::V4, Step::Add(name(), one("10.0.0.6/32"))),
    ];
    nftables.apply(&Transaction { generation: None, steps }).unwrap();
    let nets = &nftables.snapshot().unwrap().tables[&Family::V4].sets["nets"];
    assert!(!nets.is_strange);
    assert_eq!(nets.elements.len(), 50_001);

    // The kernel refuses what overlaps.
    let steps = vec![(Family::V4, Step::Add(name(), one("10.0.0.0/16")))];
    assert!(nftables.apply(&Transaction { generation: None, steps }).unwrap_err().is_drift());
}

#[tokio::test]
async fn what_others_wrote_is_strange() {
    let host = Sandbox::new().await;
    let mut nftables = Nftables::open_in(&host.netns).unwrap();
    for command in [
        "add table ip calico",
        "add chain ip calico a",
        "add rule ip calico a counter comment \"cali:short\"",
        "add chain ip calico b { type filter hook input priority 0; policy drop; }",
        "add set ip calico c { type ipv4_addr; flags timeout; }",
        "add table ip6 calico { flags dormant; }",
    ] {
        nft(&host.netns, command);
    }
    let found = nftables.snapshot().unwrap().tables;
    let table = &found[&Family::V4];
    assert_eq!(table.chains["a"].rules, [None]);
    assert!(table.chains["b"].is_strange);
    assert_eq!(table.sets["c"].kind, None);
    assert!(!table.is_strange && found[&Family::V6].is_strange);
}

/// Waits for an event; only a fault makes this wait for its limit.
async fn next(monitor: &mut Monitor) -> Event {
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, monitor.next()).await.expect("nothing was told").unwrap()
}

#[tokio::test]
async fn tells_of_other_peoples_changes_only() {
    let host = Sandbox::new().await;
    let mut nftables = Nftables::open_in(&host.netns).unwrap();
    let mut monitor = Monitor::open_in(&host.netns, &nftables).unwrap();
    let by_nft = Event::Changed { by: "nft".to_owned() };

    nftables.apply(&create(&tables())).unwrap();
    nft(&host.netns, "add table ip other");
    nft(&host.netns, "add element ip calico addrs { 10.0.0.9 }");
    assert_eq!(next(&mut monitor).await, by_nft);
    let quiet = tokio::time::timeout(Duration::from_millis(50), monitor.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");

    nft(&host.netns, "flush ruleset");
    assert_eq!(next(&mut monitor).await, by_nft);
    assert!(nftables.snapshot().unwrap().tables.is_empty());
}

#[tokio::test]
async fn foreign_tables_stay_as_they_are() {
    let host = Sandbox::new().await;
    let mut nftables = Nftables::open_in(&host.netns).unwrap();
    nft(&host.netns, "add table inet calico");
    nft(&host.netns, "add chain inet calico a { type filter hook input priority 0; }");
    let before = nft(&host.netns, "list ruleset");
    nftables.apply(&create(&tables())).unwrap();
    let steps = Family::ALL.into_iter().map(|family| (family, Step::DeleteTable)).collect();
    nftables.apply(&Transaction { generation: None, steps }).unwrap();
    assert_eq!(nft(&host.netns, "list ruleset"), before);
    let kinds: BTreeSet<ElementKind> =
        everything(Family::V4).sets.values().map(|set| set.kind).collect();
    assert_eq!(kinds.len(), 8, "every kind is tried");
}
