//! Reflectors, filters, several paths and slow peers: what every node ends up with follows
//! from the configuration alone, whatever happened before.

use std::sync::Arc;
use std::time::Duration;

use bgp::State;
use model::bgp_filter::{FilterOperation, FilterRule, PrefixMatch, PrefixOperator};
use model::desired::{AddPath, Filters};
use model::peer::Community;

use super::simulation::{Network, cidr};

const MINUTE: Duration = Duration::from_secs(60);

fn rejecting(prefix: &str) -> Filters {
    let prefix = PrefixMatch { cidr: cidr(prefix), operator: PrefixOperator::In, lengths: 0..=32 };
    rules(FilterRule { is_accepted: false, prefix: Some(prefix), ..any() })
}

fn any() -> FilterRule {
    FilterRule {
        is_accepted: true,
        prefix: None,
        from_peers_only: false,
        interface: None,
        session: None,
        communities: Vec::new(),
        as_path_prefix: Vec::new(),
        priority: None,
        operations: Vec::new(),
    }
}

fn rules(rule: FilterRule) -> Filters {
    Filters { v4: Some(Arc::from([rule])), v6: None }
}

#[test]
fn a_reflector_is_as_good_as_a_mesh() {
    let mut network = Network::reflected(1, 4, 1);
    network.run_for(Duration::from_secs(8));
    network.assert_complete("one reflector");
    assert_eq!(network.live_connections(), 4);
}

#[test]
fn what_is_passed_on_is_marked_by_its_prefix() {
    let mut network = Network::reflected(1, 3, 1);
    network.run_for(Duration::from_secs(8));
    let marks = |communities: &[Community]| {
        [(cidr("10.244.0.0/16"), communities.iter().copied().collect())].into()
    };
    let blue = Community::Standard(64_512, 7);
    let sends = network.sends;
    network.mark(0, marks(&[blue]));
    network.run_for(Duration::from_secs(2));
    assert!(network.sends > sends, "the clients are told anew");
    network.assert_complete("marked routes");
    let sends = network.sends;
    network.mark(0, marks(&[blue]));
    network.run_for(Duration::from_secs(2));
    assert_eq!(network.sends, sends, "nothing is new");
}

#[test]
fn two_reflectors_do_not_reflect_for_ever() {
    let mut network = Network::reflected(2, 3, 2);
    network.run_for(Duration::from_secs(8));
    network.assert_complete("two reflectors");
    let sends = network.sends;
    network.run_for(Duration::from_secs(30));
    assert_eq!(network.sends, sends, "something goes round");
}

#[test]
fn a_killed_reflector_comes_back_and_nobody_loses_a_route() {
    for seed in 0..10 {
        let mut network = Network::reflected(2, 4, seed);
        network.run_for(Duration::from_secs(10));
        network.forbid_withdrawals();
        for node in [0, 1, 3] {
            network.kill(node);
            network.run_for(Duration::from_secs(2));
            network.start(node);
            network.run_for(Duration::from_secs(70));
        }
        network.assert_complete(&format!("seed {seed}"));
    }
}

#[test]
fn whatever_breaks_reflection_agrees_in_the_end() {
    for seed in 0..25 {
        let mut network = Network::reflected(2, 3, seed);
        network.shake(40);
        network.run_for(10 * MINUTE);
        network.assert_complete(&format!("seed {seed}"));
    }
}

#[test]
fn slow_peers_hold_up_nobody_and_miss_nothing() {
    for seed in 0..25 {
        let mut network = Network::reflected(1, 5, seed);
        network.limit_sends(100);
        network.slow_down(2);
        network.slow_down(4);
        network.shake(40);
        let extra: Vec<String> = (0..200).map(|n| format!("10.244.{}.0/26", n + 50)).collect();
        let extra: Vec<&str> = extra.iter().map(String::as_str).collect();
        network.originate(1, &extra);
        network.run_for(Duration::from_secs(1));
        network.originate(1, &extra[..100]);
        network.run_for(10 * MINUTE);
        network.assert_complete(&format!("seed {seed}"));
    }
}

#[test]
fn every_path_comes_through_a_reflector_that_tells_several() {
    for seed in 0..10 {
        let mut network = Network::reflected(1, 4, seed);
        for node in [1, 2, 3] {
            network.originate(node, &["10.244.96.0/24"]);
        }
        network.shake(20);
        for node in [1, 2, 3] {
            network.originate(node, &["10.244.96.0/24"]);
        }
        network.run_for(10 * MINUTE);
        network.assert_complete(&format!("seed {seed}"));
    }
}

#[test]
fn one_path_comes_through_a_reflector_that_tells_one() {
    let mut network = Network::reflected(1, 3, 3);
    for node in 0..4 {
        network.reconfigure(node, |_, session| {
            session.add_path = AddPath { receives: false, sends: false };
        });
    }
    for node in [1, 2] {
        network.originate(node, &["10.244.96.0/24"]);
    }
    network.run_for(MINUTE);
    assert!(network.kernel(3).contains("10.244.96.0/24 via 10.0.0.2\n"), "{}", network.kernel(3));
    assert!(network.kernel(0).contains("10.244.96.0/24 via 10.0.0.2 10.0.0.3\n"));
}

#[test]
fn a_filter_takes_effect_without_a_reset() {
    let mut network = Network::mesh(3, 4);
    network.run_for(Duration::from_secs(6));
    let connects = network.connects;
    network.reconfigure(0, |peer, session| {
        if peer == 1 {
            session.import = rejecting("10.244.1.0/24");
            session.export = rejecting("10.244.0.0/24");
        }
    });
    network.run_for(Duration::from_secs(1));
    assert_eq!(network.kernel(0), "10.244.2.0/26 via 10.0.0.3\n");
    assert_eq!(network.kernel(1), "10.244.2.0/26 via 10.0.0.3\n");
    assert!(network.kernel(2).contains("10.244.0.0/26 via 10.0.0.1"));
    network.reconfigure(0, |_, session| {
        session.import = Filters::default();
        session.export = Filters::default();
    });
    network.run_for(Duration::from_secs(1));
    network.assert_complete("without filters");
    assert_eq!(network.connects, connects);
    assert_eq!(network.peer(0, 1).state, State::Established);
}

#[test]
fn rules_for_an_interface_follow_the_kernels_routes() {
    let mut network = Network::reflected(1, 3, 4);
    let not_by_eth1 =
        || rules(FilterRule { is_accepted: false, interface: Some("eth1*".to_owned()), ..any() });
    // The reflector tells node 1 nothing, and node 2 takes nothing, that leads out of eth1.
    network.reconfigure(0, |peer, session| {
        if peer == 1 {
            session.export = not_by_eth1();
        }
    });
    network.reconfigure(2, |_, session| session.import = not_by_eth1());
    network.run_for(Duration::from_secs(8));
    network.assert_complete("nobody knows of interfaces");
    let connects = network.connects;
    network.lead_by(0, "eth1.7");
    network.lead_by(2, "eth1");
    network.run_for(Duration::from_secs(1));
    assert_eq!(network.kernel(1), "10.244.0.0/26 via 10.0.0.1\n", "what originates there");
    assert_eq!(network.kernel(2), "");
    network.lead_by(0, "eth0");
    network.lead_by(2, "eth0");
    network.run_for(Duration::from_secs(1));
    network.assert_complete("eth1 is out of use");
    assert_eq!(network.connects, connects);
}

#[test]
fn a_priority_set_on_import_decides() {
    let mut network = Network::mesh(3, 5);
    for node in [0, 1] {
        network.originate(node, &["10.244.96.0/24"]);
    }
    network.reconfigure(2, |peer, session| {
        if peer == 1 {
            let operations = vec![FilterOperation::SetPriority(512)];
            session.import = rules(FilterRule { operations, ..any() });
        }
    });
    network.run_for(Duration::from_secs(6));
    assert_eq!(network.kernel(2), "10.244.96.0/24 via 10.0.0.2\n");
}

#[test]
fn an_external_session_without_filters_may_have_to_carry_nothing() {
    let mut network = Network::chain([65_001, 64_512, 64_512], 6);
    network.reconfigure(0, |_, session| session.requires_policy = true);
    network.run_for(Duration::from_secs(8));
    assert_eq!(network.kernel(0), "");
    assert_eq!(network.kernel(1), "10.244.2.0/26 via 10.0.0.3\n");
    network.reconfigure(0, |_, session| {
        session.import = rules(any());
        session.export = rules(any());
    });
    network.run_for(Duration::from_secs(1));
    assert_eq!(network.kernel(0), "10.244.1.0/26 via 10.0.0.2\n10.244.2.0/26 via 10.0.0.2\n");
    assert!(network.kernel(1).contains("10.244.0.0/26 via 10.0.0.1"));
}

#[test]
fn filters_that_come_and_go_under_faults_leave_no_trace() {
    for seed in 0..15 {
        let mut network = Network::reflected(1, 3, seed);
        network.limit_sends(200);
        for round in 0..6 {
            network.shake(6);
            let prefix = format!("10.244.{}.0/24", round % 4);
            let node = round % 4;
            network.reconfigure(node, |peer, session| {
                let is_odd = (peer + round) % 2 == 1;
                session.import = if is_odd { rejecting(&prefix) } else { Filters::default() };
                session.export = if is_odd { Filters::default() } else { rejecting(&prefix) };
            });
        }
        for node in 0..4 {
            network.reconfigure(node, |_, session| {
                session.import = Filters::default();
                session.export = Filters::default();
            });
        }
        network.run_for(10 * MINUTE);
        network.assert_complete(&format!("seed {seed}"));
    }
}
