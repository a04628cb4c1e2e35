//! The benchmark `docker`: `docker run` on our network beside Docker's own bridge, in turns.
//!
//! One host of a lab, with a real dockerd. A container's whole life is measured, from the call of
//! `docker run` until it has returned: its process ends at once.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use comfy_table::Table;
use lab::Error;
use lab::cluster::{Cluster, Fabric, Families, Plan};
use lab::control_plane::Kind;
use lab::docker::{Hosts, docker};
use lab::node::Node;
use lab::sandbox::{self, Inside};
use serde_json::json;

use crate::statistics::Summary;
use crate::{load_average, step};

/// How much slower ours may be: what has been aimed at.
const AIM: Duration = Duration::from_millis(30);
/// The networks that are compared: Docker's own, none at all, one of Docker's driver `bridge` that
/// people make, and ours, which is such a one as well: Docker gives their containers a resolver of
/// names, which it starts for each.
const NETWORKS: [&str; 4] = ["bridge", "none", MADE, "web"];
/// What that of driver `bridge` is called.
const MADE: &str = "made-bridge";

/// Makes a lab and measures in it.
///
/// # Errors
///
/// [`Error`] if the lab cannot be made.
pub(crate) fn run(is_quick: bool) -> Result<ExitCode, Error> {
    let rounds = if is_quick { "5" } else { "40" };
    sandbox::run(&["docker-rounds".to_owned(), rounds.to_owned()]).map(ExitCode::from)
}

/// Measures inside of the lab, and prints the figures.
///
/// # Errors
///
/// [`Error`] if something cannot be measured.
pub(crate) fn measure(dir: &Path, rounds: usize) -> Result<ExitCode, Error> {
    let inside = Inside::enter(dir)?;
    let before = load_average();
    step(&format!("starting a host with Docker; load average {before}"));
    let plan = Plan {
        control_plane: Kind::Embedded,
        nodes: 1,
        families: Families::V4,
        fabric: Fabric::Bridge,
    };
    let cluster = Cluster::without_daemons(&inside.dir, plan, &mut |_| {})?;
    let hosts = Hosts::up(cluster)?;
    hosts.create_network("web", &["--subnet", "10.244.0.0/16"])?;
    let node = hosts.cluster.node("node-1")?;
    docker(node, &["network", "create", "--driver", "bridge", MADE])?;
    step(&format!("{rounds} containers on each network, in turns"));
    let mut taken = NETWORKS.map(|_| Vec::new());
    for round in 0..=rounds {
        for (network, taken) in NETWORKS.iter().zip(&mut taken) {
            let took = one(node, network)?;
            // The first of each finds nothing in any cache.
            if round > 0 {
                taken.push(took);
            }
        }
    }
    report(&taken, &[before, load_average()]);
    let log = node.dir.join("calico-docker.log");
    report_calls(&std::fs::read_to_string(&log).map_err(Error::file(&log))?);
    Ok(ExitCode::SUCCESS)
}

fn one(node: &Node, network: &str) -> Result<Duration, Error> {
    let started = Instant::now();
    docker(node, &["run", "--rm", "--network", network, "lab", "/bin/busybox", "true"])?;
    Ok(started.elapsed())
}

/// Reads how long each request of Docker took our plugin, from its log.
fn calls(log: &str) -> BTreeMap<&str, Vec<Duration>> {
    let mut calls: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for line in log.lines() {
        let field = |name: &str| line.split_once(name)?.1.split_whitespace().next();
        let (Some(method), Some(took)) = (field(" method="), field(" took_us=")) else { continue };
        if let Ok(took) = took.parse() {
            let method = method.trim_matches('"');
            calls.entry(method).or_default().push(Duration::from_micros(took));
        }
    }
    calls
}

#[expect(clippy::print_stdout, reason = "the figures are what people run this for")]
fn report_calls(log: &str) {
    let mut table = Table::new();
    table.set_header(["REQUEST OF DOCKER", "COUNT", "P50 MS", "P99 MS"]);
    for (method, taken) in calls(log) {
        let Summary { count, p50_ms, p99_ms, .. } = Summary::of(&taken);
        let cells = [count.to_string(), format!("{p50_ms:.1}"), format!("{p99_ms:.1}")];
        table.add_row([&[method.to_owned()], &cells[..]].concat());
    }
    println!("what our plugin takes of that\n{table}");
}

#[expect(clippy::print_stdout, reason = "the figures are what people run this for")]
fn report(taken: &[Vec<Duration>; 4], load_average: &[String; 2]) {
    let summaries =
        [0, 1, 2, 3].map(|at: usize| Summary::of(taken.get(at).map_or(&[], Vec::as_slice)));
    let mut table = Table::new();
    table.set_header(["NETWORK", "RUNS", "P50 MS", "P99 MS"]);
    for (network, summary) in NETWORKS.iter().zip(&summaries) {
        let cells = [summary.p50_ms, summary.p99_ms].map(|ms| format!("{ms:.1}"));
        let [p50, p99] = cells;
        table.add_row([(*network).to_owned(), summary.count.to_string(), p50, p99]);
    }
    let [bridge, _, made, ours] = summaries;
    let slower = ours.p50_ms - bridge.p50_ms;
    let slower_than_made = ours.p50_ms - made.p50_ms;
    println!("docker run --rm, in turns (load average {})\n{table}", load_average.join(" to "));
    println!(
        "ours is {slower:.1} ms slower than Docker's bridge (aim: {} ms), and {slower_than_made:.1} ms \
         slower than a network of driver bridge",
        AIM.as_millis()
    );
    let all: Vec<_> = NETWORKS.iter().zip(&summaries).collect();
    println!(
        "{}",
        json!({"benchmark": "docker", "networks": all, "slower_ms": slower,
            "slower_than_made_ms": slower_than_made})
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugins_log_says_how_long_requests_took() {
        let log = "2026-01-01T00:00:00Z DEBUG calico_docker::server: done \
                   method=\"NetworkDriver.Join\" took_us=1500 answer={}\nINFO another\n";
        let expected = vec![Duration::from_micros(1500)];
        assert_eq!(calls(log), BTreeMap::from([("NetworkDriver.Join", expected)]));
    }
}
