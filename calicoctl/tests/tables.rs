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

use calicoctl::ipam::show::{address, borrowed};
use calicoctl::ipam::usage::{Detail, usage};
use calicoctl::output::{Format, Report, render};
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
