//! Small random clusters: few names and values, so that all that can collide does.

use std::net::IpAddr;
use std::sync::Arc;

use model::Labels;
use model::endpoint::{Controls, Dscp, NamedPort, WorkloadEndpoint};
use model::host_endpoint::{HostEndpoint, HostInterface};
use model::id::{NamespacedName, NodeName};
use model::net::Cidr;
use model::network_set::NetworkSet;
use model::policy::{
    Action, Enforcement, Order, Policy, PolicyId, PolicyKind, Profile, Rule, Stage,
};
use model::pool::IpPool;
use model::service::{EndpointPort, EndpointSlice, ServiceEndpoint};
use model::tier::{Tier, TierAction};
use model::vrf::{PoolVrf, VrfName};

use super::random::Random;
use super::rules::{self, selector};
use crate::policy::{Change, NetworkSetId};

pub(super) const ADDRS: [&str; 6] =
    ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.9.0.1", "fd00::1", "fd00::2"];
pub(super) const NETS: [&str; 6] =
    ["10.0.0.0/30", "10.0.0.2/32", "10.0.0.0/8", "0.0.0.0/0", "fd00::/126", "fd00::1/128"];
const NAMESPACES: [&str; 2] = ["a", "b"];
pub(super) const PORT_NAMES: [&str; 2] = ["http", "dns"];
const TIERS: [&str; 6] = ["default", "default", "kube-admin", "kube-baseline", "t0", "t1"];

pub(super) fn this_node() -> NodeName {
    "n0".parse().unwrap()
}

fn node(random: &mut Random) -> NodeName {
    random.pick(&["n0", "n0", "n1"]).parse().unwrap()
}

fn addr(random: &mut Random) -> IpAddr {
    random.pick(&ADDRS).parse().unwrap()
}

pub(super) fn net(random: &mut Random) -> Cidr {
    random.pick(&NETS).parse().unwrap()
}

fn labels(random: &mut Random, extra: &[(&str, &str)]) -> Labels {
    let keys = ["app", "app", "role", "pcns.team", "pcsa.team"];
    let own = random.few(3, |random| (random.pick(&keys), random.pick(&["x", "y"])));
    let all = own.iter().chain(extra);
    all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn ports(random: &mut Random) -> Vec<NamedPort> {
    random.few(2, |random| NamedPort {
        name: random.pick(&PORT_NAMES).to_owned(),
        protocol: random.pick(&[6, 6, 17]),
        port: random.pick(&[53, 80, 81]),
    })
}

pub(super) fn namespaced(namespace: &str, name: &str) -> NamespacedName {
    NamespacedName { namespace: namespace.to_owned(), name: name.to_owned() }
}

/// Returns a change of a random object; one in five is gone.
pub(super) fn change(random: &mut Random) -> Change {
    let is_gone = random.one_in(5);
    match random.below(22) {
        0..6 => {
            let pod = namespaced(random.pick(&NAMESPACES), random.pick(&["p0", "p1", "p2"]));
            let value = (!is_gone).then(|| Arc::new(workload(random, &pod)));
            Change::Workload(pod, value)
        }
        6 | 7 => {
            let name = random.pick(&["h0", "h1"]);
            let value = (!is_gone).then(|| Arc::new(host(random, name)));
            Change::Host(name.to_owned(), value)
        }
        8 | 9 => network_set(random, is_gone),
        10..15 => {
            let id = policy_id(random);
            let value = (!is_gone).then(|| Arc::new(policy(random, &id)));
            Change::Policy(id, value)
        }
        15 => tier(random, is_gone),
        16 | 17 => profile(random, is_gone),
        19 | 20 => {
            let name = random.pick(&["i0", "i1", "i2"]);
            let value = (!is_gone).then(|| Arc::new(pool(random, name)));
            Change::Pool(name.to_owned(), value)
        }
        18 => {
            let id = namespaced(random.pick(&NAMESPACES), random.pick(&["s0", "s1"]));
            let value = (!is_gone).then(|| Arc::new(slice(random, &id)));
            Change::EndpointSlice(id, value)
        }
        _ => {
            let name = random.pick(&["eth0", "eth1"]).parse().unwrap();
            Change::Interface(name, (!is_gone).then(|| random.few(2, addr)))
        }
    }
}

fn workload(random: &mut Random, pod: &NamespacedName) -> WorkloadEndpoint {
    let namespace = pod.namespace.as_str();
    let mut profiles = vec![format!("kns.{namespace}"), format!("ksa.{namespace}.s")];
    profiles.truncate(random.pick(&[2, 2, 1, 0]));
    let system =
        [("projectcalico.org/namespace", namespace), ("projectcalico.org/orchestrator", "k8s")];
    // One in eight has the interface of somebody else.
    let owner =
        if random.one_in(8) { "a-p0".to_owned() } else { format!("{namespace}-{}", pod.name) };
    WorkloadEndpoint {
        pod: pod.clone(),
        node: node(random),
        if_name: format!("cali{owner}").parse().unwrap(),
        addrs: random.few(2, addr),
        mac: None,
        allowed_sources: Vec::new(),
        controls: Controls { dscp: Dscp::new(random.pick(&[0, 46, 64])), ..Controls::default() },
        floating: Vec::new(),
        container_id: None,
        labels: labels(random, &system),
        profiles,
        ports: ports(random),
        vrf: random
            .pick(&[None, None, None, Some("red"), Some("blue")])
            .map(|vrf| vrf.parse().unwrap()),
    }
}

/// Pools that say of VRFs: their zones come, go and join.
fn pool(random: &mut Random, name: &str) -> IpPool {
    let names: [Option<VrfName>; 3] =
        [None, Some("red".parse().unwrap()), Some("blue".parse().unwrap())];
    let imports = random.few(2, |random| random.pick(&names));
    let vrf = |random: &mut Random| {
        let (name, id) = random.pick(&[("red", "5001"), ("blue", "5002"), ("blue", "5001")]);
        let (name, id) = (name.parse().unwrap(), id.parse().unwrap());
        PoolVrf { name, id, imports: imports.iter().cloned().collect() }
    };
    let cidr = random.pick(&["10.0.0.0/16", "10.1.0.0/16", "10.2.0.0/16"]).parse().unwrap();
    IpPool { vrf: (!random.one_in(6)).then(|| vrf(random)), ..IpPool::plain(name, cidr) }
}

fn host(random: &mut Random, name: &str) -> HostEndpoint {
    let interfaces = [
        HostInterface::All,
        HostInterface::Named("eth0".parse().unwrap()),
        HostInterface::WithExpectedAddr,
    ];
    HostEndpoint {
        name: name.to_owned(),
        node: node(random),
        interface: random.pick(&interfaces),
        labels: labels(random, &[]),
        expected_addrs: random.few(2, addr),
        profiles: random.few(1, |_| "projectcalico-default-allow".to_owned()),
        ports: ports(random),
    }
}

fn network_set(random: &mut Random, is_gone: bool) -> Change {
    let namespace = random.pick(&[None, Some("a")]).map(str::to_owned);
    let id = NetworkSetId { namespace: namespace.clone(), name: "s".to_owned() };
    let in_namespace = [("projectcalico.org/namespace", "a")];
    let system: &[_] = if namespace.is_some() { &in_namespace } else { &[] };
    let set = NetworkSet {
        namespace,
        name: "s".to_owned(),
        labels: labels(random, system),
        nets: random.few(3, net),
    };
    Change::NetworkSet(id, (!is_gone).then(|| Arc::new(set)))
}

fn policy_id(random: &mut Random) -> PolicyId {
    let (kind, namespace) = random.pick(&[
        (PolicyKind::Global, None),
        (PolicyKind::Global, None),
        (PolicyKind::Network, Some("a")),
        (PolicyKind::Kubernetes, Some("a")),
        (PolicyKind::Kubernetes, Some("b")),
        (PolicyKind::StagedGlobal, None),
    ]);
    let name = random.pick(&["p", "q"]).to_owned();
    PolicyId { kind, namespace: namespace.map(str::to_owned), name }
}

fn order(random: &mut Random) -> Order {
    random.pick(&[Order::new(1.0), Order::new(2.0), Ok(Order::LAST)]).unwrap()
}

fn policy(random: &mut Random, id: &PolicyId) -> Policy {
    let stages = [Stage::Normal, Stage::Normal, Stage::Forward, Stage::PreDnat, Stage::Untracked];
    let stage = if id.kind == PolicyKind::Global { random.pick(&stages) } else { Stage::Normal };
    let enforcement = if id.kind == PolicyKind::StagedGlobal {
        random.pick(&[Enforcement::Staged, Enforcement::StagedDelete])
    } else {
        Enforcement::Enforced
    };
    let applies_to = selector(random);
    let selector = match &id.namespace {
        Some(namespace) => {
            applies_to.and(format!("projectcalico.org/namespace == '{namespace}'").parse().unwrap())
        }
        None => applies_to,
    };
    let rules = |random: &mut Random| (!random.one_in(3)).then(|| random.few(2, rules::rule));
    Policy {
        id: id.clone(),
        tier: random.pick(&TIERS).to_owned(),
        order: order(random),
        selector,
        ingress: rules(random),
        egress: rules(random),
        stage,
        enforcement,
        is_needed_everywhere: random.one_in(8),
    }
}

fn tier(random: &mut Random, is_gone: bool) -> Change {
    let name = random.pick(&["t0", "t1", "default"]).to_owned();
    let default_action = random.pick(&[TierAction::Deny, TierAction::Pass]);
    let tier = Tier { name: name.clone(), order: order(random), default_action };
    Change::Tier(name, (!is_gone).then_some(tier))
}

fn profile(random: &mut Random, is_gone: bool) -> Change {
    let names = ["kns.a", "kns.a", "kns.b", "ksa.a.s", "projectcalico-default-allow"];
    let name = random.pick(&names);
    let prefix = if name.starts_with("ksa") { "pcsa." } else { "pcns." };
    let inherited = random.few(2, |random| {
        let label = random.pick(&["team", "zone"]);
        (format!("{prefix}{label}"), random.pick(&["x", "y"]).to_owned())
    });
    let rules = |random: &mut Random| match random.below(4) {
        0 => Vec::new(),
        1 => vec![rules::rule(random)],
        _ => vec![Rule::of(Action::Allow)],
    };
    let profile = Profile {
        name: name.to_owned(),
        labels_to_apply: inherited.into_iter().collect(),
        ingress: rules(random),
        egress: rules(random),
    };
    Change::Profile(name.to_owned(), (!is_gone).then(|| Arc::new(profile)))
}

fn slice(random: &mut Random, id: &NamespacedName) -> EndpointSlice {
    EndpointSlice {
        id: id.clone(),
        service: random.pick(&[Some("web"), Some("web"), Some("db"), None]).map(str::to_owned),
        endpoints: random.few(2, |random| ServiceEndpoint {
            addrs: random.few(2, addr),
            node: None,
            is_ready: random.one_in(2),
            is_terminating: false,
        }),
        ports: random.few(2, |random| EndpointPort {
            name: String::new(),
            protocol: rules::port_protocol(random),
            port: random.pick(&[Some(53), Some(80), None]),
        }),
    }
}
