//! Facts about limits of packets and connections, and about marks.

use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use kernel::Netns;
use model::desired::policy::PolicyChange;
use model::endpoint::{Control, Controls, Dscp, PacketRate};
use model::policy::{Action, Protocol};
use render::{Pool, Settings};

use crate::cluster::{Cluster, Seen, connect, serve_tcp, serve_udp, tcp, udp, udp_socket};
use crate::policies::{ingress, open, rule, tcp_to, with};

/// The node's address, which the node's own services listen on.
const NODE: &str = "192.0.2.1";
const PACKETS: Option<PacketRate> = Some(PacketRate { per_second: 1, burst: 5 });

/// Sends twenty datagrams at once as one flow, and counts the answers.
fn answers(cluster: &Cluster, from: usize, to: (IpAddr, u16)) -> usize {
    let from = &cluster.pods[from];
    let addr = if to.0.is_ipv4() { from.v4() } else { from.v6() };
    let socket = udp_socket(from.netns(), addr, to);
    for _ in 0..20 {
        socket.send(b"ping").unwrap();
    }
    let mut bytes = [0; 8];
    std::iter::from_fn(|| socket.recv(&mut bytes).ok()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn packets_are_limited_each_way_also_those_of_known_flows() {
    let cluster = Cluster::new(3).await;
    for pod in &cluster.pods {
        pod.addrs.iter().for_each(|addr| serve_udp(pod.netns(), *addr, 53));
    }
    serve_udp(&cluster.host.netns, NODE.parse().unwrap(), 53);
    let mut state = with(cluster.state(&[&open(), &open(), &open()]), "p", Vec::new());
    let pod = |number: usize| format!("cali{number}").parse().unwrap();
    let few = Control { packets: PACKETS, connections: None };
    state.workloads.get_mut(&pod(1)).unwrap().controls.ingress = few;
    state.workloads.get_mut(&pod(2)).unwrap().controls.egress = few;
    let settings = Settings { workload_to_host: render::HostAction::Accept, ..Settings::default() };
    let mut enforced = cluster.enforce(state, settings);
    let is_few = |answers: usize| (5..10).contains(&answers);
    for family in 0..2 {
        let to = |number: usize| (cluster.pods[number].addrs[family], 53);
        assert!(is_few(answers(&cluster, 0, to(1))), "to pod 1");
        assert!(answers(&cluster, 1, to(0)) < 5, "answers come to pod 1 out of the same measure");
        let from = answers(&cluster, 2, to(0));
        assert!(is_few(from), "from pod 2: {from}");
        assert_eq!(answers(&cluster, 0, to(0)), 20, "nobody else is limited");
    }
    let to_node = answers(&cluster, 2, (NODE.parse().unwrap(), 53));
    assert!(to_node < 5, "what pod 2 sends to the node counts, too: {to_node}");
    // Without the annotation nothing of it is left.
    for number in [1, 2] {
        let plain = cluster.workload(number, &open());
        let transaction =
            enforced.renderer.apply(&[PolicyChange::Workload(pod(number), Some(plain))]);
        enforced.nftables.apply(&transaction).unwrap();
    }
    assert_eq!(answers(&cluster, 2, (cluster.pods[1].v4(), 53)), 20);
    assert!(!listed(&cluster.host.netns).contains("limit rate"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn connections_are_limited_and_what_policy_denies_takes_no_place() {
    let cluster = Cluster::new(3).await;
    let [from, to, other] = [0, 1, 2].map(|number: usize| &cluster.pods[number]);
    for port in [80, 81] {
        serve_tcp(to.netns(), port);
    }
    serve_tcp(from.netns(), 80);
    let mut state =
        with(cluster.state(&[&open(), &ingress(&["p"]), &open()]), "p", vec![tcp_to(&[(80, 80)])]);
    let if_name = |number: usize| format!("cali{number}").parse().unwrap();
    let two = |packets| Control { packets, connections: Some(2) };
    let pod = state.workloads.get_mut(&if_name(1)).unwrap();
    (pod.controls.ingress, pod.controls.egress) = (two(None), two(None));
    let mut enforced = cluster.enforce(state, Settings::default());
    for family in 0..2 {
        let addr = to.addrs[family];
        for _ in 0..3 {
            assert_eq!(tcp(from.netns(), (addr, 81)), Seen::Nothing, "policy");
        }
        let one = connect(from.netns(), (addr, 80)).expect("the first");
        let second = connect(other.netns(), (addr, 80)).expect("the second, of somebody else");
        assert!(connect(from.netns(), (addr, 80)).is_none(), "the third");
        // Another workload's limits come, and the count goes on.
        let mut limited = cluster.workload(2, &open());
        limited.controls.egress = two(PACKETS);
        let change = PolicyChange::Workload(if_name(2), Some(limited));
        enforced.nftables.apply(&enforced.renderer.apply(&[change])).unwrap();
        assert!(connect(from.netns(), (addr, 80)).is_none(), "still the third");
        let plain = PolicyChange::Workload(if_name(2), Some(cluster.workload(2, &open())));
        enforced.nftables.apply(&enforced.renderer.apply(&[plain])).unwrap();
        drop(second);
        drop(one);
        assert!(is_soon_reached(from.netns(), (addr, 80)), "one that ended makes room");
        // What pod 1 opens itself is counted apart.
        let own = [(); 2].map(|()| connect(to.netns(), (from.addrs[family], 80)));
        assert!(own.iter().all(Option::is_some), "its own two");
        assert!(connect(to.netns(), (from.addrs[family], 80)).is_none(), "its own third");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn packets_that_leave_the_cluster_are_marked() {
    let cluster = Cluster::new(2).await;
    let peers = [&cluster.pods[1], &cluster.outside];
    for machine in peers {
        machine.addrs.iter().for_each(|addr| serve_udp(machine.netns(), *addr, 53));
        // Only what is marked is heard there.
        let table = "add table inet t; add chain inet t c { type filter hook input priority 0; }; \
             add rule inet t c udp dport 53 ip dscp != ef drop; \
             add rule inet t c udp dport 53 ip6 dscp != ef drop";
        nft(machine.netns(), table);
    }
    let heard = |number: usize| peers[number].addrs.map(|addr| udp(&cluster.pods[0], (addr, 53)));
    let allow_udp = vec![rule(Action::Allow, Some(Protocol::UDP))];
    let mut state = with(cluster.state(&[&open(), &open()]), "p", allow_udp);
    let pools = ["10.65.0.0/24", "fd65::/64"]
        .map(|net| Pool { net: net.parse().unwrap(), is_translated: false });
    let settings = Settings { pools: pools.to_vec(), ..Settings::default() };
    drop(cluster.enforce(state.clone(), settings.clone()));
    assert_eq!([heard(0), heard(1)], [[Seen::Nothing; 2]; 2]);
    let pod = state.workloads.get_mut(&"cali0".parse().unwrap()).unwrap();
    pod.controls = Controls { dscp: Dscp::new(46), ..Controls::default() };
    drop(cluster.enforce(state, settings));
    assert_eq!([heard(0), heard(1)], [[Seen::Nothing; 2], [Seen::Answer; 2]]);
}

/// Tries for a while: connections end a moment after their programs let go.
fn is_soon_reached(netns: &Netns, to: (IpAddr, u16)) -> bool {
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        if connect(netns, to).is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

fn nft(netns: &Netns, script: &str) {
    let mut command = Command::new("nft");
    command.arg(script);
    let status = netns.run(|| command.status()).unwrap().expect("these tests need nftables");
    assert!(status.success(), "{script}");
}

fn listed(netns: &Netns) -> String {
    let mut command = Command::new("nft");
    command.args(["list", "ruleset"]);
    let output = netns.run(|| command.output()).unwrap().expect("these tests need nftables");
    String::from_utf8(output.stdout).unwrap()
}
