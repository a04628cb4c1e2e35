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

use calicoctl::ipam::forecast::{Forecast, Sight, forecast};
use calicoctl::ipam::show::{address, borrowed};
use calicoctl::ipam::usage::{Detail, usage};
use calicoctl::output::{Format, Report, render};
use model::block::IpamConfig;
use world::{World, clock, compare};

#[test]
fn show_says_how_full_pools_are() {
    let world = World::read();
    let usage = |detail| usage(&world.pools, &world.blocks, &world.reserved, (clock(), detail));
    compare("show.txt", &usage(Detail::Pools).text());
    compare("show-blocks.txt", &usage(Detail::Blocks).text());
    compare("show-json.txt", &render(&usage(Detail::Pools), Format::Json).unwrap());
}

#[test]
fn show_names_who_has_an_address() {
    let world = World::read();
    let said =
        ["10.0.0.3", "10.0.0.2", "10.0.0.7", "10.0.0.200", "10.9.0.0", "10.20.0.1", "192.0.2.1"]
            .map(|addr| address(addr.parse().unwrap(), &world.blocks, &world.pools).text());
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
        pools: &world.pools,
        blocks: &world.blocks,
        reserved: &world.reserved,
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
