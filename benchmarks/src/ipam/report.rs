//! The findings as tables for people and as one line of JSON for programs.

use comfy_table::{Cell, CellAlignment, Table};
use serde_json::{Value, json};

use super::Findings;
use super::load::{Load, Part};

/// Prints the tables and, last, the line.
#[expect(clippy::print_stdout, reason = "the report is what the program is for")]
pub(crate) fn print(findings: &Findings) {
    let tables = [loads(findings), sizes(findings), looks(findings)];
    let tables = tables.map(|table| table.to_string()).join("\n\n");
    println!("{tables}\n\n{}", to_json(findings));
}

fn loads(findings: &Findings) -> Table {
    let mut table = table("nodes, clients");
    for load in &findings.loads {
        let name = format!("{}, {}", load.nodes, load.clients);
        table.add_row(row(&name, "ADD", &load.add));
        table.add_row(row(&name, "DEL", &load.del));
    }
    table
}

fn sizes(findings: &Findings) -> Table {
    let mut table = table("other nodes");
    for (others, warm, cold) in &findings.sizes {
        table.add_row(row(&others.to_string(), "ADD", &warm.add));
        table.add_row(row(&others.to_string(), "ADD, a node's first", &cold.add));
    }
    table
}

fn looks(findings: &Findings) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(["nodes", "addresses", "seconds", "peak MiB", "requests", "findings"]);
    for (size, look) in &findings.looks {
        let numbers = [
            size.nodes.to_string(),
            look.allocations.to_string(),
            format!("{:.1}", look.took_s),
            look.peak_mib.to_string(),
            look.requests.to_string(),
            look.findings.to_string(),
        ];
        let right = |text| Cell::new(text).set_alignment(CellAlignment::Right);
        table.add_row(numbers.map(right));
    }
    table
}

fn table(first: &str) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    let columns = ["", "p50 ms", "p99 ms", "per second", "requests p50", "requests max"];
    table.set_header([first].into_iter().chain(columns));
    table
}

fn row(name: &str, command: &str, part: &Part) -> Vec<Cell> {
    let numbers = [
        format!("{:.1}", part.summary.p50_ms),
        format!("{:.1}", part.summary.p99_ms),
        format!("{:.1}", part.per_second),
        part.requests_p50.to_string(),
        part.requests_max.to_string(),
    ];
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    [Cell::new(name), Cell::new(command)].into_iter().chain(numbers.map(right)).collect()
}

/// Returns all findings as one value; printed, it is one line.
fn to_json(findings: &Findings) -> Value {
    let sizes = findings.sizes.iter().map(|(others, warm, cold)| {
        json!({"other_nodes": others, "warm": of_load(warm), "first": of_load(cold)})
    });
    let [before, after] = &findings.load_average;
    json!({
        "benchmark": "ipam",
        "kind": findings.kind.name(),
        "loads": findings.loads.iter().map(of_load).collect::<Vec<_>>(),
        "sizes": sizes.collect::<Vec<_>>(),
        "looks": findings.looks.iter().map(|(_, look)| look).collect::<Vec<_>>(),
        "load_average": {"before": before, "after": after},
    })
}

fn of_load(load: &Load) -> Value {
    json!({
        "nodes": load.nodes, "clients": load.clients,
        "add": of_part(&load.add), "del": of_part(&load.del),
    })
}

fn of_part(part: &Part) -> Value {
    json!({
        "per_second": part.per_second, "latency": part.summary,
        "requests_p50": part.requests_p50, "requests_max": part.requests_max,
    })
}

#[cfg(test)]
mod tests {
    use lab::control_plane::Kind;

    use super::*;
    use crate::statistics::Summary;

    #[test]
    fn every_measurement_is_a_row_and_the_json_one_line() {
        let part = Part {
            per_second: 20.0,
            summary: Summary::default(),
            requests_p50: 9,
            requests_max: 12,
        };
        let load = |nodes| Load { nodes, clients: 8, add: part.clone(), del: part.clone() };
        let findings = Findings {
            kind: Kind::Embedded,
            loads: vec![load(1), load(50)],
            sizes: vec![(10, load(1), load(10))],
            looks: Vec::new(),
            load_average: ["0.1".to_owned(), "0.2".to_owned()],
        };
        assert_eq!(loads(&findings).to_string().matches("DEL").count(), 2);
        assert!(sizes(&findings).to_string().contains("a node's first"));
        let line = to_json(&findings).to_string();
        assert_eq!(line.lines().count(), 1);
        assert_eq!(to_json(&findings)["loads"][1]["add"]["requests_max"], 12);
    }
}
