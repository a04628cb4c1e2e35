//! What commands print about a cluster that is a file: `testdata/calicoctl`.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a failing test should stop at once"
)]

#[path = "tables/world.rs"]
mod world;

use calicoctl::ipam::check::{findings, report};
use calicoctl::ipam::explain::explain;
use calicoctl::ipam::forecast::{Forecast, Sight, forecast};
use calicoctl::ipam::repair::{describe, plan};
use calicoctl::ipam::show::{address, borrowed};
use calicoctl::ipam::usage::{Detail, usage};
use calicoctl::output::{Format, Report, render};
use ipam::audit::Limits;
use model::block::IpamConfig;
use world::{World, clock, compare};

#[test]
fn show_says_how_full_pools_are() {
    let world = World::read();
    let usage = |detail| {
        usage(&world.scene.snapshot.pools, &world.blocks, &world.scene.reserved, (clock(), detail))
    };
    compare("show.txt", &usage(Detail::Pools).text());
    compare("show-blocks.txt", &usage(Detail::Blocks).text());
    compare("show-json.txt", &render(&usage(Detail::Pools), Format::Json).unwrap());
}

#[test]
fn show_names_who_has_an_address() {
    let world = World::read();
    let said =
        ["10.0.0.3", "10.0.0.2", "10.0.0.7", "10.0.0.200", "10.9.0.0", "10.20.0.1", "192.0.2.1"]
            .map(|addr| {
                address(addr.parse().unwrap(), &world.blocks, &world.scene.snapshot.pools).text()
            });
    compare("show-ip.txt", &said.join("\n\n"));
}

#[test]
fn show_finds_what_is_borrowed() {
    let world = World::read();
    compare("show-borrowed.txt", &borrowed(&world.blocks).text());
    compare("show-borrowed-yaml.txt", &render(&borrowed(&world.blocks), Format::Yaml).unwrap());
}

#[test]
fn forecast_says_when_addresses_run_out() {
    let world = World::read();
    let config = IpamConfig { max_blocks_per_host: 4, ..IpamConfig::default() };
    let sight = Sight {
        pools: &world.scene.snapshot.pools,
        blocks: &world.blocks,
        reserved: &world.scene.reserved,
        config: &config,
        now: clock().now,
    };
    compare("forecast.txt", &forecast(sight, None).text());
    // Two days ago there was one address less on node 1, and node 2 had nothing.
    let mut earlier: Forecast = forecast(sight, None);
    earlier.time = "2026-11-21T00:00:00Z".to_owned();
    earlier.pools[0].in_use -= 1;
    earlier.nodes.retain(|node| node.outlook.name == "node-1");
    earlier.nodes[0].outlook.in_use -= 1;
    compare("forecast-since.txt", &forecast(sight, Some(&earlier)).text());
    let measured = forecast(sight, Some(&earlier));
    let json = render(&measured, Format::Json).unwrap();
    assert_eq!(serde_json::from_str::<Forecast>(&json).unwrap(), measured);
    compare("forecast-json.txt", &json);
}

#[test]
fn check_names_each_problem_with_its_evidence() {
    let world = World::read();
    let findings = findings(&world.scene);
    compare("check.txt", &report(&world.scene, &findings, false).text());
    compare("check-all.txt", &report(&world.scene, &findings, true).text());
    let report = report(&world.scene, &findings, false);
    compare("check-json.txt", &render(&report, Format::Json).unwrap());
}

#[test]
fn explain_tells_who_owns_an_address() {
    let world = World::read();
    let findings = findings(&world.scene);
    let said = [
        "10.0.0.3",
        "10.0.0.4",
        "10.0.0.5",
        "10.0.0.6",
        "10.0.0.2",
        "10.0.0.7",
        "10.0.0.1",
        "10.0.0.20",
        "10.9.0.0",
        "10.20.0.1",
        "192.0.2.1",
        "fd00:10:244::1",
    ]
    .map(|addr| explain(addr.parse().unwrap(), &world.scene, &findings).text());
    compare("explain.txt", &said.join("\n\n"));
}

#[test]
fn repair_shows_its_plan() {
    let world = World::read();
    let findings = findings(&world.scene);
    let plan = plan(&world.scene, &findings, &Limits::default()).unwrap();
    compare("repair.txt", &describe(&plan, &findings).text());
}
