//! Policies and labels on one side, chains and sets on the other: packets meet the same fate.

use model::desired::policy::PolicyState;
use model::policy::Protocol;

use super::cluster::{self, ADDRS};
use super::random::Random;
use crate::policy::enforced::{self, Attachment};
use crate::policy::{Decision, Endpoint, Inputs, Packet, Policies, Way, why};

fn packet(random: &mut Random) -> Packet {
    let strangers = ["192.0.2.1", "2001:db8::1"];
    let addrs: Vec<_> = ADDRS.iter().chain(&strangers).map(|addr| addr.parse().unwrap()).collect();
    let destination: std::net::IpAddr = random.pick(&addrs);
    let same: Vec<_> =
        addrs.into_iter().filter(|addr| addr.is_ipv4() == destination.is_ipv4()).collect();
    let protocols = [
        Protocol::TCP,
        Protocol::TCP,
        Protocol::UDP,
        Protocol::SCTP,
        Protocol::ICMP,
        Protocol::ICMP_V6,
    ];
    let protocol = random.pick(&protocols);
    let mut port = |ports: &[u16]| if protocol.has_ports() { random.pick(ports) } else { 0 };
    let (source_port, destination_port) = (port(&[53, 80, 40_000]), port(&[53, 80, 81, 443]));
    let is_icmp = matches!(protocol, Protocol::ICMP | Protocol::ICMP_V6);
    let icmp = is_icmp.then(|| random.pick(&[(8, 0), (8, 1), (0, 0), (0, 1)]));
    let source = random.pick(&same);
    Packet { source, destination, protocol, source_port, destination_port, icmp }
}

/// Returns every endpoint of the state, as policies and as the kernel know it.
fn endpoints(state: &PolicyState) -> Vec<(Endpoint, Attachment)> {
    let workloads = state.workloads.iter().map(|(name, workload)| {
        (Endpoint::Workload(workload.endpoint.clone()), Attachment::Workload(name.clone()))
    });
    let hosts = state.hosts.iter().map(|(interface, host)| {
        (Endpoint::Host(host.endpoint.clone()), Attachment::Host(interface.clone()))
    });
    workloads.chain(hosts).collect()
}

/// Returns how many verdicts were compared, and how many of each kind there were.
fn compare(seed: u64) -> [usize; 3] {
    let mut random = Random::new(seed);
    let mut inputs = Inputs::new(cluster::this_node());
    let mut policies = Policies::new(cluster::this_node());
    for _ in 0..(10 + random.below(40)) {
        let change = cluster::change(&mut random);
        inputs.apply(change.clone());
        policies.apply(change);
    }
    policies.take_changes();
    let mut counts = [0; 3];
    for (endpoint, attachment) in endpoints(policies.state()) {
        for _ in 0..4 {
            let packet = packet(&mut random);
            for way in Way::ALL {
                let kernel = enforced::verdict(policies.state(), &attachment, &packet, way);
                let why = why::verdict(&inputs, &endpoint, &packet, way);
                let told = why.as_ref().map(ToString::to_string).unwrap_or_default();
                let decision = why.map(|why| why.decision);
                assert_eq!(decision, kernel, "seed {seed}, {endpoint}: {packet:?} {way:?}\n{told}");
                match decision {
                    Some(Decision::Allowed(_)) => counts[0] += 1,
                    Some(Decision::Denied(_)) => counts[1] += 1,
                    Some(Decision::Undecided) => counts[2] += 1,
                    None => {}
                }
            }
        }
    }
    counts
}

fn check(seeds: std::ops::Range<u64>) {
    let mut sums = [0; 3];
    for counts in seeds.map(compare) {
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    // Not all of one kind: else nothing was shown.
    assert!(sums.iter().all(|sum| *sum > 1_000), "{sums:?}");
}

#[test]
fn policies_and_state_tell_the_same() {
    check(0..10_000);
}
