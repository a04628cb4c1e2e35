//! The findings as tables for people and as one line of JSON for programs.

use std::path::Path;

use comfy_table::{Cell, CellAlignment, Table};
use serde_json::{Map, Value, json};

use super::measure::Load;
use super::{Findings, Loads};
use crate::load::Outcome;
use crate::statistics::{Summary, ratio};

/// The programs that are released.
pub(crate) const PROGRAMS: [&str; 2] = ["calico", "calico-node"];

/// Prints the tables and, last, the line.
#[expect(clippy::print_stdout, reason = "the report is what the program is for")]
pub(crate) fn print(findings: &Findings) {
    println!("{}\n\n{}\n\n{}", loads(findings), aside(findings), to_json(findings));
}

fn loads(findings: &Findings) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([
        "at once",
        "",
        "pods",
        "p50 ms",
        "p99 ms",
        "per second",
        "failed",
        "x floor",
        "cpu ms each",
        "server's",
    ]);
    for (load, Loads { alone, served, floor }) in &findings.loads {
        for (what, alone, served, least) in [
            ("ADD", &alone.add, &served.add, &floor.add),
            ("DEL", &alone.del, &served.del, &floor.del),
        ] {
            table.add_row(row(*load, &format!("{what}, served"), served, Some(least)));
            table.add_row(row(*load, &format!("{what}, by itself"), alone, Some(least)));
            table.add_row(row(*load, &format!("floor of {what}"), least, None));
        }
    }
    table
}

fn row(load: Load, what: &str, outcome: &Outcome, floor: Option<&Outcome>) -> Vec<Cell> {
    let summary = outcome.summary();
    let [programs, control_plane] = outcome.cpu_ms;
    let times = floor.map(|floor| ratio(summary.p50_ms, floor.summary().p50_ms));
    let numbers = [
        summary.count.to_string(),
        format!("{:.1}", summary.p50_ms),
        format!("{:.1}", summary.p99_ms),
        format!("{:.1}", outcome.per_second()),
        outcome.failures.len().to_string(),
        times.map_or_else(String::new, |times| format!("{times:.2}")),
        programs.to_string(),
        control_plane.to_string(),
    ];
    let numbers =
        numbers.into_iter().map(|text| Cell::new(text).set_alignment(CellAlignment::Right));
    [Cell::new(load.at_once), Cell::new(what)].into_iter().chain(numbers).collect()
}

fn aside(findings: &Findings) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    let [add, del] = findings.requests;
    table.add_row(["round trips of an ADD".to_owned(), in_words(add)]);
    table.add_row(["round trips of a DEL".to_owned(), in_words(del)]);
    let first_byte = Summary::of(&findings.first_byte);
    let text = format!("p50 {:.1} ms, p99 {:.1} ms", first_byte.p50_ms, first_byte.p99_ms);
    table.add_row(["calico, start to first byte sent".to_owned(), text]);
    for program in PROGRAMS {
        let bytes = size(&findings.bin, program).map_or_else(|| "?".to_owned(), |n| n.to_string());
        table.add_row([format!("size of {program}, bytes"), bytes]);
    }
    let kib = match &findings.node_kib {
        Ok(kib) => format!("{kib} KiB"),
        Err(error) => format!("not measured: {}", error.lines().next().unwrap_or_default()),
    };
    table.add_row(["calico-node idle, resident".to_owned(), kib]);
    let [before, after] = &findings.load_average;
    table.add_row(["load average before, after".to_owned(), format!("{before}, {after}")]);
    table
}

fn in_words(requests: Option<u64>) -> String {
    requests.map_or_else(|| "?".to_owned(), |count| count.to_string())
}

/// Returns all findings as one value; printed, it is one line.
fn to_json(findings: &Findings) -> Value {
    let loads: Map<String, Value> =
        findings.loads.iter().map(|(load, loads)| of_load(*load, loads)).collect();
    let sizes: Map<String, Value> = PROGRAMS
        .iter()
        .map(|name| ((*name).to_owned(), json!(size(&findings.bin, name))))
        .collect();
    let [add, del] = findings.requests;
    let [before, after] = &findings.load_average;
    json!({
        "benchmark": "cni",
        "programs": findings.bin,
        "compared_with": ["floor", "calico_3.34_reference"],
        "loads": loads,
        "round_trips": {"add": add, "del": del},
        "start_to_first_byte": Summary::of(&findings.first_byte),
        "sizes_bytes": sizes,
        "calico_node_idle_rss_kib": findings.node_kib.as_ref().ok(),
        "calico_node_problem": findings.node_kib.as_ref().err(),
        "load_average": {"before": before, "after": after},
        "calico_3.34_reference_measured_before_on_the_same_type_of_machine_not_in_this_run":
            reference(),
    })
}

fn of_load(load: Load, Loads { alone, served, floor }: &Loads) -> (String, Value) {
    let half = |alone: &Outcome, served: &Outcome, floor: &Outcome| {
        let times = |ours: &Outcome| ratio(ours.summary().p50_ms, floor.summary().p50_ms);
        json!({
            "served": served.to_json(), "alone": alone.to_json(), "floor": floor.to_json(),
            "p50_ratio_to_floor": {"served": times(served), "alone": times(alone)},
        })
    };
    let value = json!({
        "at_once": load.at_once,
        "pods": load.count,
        "add": half(&alone.add, &served.add, &floor.add),
        "del": half(&alone.del, &served.del, &floor.del),
        "round_trips_for_one_more_add": alone.requests_for_one_more,
        "trace": {"alone": alone.trace, "served": served.trace},
    });
    (load.name.to_owned(), value)
}

/// Returns what Calico's own plugin takes on a machine of this type, against the same API server.
fn reference() -> Value {
    json!({
        "add_p50_ms": 101, "add_p99_ms": 121,
        "del_p50_ms": [102, 110], "del_p99_ms": 119,
        "add_ten_at_once_p50_ms": 1000, "add_fifty_at_once_p50_ms": 5000,
        "adds_per_second_below": 10, "failures_of_100_adds": [2, 5],
        "binary_mb": 68, "resident_mb": 41,
    })
}

fn size(bin: &Path, program: &str) -> Option<u64> {
    bin.join(program).metadata().ok().map(|file| file.len())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::measure::Measured;
    use super::*;

    fn outcome(millis: u64) -> Outcome {
        Outcome {
            durations: vec![Duration::from_millis(millis)],
            failures: vec!["line 1\nline 2".to_owned()],
            took: Duration::from_secs(1),
            cpu_ms: [4, 5],
        }
    }

    fn findings() -> Findings {
        let load = Load { name: "ten", at_once: 10, count: 1 };
        let of = |millis| Measured {
            add: outcome(millis),
            del: outcome(millis),
            requests_for_one_more: Some(11),
            trace: std::collections::BTreeMap::new(),
        };
        Findings {
            bin: "/nonexistent".into(),
            loads: vec![(load, Loads { alone: of(30), served: of(15), floor: of(20) })],
            requests: [Some(11), None],
            first_byte: vec![Duration::from_millis(3)],
            node_kib: Err("absent".to_owned()),
            load_average: ["0.1".to_owned(), "0.2".to_owned()],
        }
    }

    #[test]
    fn the_json_is_one_line_with_the_names_of_what_is_compared() {
        let line = to_json(&findings()).to_string();
        assert_eq!(line.lines().count(), 1);
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["compared_with"], json!(["floor", "calico_3.34_reference"]));
        let ratios = &value["loads"]["ten"]["add"]["p50_ratio_to_floor"];
        assert_eq!((&ratios["alone"], &ratios["served"]), (&json!(1.5), &json!(0.75)));
        assert_eq!(value["loads"]["ten"]["add"]["floor"]["p50_ms"], 20.0);
        assert_eq!(value["round_trips"], json!({"add": 11, "del": null}));
        assert_eq!(value["calico_node_problem"], "absent");
    }

    #[test]
    fn the_tables_show_ratio_and_failures() {
        let text = loads(&findings()).to_string();
        let add = text.lines().find(|line| line.contains("ADD, served")).unwrap();
        let words: Vec<&str> = add.split_whitespace().collect();
        let expected = ["10", "ADD,", "served", "1", "15.0", "15.0", "1.0", "1", "0.75", "4", "5"];
        assert_eq!(words, expected);
    }
}
