//! The findings as tables for people and as one line of JSON for programs.

use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Table};
use serde_json::{Value, json};

use super::changes::Latency;
use super::connections::Costs;
use super::{Findings, Scale, Tables};
use crate::statistics::{millis, ratio, rounded};

/// Prints the tables and, last, the line.
#[expect(clippy::print_stdout, reason = "the report is what the program is for")]
pub(crate) fn print(findings: &Findings) {
    let [before, after] = &findings.load_average;
    println!("{}\n\n{}\n", scales(&findings.scales), costs(&findings.costs));
    println!("{}\n", tables(&findings.tables));
    println!("load average before, after: {before}, {after}\n\n{}", to_json(findings));
}

fn scales(scales: &[Scale]) -> Table {
    let header = [
        "pods",
        "policies",
        "start to ready s",
        "resident MiB",
        "policy change ms: p50 p90 p99",
        "label change ms: p50 p90 p99",
    ];
    let rows = scales.iter().map(|scale| {
        vec![
            scale.pods.to_string(),
            scale.policies.to_string(),
            format!("{:.2}", scale.ready_after.as_secs_f64()),
            (scale.resident_kib / 1024).to_string(),
            in_words(scale.policy),
            in_words(scale.label),
        ]
    });
    table(&header, rows)
}

fn costs(costs: &[(String, Costs)]) -> Table {
    let header = ["under", "connect µs: p50", "p99", "more than no rules", "packets/s", "ratio"];
    let base = costs.first().map(|(_, costs)| *costs);
    let rows = costs.iter().map(|(what, costs)| {
        let [p50, p99] = costs.connect.map(micros);
        let more = base.map_or(0.0, |base| p50 - micros(base.connect[0]));
        let share =
            base.map_or(0.0, |base| ratio(costs.packets_per_second, base.packets_per_second));
        vec![
            what.clone(),
            format!("{p50:.1}"),
            format!("{p99:.1}"),
            format!("{more:.1}"),
            format!("{:.0}", costs.packets_per_second),
            format!("{share:.2}"),
        ]
    });
    table(&header, rows)
}

fn tables(found: &[Tables]) -> Table {
    let header = ["in the kernel", "rules", "p50 p90 p99 ms", "processor ms"];
    let rows = found.iter().flat_map(|tables| {
        let row = move |what: &str, took: String, busy: String| {
            vec![format!("{what}, {}", tables.families), tables.rules.to_string(), took, busy]
        };
        let once = [("everything is loaded", tables.load), ("a restart adopts it", tables.adopt)];
        let once = once.map(|(what, took)| row(what, fine(took), String::new()));
        let changes = tables.changes.iter().map(move |(what, Latency(took), busy)| {
            row(what, took.map(fine).join(" "), fine(*busy))
        });
        once.into_iter().chain(changes)
    });
    table(&header, rows)
}

/// Writes milliseconds as finely as one address takes.
fn fine(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64() * 1e3)
}

fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(header);
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    for row in rows {
        table.add_row(row.into_iter().map(right));
    }
    table
}

fn in_words(Latency(percentiles): Latency) -> String {
    percentiles.map(|each| format!("{:.1}", millis(each))).join(" ")
}

fn micros(duration: Duration) -> f64 {
    rounded(duration.as_secs_f64() * 1e6)
}

fn to_json(findings: &Findings) -> Value {
    let scale = |scale: &Scale| {
        json!({
            "pods": scale.pods, "policies": scale.policies,
            "ready_ms": millis(scale.ready_after), "resident_kib": scale.resident_kib,
            "policy_ms": scale.policy.0.map(millis), "label_ms": scale.label.0.map(millis),
        })
    };
    let cost = |(what, costs): &(String, Costs)| {
        json!({
            "under": what, "connect_us": costs.connect.map(micros),
            "packets_per_second": rounded(costs.packets_per_second),
        })
    };
    let change = |(what, latency, busy): &(&str, Latency, Duration)| json!({"change": what, "us": latency.0.map(micros), "processor_us": micros(*busy)});
    let table = |tables: &Tables| {
        json!({
            "families": tables.families, "rules": tables.rules,
            "load_ms": millis(tables.load), "adopt_ms": millis(tables.adopt),
            "changes": tables.changes.iter().map(change).collect::<Vec<_>>(),
        })
    };
    json!({
        "benchmark": "policy",
        "tables": findings.tables.iter().map(table).collect::<Vec<_>>(),
        "scales": findings.scales.iter().map(scale).collect::<Vec<_>>(),
        "costs": findings.costs.iter().map(cost).collect::<Vec<_>>(),
        "load_average": findings.load_average,
    })
}
