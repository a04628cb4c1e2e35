//! Facts about packets of the machine itself under host endpoints.

use std::sync::Arc;

use model::desired::policy::{
    Direction, EndpointPath, HostInterface, HostPolicy, PolicyState, TierPath,
};
use model::policy::{Action, Protocol};
use model::tier::TierAction;
use render::Settings;

use crate::cluster::{Cluster, Seen, ping, serve_tcp, tcp};
use crate::policies::{id, open, rule, tcp_to, with};

fn closed() -> HostPolicy {
    HostPolicy {
        endpoint: "node-eth0".to_owned(),
        addrs: Vec::new(),
        normal: EndpointPath::default(),
        forward: EndpointPath::default(),
        pre_dnat: Direction::default(),
        untracked: EndpointPath::default(),
    }
}

fn by(policy: &str) -> Direction {
    let tier = "default".to_owned();
    let tiers =
        vec![TierPath { tier, default_action: TierAction::Deny, policies: vec![id(policy)] }];
    Direction { tiers, ..Direction::default() }
}

fn with_host(mut state: PolicyState, interface: HostInterface, host: HostPolicy) -> PolicyState {
    state.hosts.insert(interface, Arc::new(host));
    state
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_closed_host_endpoint_leaves_what_must_work() {
    let cluster = Cluster::new(1).await;
    let outside = &cluster.outside;
    let node: [std::net::IpAddr; 2] =
        ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    for port in [22, 80, 179, 6443] {
        serve_tcp(&cluster.host.netns, port);
        serve_tcp(outside.netns(), port);
    }
    serve_tcp(cluster.pods[0].netns(), 80);
    for interface in [HostInterface::All, HostInterface::Named("eth0".parse().unwrap())] {
        let state = with(cluster.state(&[&open()]), "p", vec![]);
        let state = with_host(state, interface, closed());
        let _enforced = cluster.enforce(state, Settings::default());
        for (addr, out) in node.into_iter().zip(outside.addrs) {
            let seen = |port| tcp(outside.netns(), (addr, port)) == Seen::Answer;
            assert_eq!([22, 179, 6443, 80].map(seen), [true, true, true, false], "{addr}");
            let seen = |port| tcp(&cluster.host.netns, (out, port)) == Seen::Answer;
            assert_eq!([179, 6443, 22, 80].map(seen), [true, true, false, false], "{out}");
            assert_eq!(ping(outside.netns(), addr), Seen::Nothing);
            // The loopback is nobody's business, and forwarding is another stage.
            assert_eq!(tcp(&cluster.host.netns, (addr, 80)), Seen::Answer);
        }
        for addr in cluster.pods[0].addrs {
            assert_eq!(tcp(outside.netns(), (addr, 80)), Seen::Answer);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn each_stage_decides_for_its_packets() {
    let cluster = Cluster::new(1).await;
    let outside = &cluster.outside;
    let node = "192.0.2.1".parse().unwrap();
    let pod = cluster.pods[0].v4();
    for port in [80, 81] {
        serve_tcp(&cluster.host.netns, port);
        serve_tcp(cluster.pods[0].netns(), port);
    }
    let deny_80 = || {
        let deny =
            model::desired::policy::CompiledRule { action: Action::Deny, ..tcp_to(&[(80, 80)]) };
        vec![deny, rule(Action::Allow, None)]
    };
    let deny_80_and_go_on = || {
        vec![model::desired::policy::CompiledRule { action: Action::Deny, ..tcp_to(&[(80, 80)]) }]
    };
    let open_host = HostPolicy { normal: open(), ..closed() };
    let normal =
        HostPolicy { normal: EndpointPath { ingress: by("p"), egress: open().egress }, ..closed() };
    let forward = HostPolicy {
        forward: EndpointPath { ingress: by("p"), egress: Direction::default() },
        ..open_host.clone()
    };
    let pre_dnat = HostPolicy { pre_dnat: by("p"), ..open_host.clone() };
    let untracked = HostPolicy {
        untracked: EndpointPath { ingress: by("p"), egress: Direction::default() },
        ..open_host
    };
    // To the machine at ports 80 and 81, then to the pod at ports 80 and 81.
    for (host, rules, expected) in [
        (normal, deny_80(), [false, true, true, true]),
        (forward, deny_80(), [true, true, false, true]),
        (pre_dnat, deny_80_and_go_on(), [false, true, false, true]),
        (untracked, deny_80_and_go_on(), [false, true, false, true]),
    ] {
        let state = with(cluster.state(&[&open()]), "p", rules);
        let state = with_host(state, HostInterface::All, host.clone());
        let _enforced = cluster.enforce(state, Settings::default());
        let seen = |(addr, port)| tcp(outside.netns(), (addr, port)) == Seen::Answer;
        let tried = [(node, 80), (node, 81), (pod, 80), (pod, 81)];
        assert_eq!(tried.map(seen), expected, "{host:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_allowed_without_tracking_needs_no_other_rule() {
    let cluster = Cluster::new(0).await;
    serve_tcp(&cluster.host.netns, 80);
    let node = "192.0.2.1".parse().unwrap();
    let mut answers = rule(Action::Allow, Some(Protocol::TCP));
    let ranges = vec![(80, 80)];
    answers.source.ports = Some(model::desired::policy::Ports { ranges, named: Vec::new() });
    let mut state = with(PolicyState::default(), "p", vec![tcp_to(&[(80, 80)])]);
    let rules = model::desired::policy::PolicyRules {
        ingress: vec![tcp_to(&[(80, 80)])],
        egress: vec![answers],
    };
    state.policies.insert(id("p"), Arc::new(rules));
    let host =
        HostPolicy { untracked: EndpointPath { ingress: by("p"), egress: by("p") }, ..closed() };
    let state = with_host(state, HostInterface::All, host);
    let _enforced = cluster.enforce(state, Settings::default());
    assert_eq!(tcp(cluster.outside.netns(), (node, 80)), Seen::Answer);
    let tracked =
        cluster.host.netns.run(|| std::fs::read_to_string("/proc/thread-self/net/nf_conntrack"));
    if let Ok(tracked) = tracked.unwrap() {
        assert!(!tracked.contains("dport=80 "), "{tracked}");
    }
}
