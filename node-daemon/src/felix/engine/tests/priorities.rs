//! Which metric a route has, and how it gets another one without a gap.

use super::*;

fn priority(v4: u32) -> Event {
    Event::Settings(Box::new(settings(RoutePriority { v4, v6: 1024 })))
}

/// All changes until there are no more, flush by flush.
fn settled(engine: &mut Engine) -> Vec<Vec<String>> {
    let mut rounds = Vec::new();
    loop {
        let round = changes(engine, NOW);
        if round.is_empty() {
            return rounds;
        }
        rounds.push(round);
    }
}

#[test]
fn the_plugins_route_goes_when_ours_is_there() {
    let of_plugin = kernel(&["10.244.0.5/32 dev caliweb metric 0"], &["caliweb"]);
    let mut engine = engine(vec![pod("web", "10.244.0.5"), of_plugin]);
    assert_eq!(changes(&mut engine, NOW), ["+ 10.244.0.5/32 dev caliweb scope link proto 3"]);
    assert_eq!(engine.next_deadline(), Some(NOW), "there is more to do");
    assert_eq!(
        changes(&mut engine, NOW),
        ["- 10.244.0.5/32 dev caliweb scope link proto 3 metric 0"]
    );
    assert_eq!(changes(&mut engine, NOW), [""; 0]);
    assert_eq!(engine.next_deadline(), Some(NOW + HOUR));
}

#[test]
fn a_refused_successor_leaves_the_old_route() {
    let of_plugin = || kernel(&["10.244.0.5/32 dev caliweb metric 0"], &["caliweb"]);
    let mut engine = engine(vec![pod("web", "10.244.0.5"), of_plugin()]);
    let wanted = "+ 10.244.0.5/32 dev caliweb scope link proto 3";
    assert_eq!(changes_that(&mut engine, NOW, &Err("no memory".to_owned())), [wanted]);
    engine.handle(of_plugin(), NOW);
    assert_eq!(changes(&mut engine, NOW), [""; 0], "neither again at once, nor the old one away");
    let due = engine.next_deadline().unwrap();
    assert_eq!(changes(&mut engine, due), [wanted]);
}

#[test]
fn another_priority_makes_before_it_breaks() {
    let there = ["10.244.0.0/26 blackhole", "10.244.0.5/32 dev caliweb"];
    let mut engine = engine(vec![
        block("10.244.0.0/26"),
        pod("web", "10.244.0.5"),
        kernel(&there, &["caliweb"]),
    ]);
    assert_eq!(settled(&mut engine), [[""; 0]; 0]);
    engine.handle(priority(2000), NOW);
    assert_eq!(
        settled(&mut engine),
        [
            [
                "+ 10.244.0.5/32 dev caliweb scope link proto 3 metric 2000",
                "+ 10.244.0.0/26 blackhole proto 80 metric 2000",
            ],
            [
                "- 10.244.0.0/26 blackhole proto 80",
                "- 10.244.0.5/32 dev caliweb scope link proto 3",
            ],
        ]
    );
}

#[test]
fn a_learned_route_has_the_priority_that_it_was_told_with() {
    let mut engine = engine(vec![kernel(&[], &[]), Event::BgpConverged]);
    engine.handle(learned_at("10.244.1.0/26", &["10.0.0.2"], 2_147_483_547), NOW);
    assert_eq!(settled(&mut engine), [["+ 10.244.1.0/26 via 10.0.0.2 proto 80 metric 2147483547"]]);
    engine.handle(learned_at("10.244.1.0/26", &["10.0.0.3"], 512), NOW);
    assert_eq!(
        settled(&mut engine),
        [
            ["+ 10.244.1.0/26 via 10.0.0.3 proto 80 metric 512"],
            ["- 10.244.1.0/26 via 10.0.0.2 proto 80 metric 2147483547"]
        ]
    );
    engine.handle(priority(2000), NOW);
    assert_eq!(settled(&mut engine), [[""; 0]; 0], "that is about our own");
}

#[test]
fn routes_of_an_earlier_life_with_another_metric_wait_for_their_successors() {
    let old = ["10.244.1.0/26 via 10.0.0.2 metric 0", "10.244.2.0/26 via 10.0.0.3 metric 0"];
    let mut engine = engine(vec![kernel(&old, &[])]);
    assert_eq!(settled(&mut engine), [[""; 0]; 0]);
    engine.handle(learned("10.244.1.0/26", &["10.0.0.2"]), NOW);
    assert_eq!(
        settled(&mut engine),
        [
            ["+ 10.244.1.0/26 via 10.0.0.2 proto 80"],
            ["- 10.244.1.0/26 via 10.0.0.2 proto 80 metric 0"]
        ]
    );
    engine.handle(Event::BgpConverged, NOW);
    assert_eq!(settled(&mut engine), [["- 10.244.2.0/26 via 10.0.0.3 proto 80 metric 0"]]);
}

#[test]
fn a_workload_that_moves_away_is_reached_where_it_is_told() {
    let there = ["10.244.0.0/26 blackhole", "10.244.0.5/32 dev caliweb"];
    let mut engine = engine(vec![
        block("10.244.0.0/26"),
        pod("web", "10.244.0.5"),
        kernel(&there, &["caliweb"]),
        Event::BgpConverged,
    ]);
    for ordinary in [1024, 2000] {
        engine.handle(learned_at("10.244.0.5/32", &["10.0.0.66"], ordinary), NOW);
        assert_eq!(settled(&mut engine), [[""; 0]; 0], "ours is as good");
    }
    engine.handle(learned_at("10.244.0.0/26", &["10.0.0.66"], 512), NOW);
    assert_eq!(settled(&mut engine), [[""; 0]; 0], "blocks do not move");
    engine.handle(learned_at("10.244.0.5/32", &["10.244.0.5"], 512), NOW);
    assert_eq!(settled(&mut engine), [[""; 0]; 0], "a pod here is not another node");
    engine.handle(learned_at("10.244.0.5/32", &["10.0.0.66"], 512), NOW);
    assert_eq!(settled(&mut engine), [["+ 10.244.0.5/32 via 10.0.0.66 proto 80 metric 512"]]);
    engine.handle(learned_at("10.244.0.5/32", &[], 0), NOW);
    assert_eq!(settled(&mut engine), [["- 10.244.0.5/32 via 10.0.0.66 proto 80 metric 512"]]);
}
