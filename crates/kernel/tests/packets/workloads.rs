//! Facts about packets of pods.

use std::collections::BTreeSet;
use std::io::{Read, Write};

use kernel::netlink::{RouteEntry, Target};
use model::desired::RouteProtocol;
use model::desired::policy::{CompiledRule, PolicyChange, Ports, SetKind, SetMember, TierPath};
use model::net::{Cidr, Family, MacAddr};
use model::policy::{Action, IcmpMatch, Protocol};
use model::tier::TierAction;
use render::{HostAction, Pool, Settings};

use crate::cluster::{
    Cluster, Seen, ask, connect, counters, ping, serve_tcp, serve_udp, tcp, udp, udp_socket,
};
use crate::policies::{id, ingress, ingress_rules, open, rule, set_id, tcp_to, with};

/// Pod 0 asks pod 1, for whose packets these rules are: TCP 80, TCP 81, UDP 53 and echo.
fn seen_by_rules(cluster: &Cluster, rules: Vec<CompiledRule>) -> [[Seen; 4]; 2] {
    let state = with(cluster.state(&[&open(), &ingress(&["p"])]), "p", rules);
    let _enforced = cluster.enforce(state, Settings::default());
    let (from, to) = (&cluster.pods[0], &cluster.pods[1]);
    to.addrs.map(|addr| {
        [
            tcp(from.netns(), (addr, 80)),
            tcp(from.netns(), (addr, 81)),
            udp(from, (addr, 53)),
            ping(from.netns(), addr),
        ]
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn rules_of_each_kind_decide() {
    use Seen::{Answer as Y, Nothing as N};
    let cluster = Cluster::new(2).await;
    let to = &cluster.pods[1];
    for port in [80, 81] {
        serve_tcp(to.netns(), port);
    }
    for addr in to.addrs {
        serve_udp(to.netns(), addr, 53);
    }
    let allow = |protocol| rule(Action::Allow, protocol);
    let deny = |protocol| rule(Action::Deny, protocol);
    let all = allow(None);
    let from = |nets: &[&str]| {
        let mut allow = allow(None);
        allow.source.nets = Some(nets.iter().map(|net| net.parse().unwrap()).collect());
        allow
    };
    let except = |net: &str| {
        let mut allow = from(&["10.0.0.0/8", "fd00::/8"]);
        allow.source.not_nets = vec![net.parse().unwrap()];
        allow
    };
    let not_port = |port| {
        let mut allow = allow(Some(Protocol::TCP));
        allow.destination.not_ports = Ports { ranges: vec![(port, port)], named: Vec::new() };
        allow
    };
    let echo = |protocol, kind| {
        let icmp = Some(IcmpMatch { kind, code: Some(0) });
        CompiledRule { icmp, ..allow(Some(protocol)) }
    };
    let only_v6 = CompiledRule { family: Some(Family::V6), ..all.clone() };
    let not_tcp = CompiledRule { not_protocol: Some(Protocol::TCP), ..all.clone() };
    let cases = [
        (vec![], [[N, N, N, N], [N, N, N, N]]),
        (vec![all.clone()], [[Y, Y, Y, Y], [Y, Y, Y, Y]]),
        (vec![deny(Some(Protocol::UDP)), all.clone()], [[Y, Y, N, Y], [Y, Y, N, Y]]),
        (vec![tcp_to(&[(80, 80)])], [[Y, N, N, N], [Y, N, N, N]]),
        (vec![tcp_to(&[(1, 79), (81, 90)])], [[N, Y, N, N], [N, Y, N, N]]),
        (vec![not_port(80)], [[N, Y, N, N], [N, Y, N, N]]),
        (vec![allow(Some(Protocol::UDP))], [[N, N, Y, N], [N, N, Y, N]]),
        (vec![echo(Protocol::ICMP, 8), echo(Protocol::ICMP_V6, 128)], [[N, N, N, Y], [N, N, N, Y]]),
        (vec![only_v6], [[N, N, N, N], [Y, Y, Y, Y]]),
        (vec![not_tcp], [[N, N, Y, Y], [N, N, Y, Y]]),
        (vec![from(&["10.65.0.0/24"])], [[Y, Y, Y, Y], [N, N, N, N]]),
        (vec![from(&["10.65.0.3/32", "fd65::/64"])], [[N, N, N, N], [Y, Y, Y, Y]]),
        (vec![except("10.65.0.2/32")], [[N, N, N, N], [Y, Y, Y, Y]]),
        (vec![from(&[])], [[N, N, N, N], [N, N, N, N]]),
        (vec![rule(Action::Pass, None), all], [[N, N, N, N], [N, N, N, N]]),
    ];
    for (rules, expected) in cases {
        assert_eq!(seen_by_rules(&cluster, rules.clone()), expected, "{rules:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn sets_follow_their_members() {
    follow(Settings::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn sets_that_share_one_follow_their_members() {
    follow(Settings { named_sets: 0, ..Settings::default() }).await;
}

async fn follow(settings: Settings) {
    let cluster = Cluster::new(3).await;
    let to = cluster.pods[1].v4();
    serve_tcp(cluster.pods[1].netns(), 80);
    serve_tcp(cluster.pods[1].netns(), 8080);
    let peers = set_id(SetKind::Selected, 0x81);
    let named = set_id(SetKind::NamedPort, 2);
    let mut by_peer = tcp_to(&[(80, 80)]);
    by_peer.source.in_sets = vec![peers];
    let mut by_name = rule(Action::Allow, Some(Protocol::TCP));
    by_name.destination.ports = Some(Ports { ranges: Vec::new(), named: vec![named] });
    let paths = [&open(), &ingress(&["p"]), &open()];
    let mut state = with(cluster.state(&paths), "p", vec![by_peer, by_name]);
    state.sets.insert(peers, BTreeSet::new());
    state.sets.insert(named, BTreeSet::new());
    let mut enforced = cluster.enforce(state, settings);
    let mut change = |id, add: &[SetMember], remove: &[SetMember]| {
        let (add, remove) = (add.iter().copied().collect(), remove.iter().copied().collect());
        let changes = [PolicyChange::SetMembers { id, add, remove }];
        let transaction = enforced.renderer.apply(&changes);
        enforced.nftables.apply(&transaction).unwrap();
        let seen = |pod: usize, port| tcp(cluster.pods[pod].netns(), (to, port)) == Seen::Answer;
        [seen(0, 80), seen(2, 80), seen(0, 8080)]
    };
    let host = |pod: usize| SetMember::Net(Cidr::host(cluster.pods[pod].v4()));
    let net = SetMember::Net("10.65.0.4/31".parse().unwrap());
    let port = SetMember::Port(to, Protocol::TCP, 8080);
    assert_eq!(change(peers, &[], &[]), [false, false, false]);
    assert_eq!(change(peers, &[host(0)], &[]), [true, false, false]);
    assert_eq!(change(peers, &[net], &[host(0)]), [false, true, false]);
    assert_eq!(change(peers, &[host(0)], &[]), [true, true, false]);
    assert_eq!(change(peers, &[], &[net, host(0)]), [false, false, false]);
    assert_eq!(change(named, &[port], &[]), [false, false, true]);
    assert_eq!(change(named, &[], &[port]), [false, false, false]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn tiers_pass_and_deny() {
    let cluster = Cluster::new(2).await;
    let to = cluster.pods[1].v4();
    for port in [80, 81, 82] {
        serve_tcp(cluster.pods[1].netns(), port);
    }
    let tier = |name: &str, default_action, policy| TierPath {
        tier: name.to_owned(),
        default_action,
        policies: vec![id(policy)],
    };
    let pass = CompiledRule { action: Action::Pass, ..tcp_to(&[(80, 81)]) };
    for (first, last, expected) in [
        // What the first tier neither passes nor allows ends there, or goes on.
        (TierAction::Deny, TierAction::Deny, [true, false, false]),
        (TierAction::Pass, TierAction::Deny, [true, false, true]),
        // What the last tier leaves, the profile allows.
        (TierAction::Pass, TierAction::Pass, [true, true, true]),
    ] {
        let mut path = open();
        path.ingress.tiers = vec![tier("first", first, "a"), tier("last", last, "b")];
        let state = with(cluster.state(&[&open(), &path]), "a", vec![pass.clone()]);
        let state = with(state, "b", vec![tcp_to(&[(80, 80), (82, 82)])]);
        let _enforced = cluster.enforce(state, Settings::default());
        let seen = |port| tcp(cluster.pods[0].netns(), (to, port)) == Seen::Answer;
        assert_eq!([80, 81, 82].map(seen), expected, "{first:?} {last:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn connections_outlive_the_policy_that_allowed_them() {
    let cluster = Cluster::new(2).await;
    serve_tcp(cluster.pods[1].netns(), 80);
    let to = (cluster.pods[1].v4(), 80);
    let state = with(cluster.state(&[&open(), &ingress(&["p"])]), "p", vec![tcp_to(&[(80, 80)])]);
    let mut enforced = cluster.enforce(state, Settings::default());
    let (mut stream, _) = connect(cluster.pods[0].netns(), to).unwrap();
    let deny = ingress_rules(vec![rule(Action::Deny, None)]);
    let transaction = enforced.renderer.apply(&[PolicyChange::Policy(id("p"), Some(deny))]);
    enforced.nftables.apply(&transaction).unwrap();
    assert_eq!(tcp(cluster.pods[0].netns(), to), Seen::Nothing);
    stream.write_all(b"still").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"still");
    // The drop can be attributed.
    let drops = counters(&cluster.host.netns)["policy gnp/p rule 0"];
    assert!(drops >= 1, "{drops}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn pods_send_only_from_their_own_addresses() {
    let cluster = Cluster::new(2).await;
    let (from, to) = (&cluster.pods[0], &cluster.pods[1]);
    for addr in to.addrs {
        serve_udp(to.netns(), addr, 53);
    }
    let state = with(cluster.state(&[&open(), &open()]), "p", vec![]);
    let _enforced = cluster.enforce(state, Settings::default());
    let host_link = cluster.host.netlink.require_link(&"cali0".parse().unwrap()).await.unwrap();
    for (other, to) in [("10.65.0.99", to.v4()), ("fd65::99", to.v6())] {
        assert_eq!(udp(from, (to, 53)), Seen::Answer);
        // Answers would find their way: only policy is in it.
        let stolen = Cidr::host(other.parse().unwrap());
        let own = stolen.to_string().parse().unwrap();
        from.sandbox.netlink.add_addr(from.link, own).await.unwrap();
        let way = RouteEntry::new(stolen, Target::Link(host_link.index), RouteProtocol::BOOT);
        cluster.host.netlink.upsert_route(&way).await.unwrap();
        let spoofed = udp_socket(from.netns(), other.parse().unwrap(), (to, 53));
        assert_eq!(ask(&spoofed), Seen::Nothing, "{other}");
    }
    let mac = MacAddr([2, 0, 0, 0, 0, 9]);
    from.sandbox.netlink.set_link_down(from.link).await.unwrap();
    from.sandbox.netlink.set_link_mac(from.link, mac).await.unwrap();
    from.sandbox.netlink.set_link_up(from.link).await.unwrap();
    let gateway = "169.254.1.1".parse().unwrap();
    let hop = kernel::netlink::NextHop { gateway, link: Some(from.link), is_on_link: true };
    let everywhere = "0.0.0.0/0".parse().unwrap();
    let way = RouteEntry::new(everywhere, Target::Via(vec![hop]), RouteProtocol::BOOT);
    from.sandbox.netlink.upsert_route(&way).await.unwrap();
    let host_side = MacAddr::WORKLOAD_HOST_SIDE;
    from.sandbox.netlink.upsert_neighbour(from.link, gateway, host_side).await.unwrap();
    let before = counters(&cluster.host.netns)["the source address is not the workload's"];
    assert_eq!(udp(from, (to.v4(), 53)), Seen::Nothing);
    let after = counters(&cluster.host.netns)["the source address is not the workload's"];
    assert!(after > before, "{before} {after}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn interfaces_that_are_not_known_yet_drop() {
    let cluster = Cluster::new(2).await;
    serve_tcp(cluster.pods[1].netns(), 80);
    serve_tcp(cluster.pods[0].netns(), 80);
    let state = with(cluster.state(&[&open()]), "p", vec![]);
    let mut enforced = cluster.enforce(state, Settings::default());
    let ask = || {
        let (a, b) = (&cluster.pods[0], &cluster.pods[1]);
        [tcp(a.netns(), (b.v4(), 80)), tcp(b.netns(), (a.v4(), 80)), tcp(a.netns(), (b.v6(), 80))]
    };
    assert_eq!(ask(), [Seen::Nothing; 3]);
    let pod = cluster.workload(1, &open());
    let arrival = PolicyChange::Workload("cali1".parse().unwrap(), Some(pod));
    let transaction = enforced.renderer.apply(&[arrival]);
    assert!(transaction.steps.len() <= 6, "{transaction:?}");
    enforced.nftables.apply(&transaction).unwrap();
    assert_eq!(ask(), [Seen::Answer; 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_reaches_the_machine_is_configured() {
    let cluster = Cluster::new(1).await;
    serve_tcp(&cluster.host.netns, 10_250);
    let node = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    for (action, expected) in
        [(HostAction::Drop, Seen::Nothing), (HostAction::Accept, Seen::Answer)]
    {
        let settings = Settings { workload_to_host: action, ..Settings::default() };
        let state = with(cluster.state(&[&open()]), "p", vec![]);
        let _enforced = cluster.enforce(state, settings);
        for addr in node {
            let seen = tcp(cluster.pods[0].netns(), (addr, 10_250));
            assert_eq!(seen, expected, "{action:?} {addr}");
        }
    }
    // The machine itself always reaches its pods: probes of the kubelet.
    serve_tcp(cluster.pods[0].netns(), 80);
    let state = with(cluster.state(&[&ingress(&["p"])]), "p", vec![]);
    let _enforced = cluster.enforce(state, Settings::default());
    for addr in cluster.pods[0].addrs {
        assert_eq!(tcp(&cluster.host.netns, (addr, 80)), Seen::Answer);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn packets_that_leave_all_pools_get_the_machines_address() {
    let cluster = Cluster::new(2).await;
    serve_tcp(cluster.outside.netns(), 80);
    serve_tcp(cluster.pods[1].netns(), 80);
    let pool = |net: &str, is_translated| Pool { net: net.parse().unwrap(), is_translated };
    let who = |settings: Settings, to| {
        let state = with(cluster.state(&[&open(), &open()]), "p", vec![]);
        let _enforced = cluster.enforce(state, settings);
        let (_, who) = connect(cluster.pods[0].netns(), (to, 80)).unwrap();
        who
    };
    let with_pools = |pools| Settings { pools, ..Settings::default() };
    let outside = cluster.outside.addrs;
    let translated = || with_pools(vec![pool("10.65.0.0/16", true), pool("fd65::/64", true)]);
    assert_eq!(who(translated(), outside[0]), "192.0.2.1");
    assert_eq!(who(translated(), outside[1]), "2001:db8::1");
    assert_eq!(who(translated(), cluster.pods[1].v4()), "10.65.0.2");
    assert_eq!(who(with_pools(vec![pool("10.65.0.0/16", false)]), outside[0]), "10.65.0.2");
    let other = pool("192.0.2.0/24", false);
    let both = with_pools(vec![pool("10.65.0.0/16", true), other]);
    assert_eq!(who(both, outside[0]), "10.65.0.2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn pods_send_no_tunnels_and_packets_for_no_service_do_not_loop() {
    let cluster = Cluster::new(2).await;
    let (from, to) = (&cluster.pods[0], cluster.pods[1].v4());
    serve_udp(cluster.pods[1].netns(), to, 4789);
    let state = with(cluster.state(&[&open(), &open()]), "p", vec![]);
    let ranges = vec!["10.65.0.99/32".parse().unwrap()];
    let settings = Settings { service_ranges: ranges, ..Settings::default() };
    let _enforced = cluster.enforce(state, settings);
    // The kernel has a way to it, so that only policy is in it.
    let nobody = "10.65.0.99".parse().unwrap();
    let link = cluster.host.netlink.require_link(&"cali1".parse().unwrap()).await.unwrap();
    let way = RouteEntry::new(Cidr::host(nobody), Target::Link(link.index), RouteProtocol::BOOT);
    cluster.host.netlink.upsert_route(&way).await.unwrap();
    for (to, note) in
        [((to, 4789), "VXLAN from a workload"), ((nobody, 53), "no Service has this address")]
    {
        let before = counters(&cluster.host.netns)[note];
        assert_eq!(udp(from, to), Seen::Nothing, "{note}");
        let after = counters(&cluster.host.netns)[note];
        assert!(after > before, "{note}: {before} {after}");
    }
}
