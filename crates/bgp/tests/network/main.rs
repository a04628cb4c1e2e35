//! Speakers in one memory, with a clock that a test turns: do they agree in the end,
//! and does nobody lose a route on the way?

#![allow(clippy::arithmetic_side_effects)]

#[cfg(test)]
mod policy;
#[cfg(test)]
mod simulation;

use std::time::Duration;

use bgp::State;
use simulation::{Network, cidr, node_addr};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_mesh_of_three_shares_its_blocks() {
    let mut network = Network::mesh(3, 1);
    network.run_for(Duration::from_secs(4));
    assert_eq!(network.kernel(0), "10.244.1.0/26 via 10.0.0.2\n10.244.2.0/26 via 10.0.0.3\n");
    assert_eq!(network.kernel(2), "10.244.0.0/26 via 10.0.0.1\n10.244.1.0/26 via 10.0.0.2\n");
    assert!((0..3).all(|node| network.has_converged(node)));
}

#[test]
fn a_mesh_shares_ipv6_blocks_over_ipv6_sessions() {
    let mut network = Network::mesh_of(3, 1, model::net::Family::V6);
    network.run_for(Duration::from_secs(4));
    assert_eq!(network.kernel(1), "fd00:244::/122 via fd00::1\nfd00:244:0:2::/122 via fd00::3\n");
}

#[test]
fn a_new_block_is_told_and_a_released_one_withdrawn() {
    let mut network = Network::mesh(2, 2);
    network.run_for(Duration::from_secs(4));
    network.originate(0, &["10.244.9.0/26"]);
    network.run_for(Duration::from_secs(1));
    assert_eq!(network.kernel(1), "10.244.9.0/26 via 10.0.0.1\n");
}

#[test]
fn a_block_announced_by_two_nodes_has_two_gateways() {
    let mut network = Network::mesh(3, 3);
    network.originate(0, &["10.96.0.0/16"]);
    network.originate(1, &["10.96.0.0/16"]);
    network.run_for(Duration::from_secs(4));
    assert!(network.kernel(2).contains("10.96.0.0/16 via 10.0.0.1 10.0.0.2\n"));
    assert_eq!(network.kernel(0), "10.244.2.0/26 via 10.0.0.3\n");
}

#[test]
fn a_killed_speaker_comes_back_and_nobody_loses_a_route() {
    for seed in 0..30 {
        let mut network = Network::mesh(4, seed);
        network.run_for(Duration::from_secs(6));
        network.forbid_withdrawals();
        for node in [1, 0, 3] {
            network.kill(node);
            network.run_for(Duration::from_secs(2));
            network.start(node);
            network.run_for(Duration::from_secs(30));
            assert!(network.has_converged(node), "seed {seed}, node {node}");
        }
        network.assert_complete(&format!("seed {seed}"));
    }
}

#[test]
fn a_speaker_that_stays_away_is_forgotten_after_its_restart_time() {
    let mut network = Network::mesh(2, 5);
    network.run_for(Duration::from_secs(6));
    network.kill(1);
    network.run_for(Duration::from_secs(115));
    assert_eq!(network.kernel(0), "10.244.1.0/26 via 10.0.0.2\n");
    network.run_for(Duration::from_secs(10));
    assert_eq!(network.kernel(0), "");
}

#[test]
fn a_block_lost_during_a_restart_goes_when_the_peer_has_told_all() {
    let mut network = Network::mesh(2, 6);
    network.originate(1, &["10.244.1.0/26", "10.244.7.0/26"]);
    network.run_for(Duration::from_secs(6));
    network.kill(1);
    network.originate(1, &["10.244.7.0/26"]);
    network.start(1);
    network.run_for(Duration::from_secs(20));
    assert_eq!(network.kernel(0), "10.244.7.0/26 via 10.0.0.2\n");
}

#[test]
fn a_dead_peer_does_not_hold_up_convergence() {
    let mut network = Network::mesh(3, 7);
    network.run_for(Duration::from_secs(6));
    network.kill(2);
    network.kill(0);
    network.start(0);
    network.run_for(Duration::from_secs(20));
    assert!(network.has_converged(0));
    assert!(network.kernel(0).contains("10.244.1.0/26 via 10.0.0.2"));
}

#[test]
fn a_wrong_as_is_refused_by_both_sides() {
    let mut network = Network::mesh(2, 8);
    network.expect_asn(0, 1, 65_000);
    network.run_for(MINUTE);
    assert_eq!(network.kernel(0), "");
    let peer = network.peer(0, 1);
    assert!(peer.state < State::OpenSent, "{:?}", peer.state);
    assert_eq!(peer.last_error.as_deref(), Some("we said: bad peer AS (2/2)"));
    assert!(network.peer(1, 0).last_error.unwrap().contains("bad peer AS (2/2)"));
}

#[test]
fn a_refused_peer_is_left_alone_for_longer_each_time() {
    let mut network = Network::mesh(2, 8);
    network.expect_asn(0, 1, 65_000);
    network.run_for(10 * MINUTE);
    assert!((20..40).contains(&network.connects), "{} connects", network.connects);
}

#[test]
fn simultaneous_connections_collide_into_one() {
    for seed in 0..200 {
        let mut network = Network::mesh_without_passive(2, seed);
        network.run_for(Duration::from_secs(30));
        network.assert_complete(&format!("seed {seed}"));
        assert_eq!(network.live_connections(), 1, "seed {seed}");
    }
}

#[test]
fn a_removed_peer_is_told_and_its_routes_go() {
    let mut network = Network::mesh(3, 9);
    network.run_for(Duration::from_secs(4));
    let sessions_before = network.connects;
    network.deconfigure(0, 2);
    network.run_for(Duration::from_millis(500));
    assert_eq!(network.kernel(0), "10.244.1.0/26 via 10.0.0.2\n");
    assert!(network.peer(2, 0).last_error.unwrap().contains("peer de-configured (6/3)"));
    assert_eq!(network.peer(0, 1).state, State::Established);
    assert_eq!(network.connects, sessions_before);
    // It may just have been told earlier than the peer, which calls again soon.
    network.run_for(Duration::from_secs(1));
    assert_eq!(network.connects, sessions_before + 1);
}

#[test]
fn external_peers_learn_internal_routes_in_the_ranges_only() {
    // 0 is in another AS; 1 speaks to both, 2 only to 1.
    let mut network = Network::chain([65_001, 64_512, 64_512], 10);
    network.originate(2, &["10.244.2.0/26", "192.168.7.0/24"]);
    network.run_for(Duration::from_secs(8));
    assert_eq!(network.kernel(0), "10.244.1.0/26 via 10.0.0.2\n10.244.2.0/26 via 10.0.0.2\n");
    assert!(network.kernel(1).contains("192.168.7.0/24 via 10.0.0.3"));
}

#[test]
fn internal_routes_are_not_passed_on_internally() {
    let mut network = Network::chain([64_512, 64_512, 64_512], 11);
    network.run_for(Duration::from_secs(8));
    assert_eq!(network.kernel(0), "10.244.1.0/26 via 10.0.0.2\n");
}

#[test]
fn a_silent_partition_ends_with_the_hold_time() {
    let mut network = Network::mesh(2, 12);
    network.run_for(Duration::from_secs(4));
    network.partition();
    network.run_for(Duration::from_secs(235));
    assert_eq!(network.peer(0, 1).state, State::Established);
    network.run_for(Duration::from_secs(10));
    assert!(network.peer(0, 1).state < State::OpenSent);
    assert_eq!(network.kernel(0), "");
    network.heal();
    network.run_for(MINUTE);
    network.assert_complete("healed");
}

#[test]
fn a_thousand_prefixes_come_in_few_messages() {
    let mut network = Network::mesh(2, 13);
    let blocks: Vec<String> =
        (0..4000).map(|n| format!("10.{}.{}.0/26", n / 250, n % 250)).collect();
    let blocks: Vec<&str> = blocks.iter().map(String::as_str).collect();
    network.originate(0, &blocks);
    network.run_for(Duration::from_secs(4));
    assert_eq!(network.kernel(1).lines().count(), 4000);
    // 5 bytes for each prefix: 16 kB and 5 messages, all in one write.
    assert!(network.sends < 20, "{} writes", network.sends);
}

#[test]
fn whatever_breaks_the_mesh_agrees_in_the_end() {
    for seed in 100..160 {
        let mut network = Network::mesh(3, seed);
        network.shake(40);
        network.run_for(10 * MINUTE);
        network.assert_complete(&format!("seed {seed}"));
    }
}

#[test]
fn addresses_of_the_simulation_are_as_the_tests_say() {
    assert_eq!(node_addr(1, model::net::Family::V6).to_string(), "fd00::2");
    assert_eq!(cidr("10.0.0.0/8").to_string(), "10.0.0.0/8");
}
