//! The findings as a table for people and as one line of JSON for programs.

use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Table};
use serde_json::{Map, Value, json};

use super::{Figures, Findings};
use crate::statistics::{Summary, millis};

/// Prints the table and, last, the line.
#[expect(clippy::print_stdout, reason = "the report is what the program is for")]
pub(crate) fn print(findings: &Findings) {
    println!("{}\n\n{}", table(findings), to_json(findings));
}

fn table(findings: &Findings) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    let kinds = findings.figures.iter().map(|figures| figures.kind.name().to_owned());
    table.set_header([String::new()].into_iter().chain(kinds));
    let columns: Vec<Vec<(String, String)>> = findings.figures.iter().map(column).collect();
    let names = columns.first().into_iter().flatten().map(|(name, _)| name);
    for (index, name) in names.enumerate() {
        let values = columns.iter().filter_map(|column| column.get(index));
        let values = values.map(|(_, value)| right(value));
        table.add_row([Cell::new(name)].into_iter().chain(values));
    }
    let [before, after] = &findings.load_average;
    table.add_row([Cell::new("load average before, after"), right(&format!("{before}, {after}"))]);
    table
}

fn right(text: &str) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// Returns the rows of one kind of control plane; all kinds have the same names.
fn column(figures: &Figures) -> Vec<(String, String)> {
    let half = |durations: &[Duration]| {
        let summary = Summary::of(durations);
        format!("{:.1}, {:.1}", summary.p50_ms, summary.max_ms)
    };
    let (starts, fan_out, lists) = (&figures.starts, &figures.fan_out, &figures.lists);
    let mut rows = vec![
        ("first start to ready, ms: p50, max".to_owned(), half(&starts.first)),
        ("start again to ready, ms: p50, max".to_owned(), half(&starts.again)),
        ("resident, idle, MiB".to_owned(), mib(figures.idle_kib)),
        ("resident, after all that, MiB".to_owned(), mib(figures.loaded_kib)),
    ];
    for writes in &figures.writes {
        let clients = writes.clients;
        let latency = format!("{:.1}, {:.1}", writes.summary.p50_ms, writes.summary.p99_ms);
        rows.push((format!("writes a second, {clients} client(s)"), whole(writes.per_second)));
        rows.push((format!("one write, ms: p50, p99, {clients} client(s)"), latency));
    }
    let (objects, watchers) = (fan_out.objects, fan_out.watchers);
    let pods = lists.pods;
    rows.extend([
        (format!("{objects} objects to {watchers} watchers, s"), seconds(fan_out.told)),
        ("of that until all were written, s".to_owned(), seconds(fan_out.written)),
        ("events a second".to_owned(), whole(fan_out.events_per_second())),
        (format!("list of {pods} pods, ms: p50, max"), half(&lists.whole)),
        ("the same in pages of 500, ms: p50, max".to_owned(), half(&lists.paged)),
        ("bytes of the list".to_owned(), lists.bytes.to_string()),
    ]);
    rows
}

fn mib(kib: u64) -> String {
    let tenths = kib.saturating_mul(10) / 1024;
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn whole(number: f64) -> String {
    format!("{number:.0}")
}

fn seconds(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64())
}

/// Returns all findings as one value; printed, it is one line.
fn to_json(findings: &Findings) -> Value {
    let kinds: Map<String, Value> = findings
        .figures
        .iter()
        .map(|figures| (figures.kind.name().to_owned(), of_kind(figures)))
        .collect();
    let [before, after] = &findings.load_average;
    json!({
        "benchmark": "datastore",
        "kinds": kinds,
        "load_average": {"before": before, "after": after},
    })
}

fn of_kind(figures: &Figures) -> Value {
    let (starts, fan_out, lists) = (&figures.starts, &figures.fan_out, &figures.lists);
    let writes = figures.writes.iter().map(|writes| {
        json!({
            "clients": writes.clients, "per_second": writes.per_second, "latency": writes.summary,
        })
    });
    json!({
        "first_start": Summary::of(&starts.first),
        "start_again": Summary::of(&starts.again),
        "idle_rss_kib": figures.idle_kib,
        "loaded_rss_kib": figures.loaded_kib,
        "writes": writes.collect::<Vec<_>>(),
        "fan_out": {
            "watchers": fan_out.watchers,
            "objects": fan_out.objects,
            "written_ms": millis(fan_out.written),
            "told_ms": millis(fan_out.told),
            "events_per_second": fan_out.events_per_second(),
            "bytes_each": fan_out.bytes_each,
        },
        "lists": {
            "pods": lists.pods,
            "written_ms": millis(lists.written),
            "bytes": lists.bytes,
            "whole": Summary::of(&lists.whole),
            "paged": Summary::of(&lists.paged),
        },
    })
}

#[cfg(test)]
mod tests {
    use lab::control_plane::Kind;

    use super::super::{fan_out::FanOut, list::Lists, start::Starts, writes::Writes};
    use super::*;

    fn figures(kind: Kind, ms: u64) -> Figures {
        let duration = Duration::from_millis(ms);
        let writes =
            |clients| Writes { clients, per_second: 250.4, summary: Summary::of(&[duration]) };
        Figures {
            kind,
            starts: Starts { first: vec![duration], again: vec![duration] },
            idle_kib: 10_752,
            loaded_kib: 20_480,
            writes: [writes(1), writes(16)],
            fan_out: FanOut {
                watchers: 100,
                objects: 50,
                written: duration,
                told: Duration::from_secs(2),
                bytes_each: 7,
            },
            lists: Lists {
                pods: 50,
                written: duration,
                bytes: 9,
                whole: vec![duration],
                paged: vec![duration],
            },
        }
    }

    fn findings() -> Findings {
        let figures = vec![figures(Kind::Embedded, 30), figures(Kind::Kubernetes, 3000)];
        Findings { figures, load_average: ["0.1".to_owned(), "0.2".to_owned()] }
    }

    #[test]
    fn each_kind_is_a_column() {
        let text = table(&findings()).to_string();
        let row = |name: &str| {
            let line = text.lines().find(|line| line.contains(name)).unwrap_or_default();
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(row("embedded"), "embedded kubernetes");
        assert!(row("first start").ends_with("30.0, 30.0 3000.0, 3000.0"), "{text}");
        assert!(row("idle").ends_with("10.5 10.5"), "{text}");
        assert!(row("events").ends_with("2500 2500"), "{text}");
    }

    #[test]
    fn the_json_is_one_line() {
        let line = to_json(&findings()).to_string();
        assert_eq!(line.lines().count(), 1);
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["kinds"]["kubernetes"]["first_start"]["p50_ms"], 3000.0);
        assert_eq!(value["kinds"]["embedded"]["writes"][1]["clients"], 16);
    }
}
